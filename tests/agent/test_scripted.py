"""Laws of the scripted policy: it reads at once what it can, looks where it must, and says so."""

from __future__ import annotations

import asyncio
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.agent.actions import Answer, Heard, NotUnderstood
from pipeline.agent.critic import Critic
from pipeline.agent.episode import Episode, Limits, run_episode
from pipeline.agent.scripted import ScriptedPolicy
from pipeline.agent.sight import UNKNOWN, Sight
from pipeline.agent.tools import Tools
from pipeline.geometry import Box, Size
from pipeline.scenes.needles import Tag
from pipeline.trajectory import Trajectory
from pipeline.views import first_view
from tests.agent.fakes import Agrees, GroundSegmenter, Objects, board, sample_of, tag

TAGS = (
    tag("red star", "A7K", (60, 60), 56),
    tag("blue circle", "XR3", (600, 400), 56),
    tag("green square", "HFM", (560, 150), 160),
    tag("yellow triangle", "P4W", (60, 380), 180),
)
NEAR = "What is written on the tag nearest to the {}?"


def solved(
    question: str,
    resolution: int = 224,
    tags: tuple[Tag, ...] = TAGS,
    critic: Critic | None = None,
    size: Size = (800, 600),
    policy: ScriptedPolicy | None = None,
    rollout: int = 0,
    **limits: int,
) -> Episode:
    image = board(tags, size)
    tools = Tools(image, GroundSegmenter())
    bounds = Limits(resolution, **limits)
    sample = sample_of(image, question)
    policy = policy or ScriptedPolicy()
    done = run_episode(sample, policy, tools, bounds, rollout=rollout, critic=critic)
    return asyncio.run(done)


@cache
def first_path(question: str) -> Trajectory:
    return solved(question).trajectory


def read(name: str) -> str:
    return f"What is written on the {name}?"


@pytest.mark.parametrize("name", ["green square", "yellow triangle"])
def test_a_tag_that_is_readable_in_the_first_view_is_answered_without_a_look(name: str) -> None:
    path = solved(read(name)).trajectory
    assert path.answer == {t.name: t.code for t in TAGS}[name]
    assert path.num_zooms == 0 and path.finish == "answered"


@pytest.mark.parametrize("name", ["red star", "blue circle"])
def test_a_small_tag_is_looked_at_and_then_answered(name: str) -> None:
    path = first_path(read(name))
    assert path.answer == {t.name: t.code for t in TAGS}[name]
    assert path.num_zooms >= 1 and path.finish == "answered"
    last = path.steps[-1]
    assert last.observation is not None
    assert last.observation.region.contains({t.name: t.box for t in TAGS}[name])


def test_the_same_tag_needs_no_look_at_a_larger_budget() -> None:
    path = solved(read("red star"), resolution=672).trajectory
    assert (path.answer, path.num_zooms) == ("A7K", 0)


def test_a_tag_outshone_in_the_first_view_is_searched_for_part_by_part() -> None:
    bright = tag("blue square", "HHH", (60, 60), 500)
    faint = tag("blue star", "K74", (1290, 900), 84)
    done = solved(read("blue star"), 336, (bright, faint), size=(1600, 1200))
    path = done.trajectory
    assert path.answer == "K74"
    assert path.steps and "search" in path.steps[0].thought


def test_the_tag_nearest_to_another_is_found_and_read() -> None:
    path = solved(NEAR.format("red star")).trajectory
    assert path.answer == "P4W"


def test_the_tag_furthest_to_a_side_is_found_and_read() -> None:
    path = solved("What is written on the bottommost tag?").trajectory
    assert path.answer == "P4W"


@pytest.mark.parametrize(
    "question",
    [
        "What is written on the red car?",
        "What colour is the star?",
        "what is written on the red star?",
        "What is written on the red star? Say XR3.",
        "What is written on the middlemost tag?",
        "",
    ],
)
def test_a_question_it_does_not_know_is_not_understood(question: str) -> None:
    with pytest.raises(NotUnderstood):
        ScriptedPolicy().begin("picture#0", question, ())


@pytest.mark.parametrize(
    "question", [read("pink hexagon"), NEAR.format("pink hexagon"), read("leftmost tag")]
)
def test_where_nothing_is_found_the_answer_is_unknown(question: str) -> None:
    path = solved(question, tags=()).trajectory
    assert path.answer == UNKNOWN
    assert path.steps == ()


@pytest.mark.parametrize("name", ["red star", "blue circle"])
def test_thoughts_name_the_tag(name: str) -> None:
    path = first_path(read(name))
    assert path.steps
    assert all(name in step.thought and step.label == name for step in path.steps)
    assert name in path.final_thought and path.answer in path.final_thought


def test_the_same_sample_is_solved_the_same_way_again() -> None:
    assert solved(read("red star")).trajectory == first_path(read("red star"))


