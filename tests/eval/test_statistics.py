"""Intervals and thresholds against known values and known curves."""

from __future__ import annotations

from math import inf, isinf

import numpy as np
import pytest

from pipeline.eval.statistics import isotonic, threshold, wilson
from pipeline.samples import rng_for


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (0, 0, 0.0, 1.0),
     (0, 20, 0.0, 0.1611), (1, 2, 0.0945, 0.9055), (81, 263, 0.2553, 0.3662)],
)  # fmt: skip
def test_wilsons_interval_has_its_known_values(
    right: int, count: int, low: float, high: float
) -> None:
    assert wilson(right, count) == pytest.approx((low, high), abs=5e-5)


def test_wilsons_interval_is_refused_for_more_right_than_there_are() -> None:
    for right, count in ((3, 2), (-1, 2)):
        with pytest.raises(ValueError):
            wilson(right, count)


def test_the_monotone_fit_is_that_of_pooling_neighbours() -> None:
    rng = np.random.default_rng(0)
    curves = rng.random((50, 7))
    weights = rng.integers(1, 30, 7).astype(float)
    fitted = isotonic(curves, weights)
    for curve, fit in zip(curves, fitted, strict=True):
        assert fit == pytest.approx(_pooled(curve, weights))


def _pooled(values: np.ndarray, weights: np.ndarray) -> list[float]:
    """Pool adjacent violators, one after the other."""
    blocks: list[list[float]] = []  # mean, weight, length
    for value, weight in zip(values, weights, strict=True):
        blocks.append([value, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, w, n = blocks.pop()
            last = blocks[-1]
            last[0] = (last[0] * last[1] + mean * w) / (last[1] + w)
            last[1], last[2] = last[1] + w, last[2] + n
    return [mean for mean, _, n in blocks for _ in range(int(n))]


HEIGHTS = (3, 4, 5, 6, 8, 10, 12, 16, 24, 32)


def _counted(rng: np.random.Generator, middle: float, count: int) -> list[int]:
    """How many of `count` a reader of known threshold gets right at each height."""
    shares = [1 / (1 + np.exp(-6 * np.log(h / middle))) for h in HEIGHTS]
    return [int(rng.binomial(count, share)) for share in shares]


def test_the_threshold_of_a_known_curve_is_found_and_its_interval_holds_it() -> None:
    rng, held, off = np.random.default_rng(1), 0, []
    for number in range(100):
        right = _counted(rng, 7.0, 20)
        found = threshold(HEIGHTS, right, [20] * 10, rng_for(0, number), logarithmic=True)
        assert found is not None and found.low <= found.value <= found.high
        held += found.low <= 7.0 <= found.high
        off.append(abs(found.value - 7.0))
    assert held >= 93, "a 95 % interval that holds the truth this seldom is none"
    assert np.median(off) < 0.5


def test_the_interval_narrows_with_what_is_counted_but_not_below_the_levels_around() -> None:
    widths = []
    for count in (5, 20, 2000):
        shares = (0.0, 0.02, 0.1, 0.3, 0.7, 0.9, 1.0, 1.0, 1.0, 1.0)
        right = [round(share * count) for share in shares]
        found = threshold(HEIGHTS, right, [count] * 10, rng_for(0), logarithmic=True)
        assert found is not None
        widths.append(found.high - found.low)
    assert widths[0] > widths[1] > widths[2]
    assert (found.low, found.high) == (pytest.approx(6), pytest.approx(8))


def test_few_pictures_leave_more_doubt_than_the_levels_around() -> None:
    few = threshold((4, 5, 6, 8), [0, 0, 2, 2], [2] * 4, rng_for(0))
    many = threshold((4, 5, 6, 8), [0, 0, 200, 200], [200] * 4, rng_for(0))
    assert few is not None and many is not None
    assert few.low < 5 and few.high > 6 and (many.low, many.high) == (5, 6)


def test_a_curve_that_never_passes_half_has_no_threshold_between_the_levels() -> None:
    for right, side in (([20] * 10, -inf), ([0] * 10, inf)):
        found = threshold(HEIGHTS, right, [20] * 10, rng_for(0), logarithmic=True)
        assert found is not None and not found.crossed and found.value == side
    blind = threshold(HEIGHTS, [0] * 10, [20] * 10, rng_for(0))
    assert blind is not None and blind.low == inf, "nobody who reads none of 200 is unsure"


def test_a_factor_that_is_harder_upwards_is_passed_downwards() -> None:
    tilts = (0, 15, 30, 45)
    found = threshold(tilts, [20, 20, 5, 0], [20] * 4, rng_for(0), harder_upwards=True)
    assert found is not None and found.value == pytest.approx(25)
    assert found.low <= 15 and found.high >= 30
    reads_all = threshold(tilts, [20] * 4, [20] * 4, rng_for(0), harder_upwards=True)
    assert reads_all is not None and reads_all.value == inf and isinf(reads_all.high)


def test_levels_that_are_not_scored_are_passed_over() -> None:
    right, counts = [0, 0, 0, 20], [20, 0, 0, 20]
    found = threshold((4, 5, 6, 8), right, counts, rng_for(0), logarithmic=True)
    assert found is not None and 4 < found.value < 8
    assert (found.low, found.high) == pytest.approx((4, 8))
    assert threshold((4, 5), (0, 0), (0, 0), rng_for(0)) is None
