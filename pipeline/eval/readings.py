"""One question as it is asked, and what a subject made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.agent.chat import Reply
from pipeline.agent.episode import Episode
from pipeline.agent.tools import Tools
from pipeline.answers import matches
from pipeline.eval.scorers import answer_in
from pipeline.geometry import Box
from pipeline.samples import Sample, Score
from pipeline.trajectory import Observation, TraceTurn, Usage
from pipeline.views import View

SCORER = "exact"


@dataclass(frozen=True, slots=True)
class Asked:
    """One question, put in one way."""

    sample: Sample
    """As a script takes it."""
    text: str
    """As a model is asked: options and closing instruction included."""
    tools: Tools
    """Over the sample's picture; shared by all ways of looking at it."""
    resolution: int
    """The budget R of every view."""
    rollout: int = 0
    boxes: tuple[Box, ...] = ()
    """Where the answer can be seen: for the controls alone."""
    salient: Box | None = None
    """The most salient part, for `saliency-crop` and for models that were never taught boxes."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a subject made of a picture."""

    answer: str = ""
    fault: str = ""
    """Why there is no answer, where that is its own doing: wrong."""
    unscored: str = ""
    """Why it cannot be judged: not wrong."""
    zooms: int = 0
    visual_tokens: int = 0
    """Of every view that was shown, each time that it was."""
    turns: tuple[TraceTurn, ...] = field(default=(), repr=False)
    usage: Usage = field(default_factory=Usage)
    invalid_calls: int = 0
    """Turns that could not be understood, and calls that came back as errors."""
    finish: str = "answered"
    """`answered`, `forced` (no more looks), `unfinished` (never answered, or cut off)."""
    outcome: str = ""
    """What became of the first stage of `coarse-to-fine`."""


def score(sample_id: str, reading: Reading, code: str) -> Score:
    """Right, wrong, or unscored; why, unless it is right."""
    if reading.unscored:
        return Score(sample_id, SCORER, None, reading.unscored)
    if reading.fault:
        return Score(sample_id, SCORER, 0.0, reading.fault)
    if matches(reading.answer, code):
        return Score(sample_id, SCORER, 1.0)
    said = f"answered {reading.answer!r}" if reading.answer else "no_answer: The answer is empty"
    return Score(sample_id, SCORER, 0.0, f"{said}; {code} is printed")


def of_reply(reply: Reply, views: Sequence[View], usage: Usage) -> Reading:
    """What one reply to some views says."""
    cut = reply.finish == "length"
    return Reading(
        answer_in(reply.text),
        fault="malformed: The reply was cut off at policy.max_tokens." if cut else "",
        zooms=len(views) - 1,
        visual_tokens=sum(view.observation.visual_tokens for view in views),
        turns=(TraceTurn("policy", reply.text),),
        usage=usage,
        finish="unfinished" if cut else "answered",
    )


def of_episode(episode: Episode, seen: Sequence[Observation], usage: Usage) -> Reading:
    """What an episode came to that was shown all of `seen`, the first view included."""
    finish = episode.trajectory.finish
    return Reading(
        episode.trajectory.answer,
        **_refused(episode),
        zooms=len(seen) - 1,
        visual_tokens=sum(view.visual_tokens for view in seen),
        turns=episode.turns,
        usage=usage,
        invalid_calls=_invalid(episode),
        finish="unfinished" if finish == "rejected" else finish,
    )


def _refused(episode: Episode) -> dict[str, str]:
    """Why an episode has no answer, as what it counts."""
    if episode.trajectory.finish != "rejected":
        return {}
    last = episode.turns[-1]
    why = f"{episode.reason}: {last.result or last.text}"
    return {"unscored" if episode.reason == "context_overflow" else "fault": why}


def _invalid(episode: Episode) -> int:
    """Turns that could not be understood, and calls that came back as errors."""
    tools = [turn for turn in episode.turns if turn.role == "tool"]
    return sum(turn.tool == "" or turn.result.startswith("Error") for turn in tools)
