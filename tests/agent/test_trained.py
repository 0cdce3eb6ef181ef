"""Laws of a model that is asked as it was trained: the exports' conversation, byte for byte."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from manifests.database import query
from pipeline.agent import roles
from pipeline.agent.actions import NotUnderstood
from pipeline.agent.chat import Part, Reply, Request, Said
from pipeline.agent.crew import VisionCrews
from pipeline.agent.desk import Desk, Task
from pipeline.agent.episode import Episode, Limits, run_episode
from pipeline.agent.families import FAMILIES
from pipeline.agent.inline import InlinePolicy
from pipeline.agent.opening import prompts_sha256
from pipeline.agent.tools import Tools
from pipeline.agent.trained import TrainedPolicy
from pipeline.agent.vision_tools import Eyes
from pipeline.answers import ASKS_FOR_BOX
from pipeline.config import config_from
from pipeline.errors import ConfigError
from pipeline.geometry import Box, Frame
from pipeline.grammar import TOOL_NAME
from pipeline.samples import Sample, Truth
from pipeline.synthesis.run import synthesize
from pipeline.train.zoom_environment import ZoomEnvironment
from pipeline.trajectory import FocusStep, Message, Trajectory, render
from pipeline.views import first_view, zoomed
from tests.agent.fakes import GroundSegmenter, ListModel, Paper
from tests.agent.test_vision import PICTURE, STAR, TAGS

QUESTION = "What is written on the red star?"
CIRCLE = TAGS[1].box
WIDE = Box(100, 80, 520, 400)
"""So large that a look at it is worth more pixels than other policies' tools give it."""
BOTH = ["qwen2.5-vl", "qwen3-vl"]
"""A family that counts pixels, and one that counts thousandths."""
ANSWER = "<think> It says A7K. </think>\n<answer> A7K </answer>"

Heard = tuple[str, list[Any]]
"""Who speaks, and texts and pictures: (mode, size, pixels)."""


def sample_of(image: Image.Image, question: str, options: Sequence[str] = ()) -> Sample:
    return Sample("picture#0", "picture", image, image.size, question, tuple(options))


def frame(family: str, resolution: int, image: Image.Image = PICTURE) -> Frame:
    """The export's own."""
    size = first_view(image, resolution).observation.size
    return FAMILIES[family].frame(image.size, size)


def sayable(box: Box, numbers: Frame) -> Box:
    """The box that a model names who means this one."""
    return Box.from_frame(box.as_written(numbers), numbers)


def episode(
    model: ListModel,
    sample: Sample,
    *,
    family: str = "qwen2.5-vl",
    ledger: Paper | None = None,
    **limits: int,
) -> Episode:
    """An episode with the crew that the setting chooses."""
    config = config_from({"policy": {"kind": "endpoint", "asked_as": "trained"}})
    bounds = Limits(**{"resolution": 224, **limits})
    with ThreadPoolExecutor(1) as threads:
        crews = VisionCrews(model, FAMILIES[family], config, threads)
        task = Task(sample.sample_id, bounds.resolution)
        tools = Tools(sample.image, GroundSegmenter())
        crew = crews.crew(tools, task, Truth(sample.sample_id, "A7K"), ledger or Paper())
        run = run_episode(
            sample,
            crew.policy,
            crew.tools,
            bounds,
            critic=crew.critic,
            summariser=crew.summariser,
        )
        return asyncio.run(run)


def path(
    sample: Sample, looks: Sequence[Sequence[Box]], answer: str, resolution: int
) -> Trajectory:
    """A trajectory with a look for each group of boxes."""
    steps = tuple(
        FocusStep(f"Look {n}.", tuple(boxes), (True,) * len(boxes), label="tag" if n else "")
        for n, boxes in enumerate(looks)
    )
    view = first_view(sample.image, resolution).observation
    key = (sample.sample_id, resolution, 0)
    return Trajectory(*key, view, steps, "Now I see it.", answer, "answered", "somebody")


