"""How well a reader reads, and whether its confidence is worth its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.models.pocket_reader import CLEAR, Reader, same
from pipeline.models.pocket_reader_lines import HELD_OUT_SEED, Line, blank_line, held_out_line
from pipeline.samples import rng_for

BINS = 15


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of some lines, in their order."""

    confidence: np.ndarray
    """float (n,), in [0, 1]."""
    right: np.ndarray
    """bool (n,): whether the whole text is right but for case and spaces."""

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())

    def confident_wrong(self, clear: float = CLEAR) -> float:
        """Share of all lines that are read with confidence and wrongly."""
        return float(((self.confidence >= clear) & ~self.right).mean())

    def clear_share(self, clear: float = CLEAR) -> float:
        """Share of all lines that are read with confidence."""
        return float((self.confidence >= clear).mean())


def outcomes(reader: Reader, lines: Sequence[Line]) -> Outcomes:
    """Read lines and compare with what they say; a crop with nothing to read is never right."""
    readings = reader.read([line.image for line in lines])
    right = [
        bool(reading.text) and same(reading.text, line.text)
        for reading, line in zip(readings, lines, strict=True)
    ]
    return Outcomes(np.array([r.confidence for r in readings]), np.array(right, bool))


def calibration_error(found: Outcomes, bins: int = BINS) -> float:
    """Expected calibration error: mean gap between confidence and accuracy, in equal bins.

    Guo et al. 2017, equation 3.
    """
    which = np.minimum((found.confidence * bins).astype(int), bins - 1)
    gaps = 0.0
    for index in range(bins):
        inside = which == index
        if inside.any():
            gap = abs(found.confidence[inside].mean() - found.right[inside].mean())
            gaps += float(gap) * float(inside.mean())
    return gaps


def held_out_lines(count: int, first: int = HELD_OUT_SEED) -> list[Line]:
    """Frozen lines of held-out families, with wear that was never trained on among the usual."""
    return [held_out_line(seed) for seed in range(first, first + count)]


def blank_lines(count: int, first: int = HELD_OUT_SEED) -> list[Line]:
    """Frozen crops that hold nothing to read."""
    seeds = range(first, first + count)
    return [blank_line(rng_for(seed, "pocket-reader", "blank")) for seed in seeds]


def by_height(
    reader: Reader, heights_px: Sequence[int], each: int, draw: Callable[[int, float], Line]
) -> dict[int, Outcomes]:
    """Outcomes by the height of capitals; `draw` makes the line of a seed at a height."""
    found = {}
    for height in heights_px:
        first = HELD_OUT_SEED + 10_000 * height
        lines = [draw(seed, float(height)) for seed in range(first, first + each)]
        found[height] = outcomes(reader, lines)
    return found
