"""How a surface lies at a place, told from the straight edges near it, and a plate's corners."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.geometry import Box
from pipeline.scenes.lines import Lines

Point = tuple[float, float]
Quad = tuple[Point, Point, Point, Point]
"""Four corners (x, y), clockwise from the upper left of what is shown."""

MOST_TILT = 0.32
"""Steepest slope of a plate's upper edge."""
MOST_LEAN = 0.05
"""Most that a plate's upright edges lean."""
MOST_TURN = 0.08
"""Most by which the slopes of its upper and lower edges may differ."""
_EVIDENCE = 4.0
_REACHES = (0.6, 1.2, 2.4)
_AGREED = 0.5
_ALIKE = 0.08


@dataclass(frozen=True, slots=True)
class Plane:
    """Slopes of a surface's level and upright lines at a place."""

    slope: float = 0.0
    """dy/dx of a level line."""
    lean: float = 0.0
    """dx/dy of an upright line."""
    turn: float = 0.0
    """Change of `slope` for each source pixel downward."""
    known: bool = False
    """Whether edges near by told the slope."""

    def quad(self, x: float, y: float, size: Point) -> Quad:
        """Corners of a plate of (width, height) with its middle at (x, y).

        A surface that is seen at an angle is narrower: the sloped edge keeps its length.
        """
        width, height = size[0] * (1 - 0.7 * abs(self.slope)), size[1]
        corners = []
        for across, down in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
            dy = down * height / 2
            turn = float(np.clip(self.turn * dy, -MOST_TURN / 2, MOST_TURN / 2))
            dx = across * width / 2
            corners.append((x + dx + self.lean * dy, y + dy + (self.slope + turn) * dx))
        return corners[0], corners[1], corners[2], corners[3]


def plane_at(lines: Lines, x: float, y: float, reach: float, scale: float) -> Plane | None:
    """The plane at a cell: what most edges near it agree on, the nearest ones first.

    `reach` is in cells, `scale` in cells for each source pixel. Level and unknown where there are
    few edges or they disagree; None where the surface is too steep to hang a plate on.
    """
    lean = next((v for v, _ in _told(lines.upright, lines.upright_slope, x, y, reach)), 0.0)
    lean = _clipped(lean, MOST_LEAN)
    for slope, turn in _told(lines.level, lines.level_slope, x, y, reach):
        if abs(slope) > MOST_TILT:
            return None
        return Plane(slope, lean, turn * scale, True)
    return Plane(0.0, lean)


def _told(
    found: np.ndarray, slopes: np.ndarray, x: float, y: float, reach: float
) -> Iterator[tuple[float, float]]:
    """What edges agree on within growing reaches."""
    for times in _REACHES:
        slope, turn = _agreed(found, slopes, x, y, times * reach)
        if slope is not None:
            yield slope, turn


def _agreed(
    found: np.ndarray, slopes: np.ndarray, x: float, y: float, reach: float
) -> tuple[float | None, float]:
    """The slope that edges near (x, y) agree on, None without enough of them; and its change down
    a cell."""
    far = int(2 * reach) + 1
    top, left = max(0, int(y) - far), max(0, int(x) - far)
    part = (slice(top, int(y) + far), slice(left, int(x) + far))
    rows, cols = np.nonzero(found[part])
    if not len(rows):
        return None, 0.0
    values = slopes[part][rows, cols].astype(float)
    dy, dx = rows + top - y, cols + left - x
    weights = np.exp(-(dx**2 + dy**2) / (2 * reach**2))
    if weights.sum() < _EVIDENCE:
        return None, 0.0
    order = np.argsort(values)
    middle = values[order][np.searchsorted(np.cumsum(weights[order]), weights.sum() / 2)]
    alike = np.abs(values - middle) < _ALIKE
    weights = weights * alike
    if weights.sum() < _AGREED * np.exp(-(dx**2 + dy**2) / (2 * reach**2)).sum():
        return None, 0.0
    return _trend(values, dy, weights, reach)


def _trend(
    values: np.ndarray, dy: np.ndarray, weights: np.ndarray, reach: float
) -> tuple[float, float]:
    """Value at dy = 0 and change for each cell, by least squares; no change where all is level."""
    total = weights.sum()
    mean, middle = (weights * values).sum() / total, (weights * dy).sum() / total
    spread = (weights * (dy - middle) ** 2).sum() / total
    if spread < (0.3 * reach) ** 2:
        return float(mean), 0.0
    change = (weights * (dy - middle) * (values - mean)).sum() / total / spread
    change = _clipped(float(change), 0.1 / reach)
    return float(mean) - _clipped(float(change * middle), 0.03), change


def _clipped(value: float, most: float) -> float:
    return float(min(max(value, -most), most))


def quad_box(quad: Quad) -> Box:
    """The whole-pixel box around four corners."""
    xs, ys = zip(*quad, strict=True)
    low, high = (math.floor(min(xs)), math.floor(min(ys))), (math.ceil(max(xs)), math.ceil(max(ys)))
    return Box(*low, *high)


def rounded(quad: Quad) -> Quad:
    """The corners to a hundredth of a pixel, as a recipe holds them."""
    return as_quad([(round(x, 2), round(y, 2)) for x, y in quad])


def as_quad(points: Sequence[Sequence[float]]) -> Quad:
    """Four corners from any lists of numbers."""
    a, b, c, d = ((float(x), float(y)) for x, y in points)
    return a, b, c, d
