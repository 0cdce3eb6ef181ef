"""In which order to ask the points of a segmenter's grid, given where objects are likely.

Owns the order only. Knows no model, and nothing of where the prior comes from.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

SPREAD = 2.0
"""How much an even spread counts beside the prior's rank, which is in 0..1: measured."""


def ask_order(prior: np.ndarray | None, grid: int, *, spread: float = SPREAD) -> np.ndarray:
    """Numbers of `grid` x `grid` points, row by row, the ones worth asking first: int (grid²,).

    `prior` is a map of the whole picture, float HW of any size and scale; only the rank of a cell's
    mean counts. Any first part of the order is dense where the prior is high and a sparse, even
    lattice elsewhere; without a prior it is even throughout. Deterministic.
    """
    late = spread * _dither(grid)
    if prior is not None:
        if prior.ndim != 2 or not prior.size or not np.isfinite(prior).all():
            raise ValueError("A prior is a map (H, W) of finite numbers.")
        late = late - _ranks(_cell_means(prior, grid))
    return np.argsort(late, axis=None, kind="stable")


def thinned(
    prior: np.ndarray | None, grid: int, share: float, *, spread: float = SPREAD
) -> np.ndarray:
    """The numbers of the share of points most worth asking, at least one, ascending."""
    if not 0 < share <= 1:
        raise ValueError(f"A share of {share} of the points cannot be asked.")
    return np.sort(ask_order(prior, grid, spread=spread)[: max(1, round(share * grid * grid))])


@lru_cache(maxsize=8)
def _dither(grid: int) -> np.ndarray:
    """When each point's turn is in an even spread, float (grid, grid) in [0, 1).

    Bayer's ordered dither (1973): the points below any value are spread as evenly as can be.
    """
    turns = np.zeros((1, 1))
    while len(turns) < grid:
        turns = np.block([[4 * turns, 4 * turns + 2], [4 * turns + 3, 4 * turns + 1]])
    return turns[:grid, :grid] / turns.size


def _cell_means(prior: np.ndarray, grid: int) -> np.ndarray:
    """The mean of a map (H, W) in each cell of a grid, float (grid, grid)."""
    means = prior.astype(np.float64)
    for axis in (0, 1):
        starts = np.arange(grid) * means.shape[axis] // grid
        stops = np.maximum(np.append(starts[1:], means.shape[axis]), starts + 1)
        shape = (-1, 1) if axis == 0 else (1, -1)
        means = np.add.reduceat(means, starts, axis) / (stops - starts).reshape(shape)
    return means


def _ranks(values: np.ndarray) -> np.ndarray:
    """The share of all values that are below each one, in [0, 1); a millionth is no difference."""
    values = np.round(values / (np.abs(values).max() or 1), 6)  # or a flat map had an order
    return np.searchsorted(np.sort(values, axis=None), values) / values.size
