"""The critic and the verifier: the one is blind and may send an answer back, the other knows.

The critic sees what the policy saw, so its objections cannot leak the truth into a trajectory;
the verifier sees the truth and only says whether the answer is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from pipeline.agent.actions import Answer
from pipeline.agent.glyph_reader import read
from pipeline.agent.writing import SignReader, as_code, as_word
from pipeline.answers import is_right
from pipeline.geometry import Box
from pipeline.samples import Sample, Truth
from pipeline.trajectory import FocusStep, Trajectory
from pipeline.views import View

LOOSE = 1.08
"""How much wider than the policy's box the critic reads."""


class Critic(Protocol):
    """Blind review of an answer."""

    async def review(self, sample: Sample, answer: Answer, views: Sequence[View]) -> str | None:
        """An objection in a sentence, or None."""


@dataclass(frozen=True, slots=True)
class SecondReading:
    """Reads the evidence again from a slightly wider box; objects when it reads otherwise."""

    reader: SignReader | None = None
    """What the agent reads writing with; None: the answers are codes on tags."""

    async def review(self, sample: Sample, answer: Answer, views: Sequence[View]) -> str | None:
        if answer.box is None:
            return None
        view = views[answer.evidence]
        wider = answer.box.enlarge(LOOSE, sample.size)
        if answer.text in self._read(view, wider):
            return None
        return "With the box a little wider the writing reads differently."

    def _read(self, view: View, box: Box) -> Sequence[str]:
        """What may be written in a box of a view."""
        if self.reader is None:
            return (read(view.pixels, view.to_view(box)).guess,)
        lines = self.reader.read_lines(view.pixels, view.to_view(box))
        return [meant(line).text for line in lines for meant in (as_word, as_code)]


def verify(trajectory: Trajectory, truth: Truth, options: Sequence[str] = ()) -> Trajectory:
    """The trajectory with `verified` and each step's `target_iou` filled in."""
    steps = tuple(_checked(step, truth) for step in trajectory.steps)
    right = is_right(trajectory.answer, truth.target, options, truth.target_boxes)
    return replace(trajectory, verified=right, steps=steps)


def _checked(step: FocusStep, truth: Truth) -> FocusStep:
    """`target_iou`: the last box of the step, as asked for, with the best target box."""
    if not truth.target_boxes:
        return step
    best = max(step.boxes[-1].iou(target) for target in truth.target_boxes)
    return replace(step, checks={**step.checks, "target_iou": best})
