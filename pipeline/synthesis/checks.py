"""What is checked of a right answer's path, and what becomes of one with a flaw.

Every verdict follows from stored columns: the answers of both probes are kept in words, so that
necessity and sufficiency can be computed again from the published rows alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.agent.faithful import faults
from pipeline.agent.mask_iou import mask_ious
from pipeline.agent.probes import Prober
from pipeline.agent.tools import Tools
from pipeline.answers import is_right
from pipeline.config import Filters
from pipeline.geometry import Box
from pipeline.samples import Sample, Truth
from pipeline.trajectory import FocusStep, TraceTurn, Trajectory
from pipeline.views import View

Flaw = str
SHOWN = 0.5
"""Share of a target box that a look must show for the look to be on target."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What the checks of one path say; None where something was not checked."""

    unaided_answer: str | None = None
    """From the first view alone; empty where unsure."""
    crop_answer: str | None = None
    """From the last crop alone; None where there was no look."""
    unfaithful: tuple[str, ...] = ()
    """What the summary says that was not seen."""


async def probe(
    sample: Sample, path: Trajectory, prober: Prober, tools: Tools
) -> tuple[str, str | None]:
    """The answers from the first view alone and from the last crop alone."""
    unaided = await prober.unaided(sample, path.resolution)
    looks = [step.observation for step in path.steps if step.observation is not None]
    if not looks:
        return unaided, None
    return unaided, await prober.from_crop(sample, tools.view(looks[-1]))


def columns(
    row: Mapping[str, Any], checked: Checked, path: Trajectory, truth: Truth
) -> dict[str, Any]:
    """The columns that tell what was checked of a right answer's path; none of a wrong one's."""
    if not path.verified:
        return {}
    told: dict[str, Any] = {
        "unaided_answer": checked.unaided_answer,
        "crop_answer": checked.crop_answer,
    }
    told |= verdicts({**row, **told}, truth.target_boxes)
    off = off_target(path, truth)
    return told | {"flaws": flaws_of({**row, **told}, off, checked.unfaithful)}


def verdicts(row: Mapping[str, Any], boxes: Sequence[Box]) -> dict[str, bool | None]:
    """`necessary` and `sufficient` of a row, from nothing but its other columns."""
    return {"necessary": necessary(row, boxes), "sufficient": sufficient(row, boxes)}


def necessary(row: Mapping[str, Any], boxes: Sequence[Box]) -> bool | None:
    """Whether a right answer needed its looks; None without a look or a probe."""
    return _unless_right(row, "unaided_answer", boxes)


def sufficient(row: Mapping[str, Any], boxes: Sequence[Box]) -> bool | None:
    """Whether the last crop alone gives the right answer; None without a look or a probe."""
    wrong = _unless_right(row, "crop_answer", boxes)
    return None if wrong is None else not wrong


def _unless_right(row: Mapping[str, Any], column: str, boxes: Sequence[Box]) -> bool | None:
    if not row["num_zooms"] or row[column] is None:
        return None
    return not is_right(row[column], row["target"], row["options"], boxes)


def off_target(path: Trajectory, truth: Truth) -> bool | None:
    """Whether no look shows a place of the answer; None without a look or a known place."""
    looks = [s.observation.region for s in path.steps if s.observation is not None]
    if not looks or not truth.target_boxes:
        return None
    shown = (
        look.intersection(box) / box.area >= SHOWN for look in looks for box in truth.target_boxes
    )
    return not any(shown)


def flaws_of(row: Mapping[str, Any], off: bool | None, unfaithful: Sequence[str]) -> list[Flaw]:
    """The flaws of a right path, by the names of the filters."""
    fewest = row["fewest_looks"]
    found = {
        "unnecessary": row["necessary"] is False,
        "insufficient": row["sufficient"] is False,
        "off_target": off is True,
        "needless": fewest is not None and row["num_zooms"] > fewest > 0,
        "unfaithful": bool(unfaithful),
    }
    return [name for name, holds in found.items() if holds]


def weight_of(flaws: Sequence[Flaw], filters: Filters) -> float:
    """The weight of a row that is kept."""
    weighted = sum(getattr(filters, flaw) == "weight" for flaw in flaws)
    return float(filters.weight**weighted)


def refused(row: Mapping[str, Any], filters: Filters, unfaithful: Sequence[str]) -> str:
    """Why the filters reject a row with a right answer; "" when they keep it."""
    for flaw in row["flaws"]:
        if getattr(filters, flaw) == "reject":
            return f"unfaithful_{unfaithful[0]}" if flaw == "unfaithful" else flaw
    if filters.solved == "sometimes" and row["tries_right"] == row["tries"]:
        return "always_solved"
    return ""


def with_masks(path: Trajectory, tools: Tools) -> Trajectory:
    """The path with `mask_iou` of each look."""
    found = mask_ious(tools, path)
    steps = tuple(_told(s, mask_iou=iou) for s, iou in zip(path.steps, found, strict=True))
    return replace(path, steps=steps)


def with_saliency(path: Trajectory, prior: np.ndarray) -> Trajectory:
    """The path with the share of the saliency, float HW, that is inside each step's last box."""
    whole = float(prior.sum())
    steps = (_told(step, saliency_inside=_inside(step, prior) / whole) for step in path.steps)
    return replace(path, steps=tuple(steps))


def _inside(step: FocusStep, prior: np.ndarray) -> float:
    box = step.boxes[-1]
    x0, y0, x1, y1 = (int(value) for value in box.as_list())
    return float(prior[y0:y1, x0:x1].sum())


def _told(step: FocusStep, **checks: float | None) -> FocusStep:
    return replace(step, checks={**step.checks, **checks})


def unfaithful(sample: Sample, path: Trajectory, turns: Sequence[TraceTurn]) -> tuple[str, ...]:
    """What the summarised path says that its raw turns do not, by rules."""
    return faults(sample, path, turns)


def crop_digests(path: Trajectory, tools: Tools) -> tuple[str | None, ...]:
    """Digest of the pixels that each step shows: anyone can cut them again."""
    looks = [step.observation for step in path.steps]
    return tuple(None if look is None else pixels_sha256(tools.view(look)) for look in looks)


def pixels_sha256(view: View) -> str:
    """SHA-256 (hex) of a view's pixels."""
    return hashlib.sha256(view.pixels.tobytes()).hexdigest()
