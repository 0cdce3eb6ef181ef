"""What one query of a pool of exemplars takes, against the formula on Python's sets."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from pipeline.eval.exemplars import TokenIndex, choose, jaccard, most_like, richnesses
from tests.bench.test_row_cost import report

pytestmark = pytest.mark.bench

POOL = 50_000
CODES, LENGTH = 8192, 256
QUERIES = 20


def _drawn(skew: float, count: int, seed: int) -> np.ndarray:
    """Codes (count, LENGTH) of pictures: the r-th most common has weight 1 / r to the `skew`."""
    weights = 1 / np.arange(1, CODES + 1) ** skew
    names = np.random.default_rng(5).permutation(CODES)  # a number does not tell how common it is
    rng = np.random.default_rng(seed)
    return names[rng.choice(CODES, (count, LENGTH), p=weights / weights.sum())]


def _seconds(job: Callable[[int], object], times: int) -> float:
    """CPU seconds of one job, the median of so many."""
    spent = []
    for number in range(times):
        started = time.process_time()
        job(number)
        spent.append(time.process_time() - started)
    return float(np.median(spent))


def _by_sets(sets: list[set[int]], query: list[int]) -> list[float]:
    asked = set(query)
    return [len(asked & one) / len(asked | one) for one in sets]


@pytest.mark.parametrize(("name", "skew"), [("uniform", 0.0), ("zipf", 1.0), ("zipf_flat", 0.7)])
def test_a_query(name: str, skew: float) -> None:
    pool = _drawn(skew, POOL, 1)
    queries = _drawn(skew, QUERIES, 2)
    queries[:, ::2] = pool[:QUERIES, ::2]  # half of what a picture of the pool has
    targets = np.roll(pool, 1, axis=0)
    started = time.process_time()
    index = TokenIndex.build(pool)
    built = time.process_time() - started
    rich = richnesses(targets)
    rows, asked = pool.tolist(), queries.tolist()
    sets = [set(row) for row in rows]
    for number in range(2):
        assert jaccard(index, queries[number]).tolist() == _by_sets(sets, asked[number])
    query_s = _seconds(lambda n: choose(index, rich, queries[n]), QUERIES)
    ready_s = _seconds(lambda n: _by_sets(sets, asked[n]), 2)
    written_s = _seconds(lambda n: _by_sets([set(row) for row in rows], asked[n]), 2)
    report(
        "exemplars",
        codes=name,
        distinct=float(index.distinct.mean()),
        build_s=built,
        megabytes=(index.flags.nbytes + index.postings.nbytes) / 1e6,
        query_ms=query_s * 1e3,
        shortlist_ms=1e3 * _seconds(lambda _: most_like(np.sqrt(rich), 100), QUERIES),
        sets_ms=ready_s * 1e3,
        sets_made_each_time_ms=written_s * 1e3,
        times_faster_than_sets=ready_s / query_s,
        times_faster_than_the_formula=written_s / query_s,
    )
    assert query_s < 0.003
    assert written_s > 300 * query_s
