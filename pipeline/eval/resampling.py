"""How sure a mean over questions is, where questions share pictures: numbers in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from pipeline.eval.statistics import wilson

DRAWS = 2000
"""Sets of pictures drawn for an interval."""
ENDS = (0.025, 0.975)
TINY = 1e-9
"""Means of the same numbers, summed in another order, differ by less."""
_AT_ONCE = 1 << 20
"""Draws times pictures held in memory at once."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over questions, and its 95 % interval."""

    value: float
    low: float
    high: float
    items: int
    images: int


def resampled(
    columns: np.ndarray, images: Sequence[str], rng: np.random.Generator, draws: int
) -> np.ndarray:
    """Means of the columns over pictures drawn with replacement, (draws, m).

    `columns` (n, m): a line for each question, NaN where it does not count; `images` (n) names the
    pictures, each drawn with all its questions. NaN where a draw has nothing of a column.
    """
    known = ~np.isnan(columns)
    names, place = np.unique(np.asarray(images), return_inverse=True)
    sums, counts = np.zeros((2, len(names), columns.shape[1]))
    np.add.at(sums, place, np.where(known, columns, 0.0))
    np.add.at(counts, place, known)
    means = np.empty((draws, columns.shape[1]))
    step = max(1, _AT_ONCE // len(names))
    for start in range(0, draws, step):
        some = min(step, draws - start)
        picks = rng.integers(len(names), size=(some, len(names)))
        picks += len(names) * np.arange(some)[:, None]
        times = np.bincount(picks.ravel(), minlength=picks.size).reshape(picks.shape).astype(float)
        with np.errstate(invalid="ignore"):
            means[start : start + some] = (times @ sums) / (times @ counts)
    return means


def estimates(
    columns: np.ndarray,
    images: Sequence[str],
    rng: np.random.Generator,
    draws: int = DRAWS,
    *,
    least: float = 0.0,
) -> list[Estimate]:
    """The mean of each column (n, m), every one with something known, and its 95 % interval.

    The interval's ends are percentiles of `resampled`. Where every picture says the same, drawing
    them anew cannot tell how sure that is: there it reaches as far as Wilson's interval of none
    among so many pictures. `least` is the lowest value there is; the highest is 1.
    """
    drawn = resampled(columns, images, rng, draws)
    found = []
    for column, means in zip(columns.T, drawn.T, strict=True):
        known = ~np.isnan(column)
        pictures = len(set(np.asarray(images)[known]))
        value = float(column[known].mean())
        low, high = (float(end) for end in np.nanquantile(means, ENDS))
        if high - low < TINY:
            reach = wilson(0, pictures)[1]
            low, high = max(value - reach, least), min(value + reach, 1.0)
        found.append(Estimate(value, low, high, int(known.sum()), pictures))
    return found


def sign_test(better: int, worse: int) -> float:
    """Two-sided exact p that so uneven a split is chance; 1 where nothing differs."""
    count = better + worse
    tail = sum(comb(count, n) for n in range(min(better, worse) + 1))
    return min(1.0, 2 * tail / 2**count)
