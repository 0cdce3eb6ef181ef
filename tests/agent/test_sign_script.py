"""Laws of the scripts for signs: read what is clear, look where it is not, refuse at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from PIL import Image

from pipeline.agent.actions import Answer, Call, Heard, NotUnderstood
from pipeline.agent.critic import Critic, SecondReading
from pipeline.agent.episode import Episode, Limits, run_episode
from pipeline.agent.scripted import ScriptedPolicy
from pipeline.agent.sight import UNKNOWN
from pipeline.agent.tools import Tools
from pipeline.geometry import Box, Size
from pipeline.samples import Sample
from pipeline.scenes.sign_questions import (
    ABOVE,
    COMPARE,
    LEFT,
    NEAREST,
    NO_SIGN,
    NOT_READABLE,
    READ,
    REFUSALS,
)
from pipeline.views import View, first_view
from tests.agent.fakes import GroundSegmenter, Objects, sample_of
from tests.agent.sign_fakes import Eyes, Known, ramp

SIZE = (1000, 750)
SIGNS = (
    Known("GATE", "471", (130, 120)),
    Known("HALL", "238", (230, 130)),
    Known("DOCK", "905", (700, 560), 13),
    Known("PUMP", "662", (820, 150), 40),
    Known("EXIT", "514", (420, 600), legible=False),
)
ANSWERS = {
    READ.format("GATE"): "471",
    READ.format("PUMP"): "662",
    ABOVE.format("905"): "DOCK",
    NEAREST.format("GATE"): "238",
    NEAREST.format("HALL"): "471",
    LEFT.format("HALL"): "471",
    COMPARE.format("GATE", "DOCK"): "DOCK",
    COMPARE.format("PUMP", "HALL"): "PUMP",
    READ.format("EXIT"): NOT_READABLE,
    READ.format("YARD"): NO_SIGN,
    ABOVE.format("111"): NO_SIGN,
    COMPARE.format("YARD", "DOCK"): NO_SIGN,
}


def solved(
    question: str,
    resolution: int = 448,
    signs: tuple[Known, ...] = SIGNS,
    critic: Critic | None = None,
    size: Size = SIZE,
    **limits: int,
) -> Episode:
    image, eyes = ramp(size), Eyes(signs, size)
    tools = Tools(image, GroundSegmenter(), reader=eyes)
    sample = sample_of(image, question + REFUSALS)
    bounds = Limits(resolution, **limits)
    judge = critic or SecondReading(eyes)
    return asyncio.run(run_episode(sample, ScriptedPolicy(), tools, bounds, critic=judge))


@pytest.mark.parametrize("question", ANSWERS)
@pytest.mark.parametrize("resolution", [448, 672])
def test_questions_are_answered_from_what_can_be_read(question: str, resolution: int) -> None:
    path = solved(question, resolution).trajectory
    assert (path.answer, path.finish) == (ANSWERS[question], "answered")


@pytest.mark.parametrize("question", [q for q, a in ANSWERS.items() if a not in (NO_SIGN,)])
def test_the_looks_that_are_kept_show_what_was_answered(question: str) -> None:
    path = solved(question, 336, looks=9).trajectory
    assert path.answer == ANSWERS[question]
    by_answer = {s.code: s for s in SIGNS} | {s.word: s for s in SIGNS} | {NOT_READABLE: SIGNS[4]}
    sign, seen = by_answer[path.answer], [path.view, *(s.observation for s in path.steps)]
    large_enough = [
        view
        for view in seen
        if view is not None
        and view.region.contains(sign.box)
        and sign.cap_px * view.magnification >= 5.9
    ]
    assert large_enough


class Watching:
    """Agrees to everything, and keeps the answer and the view that it rests on."""

    async def review(self, sample: Sample, answer: Answer, views: Sequence[View]) -> str | None:
        self.answer, self.evidence = answer, views[answer.evidence]
        return None


@pytest.mark.parametrize("question", [q for q, a in ANSWERS.items() if a != NO_SIGN])
def test_an_answer_can_be_read_where_it_says_in_the_view_that_it_names(question: str) -> None:
    critic, eyes = Watching(), Eyes(SIGNS, SIZE)
    solved(question, 336, critic=critic, looks=9)
    view, place = critic.evidence, critic.answer.box
    if critic.answer.text == NOT_READABLE:
        assert place is None and view.observation.region.contains(SIGNS[4].box)
        return
    assert place is not None
    (line,) = eyes.read_lines(view.pixels, view.to_view(place))
    assert line.text == ANSWERS[question]


def test_large_signs_are_read_without_a_look_and_small_ones_with_one_for_several() -> None:
    assert solved(READ.format("PUMP"), 448).trajectory.num_zooms == 0
    both = solved(COMPARE.format("GATE", "HALL"), 336).trajectory
    assert (both.answer, both.num_zooms) == ("GATE", 1)


def test_looks_fall_as_the_budget_grows() -> None:
    looks = [
        sum(solved(question, budget, looks=9).trajectory.num_zooms for question in ANSWERS)
        for budget in (280, 448, 1024)
    ]
    assert looks == sorted(looks, reverse=True) and looks[0] > looks[-1]


def test_a_sign_too_small_for_the_first_view_is_searched_for_part_by_part() -> None:
    far = (Known("GATE", "471", (1700, 1300), 12),)
    done = solved(READ.format("GATE"), 336, far, size=(2000, 1500), looks=9)
    assert done.trajectory.answer == "471"
    assert any("search" in turn.text for turn in done.turns)


def test_a_refusal_comes_only_after_the_whole_picture_was_seen_large_enough() -> None:
    done = solved(READ.format("YARD"), 336, size=(1400, 1050), looks=25).trajectory
    assert done.answer == NO_SIGN
    seen = [step.observation for step in done.steps if step.observation is not None]
    for x in range(50, 1400, 100):
        for y in range(50, 1050, 100):
            place = Box(x, y, x + 1, y + 1)
            assert max(v.magnification for v in seen if v.region.contains(place)) >= 0.5, (x, y)
    cut = solved(READ.format("YARD"), 336, size=(1400, 1050), looks=2).trajectory
    assert (cut.answer, cut.finish) == (UNKNOWN, "forced")


def test_an_unreadable_code_is_looked_at_again_with_the_box_adjusted() -> None:
    done = solved(READ.format("EXIT"), 448)
    assert done.trajectory.answer == NOT_READABLE
    assert any(turn.tool == "adjust_box" for turn in done.turns)
    last = done.trajectory.steps[-1].observation
    assert last is not None and last.resolved == 1 and last.region.contains(SIGNS[4].box)


@pytest.mark.parametrize("question", ANSWERS)
def test_in_a_picture_without_signs_every_answer_is_a_refusal(question: str) -> None:
    assert solved(question, 672, ()).trajectory.answer == NO_SIGN
    image = Image.new("RGB", SIZE, (128, 128, 128))
    tools = Tools(image, GroundSegmenter())  # and without a reader nothing is said at all
    sample = sample_of(image, question + REFUSALS)
    episode = asyncio.run(run_episode(sample, ScriptedPolicy(), tools, Limits(672)))
    assert episode.trajectory.answer in (UNKNOWN, NO_SIGN)


def test_what_is_read_decides_and_not_where_it_hangs() -> None:
    swapped = tuple(
        Known(there.word, there.code, here.corner, here.cap_px, there.legible)
        for here, there in zip(SIGNS, (*SIGNS[1:], SIGNS[0]), strict=True)
    )
    path = solved(READ.format("HALL"), 448, swapped).trajectory
    assert path.answer == "238"


@pytest.mark.parametrize("objections", [1, 9])
def test_an_objection_leads_to_another_look_and_never_to_a_crash(objections: int) -> None:
    done = solved(READ.format("GATE"), 448, critic=Objects(), objections=objections)
    assert any("once more" in turn.text for turn in done.turns)
    assert done.trajectory.answer == "471"


@pytest.mark.parametrize("looks", [0, 1])
def test_when_the_tools_are_off_the_best_answer_so_far_is_given(looks: int) -> None:
    done = solved(READ.format("GATE"), 280, looks=looks)
    assert done.trajectory.answer in (("471",) if looks else (UNKNOWN,))


@pytest.mark.parametrize(
    "question",
    [
        READ.format("GATE"),
        READ.format("GATE or HALL") + REFUSALS,
        READ.format("gate") + REFUSALS,
        COMPARE.format("GATE", "") + REFUSALS,
    ],
)
def test_a_question_in_other_words_is_not_understood(question: str) -> None:
    with pytest.raises(NotUnderstood):
        ScriptedPolicy().begin("picture#0", question, ())


def test_a_planner_that_has_said_all_it_can_says_it_again() -> None:
    planner = ScriptedPolicy().begin("picture#0", READ.format("GATE") + REFUSALS, ())
    opening = Heard("", kind="opening", view=first_view(ramp(SIZE), 224))
    first = asyncio.run(planner.act(opening))
    assert isinstance(first, Call) and first.tool == "locate"
    actions = [asyncio.run(planner.act(Heard("No.", kind="error"))) for _ in range(9)]
    assert isinstance(actions[-1], Answer) and actions[-1] == actions[-2]


def test_the_second_reading_objects_to_what_is_not_there() -> None:
    image, eyes = ramp(SIZE), Eyes(SIGNS, SIZE)
    views, sample = [first_view(image, 1024)], sample_of(image, "?")
    for text, objects in (("471", False), ("477", True), ("GATE", False)):
        answer = Answer(text, "", 0, SIGNS[0].box)
        said = asyncio.run(SecondReading(eyes).review(sample, answer, views))
        assert (said is not None) == objects


@pytest.mark.torch
def test_printed_plates_are_found_and_read_by_the_shipped_networks() -> None:
    from pipeline.agent.pocket_reader import build_reader
    from pipeline.samples import rng_for
    from pipeline.scenes.draw import scene
    from pipeline.scenes.signs import plant_signs

    drawn = scene(rng_for(3, "printed plates"), (1024, 768))
    masks = [thing.mask for thing in drawn.objects]
    planted = plant_signs(
        Image.fromarray(drawn.image), masks, rng_for(3, "plates"), (448,), drawn=True
    )
    tools = Tools(planted.image, GroundSegmenter(), reader=build_reader())
    asked = [sign for sign in planted.signs if sign.legible]
    right = 0
    for sign in asked:
        sample = sample_of(planted.image, READ.format(sign.word) + REFUSALS)
        bounds = Limits(672)
        critic = SecondReading(tools.reader)
        done = run_episode(sample, ScriptedPolicy(), tools, bounds, critic=critic)
        right += asyncio.run(done).trajectory.answer == sign.code
    assert len(asked) >= 2 and right >= len(asked) - 1
