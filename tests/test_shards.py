"""Cutting a listing and sharing out the rows that are wanted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.shards import Plan, quotas, split


@given(st.integers(0, 10_000), st.integers(1, 200))
def test_a_split_is_exact_and_even(total: int, ways: int) -> None:
    parts = split(total, ways)
    assert sum(parts) == total
    assert max(parts) - min(parts) <= 1


@given(st.integers(0, 5_000), st.integers(1, 300))
def test_shards_cover_the_listing_once_in_order(entries: int, shards: int) -> None:
    ranges = Plan("d", "r", "k", entries=entries, shards=shards).ranges()
    assert len(ranges) == min(entries, shards)
    assert [row for start, stop in ranges for row in range(start, stop)] == list(range(entries))
    assert all(start < stop for start, stop in ranges)


@given(st.data())
def test_quotas_reach_the_rows_wanted_or_everything_there_is(data: st.DataObject) -> None:
    """Shards hold so many rows each; whoever works in whatever order, the same rows are kept."""
    holds = data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=8))
    wanted = data.draw(st.integers(0, 120))
    assert _work(holds, wanted, order=data.draw(st.randoms())) == _work(holds, wanted, order=None)
    assert sum(_work(holds, wanted, order=None)) == min(wanted, sum(holds))


def _work(holds: list[int], wanted: int, order: object) -> list[int]:
    """Simulate a run that asks for quotas after every step and may forget all it knew."""
    kept, ended = [0] * len(holds), set[int]()
    for _ in range(10_000):
        quota = quotas(wanted, kept, ended)
        open_now = [s for s in range(len(holds)) if s not in ended and kept[s] < quota[s]]
        if not open_now:
            return kept
        shard = order.choice(open_now) if order else open_now[0]  # type: ignore[attr-defined]
        most = min(holds[shard], quota[shard])
        step = order.randint(0, most - kept[shard]) if order else most - kept[shard]  # type: ignore[attr-defined]
        kept[shard] += step
        if kept[shard] == holds[shard] < quota[shard]:
            ended.add(shard)
    raise AssertionError("the quotas never settle")
