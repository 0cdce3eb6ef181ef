"""How sure a share is, and where a curve passes one half: plain numbers in, plain numbers out.

Nothing here knows what was counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite, sqrt

import numpy as np

Z_95 = 1.959963984540054
"""Standard normal quantile of 0.975."""
DRAWS = 2000
"""Curves drawn for the interval of a threshold."""


def wilson(right: int, count: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval of a share, in [0, 1]; all of it where nothing was counted."""
    if not 0 <= right <= count:
        raise ValueError(f"{right} of {count} cannot be right.")
    if count == 0:
        return 0.0, 1.0
    share, penalty = right / count, z * z / count
    middle = (share + penalty / 2) / (1 + penalty)
    reach = z / (1 + penalty) * sqrt(share * (1 - share) / count + penalty / (4 * count))
    low = 0.0 if right == 0 else max(middle - reach, 0.0)
    return low, 1.0 if right == count else min(middle + reach, 1.0)


def isotonic(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The non-decreasing values nearest to the given ones in weighted squares.

    `values` (…, n), `weights` (n,), all positive. Pools adjacent violators in their closed form:
    the largest, over all starts up to here, of the smallest mean that runs from there to here or
    further.
    """
    sums = np.concatenate([np.zeros((*values.shape[:-1], 1)), np.cumsum(values * weights, -1)], -1)
    total = np.concatenate([[0.0], np.cumsum(weights)])
    count = values.shape[-1]
    fitted = np.empty(values.shape)
    for here in range(count):
        best = np.full(values.shape[:-1], -inf)
        for start in range(here + 1):
            stops = np.arange(here + 1, count + 1)
            means = (sums[..., stops] - sums[..., [start]]) / (total[stops] - total[start])
            best = np.maximum(best, means.min(-1))
        fitted[..., here] = best
    return fitted


@dataclass(frozen=True, slots=True)
class Threshold:
    """Where a curve passes one half, and a 95 % interval, in the levels' own unit.

    Infinite on the side that was not reached: `-inf` is better than one half at the hardest level,
    `inf` worse at the easiest. (The other way round where a higher level is harder.)
    """

    value: float
    low: float
    high: float

    @property
    def crossed(self) -> bool:
        """Whether it lies between the levels that were tried."""
        return isfinite(self.value)


def threshold(
    levels: Sequence[float],
    right: Sequence[int],
    counts: Sequence[int],
    rng: np.random.Generator,
    *,
    harder_upwards: bool = False,
    logarithmic: bool = False,
) -> Threshold | None:
    """The level at which half is right; None where nothing was counted.

    The shares are made monotone (isotonic regression, weighted by the counts) and joined by
    straight lines over the level or its logarithm. For the interval, the share of each level is
    drawn from Beta(right + ½, wrong + ½), `DRAWS` times, and the same is done with it; since a
    crossing is known no better than the levels around it, the interval holds both of these.
    """
    known = [i for i, count in enumerate(counts) if count]
    if not known:
        return None
    x = np.asarray([levels[i] for i in known], float)
    x = np.log(x) if logarithmic else x
    hits = np.asarray([right[i] for i in known], float)
    weights = np.asarray([counts[i] for i in known], float)
    sign = -1.0 if harder_upwards else 1.0
    order = np.argsort(sign * x)
    x, hits, weights = sign * x[order], hits[order], weights[order]
    at = _crossings(x, isotonic(hits / weights, weights)[None])[0]
    drawn = rng.beta(hits + 0.5, weights - hits + 0.5, (DRAWS, len(x)))
    ends = np.quantile(
        _crossings(x, isotonic(drawn, weights)), (0.025, 0.975), method="inverted_cdf"
    )
    low, high = _holding(x, at, float(ends[0]), float(ends[1]))
    told = [sign * v for v in (at, low, high)]
    if logarithmic:  # but not exp(-inf) = 0: that side was not reached
        told = [float(np.exp(v)) if isfinite(v) else v for v in told]
    return Threshold(told[0], *sorted(told[1:]))


def _crossings(x: np.ndarray, curves: np.ndarray) -> np.ndarray:
    """Where each non-decreasing curve (N, n) over x (n,) first reaches one half, (N,)."""
    reached = curves >= 0.5
    after = reached.argmax(-1)
    before = np.maximum(after - 1, 0)
    rows = np.arange(len(curves))
    y0, y1 = curves[rows, before], curves[rows, after]
    part = np.divide(0.5 - y0, y1 - y0, out=np.zeros(len(curves)), where=y1 > y0)
    crossed = x[before] + part * (x[after] - x[before])
    crossed = np.where(after == 0, -inf, crossed)
    return np.where(reached.any(-1), crossed, inf)


def _holding(x: np.ndarray, at: float, low: float, high: float) -> tuple[float, float]:
    """The interval, widened to the levels on both sides of the crossing."""
    if not isfinite(at):
        return min(low, at), max(high, at)
    below, above = x[x < at].max(), x[x >= at].min()
    return min(low, float(below)), max(high, float(above))
