"""A trajectory reads as a chat in both profiles, and a look counts only when it shows more."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline import trajectory as module
from pipeline.errors import GrammarError
from pipeline.geometry import RESOLUTIONS, Box, Frame, view_size
from pipeline.samples import Sample
from pipeline.trajectory import (
    FocusStep,
    Message,
    Observation,
    Profile,
    Trajectory,
    parse,
    render,
    render_turn,
)

LAW = settings(deadline=None, max_examples=40)  # a busy machine breaks no law
SIZE = (3000, 2000)
VIEW = view_size(SIZE, 448)
FRAME = Frame("pixels", SIZE, VIEW)
WHOLE = Observation(Box(0, 0, *SIZE), VIEW)
FIRST, SECOND = Box(300, 400, 900, 1000), Box(500, 600, 700, 720)


def look(
    thought: str, *boxes: Box, zoomed: tuple[bool, ...] | None = None, label: str = ""
) -> FocusStep:
    """A step over `boxes`, the last of which was shown enlarged by 1.5."""
    zoomed = (True,) * len(boxes) if zoomed is None else zoomed
    region = boxes[-1].enlarge(1.5, SIZE)
    size = view_size((int(region.width), int(region.height)), 448, magnify=2)
    view = Observation(region, size, parent=0) if any(zoomed) else None
    return FocusStep(thought, boxes, zoomed, label, observation=view)


def path(*steps: FocusStep, answer: str = "K7", final: str = "It reads K7.") -> Trajectory:
    return Trajectory(
        "a.jpg#0", 448, 0, WHOLE, steps, final, answer, "answered", "scripted", verified=True
    )


SAMPLE = Sample("a.jpg#0", "a.jpg", Image.new("RGB", (1, 1)), SIZE, "What is written on it?")


def said(messages: list[Message]) -> list[str]:
    """The joined texts of the assistant's messages."""
    return [
        "".join(block["text"] for block in message["content"] if block["type"] == "text")
        for message in messages
        if message["role"] == "assistant"
    ]


def pictures(messages: list[Message]) -> list[Any]:
    return [b for message in messages for b in message["content"] if b["type"] == "image"]


TWO_LOOKS = path(look("Far away.", FIRST, label="tag"), look("Nearer.", SECOND))


def test_cof_v2_shows_each_look_to_the_user_after_the_turn_that_asked() -> None:
    chat = render(SAMPLE, TWO_LOOKS, "cof-v2", FRAME)
    roles = [message["role"] for message in chat]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user", "assistant"]
    turns = [parse(text, "cof-v2") for text in said(chat)]
    assert [turn.thought for turn in turns] == ["Far away.", "Nearer.", "It reads K7."]
    assert [len(turn.calls) for turn in turns] == [1, 1, 0]
    assert turns[0].calls[0].label == "tag" and turns[-1].answer == "K7"
    for turn, box in zip(turns, (FIRST, SECOND), strict=False):
        assert turn.calls[0].box == box.as_written(FRAME)
        assert all(isinstance(value, int) for value in turn.calls[0].box)


def test_cof_v1_is_one_turn_cut_where_its_pictures_stand() -> None:
    chat = render(SAMPLE, TWO_LOOKS, "cof-v1", FRAME)
    assert [message["role"] for message in chat] == ["system", "user", "assistant"]
    kinds = [block["type"] for block in chat[-1]["content"]]
    assert kinds == ["text", "image", "text", "image", "text"]
    turn = parse(said(chat)[0], "cof-v1")
    assert [call.box for call in turn.calls] == [b.as_written(FRAME) for b in (FIRST, SECOND)]
    assert turn.thought == "Far away. Nearer. It reads K7." and turn.answer == "K7"
    before = [block["text"] for block in chat[-1]["content"] if block["type"] == "text"][:-1]
    assert all(text.endswith("<|image_zoomin|>") for text in before)


