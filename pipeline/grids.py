"""Which cells of a grid over a picture a box meets: the mask of coarse-to-fine attention.

Owns the two rules from a box to cells: the exact one, and the published one with its quirks
(CoF, arXiv 2412.16869). Knows nothing of models, tokens or texts. Grids are (rows, cols).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.errors import ConfigError
from pipeline.geometry import four_numbers

UnitBox = tuple[float, float, float, float]
"""(x0, y0, x1, y1) as fractions of a picture's width and height, 0..1 where it lies inside."""
Grid = tuple[int, int]
"""(rows, cols)."""

Affine = tuple[float, float, float, float]
"""(ax, bx, ay, by): x' = x × ax + bx, y' = y × ay + by, in fractions."""
SAME: Affine = (1.0, 0.0, 1.0, 0.0)
Space = Literal["unit", "pixel", "permille"]
"""In which numbers a model speaks of boxes: 0..1, pixels of the picture it sees, 0..1000."""

_LINE = 1e-9
"""An edge so near to a line between cells lies on it: affine maps round."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How a box becomes cells; the published run has the defaults, and `compat`."""

    expansion: float = 1.0
    """Each side's length, times this, about the centre."""
    square: bool = True
    """The longer side for both, before what lies outside is cut off."""
    compat: bool = False
    """The published cells, quirks included."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.expansion) and self.expansion > 0):
            raise ConfigError(f"A box's expansion is above 0, not {self.expansion}.")

    def mask(self, boxes: Sequence[UnitBox], grid: Grid, *, aspect: float = 1.0) -> np.ndarray:
        """The cells that any of the boxes meets, bool HW; `aspect` as for `grid_mask`."""
        found = np.zeros(grid, bool)
        for box in boxes:
            found |= _mask(box, grid, self, aspect)
        return found


@dataclass(frozen=True, slots=True)
class Panel:
    """A raster of keys, row by row, over what a model sees or over a canvas that holds it."""

    grid: Grid
    """Of the whole canvas, kept or not."""
    aspect: float = 1.0
    """Width over height of what the grid covers, in pixels of one scale."""
    at: Affine = SAME
    """From the model's frame to the canvas."""
    kept: tuple[slice, slice] = (slice(None), slice(None))
    """Rows and columns that have keys."""
    before: int = 0
    """Keys before the first cell that show no place."""
    line_end: int = 0
    """Keys after each row that show nothing."""

    def keys(self, cells: np.ndarray) -> np.ndarray:
        """Flags of the cells, bool HW, as flags of the keys in their order, bool (n,)."""
        lines = np.pad(cells[self.kept], ((0, 0), (0, self.line_end)))
        return np.pad(lines.ravel(), (self.before, 0))

    def whole(self) -> np.ndarray:
        """Every key that shows a place, bool (n,)."""
        return self.keys(np.ones(self.grid, bool))

    def met(self, boxes: Sequence[UnitBox], rule: Rule) -> np.ndarray:
        """The keys that show one of the boxes of the model's frame, bool (n,)."""
        placed = [apply(self.at, box) for box in boxes]
        return self.keys(rule.mask(placed, self.grid, aspect=self.aspect))


def grid_mask(
    box: UnitBox,
    grid: Grid,
    expansion: float = 1.0,
    square: bool = True,
    compat: bool = False,
    *,
    aspect: float = 1.0,
) -> np.ndarray:
    """The cells of a grid (rows, cols) that a box meets, bool HW.

    The box is clamped to 0..1, its corners sorted, its sides multiplied by `expansion` about its
    centre, made equal with `square`, and clipped; at least one cell, but none for a box wholly
    outside. Equal are the sides of a picture `aspect` times as wide as high: 1 compares fractions.
    `compat` has the published rule instead, which snaps to the border within a whole side of it,
    counts cells in (N - 1)ths and wraps round where a box is left of or above the picture. Raises
    `InvalidBox`, `ConfigError` for an expansion of 0 or less, `ValueError` for a grid of no cells.
    """
    return _mask(box, grid, Rule(expansion, square, compat), aspect)


def apply(affine: Affine, box: UnitBox) -> UnitBox:
    """A box in another frame."""
    ax, bx, ay, by = affine
    return box[0] * ax + bx, box[1] * ay + by, box[2] * ax + bx, box[3] * ay + by


def _mask(box: UnitBox, grid: Grid, rule: Rule, aspect: float) -> np.ndarray:
    box = four_numbers([float(value) for value in box])
    if min(grid) < 1 or not (math.isfinite(aspect) and aspect > 0):
        raise ValueError(f"A grid {grid} over a picture of aspect {aspect} has no cells.")
    mask = np.zeros(grid, bool)
    found = _published(box, grid, rule) if rule.compat else _exact(box, grid, rule, aspect)
    if found is not None:
        mask[found] = True
    return mask


def _exact(box: UnitBox, grid: Grid, rule: Rule, aspect: float) -> tuple[slice, slice] | None:
    """Rows and columns whose area the box shares; None for a box outside."""
    across = _clamped(box[0], box[2])
    down = _clamped(box[1], box[3])
    if across is None or down is None:
        return None
    width = (across[1] - across[0]) * rule.expansion
    height = (down[1] - down[0]) * rule.expansion
    if rule.square:
        side = max(width * aspect, height)
        width, height = side / aspect, side
    return _cells(_grown(down, height), grid[0]), _cells(_grown(across, width), grid[1])


def _clamped(a: float, b: float) -> tuple[float, float] | None:
    """The part of a side within 0..1, its ends in order; None when there is none."""
    low, high = max(min(a, b), 0.0), min(max(a, b), 1.0)
    if low > high or (low == high and a != b):
        return None
    return low, high


def _grown(side: tuple[float, float], length: float) -> tuple[float, float]:
    """A side of so much length about its middle, cut at 0 and 1; unchanged by its own length."""
    more = (length - (side[1] - side[0])) / 2
    return max(side[0] - more, 0.0), min(side[1] + more, 1.0)


def _cells(side: tuple[float, float], count: int) -> slice:
    first = min(math.floor(side[0] * count + _LINE), count - 1)
    return slice(first, max(math.ceil(side[1] * count - _LINE), first + 1))


def _published(box: UnitBox, grid: Grid, rule: Rule) -> tuple[slice, slice]:
    """Rows and columns as the published code slices them.

    Every operation and its order count: the masks are compared bit for bit.
    """
    x0, y0, x1, y1 = box
    width, height = (x1 - x0) * rule.expansion, (y1 - y0) * rule.expansion
    if rule.square:
        width = height = max(width, height)
    rows = _snapped((y0 + y1) / 2, height, grid[0])
    return rows, _snapped((x0 + x1) / 2, width, grid[1])


def _snapped(centre: float, length: float, count: int) -> slice:
    """A side's cells. It ends at the border when that is nearer to its centre than its length;
    a negative index counts from the end, as it does in the original."""
    low = centre - length / 2 if centre - length > 0 else 0
    high = centre + length / 2 if centre + length < 1 else 1
    return slice(int(low * (count - 1)), int(high * (count - 1)) + 1)
