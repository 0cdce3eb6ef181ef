"""Selection agrees with the formulas on plain sets, whatever the pool and its ties."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.eval.exemplars import (
    TokenIndex,
    choose,
    jaccard,
    most_like,
    richness,
    richnesses,
)

SELECTION = Path(__file__).parents[3] / "shared" / "goldens" / "prompting" / "selection.json"

# Codes, query, targets and results of the original selection on a small pool with ties.
CODES = [[1, 8, 7, 4], [1, 2, 5, 8], [5, 1, 0, 5], [5, 5, 7, 0], [5, 5, 3, 4], [1, 5, 7, 7]]
QUERY = [5, 7, 5, 1]
TARGETS = [[0, 0, 0, 1], [2, 2, 1, 1], [0, 1, 1, 1], [2, 1, 1, 0], [0, 1, 2, 1], [1, 0, 1, 1]]
JACCARD = [0.4, 0.4, 0.5, 0.5, 0.2, 1.0]
RICHNESS = [2, 2, 2, 3, 3, 2]


def pools(codes: int = 40) -> st.SearchStrategy[np.ndarray]:
    """Pools (N, 12) of codes below the number, with equal and with overlapping pictures."""
    shape = st.tuples(st.integers(1, 60), st.just(12))
    return hnp.arrays(np.int64, shape, elements=st.integers(0, codes - 1))


def by_sets(pool: np.ndarray, query: np.ndarray) -> list[float]:
    """The formula as it is written."""
    asked = set(query.tolist())
    sets = [set(row) for row in pool.tolist()]
    return [len(asked & one) / len(asked | one) for one in sets]


@settings(max_examples=80, deadline=None)
@given(pools(), hnp.arrays(np.int64, 12, elements=st.integers(0, 60)))
def test_the_index_gives_the_formula_on_sets_exactly(pool: np.ndarray, query: np.ndarray) -> None:
    expected = by_sets(pool, query)
    assert jaccard(pool, query).tolist() == expected
    assert jaccard(TokenIndex.build(pool), query).tolist() == expected


def test_frequent_and_rare_codes_and_codes_of_nobody_count_alike() -> None:
    rng = np.random.default_rng(0)
    pool = np.concatenate([rng.integers(0, 8, (400, 20)), rng.integers(8, 3000, (400, 20))], axis=1)
    index = TokenIndex.build(pool)
    assert len(index.flags) == 8 and len(index.postings) > 5000
    for query in (pool[3], rng.integers(0, 3000, 40), rng.integers(2900, 9000, 40)):
        assert jaccard(index, query).tolist() == by_sets(pool, query)


def test_a_picture_may_share_more_frequent_codes_than_a_byte_holds() -> None:
    pool = np.tile(np.arange(300), (3, 1))
    assert jaccard(pool, np.arange(300)).tolist() == [1.0, 1.0, 1.0]
    assert jaccard(pool, np.arange(600)).tolist() == [0.5, 0.5, 0.5]


@settings(max_examples=80, deadline=None)
@given(pools(6), st.integers(1, 70), st.integers(1, 5))
def test_ties_go_to_the_lower_index_and_then_to_the_more_like(
    pool: np.ndarray, shortlist: int, k: int
) -> None:
    query, targets = pool[0], pool[::-1] % 4
    scores, shortlist = by_sets(pool, query), max(shortlist, k)
    nearest = sorted(range(len(pool)), key=lambda i: (-scores[i], i))[:shortlist]
    rich = [len(set(row)) for row in targets.tolist()]
    expected = sorted(nearest, key=lambda i: (-rich[i], nearest.index(i)))[:k]
    assert choose(pool, targets, query, shortlist, k) == expected
    assert choose(TokenIndex.build(pool), richnesses(targets), query, shortlist, k) == expected


def test_a_small_pool_is_chosen_from_as_the_original_chose() -> None:
    assert jaccard(CODES, QUERY).tolist() == JACCARD
    assert [richness(target) for target in TARGETS] == richnesses(TARGETS).tolist() == RICHNESS
    picks = {n: choose(CODES, TARGETS, QUERY, shortlist=n) for n in (1, 3, 5, 6, 100)}
    assert picks == {1: [5], 3: [3], 5: [3], 6: [3], 100: [3]}
    assert most_like(np.array(JACCARD), 5).tolist() == [5, 2, 3, 0, 1]
    assert choose(CODES, TARGETS, QUERY, k=3) == [3, 4, 5]


@pytest.mark.skipif(not SELECTION.exists(), reason="the goldens beside the project are not here")
def test_every_golden_selection_is_reproduced() -> None:
    cases = json.loads(SELECTION.read_text())["cases"]
    assert len(cases) == 4
    for case in cases:
        _check_case(case)


def _check_case(case: dict[str, Any]) -> None:
    index = TokenIndex.build(case["codes"])
    scores = jaccard(index, case["query"])
    assert scores.tolist() == case["jaccard"]
    assert richnesses(case["targets"]).tolist() == case["richness"]
    for size, told in case["picks"].items():
        nearest = most_like(scores, int(size)).tolist()
        (pick,) = choose(index, case["targets"], case["query"], int(size))
        assert (nearest, pick) == (told["shortlist_stable"], told["pick_stable"])
        assert richness(case["targets"][pick]) == told["pick_richness"]
        if not told["shortlist_cut_is_tied"] and not told["richness_max_is_tied"]:
            assert set(nearest) == set(told["shortlist_original"])
            assert pick == told["pick_original"]


@pytest.mark.parametrize("codes", [[], [1, 2], [[1.0, 2.0]], [[1, -1]], [[2**24, 1]], [[]]])
def test_what_is_no_pool_is_refused(codes: list[Any]) -> None:
    with pytest.raises(ValueError):
        TokenIndex.build(codes)
    with pytest.raises(ValueError):
        jaccard([[1, 2]], [codes])


def test_impossible_choices_are_refused() -> None:
    for shortlist, k in ((1, 2), (0, 0), (5, 0), (-1, -1)):
        with pytest.raises(ValueError, match="shortlist"):
            choose(CODES, TARGETS, QUERY, shortlist, k)
    with pytest.raises(ValueError, match="targets"):
        choose(CODES, TARGETS[1:], QUERY)


def test_a_picture_is_most_like_itself_and_the_index_of_many_is_small() -> None:
    rng = np.random.default_rng(1)
    pool = rng.zipf(1.3, (5000, 256)) % 8192
    index = TokenIndex.build(pool)
    assert choose(index, richnesses(pool), pool[7], 1) == [7]
    assert index.flags.nbytes + index.postings.nbytes < 16 * pool.size