@pytest.mark.parametrize("profile", ["cof-v2", "cof-v1"])
def test_pictures_are_numbered_and_say_what_to_cut_from_the_source(profile: Profile) -> None:
    shown = pictures(render(SAMPLE, TWO_LOOKS, profile, FRAME))
    assert [block["index"] for block in shown] == [0, 1, 2]
    assert shown[0]["region"] == [0, 0, *SIZE] and shown[0]["size"] == list(VIEW)
    assert shown[0]["box"] is None
    for block, step in zip(shown[1:], TWO_LOOKS.steps, strict=True):
        assert step.observation is not None
        assert block["box"] == step.boxes[0].as_list()
        assert block["region"] == step.observation.region.as_list()
        assert block["size"] == list(step.observation.size)


@pytest.mark.parametrize("profile", ["cof-v2", "cof-v1"])
def test_several_boxes_of_one_look_get_a_picture_each(profile: Profile) -> None:
    chat = render(SAMPLE, path(look("Two.", FIRST, SECOND)), profile, FRAME)
    assert len(parse(said(chat)[0], profile).calls) == 2
    shown = pictures(chat)
    assert [block["index"] for block in shown] == [0, 1, 2]
    assert [block["box"] for block in shown[1:]] == [FIRST.as_list(), SECOND.as_list()]
    assert shown[1]["region"] is None and shown[2]["region"] is not None


def test_a_direct_answer_is_one_turn_in_both_profiles() -> None:
    v1, v2 = (said(render(SAMPLE, path(), profile, FRAME)) for profile in ("cof-v1", "cof-v2"))
    assert v1 == v2 == ["<think> It reads K7. </think>\n<answer> K7 </answer>"]


def test_a_box_that_is_only_named_is_never_zoomed_by_the_text() -> None:
    named = look("Maybe here.", FIRST, zoomed=(False,))
    both = look("One of two.", FIRST, SECOND, zoomed=(False, True))
    plain = str(list(FIRST.as_written(FRAME)))
    for steps, zooms in [((named, look("Here.", SECOND)), 1), ((both,), 1), ((named,), 0)]:
        for profile in ("cof-v2", "cof-v1"):
            texts = said(render(SAMPLE, path(*steps), profile, FRAME))
            asked = [call.box for text in texts for call in parse(text, profile).calls]
            assert asked == [SECOND.as_written(FRAME)] * zooms
            assert plain in "".join(texts)
    last = parse(said(render(SAMPLE, path(named), "cof-v1", FRAME))[0], "cof-v1")
    assert FIRST.as_written(FRAME) in last.segments


def test_options_follow_the_question_by_letter() -> None:
    sample = dataclasses.replace(SAMPLE, options=("red", "blue"))
    blocks = render(sample, path(answer="A"), "cof-v2", FRAME)[1]["content"]
    assert [block["type"] for block in blocks] == ["image", "text"]
    assert blocks[1] == {
        "type": "text",
        "text": "Question: What is written on it?\n(A) red\n(B) blue",
    }


boxes = st.builds(
    lambda x, y, w, h: Box(x, y, x + w, y + h),
    st.integers(0, 2900),
    st.integers(0, 1900),
    st.integers(20, 100),
    st.integers(20, 100),
)
words = st.text(st.characters(categories=["L", "N", "Zs", "Po"]), max_size=20)
steps = st.lists(boxes, min_size=1, max_size=3).flatmap(
    lambda found: st.builds(
        lambda thought, zoomed: look(thought, *found, zoomed=tuple(zoomed)),
        words,
        st.lists(st.booleans(), min_size=len(found), max_size=len(found)),
    )
)
frames = st.sampled_from(
    [FRAME, Frame("thousand", SIZE), Frame("unit", SIZE), Frame("unit-padded", SIZE)]
)


@LAW
@given(st.lists(steps, max_size=4), frames)
def test_both_profiles_zoom_into_the_same_boxes_in_the_same_order(
    steps: list[FocusStep], frame: Frame
) -> None:
    trajectory = path(*steps)
    wanted = [
        box.as_written(frame)
        for step in steps
        for box, zoomed in zip(step.boxes, step.zoomed, strict=True)
        if zoomed
    ]
    for profile in ("cof-v2", "cof-v1"):
        chat = render(SAMPLE, trajectory, profile, frame)
        turns = [parse(text, profile) for text in said(chat)]
        assert [call.box for turn in turns for call in turn.calls] == wanted
        assert [render_turn(turn, profile) for turn in turns] == said(chat)
        assert len(wanted) == trajectory.num_zooms
        assert [block["index"] for block in pictures(chat)] == list(range(1 + len(wanted)))
        assert turns[-1].answer == "K7"