def taught(messages: Sequence[Message], image: Image.Image, resolution: int) -> list[Heard]:
    """A rendered chat with its pictures, cut as an export cuts them."""
    told = []
    for message in messages:
        parts: list[Any] = []
        for block in message["content"]:
            if block["type"] == "text":
                parts.append(block["text"])
            elif block["box"] is None:
                parts.append(pixels(Image.fromarray(first_view(image, resolution).pixels)))
            else:
                look = zoomed(image, Box(*block["box"]), resolution, 0)
                parts.append(pixels(Image.fromarray(look.pixels)))
        told.append((message["role"], parts))
    return told


def pixels(image: Image.Image) -> tuple[str, tuple[int, int], bytes]:
    return image.mode, image.size, image.tobytes()


def received(messages: Sequence[Said]) -> list[Heard]:
    return [(said.speaker, [_decoded(part) for part in said.parts]) for said in messages]


def _decoded(part: Part) -> Any:
    return part if isinstance(part, str) else pixels(Image.open(io.BytesIO(part.jpeg)))


def calls(*boxes: Sequence[float], thought: str = "Closer.") -> str:
    texts = [json.dumps({"name": TOOL_NAME, "arguments": {"bbox_2d": list(b)}}) for b in boxes]
    blocks = [f"<tool_call>\n{text}\n</tool_call>" for text in texts]
    return "\n".join([f"<think> {thought} </think>", *blocks])


PATHS: dict[str, tuple[list[list[Box]], Sequence[str], str, int]] = {
    "no look": ([], (), "A7K", 224),
    "one look": ([[STAR]], (), "A7K", 224),
    "two looks": ([[STAR], [CIRCLE]], (), "A7K", 224),
    "two boxes": ([[STAR, CIRCLE]], (), "A7K", 224),
    "options": ([[STAR]], ("XR3", "A7K"), "B", 224),
    "a large look": ([[WIDE]], (), "A7K", 896),
    "a box": ([[STAR]], (), "box", 224),
}


@pytest.mark.parametrize("family", BOTH)
@pytest.mark.parametrize("case", PATHS)
def test_before_each_turn_the_model_is_told_what_its_training_says(case: str, family: str) -> None:
    looks, options, answer, resolution = PATHS[case]
    question = QUESTION if answer != "box" else f"Where is the star? {ASKS_FOR_BOX}"
    sample, numbers = sample_of(PICTURE, question, options), frame(family, resolution)
    if answer == "box":
        answer = str(sayable(STAR, numbers).as_list())
    named = [[sayable(box, numbers) for box in boxes] for boxes in looks]
    written = render(sample, path(sample, named, answer, resolution), "cof-v2", numbers)
    chat = taught(written, PICTURE, resolution)
    turns = [place for place, (who, _) in enumerate(chat) if who == "assistant"]
    model = ListModel(["".join(chat[place][1]) for place in turns])
    done = episode(model, sample, family=family, resolution=resolution)
    assert {request.role for request in model.asked} == {"planner"}
    assert [received(r.messages) for r in model.asked] == [chat[:place] for place in turns]
    assert (done.trajectory.answer, done.trajectory.finish) == (answer, "answered")
    again = taught(render(sample, done.trajectory, "cof-v2", numbers), PICTURE, resolution)
    if case == "two boxes":  # an episode's look has one box: such a turn becomes one for each
        shown = [[p for _, parts in told for p in parts if p[0] == "RGB"] for told in (chat, again)]
        assert shown[0] == shown[1] and len(shown[0]) == 3
        assert [step.thought for step in done.trajectory.steps] == ["Look 0.", ""]
    else:
        assert again == chat


THIN = Image.new("RGB", (6000, 40), (90, 120, 90))
"""In which a box can be too thin to be shown."""
BAD: dict[str, tuple[Image.Image, list[float] | Box]] = {
    "outside": (PICTURE, [0, 0, 9000, 9000]),
    "swapped": (PICTURE, [50, 50, 20, 20]),
    "less than a pixel": (PICTURE, [50, 50, 50.01, 90]),
    "too thin": (THIN, Box(0, 10, 5900, 14)),
}