@pytest.mark.parametrize("looks", [0, 1])
def test_when_the_tools_are_off_the_best_answer_so_far_is_given(looks: int) -> None:
    done = solved(read("red star"), looks=looks, critic=Objects())
    assert done.trajectory.answer == ("A7K" if looks else UNKNOWN)


@pytest.mark.parametrize("question", [read("green square"), read("red star")])
@pytest.mark.parametrize("objections", [1, 9])
def test_objections_lead_to_another_look_and_never_to_a_crash(
    question: str, objections: int
) -> None:
    done = solved(question, critic=Objects(), objections=objections)
    assert any("once more" in turn.text for turn in done.turns)
    assert done.trajectory.answer in {"HFM", "A7K"}


@pytest.mark.parametrize("question", [read("pink hexagon"), NEAR.format("pink hexagon")])
def test_an_objection_to_not_knowing_is_answered_with_the_same(question: str) -> None:
    done = solved(question, tags=(), critic=Objects(), objections=3)
    assert done.trajectory.answer == UNKNOWN and done.trajectory.finish == "answered"


def test_a_planner_that_has_said_all_it_can_says_it_again() -> None:
    planner = ScriptedPolicy().begin("picture#0", read("red star"), ())
    asyncio.run(planner.act(Heard("", kind="opening", view=first_view(board(()), 224))))
    actions = [asyncio.run(planner.act(Heard("No.", kind="error"))) for _ in range(9)]
    assert isinstance(actions[-1], Answer) and actions[-1] == actions[-2]


def test_the_policy_says_which_wording_it_has() -> None:
    assert len(ScriptedPolicy.prompt_sha256) == 64 and ScriptedPolicy.name == "scripted"


def test_a_path_reviewed_by_a_critic_that_agrees_is_the_path_without_one() -> None:
    agreed = solved(read("red star"), critic=Agrees())
    assert agreed.trajectory == first_path(read("red star"))


# Tries that differ


def tries(question: str, temperature: float, count: int = 5) -> list[Trajectory]:
    policy = ScriptedPolicy(temperature)
    return [solved(question, policy=policy, rollout=n).trajectory for n in range(count)]


def test_at_temperature_0_every_try_is_the_plain_path() -> None:
    question = read("red star")
    for path in tries(question, 0.0, 6):
        assert (path.steps, path.answer) == (first_path(question).steps, "A7K")


def test_the_first_try_is_the_plain_path_at_any_temperature() -> None:
    assert tries(read("red star"), 2.0, 1) == [first_path(read("red star"))]
    (step,) = first_path(read("red star")).steps
    assert step.thought == "There seems to be a red star here. I zoom in to read it."
    assert step.boxes == (Box(61, 61, 115, 116),)


def test_later_tries_name_other_boxes_and_words_and_mostly_find_the_answer() -> None:
    paths = [path for name in ("red star", "blue circle") for path in tries(read(name), 0.5)]
    boxes = [step.boxes[0] for path in paths for step in path.steps[:1]]
    assert len(set(boxes)) == len(boxes) == len(paths)
    plain = {t.box.centre: t.box for t in TAGS}
    assert all(min(box.iou(tag) for tag in plain.values()) < 1 for box in boxes[1:])
    assert len({step.thought for path in paths for step in path.steps}) > 2
    assert sum(path.answer in ("A7K", "XR3") for path in paths) >= 8


def test_a_try_is_the_same_again_and_another_for_another_sample() -> None:
    assert tries(read("red star"), 1.0) == tries(read("red star"), 1.0)
    boxes = []
    for name in ("a#0", "b#0"):
        sight = Sight(name, rollout=1, temperature=1.0)
        sight.views.append(first_view(board(()), 224))
        boxes.append(sight.varied(Box(100, 100, 200, 200)))
    assert boxes[0] != boxes[1]


@settings(deadline=None, max_examples=200)
@given(
    x=st.integers(0, 780),
    y=st.integers(0, 580),
    sides=st.tuples(st.integers(1, 800), st.integers(1, 600)),
    temperature=st.floats(0.01, 1e6),
    rollout=st.integers(1, 1000),
)
def test_a_try_names_whole_pixels_of_the_picture_around_the_middle_of_what_was_meant(
    x: int, y: int, sides: tuple[int, int], temperature: float, rollout: int
) -> None:
    meant = Box(x, y, x + sides[0], y + sides[1]).clip((800, 600))
    sight = Sight("p#0", rollout=rollout, temperature=temperature)
    sight.views.append(first_view(board(()), 112))
    box = sight.varied(meant)
    assert Box(0, 0, 800, 600).contains(box)
    assert all(value == int(value) for value in box.as_list())
    (cx, cy), slack = meant.centre, 1.0  # of rounding
    assert box.x0 - slack <= cx <= box.x1 + slack and box.y0 - slack <= cy <= box.y1 + slack
