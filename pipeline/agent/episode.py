"""One question at one budget: policy and tools in turn, until an answer stands.

A bad box is an error observation, too many looks force an answer with the tools off. What the
episode did is kept whole as turns; what it teaches is the trajectory that `summary` makes of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from pipeline.agent.actions import Action, Answer, Call, Heard, Policy, Slip
from pipeline.agent.critic import Critic, SecondReading
from pipeline.agent.summary import Look, Mechanical, Summariser, summarise
from pipeline.errors import ContextOverflow, ModelError
from pipeline.samples import Sample
from pipeline.trajectory import Finish, TraceTurn, Trajectory
from pipeline.views import View

Reason = Literal["", "malformed", "no_answer", "context_overflow"]


class Toolbox(Protocol):
    """The tools over one picture."""

    async def open(self, resolution: int) -> View:
        """The first view at a budget."""

    async def use(self, call: Call, views: Sequence[View], resolution: int) -> Heard:
        """Carry out a call; a policy's mistake comes back as an error."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How far an episode may go."""

    resolution: int
    """The budget R: no view has more than R² pixels."""
    looks: int = 5
    turns: int = 60
    """Actions of any kind; a policy that never answers is forced to."""
    objections: int = 2
    """Times the critic may send an answer back."""
    slips: int = 3
    """Turns that cannot be understood; one more ends the episode."""


@dataclass(frozen=True, slots=True)
class Episode:
    """What came of it: the summarised path and every raw turn."""

    trajectory: Trajectory
    turns: tuple[TraceTurn, ...]
    reason: Reason = ""
    """Why there is no answer, where `trajectory.finish` is `rejected`."""


@dataclass
class _Course:
    """An episode under way."""

    sample: Sample
    policy: Policy
    limits: Limits
    rollout: int
    views: list[View]
    looks: list[Look] = field(default_factory=list)
    turns: list[TraceTurn] = field(default_factory=list)
    actions: int = 0
    objections: int = 0
    slips: int = 0


async def run_episode(
    sample: Sample,
    policy: Policy,
    tools: Toolbox,
    limits: Limits,
    *,
    rollout: int = 0,
    critic: Critic | None = None,
    summariser: Summariser | None = None,
) -> Episode:
    """Let a policy work on a sample with the tools, within the limits.

    Raises `NotUnderstood` when the policy has no way to work on the question. A policy that never
    finds the form, or never answers, ends as an episode whose `finish` is `rejected`.
    """
    planner = policy.begin(sample.sample_id, sample.question, sample.options, rollout)
    view = await tools.open(limits.resolution)
    course = _Course(sample, policy, limits, rollout, [view])
    heard = Heard(sample.question, kind="opening", view=view)
    critic, summariser = critic or SecondReading(), summariser or Mechanical()
    while True:
        try:
            action = await planner.act(heard)
            course.actions += 1
            forced = heard.kind == "forced"
            if isinstance(action, Answer):
                _note(course, action)
                objection = None if forced else await _objection(course, action, critic)
                if objection is None:
                    answer = await summariser.review(sample, course.looks, action)
                    return _closed(course, answer, "forced" if forced else "answered")
                heard = Heard(objection, kind="critique")
            elif forced and isinstance(action, Call):
                return _rejected(course, "no_answer", action)
            else:
                heard = await _done(course, action, tools)
        except ContextOverflow as error:
            return _rejected(course, "context_overflow", Slip("", str(error)))
        if course.slips > limits.slips:
            return _rejected(course, "malformed", action)


def _note(course: _Course, answer: Answer) -> None:
    """Write an answer down; raises `ModelError` when it rests on a view that was never shown."""
    for view in (answer.evidence, *answer.support):
        if not 0 <= view < len(course.views):
            name, count = course.policy.name, len(course.views)
            raise ModelError(f"Policy '{name}' rests its answer on view {view} of {count}.")
    course.turns.append(TraceTurn("policy", f"{answer.thought} Answer: {answer.text}"))


async def _objection(course: _Course, answer: Answer, critic: Critic) -> str | None:
    """What the critic says against an answer, as often as it may."""
    if course.objections == course.limits.objections:
        return None
    objection = await critic.review(course.sample, answer, course.views)
    if objection is not None:
        course.objections += 1
        course.turns.append(TraceTurn("critic", objection))
    return objection


async def _done(course: _Course, action: Call | Slip, tools: Toolbox) -> Heard:
    """Carry out a call within the limits and write it down."""
    if isinstance(action, Slip):
        course.slips += 1
        course.turns += [TraceTurn("policy", action.text), TraceTurn("tool", "", "", action.why)]
        return Heard(action.why, kind="error")
    limits = course.limits
    over = action.tool == "zoom" and len(course.looks) >= limits.looks
    if over or course.actions >= limits.turns:
        course.turns.append(TraceTurn("tool", "", action.tool, "No more looks: answer now."))
        return Heard("No more looks: answer now.", kind="forced")
    heard = await tools.use(action, course.views, limits.resolution)
    course.turns.append(TraceTurn("policy", action.thought, action.tool, str(action)))
    course.turns.append(TraceTurn("tool", "", action.tool, heard.text))
    if heard.view is not None:
        assert action.box is not None
        seen = [view.observation for view in course.views]
        gain = heard.view.observation.gains_on(seen)
        course.views.append(heard.view)
        look = Look(heard.index, action.thought, action.box, action.phrase, not gain)
        course.looks.append(look)
    elif heard.reading is not None and action.view > 0:
        place = action.view - 1  # every view but the first is a look's
        course.looks[place] = course.looks[place].read(heard.reading, action.box)
    return heard


def _closed(course: _Course, answer: Answer, finish: Finish) -> Episode:
    trajectory = Trajectory(
        sample_id=course.sample.sample_id,
        resolution=course.limits.resolution,
        rollout=course.rollout,
        view=course.views[0].observation,
        steps=summarise(course.looks, course.views, answer),
        final_thought=answer.thought,
        answer=answer.text,
        finish=finish,
        policy=course.policy.name,
    )
    return Episode(trajectory, tuple(course.turns))


def _rejected(course: _Course, reason: Reason, last: Action) -> Episode:
    """An episode without an answer; every look it took is kept."""
    if isinstance(last, Call):
        course.turns.append(TraceTurn("policy", last.thought, last.tool, str(last)))
    elif isinstance(last, Slip) and reason == "context_overflow":
        course.turns.append(TraceTurn("tool", "", "", last.why))
    views = tuple(range(1, len(course.views)))
    nothing = Answer("", "", len(views), support=views)
    return replace(_closed(course, nothing, "rejected"), reason=reason)
