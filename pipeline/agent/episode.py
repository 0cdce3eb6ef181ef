"""One question at one budget: policy and tools in turn, until an answer stands.

A bad box is an error observation, too many looks force an answer with the tools off. What the
episode did is kept whole as turns; what it teaches is the trajectory that `summary` makes of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.agent.actions import Answer, Call, Heard, Policy
from pipeline.agent.critic import Critic, SecondReading
from pipeline.agent.summary import Look, summarise
from pipeline.agent.tools import Tools
from pipeline.errors import ModelError
from pipeline.samples import Sample
from pipeline.trajectory import Finish, TraceTurn, Trajectory
from pipeline.views import View


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


@dataclass(frozen=True, slots=True)
class Episode:
    """What came of it: the summarised path and every raw turn."""

    trajectory: Trajectory
    turns: tuple[TraceTurn, ...]


@dataclass
class _Course:
    """An episode under way."""

    views: list[View]
    looks: list[Look] = field(default_factory=list)
    turns: list[TraceTurn] = field(default_factory=list)
    actions: int = 0
    objections: int = 0


async def run_episode(
    sample: Sample,
    policy: Policy,
    tools: Tools,
    limits: Limits,
    *,
    rollout: int = 0,
    critic: Critic | None = None,
) -> Episode:
    """Let a policy work on a sample with the tools, within the limits.

    Raises `NotUnderstood` when the policy has no way to work on the question.
    """
    planner = policy.begin(sample.sample_id, sample.question, sample.options)
    course = _Course([tools.open(limits.resolution)])
    heard = Heard(sample.question, kind="opening", view=course.views[0])
    critic = critic or SecondReading()
    while True:
        action = await planner.act(heard)
        course.actions += 1
        forced = heard.kind == "forced"
        if isinstance(action, Answer):
            _check_views(action, len(course.views), policy.name)
            course.turns.append(TraceTurn("policy", f"{action.thought} Answer: {action.text}"))
            objection = None if forced else critic.review(sample, action, course.views)
            if objection is None or course.objections == limits.objections:
                return _closed(sample, policy, limits, rollout, course, action, forced)
            course.objections += 1
            course.turns.append(TraceTurn("critic", objection))
            heard = Heard(objection, kind="critique")
        elif forced:
            raise ModelError(f"Policy '{policy.name}' called a tool after the tools were off.")
        else:
            heard = _done(course, action, tools, limits)


def _check_views(answer: Answer, views: int, policy: str) -> None:
    """Raise `ModelError` for an answer that rests on a view that was never shown."""
    for view in (answer.evidence, *answer.support):
        if not 0 <= view < views:
            raise ModelError(f"Policy '{policy}' rests its answer on view {view} of {views}.")


def _done(course: _Course, call: Call, tools: Tools, limits: Limits) -> Heard:
    """Carry out a call within the limits and write it down."""
    over = call.tool == "zoom" and len(course.looks) >= limits.looks
    if over or course.actions >= limits.turns:
        course.turns.append(TraceTurn("tool", "", call.tool, "No more looks: answer now."))
        return Heard("No more looks: answer now.", kind="forced")
    heard = tools.use(call, course.views, limits.resolution)
    course.turns.append(TraceTurn("policy", call.thought, call.tool, str(call)))
    course.turns.append(TraceTurn("tool", "", call.tool, heard.text))
    if heard.view is not None:
        assert call.box is not None
        seen = [view.observation for view in course.views]
        gain = heard.view.observation.gains_on(seen)
        course.views.append(heard.view)
        course.looks.append(Look(heard.index, call.thought, call.box, call.phrase, not gain))
    elif heard.reading is not None and call.view > 0:
        look = call.view - 1  # every view but the first is a look's
        course.looks[look] = course.looks[look].read(heard.reading, call.box)
    return heard


def _closed(
    sample: Sample,
    policy: Policy,
    limits: Limits,
    rollout: int,
    course: _Course,
    answer: Answer,
    forced: bool,
) -> Episode:
    finish: Finish = "forced" if forced else "answered"
    steps = summarise(course.looks, course.views, answer)
    trajectory = Trajectory(
        sample_id=sample.sample_id,
        resolution=limits.resolution,
        rollout=rollout,
        view=course.views[0].observation,
        steps=steps,
        final_thought=answer.thought,
        answer=answer.text,
        finish=finish,
        policy=policy.name,
    )
    return Episode(trajectory, tuple(course.turns))
