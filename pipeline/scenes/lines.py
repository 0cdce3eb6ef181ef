"""Long straight edges of a picture that run nearly level or nearly upright.

They tell walls, doors and boxes from animals and leaves, and how a surface lies in perspective.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MOST_SLOPE = 0.5
"""Steepest slope of a level line, and of an upright one against the vertical (about 27°)."""
SLOPES = 17
_TOLERANCE = 0.3
"""How far the slope of one cell's edge, which is noisy, may be off its line's."""
LENGTH = 21
"""Cells that a line covers at least."""
_COVERED = 0.62
"""Share of those cells that must be edge."""


@dataclass(frozen=True, slots=True)
class Lines:
    """Cells that lie on a long straight edge, and its slope there; float32 HW and bool HW."""

    level: np.ndarray
    level_slope: np.ndarray
    """dy/dx, only where `level`."""
    upright: np.ndarray
    upright_slope: np.ndarray
    """dx/dy, only where `upright`."""
    other: np.ndarray
    """Cells on clear edges that run neither level nor upright: curves, slants, creases."""


def gradients(luma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(gx, gy), levels a cell, float32 HW: central differences of a grey picture."""
    gy, gx = (np.asarray(g, np.float32) for g in np.gradient(luma.astype(np.float32)))
    return gx, gy


def straight_lines(luma: np.ndarray, least: float) -> Lines:
    """The lines of a grey picture (float32 HW) whose edges rise by `least` levels a cell."""
    gx, gy = (_smoothed(g) for g in gradients(luma))
    level, level_slope = _lines(gx, gy, least)
    upright, upright_slope = _lines(gy.T, gx.T, least)
    steep = np.minimum(np.abs(gx), np.abs(gy)) > MOST_SLOPE * np.maximum(np.abs(gx), np.abs(gy))
    other = steep & (np.hypot(gx, gy) > 1.5 * least)
    return Lines(level, level_slope, upright.T, upright_slope.T, other)


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Means over 3 x 3 cells, so that the direction of an edge is not that of its steps."""
    padded = np.pad(values, 1, mode="edge")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9


def _lines(along: np.ndarray, across: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Lines along the rows: whether a cell is on one, and its slope."""
    strength = np.hypot(along, across)
    slope = np.where(np.abs(across) > 1e-3, -along / np.where(across == 0, 1, across), 9.0)
    peak = (np.abs(across) >= np.abs(np.roll(across, 1, 0)) * 0.999) & (
        np.abs(across) >= np.abs(np.roll(across, -1, 0)) * 0.999
    )
    edge = (strength > least) & peak
    best = np.zeros(along.shape, np.float32)
    total, weighted = np.zeros_like(best), np.zeros_like(best)
    for tried in np.linspace(-MOST_SLOPE, MOST_SLOPE, SLOPES):
        hit = (edge & (np.abs(slope - tried) < _TOLERANCE)).astype(np.float32)
        covered = _swept(hit, float(tried))
        np.maximum(best, covered, out=best)
        weight = covered**8  # several slopes cover a thick line alike: their mean is its own
        total += weight
        weighted += weight * np.float32(tried)
    return (best >= _COVERED) & (edge | (best > 0.85)), weighted / np.maximum(total, 1e-6)


def _swept(hit: np.ndarray, slope: float) -> np.ndarray:
    """Share of the `LENGTH` cells along a slope, about each cell, that are hit."""
    height, width = hit.shape
    shift = np.rint(slope * np.arange(width)).astype(int)
    rows = np.arange(height)[:, None] + shift[None]
    reach = LENGTH // 2
    level = hit[np.clip(rows, 0, height - 1), np.arange(width)[None]]
    level = np.where((rows >= 0) & (rows < height), level, 0)
    sums = np.cumsum(np.pad(level, ((0, 0), (reach + 1, reach))), axis=1)
    share = (sums[:, LENGTH:] - sums[:, :width]) / LENGTH
    back = np.arange(height)[:, None] - shift[None]
    inside = (back >= 0) & (back < height)
    found = share[np.clip(back, 0, height - 1), np.arange(width)[None]]
    return np.where(inside, found, 0).astype(np.float32)
