"""Laws of an episode: mistakes are heard, limits hold, the truth is not there, and what is kept."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.agent.actions import Action, Answer, Call, Heard, Slip
from pipeline.agent.critic import Critic, SecondReading, verify
from pipeline.agent.episode import Episode, Limits, run_episode
from pipeline.agent.summary import Look, summarise
from pipeline.agent.tools import Tools
from pipeline.errors import ContextOverflow
from pipeline.geometry import Box
from pipeline.samples import Truth
from pipeline.trajectory import Observation
from pipeline.views import View, first_view
from tests.agent.fakes import (
    Agrees,
    GroundSegmenter,
    ListPlanner,
    ListPolicy,
    Objects,
    board,
    sample_of,
    tag,
)

LAW = settings(deadline=None, max_examples=60)  # a busy machine breaks no law
TAGS = (tag("red star", "A7K", (60, 60), 90), tag("blue circle", "XR3", (500, 340), 80))
PICTURE = board(TAGS)
SAMPLE = sample_of(PICTURE, "What is written on the red star?")
STAR, CIRCLE = (each.box for each in TAGS)
OUTSIDE = Box(900, 700, 950, 750)
DONE = Answer("A7K", "It says A7K.")


def episode(
    *actions: Action,
    last: Action = DONE,
    forced: Action = DONE,
    critic: Critic | None = None,
    **limits: int,
) -> tuple[Episode, list[Heard]]:
    """What a policy with these actions comes to, and all that it heard."""
    policy = ListPolicy(actions, last, forced)
    tools = Tools(PICTURE, GroundSegmenter())
    bounds = Limits(**{"resolution": 224, **limits})
    done = asyncio.run(run_episode(SAMPLE, policy, tools, bounds, critic=critic or Agrees()))
    return done, policy.heard


def zoom(box: Box, view: int = 0, thought: str = "I look.") -> Call:
    return Call("zoom", view, thought, box, "red star")


# Mistakes are heard


@pytest.mark.parametrize("tool", ["zoom", "segment", "read", "adjust_box"])
@pytest.mark.parametrize("box", [OUTSIDE, None, Box(-40, -40, -1, -1)])
def test_a_bad_box_comes_back_as_an_error_and_the_episode_goes_on(tool: Any, box: Box) -> None:
    done, heard = episode(Call(tool, 0, box=box), zoom(STAR))
    assert [h.kind for h in heard] == ["opening", "error", "result"]
    assert heard[1].view is None and heard[1].text.startswith("Error: ")
    assert done.trajectory.finish == "answered"
    assert heard[2].index == 1


def test_a_view_that_is_not_there_is_an_error_too() -> None:
    _, heard = episode(Call("locate", 3, phrase="red star"), Call("locate", -1))
    assert [h.kind for h in heard] == ["opening", "error", "error"]


def test_a_box_outside_the_view_it_names_is_an_error_though_the_picture_has_it() -> None:
    _, heard = episode(zoom(STAR), zoom(CIRCLE, view=1), zoom(CIRCLE))
    assert [h.kind for h in heard] == ["opening", "result", "error", "result"]


def test_a_failed_look_is_no_look() -> None:
    done, heard = episode(zoom(OUTSIDE), zoom(OUTSIDE), zoom(STAR), looks=1)
    assert [h.kind for h in heard] == ["opening", "error", "error", "result"]
    assert done.trajectory.finish == "answered"


# Limits hold


@pytest.mark.parametrize("looks", [0, 1, 3])
def test_after_the_looks_are_used_up_the_tools_are_off_and_the_answer_is_forced(looks: int) -> None:
    done, heard = episode(*[zoom(STAR)] * (looks + 1), looks=looks)
    assert [h.kind for h in heard] == ["opening", *["result"] * looks, "forced"]
    assert done.trajectory.finish == "forced" and done.trajectory.answer == "A7K"


def test_as_many_looks_as_allowed_force_nothing() -> None:
    done, _ = episode(zoom(STAR), zoom(CIRCLE), looks=2)
    assert done.trajectory.finish == "answered"


def test_other_tools_stay_on_after_the_last_look() -> None:
    done, heard = episode(zoom(STAR), Call("read", 1, box=STAR), looks=1)
    assert heard[-1].reading is not None and done.trajectory.finish == "answered"


@pytest.mark.parametrize("turns", [2, 3, 7])
def test_a_policy_that_never_answers_is_forced_to(turns: int) -> None:
    done, heard = episode(last=Call("adjust_box", 0, box=STAR, instruction="narrow"), turns=turns)
    assert [h.kind for h in heard] == ["opening", *["result"] * (turns - 1), "forced"]
    assert done.trajectory.finish == "forced" and done.trajectory.answer == "A7K"


@pytest.mark.parametrize("limits", [{"looks": 0}, {"turns": 2}])
def test_a_tool_called_after_the_tools_are_off_is_no_answer(limits: dict[str, Any]) -> None:
    done, _ = episode(last=zoom(STAR), forced=zoom(STAR), **limits)
    assert (done.trajectory.finish, done.reason) == ("rejected", "no_answer")
    assert done.trajectory.num_zooms == len([t for t in done.turns if t.role == "policy"]) - 1


@pytest.mark.parametrize("slips", [0, 1, 3])
def test_slips_are_answered_with_why_and_one_too_many_ends_the_episode(slips: int) -> None:
    done, heard = episode(last=Slip("gibberish", "That is no turn."), slips=slips)
    assert [h.kind for h in heard] == ["opening", *["error"] * slips]
    assert (done.trajectory.finish, done.reason) == ("rejected", "malformed")
    assert [t.text for t in done.turns if t.role == "policy"] == ["gibberish"] * (slips + 1)
    good, _ = episode(*[Slip("gibberish", "")] * slips, slips=slips)
    assert good.trajectory.finish == "answered"


def test_a_picture_too_many_for_the_model_ends_the_episode_and_keeps_its_looks() -> None:
    class Full(ListPolicy):
        def begin(
            self, sample_id: str, question: str, options: Sequence[str], rollout: int = 0
        ) -> ListPlanner:
            planner = super().begin(sample_id, question, options, rollout)
            inner = planner.act

            async def act(heard: Heard) -> Action:
                if heard.kind == "result":
                    raise ContextOverflow("too long")
                return await inner(heard)

            planner.act = act  # type: ignore[method-assign]
            return planner

    tools = Tools(PICTURE, GroundSegmenter())
    done = asyncio.run(run_episode(SAMPLE, Full([zoom(STAR)]), tools, Limits(224)))
    assert (done.reason, done.trajectory.num_zooms) == ("context_overflow", 1)


# The critic


@pytest.mark.parametrize("objections", [0, 1, 2])
def test_an_objection_is_heard_and_no_more_often_than_allowed(objections: int) -> None:
    done, heard = episode(critic=Objects(), objections=objections)
    assert [h.kind for h in heard] == ["opening", *["critique"] * objections]
    assert all(h.text == "I doubt A7K." for h in heard[1:])
    assert sum(turn.role == "critic" for turn in done.turns) == objections
    assert done.trajectory.finish == "answered"


def test_an_answer_changed_after_an_objection_is_the_one_that_counts() -> None:
    critic = Objects(lambda answer: answer.text == "WRONG")
    done, _ = episode(Answer("WRONG", "At first."), zoom(STAR), critic=critic)
    assert done.trajectory.answer == "A7K"
    assert [answer.text for answer in critic.reviewed] == ["WRONG", "A7K"]


def test_a_forced_answer_is_not_reviewed() -> None:
    critic = Objects()
    done, _ = episode(zoom(STAR), critic=critic, looks=0)
    assert done.trajectory.finish == "forced" and critic.reviewed == []


def test_the_second_reading_objects_to_what_the_view_does_not_say() -> None:
    views = [first_view(PICTURE, 672)]
    review = SecondReading().review
    assert asyncio.run(review(SAMPLE, Answer("A7K", "", 0, STAR), views)) is None
    assert asyncio.run(review(SAMPLE, Answer("A7M", "", 0, STAR), views))
    assert asyncio.run(review(SAMPLE, Answer("unknown", ""), views)) is None


# The truth is not there


def test_an_episode_has_no_place_for_the_truth_and_the_verdict_changes_nothing() -> None:
    assert "Truth" not in str(inspect.signature(run_episode))
    assert not hasattr(SAMPLE, "target")
    done, _ = episode(zoom(STAR, thought="Closer."), zoom(CIRCLE))
    truths = [Truth(SAMPLE.sample_id, each.code, (each.box,)) for each in TAGS]
    for truth in truths:
        told = verify(done.trajectory, truth)
        assert told.verified is (truth.target == done.trajectory.answer)
        assert replace(told, verified=None, steps=()) == replace(done.trajectory, steps=())
        assert [replace(s, checks={}) for s in told.steps] == [
            replace(s, checks={}) for s in done.trajectory.steps
        ]


def test_two_episodes_with_the_truth_swapped_between_them_are_the_same() -> None:
    question = "What is written on the red star?"
    swapped = tuple(replace(a, code=b.code) for a, b in zip(TAGS, TAGS[::-1], strict=True))
    runs = []
    for truth in (TAGS[0], swapped[0]):
        done, heard = episode(zoom(STAR), Call("read", 1, box=STAR), last=Answer("A7K", "", 1))
        verify(done.trajectory, Truth(SAMPLE.sample_id, truth.code, (truth.box,)))
        runs.append((done, [h.text for h in heard]))
    assert SAMPLE.question == question
    assert runs[0] == runs[1]


def test_target_iou_says_how_well_a_look_met_the_target() -> None:
    done, _ = episode(zoom(STAR), last=Answer("A7K", "", 1))
    (step,) = verify(done.trajectory, Truth(SAMPLE.sample_id, "A7K", (STAR,))).steps
    assert step.checks["target_iou"] == 1.0
    (step,) = verify(done.trajectory, Truth(SAMPLE.sample_id, "A7K", (CIRCLE,))).steps
    assert step.checks["target_iou"] == 0.0
    (step,) = verify(done.trajectory, Truth(SAMPLE.sample_id, "A7K")).steps
    assert "target_iou" not in step.checks


# What is kept


def test_only_the_looks_that_led_to_the_answer_are_kept() -> None:
    around = Box(20, 20, 300, 300)
    done, _ = episode(
        zoom(CIRCLE, thought="A dead end."),
        zoom(around, thought="Over here."),
        zoom(CIRCLE, thought="Another."),
        zoom(STAR, view=2, thought="Closer."),
        last=Answer("A7K", "It says A7K.", evidence=4),
    )
    steps = done.trajectory.steps
    assert [step.thought for step in steps] == ["Over here.", "Closer."]
    assert [step.observation.parent for step in steps if step.observation] == [0, 1]
    assert [step.boxes for step in steps] == [(around,), (STAR,)]
    assert done.trajectory.num_zooms == 2


def test_every_turn_is_kept_whole_dead_ends_included() -> None:
    done, _ = episode(zoom(CIRCLE, thought="A dead end."), zoom(OUTSIDE))
    told = [(turn.role, turn.text) for turn in done.turns]
    assert told == [
        ("policy", "A dead end."),
        ("tool", ""),
        ("policy", "I look."),
        ("tool", ""),
        ("policy", "It says A7K. Answer: A7K"),
    ]
    assert done.trajectory.steps == ()


@st.composite
def courses(draw: st.DrawFn) -> tuple[list[int], Answer]:
    """For each look the view it was zoomed from, and an answer that rests on some of them."""
    count = draw(st.integers(0, 8))
    parents = [draw(st.integers(0, look)) for look in range(count)]
    view = st.integers(0, count)
    support = draw(st.lists(view, max_size=3))
    return parents, Answer("A", "", draw(view), support=tuple(support))


@LAW
@given(course=courses())
def test_a_summary_is_the_ancestors_of_the_evidence_and_its_support_renumbered(
    course: tuple[list[int], Answer],
) -> None:
    parents, answer = course
    regions = [Box(0, 0, 100 + look, 100) for look in range(len(parents) + 1)]
    pixels = np.zeros((28, 28, 3), np.uint8)
    views = [
        View(Observation(region, (28, 28), parents[n - 1] if n else None), pixels)
        for n, region in enumerate(regions)
    ]
    looks = [
        Look(n, f"look {n}", regions[n], "", no_gain=False) for n in range(1, len(parents) + 1)
    ]
    steps = summarise(looks, views, answer)
    kept = [regions.index(step.boxes[0]) for step in steps]
    assert kept == sorted(_ancestors(parents, (answer.evidence, *answer.support)))
    shown = [0, *kept]
    for view, step in zip(kept, steps, strict=True):
        assert step.observation is not None and step.observation.parent is not None
        assert step.observation.region == regions[view]
        assert shown[step.observation.parent] == parents[view - 1]


def _ancestors(parents: list[int], views: tuple[int, ...]) -> set[int]:
    """The views themselves and all they were zoomed from, without the first view."""
    if set(views) <= {0}:
        return set()
    deeper = {parents[view - 1] for view in views if view}
    return {view for view in views if view} | _ancestors(parents, tuple(deeper))


def checks(done: Episode, name: str) -> list[Any]:
    return [step.checks[name] for step in done.trajectory.steps]


def test_a_repeated_look_gains_nothing() -> None:
    done, _ = episode(zoom(STAR), zoom(STAR), last=Answer("A7K", "", 2, support=(1,)))
    assert checks(done, "no_gain") == [False, True]


def test_a_look_into_what_was_already_seen_at_source_resolution_gains_nothing() -> None:
    around = Box(35, 35, 165, 165)
    done, heard = episode(zoom(around), zoom(STAR, view=1), last=Answer("A7K", "", 2))
    assert heard[1].view is not None and heard[1].view.observation.resolved == 1
    assert checks(done, "no_gain") == [False, True]


def test_a_look_into_what_was_seen_coarsely_gains() -> None:
    around = Box(0, 0, 700, 500)
    done, heard = episode(zoom(around), zoom(STAR, view=1), last=Answer("A7K", "", 2))
    assert heard[1].view is not None and heard[1].view.observation.resolved < 1
    assert checks(done, "no_gain") == [True, False]  # enlarged, the first was the whole picture


def test_a_look_at_a_first_view_of_source_resolution_gains_nothing() -> None:
    done, _ = episode(zoom(STAR), last=Answer("A7K", "", 1), resolution=1024)
    assert checks(done, "no_gain") == [True]


def test_a_look_keeps_how_sure_its_last_reading_was_even_when_another_look_came_between() -> None:
    read = Call("read", 1, box=STAR)
    answer = Answer("A7K", "", 1)
    at_once, heard = episode(zoom(STAR), read, last=answer)
    assert heard[-1].reading is not None and heard[-1].reading.text == "A7K"
    later, _ = episode(zoom(STAR), zoom(CIRCLE), read, last=answer)
    assert checks(at_once, "confidence") == [heard[-1].reading.confidence]
    assert checks(later, "confidence") == checks(at_once, "confidence")


def test_a_reading_of_the_first_view_is_no_look_s() -> None:
    done, _ = episode(zoom(STAR), Call("read", 0, box=STAR), last=Answer("A7K", "", 1))
    assert checks(done, "confidence") == [None]


@pytest.mark.parametrize("resolution", [224, 448])
def test_no_view_of_an_episode_exceeds_its_budget(resolution: int) -> None:
    _, heard = episode(zoom(STAR), zoom(Box(0, 0, 400, 600)), resolution=resolution)
    shown = [h.view.observation.size for h in heard if h.view is not None]
    assert len(shown) == 3
    assert all(width * height <= resolution**2 for width, height in shown)