@pytest.mark.parametrize("profile", ["cof-v2", "cof-v1"])
def test_what_cannot_be_said_is_refused(profile: Profile) -> None:
    for wrong in [
        path(look("</think>", FIRST)),
        path(final="<answer> no </answer>"),
        path(answer=""),
        path(answer="<|im_end|>"),
    ]:
        with pytest.raises(GrammarError):
            render(SAMPLE, wrong, profile, FRAME)
    with pytest.raises(GrammarError, match="question"):
        render(dataclasses.replace(SAMPLE, question="<|im_end|>"), path(), profile, FRAME)
    with pytest.raises(ValueError, match="different pictures"):
        render(SAMPLE, path(), profile, Frame("thousand", (10, 10)))


def test_the_entry_points_are_where_the_contract_says() -> None:
    assert {"render", "render_turn", "parse", "Turn"} <= set(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)


# Observations

regions = boxes.map(lambda box: box.enlarge(3, SIZE))


def observed(region: Box, resolution: int, magnify: float = 2) -> Observation:
    size = view_size((int(region.width), int(region.height)), resolution, magnify=magnify)
    return Observation(region, size)


@LAW
@given(st.sampled_from(RESOLUTIONS), st.sampled_from(RESOLUTIONS))
def test_the_whole_image_again_brings_nothing(first: int, second: int) -> None:
    seen = observed(WHOLE.region, first, magnify=1)
    assert not observed(WHOLE.region, second).gains_on([seen])


@LAW
@given(regions, st.lists(regions, max_size=3), st.sampled_from(RESOLUTIONS))
def test_the_same_look_twice_brings_nothing(
    region: Box, others: list[Box], resolution: int
) -> None:
    seen = [WHOLE, *(observed(other, resolution) for other in others)]
    view = observed(region, resolution)
    assert not view.gains_on([*seen, view])


@LAW
@given(regions, st.sampled_from(RESOLUTIONS))
def test_what_was_seen_at_source_resolution_has_nothing_left_to_show(
    region: Box, resolution: int
) -> None:
    sharp = Observation(WHOLE.region, (SIZE[0] // 28 * 28 + 28, SIZE[1] // 28 * 28 + 28))
    assert sharp.resolved == 1
    assert not observed(region, resolution).gains_on([sharp])


@LAW
@given(regions)
def test_a_finer_look_brings_something_and_a_coarser_one_then_nothing(region: Box) -> None:
    fine, coarse = observed(region, 448), Observation(region, (28, 28))
    assert fine.gains_on([WHOLE]) and fine.gains_on([])
    if coarse.magnification < fine.magnification:
        assert not coarse.gains_on([WHOLE, fine])


def test_a_trajectory_counts_its_zooms_and_the_tokens_of_every_view() -> None:
    first, second = (step.observation for step in TWO_LOOKS.steps)
    assert first is not None and second is not None
    assert TWO_LOOKS.num_zooms == 2
    tokens = WHOLE.visual_tokens + first.visual_tokens + second.visual_tokens
    assert TWO_LOOKS.visual_tokens == tokens


@pytest.mark.parametrize("profile", ["cof-v2", "cof-v1"])
def test_a_box_that_is_the_answer_is_said_in_the_frame(profile: Profile) -> None:
    sample = dataclasses.replace(SAMPLE, question="Where is it? Answer with its box.")
    frame = Frame("thousand", SIZE)
    chat = render(
        sample, path(look("There.", FIRST), answer="[300, 400, 900, 1000]"), profile, frame
    )
    assert "<answer> [100, 200, 300, 500] </answer>" in said(chat)[-1]
    plain = render(
        SAMPLE, path(look("There.", FIRST), answer="[300, 400, 900, 1000]"), profile, frame
    )
    assert "<answer> [300, 400, 900, 1000] </answer>" in said(plain)[-1]
