"""From a raw episode to a trajectory: the looks that led to the answer, and no dead ends.

Kept are the view that the answer was read from, the views it was zoomed from, and those it needs
as support; they are renumbered so that the trajectory stands by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from pipeline.agent.actions import Answer
from pipeline.agent.glyph_reader import Reading
from pipeline.geometry import Box
from pipeline.samples import Sample
from pipeline.trajectory import FocusStep
from pipeline.views import View


@dataclass(frozen=True, slots=True)
class Look:
    """One executed zoom."""

    view: int
    """Index of the view it gave."""
    thought: str
    box: Box
    label: str
    no_gain: bool
    confidence: float | None = None
    """Of the last reading made in its view."""
    mask_box: Box | None = None
    """The segmenter's box of what was read there."""

    def read(self, reading: Reading, box: Box | None) -> Look:
        """The look with a reading made in its view."""
        return replace(self, confidence=reading.confidence, mask_box=box)


class Summariser(Protocol):
    """Decides which looks an accepted answer needs, and how their thoughts read."""

    async def review(self, sample: Sample, looks: list[Look], answer: Answer) -> Answer:
        """The answer, resting on the views it needs; thoughts in `looks` may be rewritten."""


class Mechanical:
    """Takes the answer's own word for what it rests on."""

    async def review(self, sample: Sample, looks: list[Look], answer: Answer) -> Answer:
        return answer


def summarise(
    looks: Sequence[Look], views: Sequence[View], answer: Answer
) -> tuple[FocusStep, ...]:
    """The looks that the answer rests on, in order, as steps."""
    needed: set[int] = set()
    for view in (answer.evidence, *answer.support):
        while view not in needed and view != 0:
            needed.add(view)
            view = views[view].observation.parent or 0
    kept = [look for look in looks if look.view in needed]
    number = {0: 0} | {look.view: place for place, look in enumerate(kept, start=1)}
    return tuple(_step(look, views[look.view], number) for look in kept)


def _step(look: Look, view: View, number: dict[int, int]) -> FocusStep:
    seen = view.observation
    return FocusStep(
        thought=look.thought,
        boxes=(look.box,),
        zoomed=(True,),
        label=look.label,
        tool="zoom",
        observation=replace(seen, parent=number[seen.parent or 0]),
        checks={
            "confidence": look.confidence,
            "no_gain": look.no_gain,
            "mask_iou": look.box.iou(look.mask_box) if look.mask_box else None,
        },
    )
