"""Finding a square frame of a named colour in a view, and the place inside it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.agent.color_cue import likelihood
from pipeline.views import ViewBox

WORK_PX = 256
"""Longest side of the reduced copy that is searched first, at most."""
SURE = 0.35
"""Score from which on something is taken for the frame."""

_SMALLEST_PX = 6
_LARGEST = 0.4
_LINES = (1, 2, 3, 5, 8)
_AROUND = 1.3
"""What is searched again at full size, in sides of what was found."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame in a view."""

    inside: ViewBox
    """The place it is drawn around."""
    score: float
    """How much the line looks like the colour, less what is inside it; in [-1, 1]."""


def find_frame(
    pixels: np.ndarray, color: str, within: ViewBox, side_px: tuple[float, float] | None = None
) -> Frame | None:
    """The square outline in a part of a view (uint8 HWC) that looks most like a frame.

    `side_px` are the least and largest side of its place, in pixels of the view.
    """
    x0, y0, x1, y1 = (round(v) for v in within)
    x0, y0 = max(x0, 0), max(y0, 0)
    part = pixels[y0:y1, x0:x1]
    factor = max(1, math.ceil(max(part.shape[:2], default=0) / WORK_PX))
    if min(part.shape[:2]) < 3 * factor * _SMALLEST_PX:
        return None
    sides = side_px or (_SMALLEST_PX * factor, _LARGEST * min(part.shape[:2]))
    found = _searched(part, color, sides, factor)
    if found is None:
        return None
    if factor > 1:
        found = _refined(part, color, found, factor) or found
    a, b, c, d = found.inside
    return Frame((a + x0, b + y0, c + x0, d + y0), found.score)


def _refined(part: np.ndarray, color: str, found: Frame, factor: int) -> Frame | None:
    """The frame again, in the pixels around it as they are."""
    a, b, c, d = found.inside
    reach = (_AROUND - 1) * (c - a) + 3 * factor
    x, y = max(round(a - reach), 0), max(round(b - reach), 0)
    around = part[y : round(d + reach), x : round(c + reach)]
    finer = max(1, math.ceil(max(around.shape[:2]) / WORK_PX))
    slack = 2 * factor + 0.1 * (c - a)
    again = _searched(around, color, (c - a - slack, c - a + slack), finer)
    if again is None or again.score < 0.6 * found.score:
        return None
    e, f, g, h = again.inside
    return Frame((e + x, f + y, g + x, h + y), again.score)


def _searched(
    part: np.ndarray, color: str, sides: tuple[float, float], factor: int
) -> Frame | None:
    """The best outline in a copy reduced by `factor`, in pixels of `part`."""
    small = np.asarray(Image.fromarray(np.ascontiguousarray(part)).reduce(factor))
    sums = np.pad(likelihood(small, color), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    best = max(_found(sums, sides[0] / factor, sides[1] / factor), default=None)
    if best is None:
        return None
    score, x, y, side, line = best
    inner = (x + line, y + line, x + side - line, y + side - line)
    a, b, c, d = (float(v * factor) for v in inner)
    return Frame((a, b, c, d), score)


def _found(
    sums: np.ndarray, least: float, most: float
) -> Iterator[tuple[float, int, int, int, int]]:
    """(score, x, y, outer side, line) of the best outline at each size and width of line."""
    for line in _LINES:
        for side in range(max(round(least), 3) + 2 * line, round(most) + 2 * line + 1, line):
            score = _scores(sums, side, line)
            if score is not None:
                y, x = np.unravel_index(int(np.argmax(score)), score.shape)
                yield float(score[y, x]), int(x), int(y), side, line


def _scores(sums: np.ndarray, side: int, line: int) -> np.ndarray | None:
    """The weakest of the four lines' means less the mean inside, for outlines at every place."""
    rows, cols = sums.shape[0] - side, sums.shape[1] - side
    if rows < 1 or cols < 1 or side <= 2 * line:
        return None

    def mean(x: int, y: int, width: int, height: int) -> np.ndarray:
        """Means of a part of the square, for every place of the square."""
        corner = sums[y : y + rows, x : x + cols]
        right = sums[y : y + rows, x + width : x + width + cols]
        low = sums[y + height : y + height + rows, x : x + cols]
        last = sums[y + height : y + height + rows, x + width : x + width + cols]
        return (last - right - low + corner) / (width * height)

    edge = side - line
    lines = np.minimum(
        np.minimum(mean(0, 0, side, line), mean(0, edge, side, line)),
        np.minimum(mean(0, 0, line, side), mean(edge, 0, line, side)),
    )
    return lines - mean(line, line, side - 2 * line, side - 2 * line)
