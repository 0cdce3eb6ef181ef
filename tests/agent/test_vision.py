"""Laws of an episode with a vision language model: its words, its numbers, its mistakes."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.agent import roles
from pipeline.agent.actions import Call
from pipeline.agent.chat import Picture, Reply, Request, ToolUse
from pipeline.agent.crew import VisionCrews
from pipeline.agent.desk import Task
from pipeline.agent.encoding import encoded
from pipeline.agent.episode import Episode, Limits, run_episode
from pipeline.agent.families import FAMILIES
from pipeline.agent.tools import Tools
from pipeline.answers import box_of
from pipeline.config import config_from
from pipeline.errors import BudgetReached
from pipeline.geometry import Box
from pipeline.samples import Sample, Truth
from pipeline.views import first_view
from tests.agent.fakes import GroundSegmenter, ListModel, Paper, board, sample_of, tag

TAGS = (tag("red star", "A7K", (60, 60), 40), tag("blue circle", "XR3", (500, 340), 40))
PICTURE = board(TAGS)
SAMPLE = sample_of(PICTURE, "What is written on the red star?")
TRUTH = Truth(SAMPLE.sample_id, "A7K", (TAGS[0].box,))
STAR = TAGS[0].box
AGREES = {"critic": '{"supported": true, "advice": ""}'}
ANSWER = "<think> It says A7K. </think><answer> A7K </answer>"


def uses(*calls: tuple[str, dict[str, Any]], thought: str = "Closer.") -> str:
    texts = [json.dumps({"name": name, "arguments": given}) for name, given in calls]
    return f"<think> {thought} </think>" + "".join(f"<tool_call>{t}</tool_call>" for t in texts)


def numbers(box: Box, family: str = "qwen2.5-vl", resolution: int = 224) -> list[float]:
    """A source box as a model of the family would write it at a budget."""
    view = first_view(PICTURE, resolution)
    in_view = Box(*view.to_view(box)).clip(view.observation.size)
    return list(FAMILIES[family].written(in_view, view.observation.size))


def episode(
    model: ListModel,
    *,
    family: str = "qwen2.5-vl",
    ledger: Paper | None = None,
    sample: Sample = SAMPLE,
    settings: dict[str, Any] | None = None,
    **limits: int,
) -> Episode:
    config = config_from({"policy": {"kind": "endpoint", **(settings or {})}})
    with ThreadPoolExecutor(1) as threads:
        crews = VisionCrews(model, FAMILIES[family], config, threads)
        tools = Tools(PICTURE, GroundSegmenter())
        bounds = Limits(**{"resolution": 224, **limits})
        task = Task(sample.sample_id, bounds.resolution)
        crew = crews.crew(tools, task, TRUTH, ledger or Paper())
        return asyncio.run(
            run_episode(
                sample,
                crew.policy,
                crew.tools,
                bounds,
                critic=crew.critic,
                summariser=crew.summariser,
            )
        )


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_box_in_the_models_own_numbers_is_looked_at_in_source_pixels(family: str) -> None:
    zoom = uses(("zoom", {"box": numbers(STAR, family), "label": "star"}))
    done = episode(ListModel([zoom, ANSWER], AGREES), family=family)
    (step,) = done.trajectory.steps
    assert step.boxes[0].iou(STAR) > 0.7
    assert (step.thought, step.label) == ("Closer.", "star")
    assert (done.trajectory.answer, done.trajectory.finish) == ("A7K", "answered")


def test_the_model_is_shown_the_first_view_and_each_look_and_nothing_else() -> None:
    model = ListModel([uses(("zoom", {"box": numbers(STAR)})), ANSWER], AGREES)
    episode(model)
    planner = [request for request in model.asked if request.role == "planner"]
    shown = [part for said in planner[-1].messages for part in said.parts]
    pictures = [part for part in shown if isinstance(part, Picture)]
    family = FAMILIES["qwen2.5-vl"]
    assert pictures[0] == encoded(first_view(PICTURE, 224).pixels, family)
    assert len(pictures) == 2 and len(planner[0].messages[1].parts) == 2
    assert all(p.size[0] * p.size[1] <= 224**2 for p in pictures)


def test_several_tools_in_a_turn_are_carried_out_before_the_model_is_asked_again() -> None:
    two = uses(("zoom", {"box": numbers(STAR)}), ("segment", {"box": numbers(TAGS[1].box)}))
    model = ListModel([two, ANSWER], AGREES)
    done = episode(model)
    assert [turn.tool for turn in done.turns if turn.role == "tool"] == ["zoom", "segment"]
    assert [r.role for r in model.asked].count("planner") == 2
    box = json.loads(model.asked[1].messages[-1].parts[-1])
    assert TAGS[1].box.iou(_source(box)) > 0.7


def _source(box: list[float]) -> Box:
    view = first_view(PICTURE, 224)
    found = FAMILIES["qwen2.5-vl"].read(box, view.observation.size)
    return view.to_source((found.x0, found.y0, found.x1, found.y1))


def test_locating_reading_and_adjusting_are_asked_of_a_model() -> None:
    star = numbers(STAR)
    others = {**AGREES, "locate": str([star]), "read": "A7K", "adjust_box": f"better: {star}"}
    turns = [
        uses(("locate", {"phrase": "the red star"})),
        uses(("read", {"box": star, "question": "What does it say?"})),
        uses(("adjust_box", {"box": star, "instruction": "fit"})),
        ANSWER,
    ]
    model = ListModel(turns, others)
    done = episode(model)
    assert [r.role for r in model.asked] == [
        *("planner", "locate", "planner", "read", "planner", "adjust_box", "planner", "critic"),
    ]
    told = [r.messages[-1].parts[-1] for r in model.asked if r.role == "planner"]
    assert told[1:] == [str([star]), "A7K", str(star)]
    assert done.trajectory.steps == ()


def test_what_was_located_decides_how_many_tokens_a_look_may_cost() -> None:
    size, wide, resolution = (4000, 3000), Box(500, 500, 2900, 2100), 1920
    tools = Tools(Image.new("RGB", size), GroundSegmenter())

    async def tokens(found: Box) -> int:
        view = await tools.open(resolution)
        in_view = Box(*view.to_view(found)).clip(view.observation.size)
        written = list(FAMILIES["qwen2.5-vl"].written(in_view, view.observation.size))
        model = ListModel(others={"locate": json.dumps([written])})
        config = config_from({"policy": {"kind": "endpoint"}})
        with ThreadPoolExecutor(1) as threads:
            crews = VisionCrews(model, FAMILIES["qwen2.5-vl"], config, threads)
            crew = crews.crew(tools, Task("picture#0", resolution), TRUTH, Paper())
            located = await crew.tools.use(Call("locate", 0, phrase="it"), [view], resolution)
            assert located.relevance is not None and located.relevance.max() == 1.0
            look = await crew.tools.use(Call("zoom", 0, box=wide), [view], resolution)
        assert look.view is not None
        return look.view.observation.visual_tokens

    assert asyncio.run(tokens(wide)) < 0.3 * asyncio.run(tokens(Box(500, 500, 700, 700)))


def test_where_a_model_finds_nothing_a_prior_says_what_stands_out_of_the_view_alone() -> None:
    seen: list[tuple[int, int]] = []

    def prior(image: Image.Image) -> np.ndarray:
        seen.append(image.size)
        found = np.full((image.height, image.width), 0.01, np.float32)
        found[: image.height // 4, : image.width // 4] = 1
        return found

    def told(**guided: Any) -> str:
        model = ListModel(
            [uses(("locate", {"phrase": "an owl"})), ANSWER], others={**AGREES, "locate": "[]"}
        )
        config = config_from({"policy": {"kind": "endpoint"}})
        with ThreadPoolExecutor(1) as threads:
            tools = Tools(PICTURE, GroundSegmenter(), **guided)
            crews = VisionCrews(model, FAMILIES["qwen2.5-vl"], config, threads)
            crew = crews.crew(tools, Task(SAMPLE.sample_id, 224), TRUTH, Paper())
            asyncio.run(run_episode(SAMPLE, crew.policy, crew.tools, Limits(224)))
        planner = [request for request in model.asked if request.role == "planner"]
        return str(planner[1].messages[-1].parts[-1])

    assert told() == "an owl is not found."
    said = told(prior=prior)
    assert said.startswith("an owl is not found. What stands out")
    (box,) = [json.loads(said[said.index("[") :])]
    width, height = first_view(PICTURE, 224).observation.size
    assert seen == [(width, height)] and box[0][:2] == [0, 0]
    assert box[0][2] == pytest.approx(width / 3, abs=2)


@pytest.mark.parametrize(
    "bad",
    [
        "Let me think about it.",
        "<think> hm",
        uses(("fly", {})),
        uses(("zoom", {"box": [1, 2, 3]})),
        uses(("zoom", {"box": [50, 50, 20, 20]})),
        uses(("zoom", {"box": [0, 0, 9000, 9000]})),
        uses(("zoom", {"box": "everything"})),
        uses(("zoom", {"box": [0, 0, 50, 50], "label": 7})),
        uses(("adjust_box", {"box": [0, 0, 50, 50], "instruction": "explode"})),
        '<tool_call>{"name": "zoom", "arguments": {"box": [NaN, 0, 50, 50]}}</tool_call>',
        Reply("<answer> A7K </answer>", "length"),
        "",
    ],
)
def test_a_mistake_is_told_and_a_right_turn_after_it_counts(bad: str | Reply) -> None:
    model = ListModel([bad, ANSWER], AGREES)
    done = episode(model)
    assert done.trajectory.finish == "answered"
    told = model.asked[1].messages[-1].parts[-1]
    assert isinstance(told, str) and told.startswith(roles.MISREAD.partition("{")[0])
    endless = episode(ListModel([bad], AGREES))
    assert (endless.trajectory.finish, endless.reason) == ("rejected", "malformed")


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_box_that_is_the_answer_comes_in_source_pixels(family: str) -> None:
    sample = sample_of(PICTURE, "Where is the red star? Answer with its box.")
    said = f"<think> Here. </think><answer> {numbers(STAR, family)} </answer>"
    found = box_of(
        episode(ListModel([said], AGREES), family=family, sample=sample).trajectory.answer
    )
    assert found is not None and found.iou(STAR) > 0.6


def test_a_model_that_never_stops_looking_is_told_to_answer_and_then_let_go() -> None:
    zoom = uses(("zoom", {"box": numbers(STAR)}))
    forced = episode(ListModel([zoom, zoom, ANSWER], AGREES), looks=1)
    assert (forced.trajectory.finish, forced.trajectory.answer) == ("forced", "A7K")
    endless = episode(ListModel([zoom], AGREES), looks=2)
    assert (endless.reason, endless.trajectory.num_zooms) == ("no_answer", 2)


def test_native_tool_calls_work_like_written_ones() -> None:
    call = ToolUse("zoom", json.dumps({"box": numbers(STAR), "label": "star"}))
    model = ListModel([Reply("Closer.", "tool_calls", (call,)), ANSWER], AGREES)
    native = episode(model, settings={"native_tools": True})
    text = uses(("zoom", {"box": numbers(STAR), "label": "star"}))
    written = episode(ListModel([text, ANSWER], AGREES))
    assert native.trajectory == written.trajectory
    assert model.asked[0].tools == roles.TOOL_SCHEMAS


def test_an_objection_sends_the_model_back_as_often_as_allowed() -> None:
    objects = {"critic": '{"supported": false, "advice": "Look at the left side."}'}
    model = ListModel([ANSWER], objects)
    done = episode(model, objections=2)
    assert [turn.text for turn in done.turns if turn.role == "critic"] == [
        "Look at the left side."
    ] * 2
    assert done.trajectory.finish == "answered"
    heard = [r.messages[-1].parts[-1] for r in model.asked if r.role == "planner"][1:]
    assert heard == [roles.OBJECTION.format(text="Look at the left side.")] * 2


def test_an_informed_verifier_never_passes_on_the_truth() -> None:
    wrong = "<answer> XR3 </answer>"
    for advice in ("It is A7K.", "Look again at the star."):
        model = ListModel([wrong], {"verifier": json.dumps({"right": False, "advice": advice})})
        done = episode(model, settings={"critic": "informed"})
        said = [str(r.messages) for r in model.asked if r.role == "planner"]
        assert not any("A7K" in text for text in said)
        assert ("Look again at the star." in said[-1]) is (advice != "It is A7K.")
        assert done.trajectory.answer == "XR3"


def test_the_summary_keeps_what_the_answer_needs_and_its_words() -> None:
    other = numbers(TAGS[1].box)
    turns = [
        uses(("zoom", {"box": other}), thought="A dead end."),
        uses(("zoom", {"box": numbers(STAR)}), thought="There."),
        ANSWER,
    ]
    summary = {"needed": [2], "thoughts": ["I look at the star.", "It reads A7K."]}
    done = episode(ListModel(turns, {**AGREES, "summariser": json.dumps(summary)}))
    (step,) = done.trajectory.steps
    assert step.thought == "I look at the star." and step.boxes[0].iou(STAR) > 0.7
    assert done.trajectory.final_thought == "It reads A7K."
    kept = episode(ListModel(turns, {**AGREES, "summariser": "no idea"}))
    assert [step.thought for step in kept.trajectory.steps] == ["A dead end.", "There."]


def test_a_finished_call_is_not_paid_for_again_and_the_rest_goes_on() -> None:
    turns = [uses(("zoom", {"box": numbers(STAR)})), ANSWER]
    ledger = Paper()
    first = ListModel(turns, AGREES)
    done = episode(first, ledger=ledger)
    again = ListModel(["never asked"], AGREES)
    assert episode(again, ledger=ledger) == done and again.asked == []
    assert ledger.again == list(ledger.calls)
    halfway = Paper(dict(list(ledger.calls.items())[:1]))
    rest = ListModel([turns[1]], AGREES)
    assert episode(rest, ledger=halfway) == done
    assert [r.role for r in rest.asked] == [r.role for r in first.asked][1:]


def test_a_spent_budget_stops_before_a_call_and_not_before_a_replay() -> None:
    ledger = Paper()
    done = episode(ListModel([ANSWER], AGREES), ledger=ledger)
    ledger.broke = True
    assert episode(ListModel(["never"], AGREES), ledger=ledger) == done
    with pytest.raises(BudgetReached):
        episode(ListModel([ANSWER], AGREES), ledger=Paper(broke=True))


def test_what_a_call_costs_is_written_beside_its_reply() -> None:
    ledger = Paper()
    episode(ListModel([ANSWER], AGREES), ledger=ledger)
    (planner, critic) = ledger.calls.values()
    assert planner["role"] == "planner" and critic["role"] == "critic"
    assert planner["cost_usd"] is None and planner["tokens_in"] == 100


def test_a_key_names_everything_that_decides_the_reply() -> None:
    model = ListModel([ANSWER], AGREES)
    episode(model)
    request = model.asked[0]
    keys = {request.key("m"), request.key("n")}
    for change in (
        {"role": "read"},
        {"messages": request.messages[:1]},
        {"sampling": roles_sampling(temperature=0.5)},
        {"tools": roles.TOOL_SCHEMAS},
    ):
        fields = {name: getattr(request, name) for name in ("role", "messages", "sampling")}
        keys.add(Request(**{**fields, **change}).key("m"))
    assert len(keys) == 6


def roles_sampling(**fields: Any) -> Any:
    from pipeline.agent.chat import Sampling

    return Sampling(**fields)


def test_draws_differ_by_sample_and_turn_and_repeat_for_the_same() -> None:
    def seeds(sample_id: str) -> list[int | None]:
        model = ListModel([uses(("zoom", {"box": numbers(STAR)})), ANSWER], AGREES)
        sample = sample_of(PICTURE, SAMPLE.question, sample_id)
        episode(model, sample=sample, settings={"temperature": 0.7})
        return [r.sampling.seed for r in model.asked if r.role == "planner"]

    assert seeds("a#0") == seeds("a#0") and len({*seeds("a#0"), *seeds("b#0")}) == 4