@pytest.mark.parametrize("family", BOTH)
@pytest.mark.parametrize("bad", BAD)
def test_each_call_is_answered_as_in_training_by_reinforcement(bad: str, family: str) -> None:
    image, meant = BAD[bad]
    numbers = frame(family, 280, image)
    wrong = list(meant.as_written(numbers)) if isinstance(meant, Box) else meant
    right = list(Box(image.width / 2, 4, image.width - 4, 36).as_written(numbers))
    environment = ZoomEnvironment(FAMILIES[family])
    first = Image.fromarray(first_view(image, 280).pixels)
    environment.reset(source_image=image, resolution=280, images=[first])
    blocks = [environment.image_zoom_in_tool(box) for box in (wrong, right)]
    expected = [[b.get("text") or pixels(b["image"]) for b in told] for told in blocks]
    model = ListModel([calls(wrong, right), ANSWER])
    done = episode(model, sample_of(image, QUESTION), family=family, resolution=280)
    told = received(model.asked[1].messages[3:])
    assert told == [("user", parts) for parts in expected]
    assert told[0][1][0].startswith("That turn could not be used: ")
    (step,) = done.trajectory.steps
    assert (step.thought, done.trajectory.answer) == ("Closer.", "A7K")
    assert [look["zoomed"] for look in environment.looks] == [False, True]


FAULTS = {
    "no JSON": ("<think> a </think><tool_call>{oops</tool_call>", "JSON"),
    "another tool": (
        '<think> a </think><tool_call>{"name": "locate", "arguments": {}}</tool_call>',
        "no tool 'locate'",
    ),
    "three numbers": (calls([1, 2, 3]), "four numbers"),
    "no box": (f'<think> a </think><tool_call>{{"name": "{TOOL_NAME}", "arguments": {{}}}}'
               "</tool_call>", "needs the argument bbox_2d"),
    "unclosed": ("<think> a </think><tool_call>", "not closed"),
    "call and answer": (calls([1, 2, 30, 40]) + "<answer> A </answer>", "never both"),
    "neither": ("<think> a </think>", "neither"),
    "no thought": ("<answer> A7K </answer>", "begins with <think>"),
    "empty answer": ("<think> a </think><answer> </answer>", "empty"),
    "chat": ("It says A7K.", "outside the tags"),
    "silence": ("", "begins with <think>"),
    "length": (Reply(ANSWER, "length"), "longer than a turn may be"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_mistake_is_told_and_counted_and_too_many_end_as_a_rejection(fault: str) -> None:
    said, why = FAULTS[fault]
    sample = sample_of(PICTURE, QUESTION)
    model = ListModel([said, ANSWER])
    done = episode(model, sample)
    assert (done.trajectory.answer, done.trajectory.finish) == ("A7K", "answered")
    (slip,) = [turn.result for turn in done.turns if turn.role == "tool"]
    assert why in slip
    kept, told = model.asked[1].messages[-2:]
    assert kept == Said("assistant", (said.text if isinstance(said, Reply) else said,))
    assert told == Said("user", (roles.MISREAD.format(why=slip),))
    endless = episode(ListModel([said]), sample)
    assert (endless.trajectory.finish, endless.reason) == ("rejected", "malformed")
    assert sum(turn.role == "tool" for turn in endless.turns) == Limits(224).slips + 1


def test_boxes_that_name_nothing_are_counted_like_turns_that_say_nothing() -> None:
    endless = episode(ListModel([calls([0, 0, 9000, 9000])]), sample_of(PICTURE, QUESTION))
    assert (endless.trajectory.finish, endless.reason) == ("rejected", "malformed")


@pytest.mark.parametrize("limits", [{"looks": 1}, {"turns": 2}])
def test_who_looks_too_often_is_told_to_answer_and_does_or_is_rejected(
    limits: dict[str, int],
) -> None:
    sample, look = sample_of(PICTURE, QUESTION), calls(STAR.as_written(frame("qwen2.5-vl", 224)))
    model = ListModel([look, look, ANSWER])
    done = episode(model, sample, **limits)
    assert (done.trajectory.finish, done.trajectory.num_zooms) == ("forced", 1)
    assert model.asked[-1].messages[-1] == Said("user", (roles.FORCED,))
    never = episode(ListModel([look]), sample, **limits)
    assert (never.trajectory.finish, never.reason) == ("rejected", "no_answer")
    due = calls(*[STAR.as_written(frame("qwen2.5-vl", 224))] * 3)
    model = ListModel([due, ANSWER])
    assert episode(model, sample, looks=1).trajectory.finish == "forced"
    picture, last = model.asked[-1].messages[-2:]
    assert not isinstance(picture.parts[0], str) and last.parts == (roles.FORCED,)


def test_a_call_that_was_paid_for_is_found_again() -> None:
    sample, look = sample_of(PICTURE, QUESTION), calls(STAR.as_written(frame("qwen2.5-vl", 224)))
    ledger = Paper()
    done = episode(ListModel([look, ANSWER]), sample, ledger=ledger)
    again = ListModel(["never asked"])
    assert episode(again, sample, ledger=ledger) == done and again.asked == []


def planners() -> list[TrainedPolicy | InlinePolicy]:
    desk = Desk(ListModel(), Paper(), Task("s#0", 224))
    eyes = Eyes(desk, FAMILIES["qwen2.5-vl"], Request("planner", ()).sampling)
    return [TrainedPolicy("p", eyes), InlinePolicy("p", eyes)]


def test_a_question_that_no_export_can_hold_is_refused_before_anything_is_asked() -> None:
    for policy in planners():
        with pytest.raises(NotUnderstood, match="a mark of the grammar"):
            policy.begin("s#0", "What is <image> here?", ())
        with pytest.raises(NotUnderstood, match="a mark of the grammar"):
            policy.begin("s#0", QUESTION, ("A7K", "<|im_end|>"))


def test_inside_one_turn_options_are_put_as_in_training_too() -> None:
    config = config_from({"policy": {"kind": "endpoint", "profile": "cof-v1"}})
    sample = sample_of(PICTURE, QUESTION, ("XR3", "A7K"))
    model = ListModel(["<think> It says A7K. </think>\n<answer> B </answer>"])
    with ThreadPoolExecutor(1) as threads:
        crews = VisionCrews(model, FAMILIES["qwen2.5-vl"], config, threads)
        tools = Tools(PICTURE, GroundSegmenter())
        crew = crews.crew(tools, Task("s#0", 224), Truth("s#0", "A7K"), Paper())
        done = asyncio.run(run_episode(sample, crew.policy, crew.tools, Limits(224)))
    written = render(sample, done.trajectory, "cof-v1", frame("qwen2.5-vl", 224))
    told = [[p for p in parts if isinstance(p, str)] for _, parts in received(asked(model))]
    assert told == [[b["text"] for b in m["content"] if b["type"] == "text"] for m in written[:2]]


def asked(model: ListModel) -> Sequence[Said]:
    return model.asked[0].messages


def test_the_words_of_training_decide_what_a_run_is() -> None:
    def digest(**policy: str) -> str:
        return prompts_sha256(config_from({"policy": {"kind": "endpoint", **policy}}))

    assert digest(asked_as="trained") == TrainedPolicy.prompt_sha256 != digest()
    assert digest() == roles.PROMPTS_SHA256
    assert digest(asked_as="trained", profile="cof-v1") == InlinePolicy.prompt_sha256
    with pytest.raises(ConfigError, match="native tools"):
        config_from({"policy": {"asked_as": "trained", "native_tools": True}})


@pytest.mark.torch
def test_a_tiny_model_in_this_process_that_babbles_ends_as_a_counted_rejection(
    tmp_path: Path,
) -> None:
    pytest.importorskip("transformers")
    from tests.models import tiny_qwen

    policy = {"kind": "local", "model": str(tiny_qwen.build(tmp_path / "tiny")), "max_tokens": 16}
    policy |= {"family": "qwen2.5-vl", "asked_as": "trained", "temperature": 1.0}
    settings = {
        "source": "scenes:1",
        "task": {"budgets": [224]},
        "policy": policy,
        "run": {"dir": str(tmp_path / "runs")},
    }
    done = synthesize(config_from(settings), shards=1, address="none")
    assert (done.status, done.kept) == ("done", 0)
    sql = "select role, count(*) as n, min(tokens_in) as least from calls group by role"
    (said,) = query(tmp_path / "runs", sql, done.run_id).to_pylist()
    assert (said["role"], said["n"]) == ("planner", 4) and said["least"] > 200
    sql = "select stage, reason, detail from rejections"
    (why,) = query(tmp_path / "runs", sql, done.run_id).to_pylist()
    assert (why["stage"], why["reason"]) == ("agent", "malformed") and why["detail"]
