"""Laws of the listing: whole, ordered, cut anywhere, told apart by its digest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import SourceError
from pipeline.sources.base import Entry
from pipeline.sources.listing import load_listing, read_listing, write_listing


def numbered(count: int) -> list[Entry]:
    return [Entry(f"{number:06d}.jpg", number, str(number * 7)) for number in range(count)]


def test_any_cut_into_ranges_gives_every_entry_once(tmp_path: Path) -> None:
    entries = numbered(20_000)
    listing = write_listing(entries, tmp_path)
    assert (listing.count, load_listing(tmp_path)) == (20_000, listing)
    for step in (20_000, 6_667, 16_384):
        ranges = range(0, 20_000, step)
        cut = [entry for start in ranges for entry in read_listing(tmp_path, start, start + step)]
        assert cut == entries
    assert read_listing(tmp_path, 16_380, 16_390) == entries[16_380:16_390]


@pytest.mark.parametrize(("start", "stop"), [(5, 5), (9, 3), (100, 200), (-3, 0)])
def test_an_empty_range_is_empty(tmp_path: Path, start: int, stop: int) -> None:
    write_listing(numbered(20), tmp_path)
    assert read_listing(tmp_path, start, stop) == []


def test_an_empty_source_has_a_listing(tmp_path: Path) -> None:
    assert write_listing([], tmp_path).count == 0
    assert read_listing(tmp_path, 0, 10) == []


def test_strange_names_survive(tmp_path: Path) -> None:
    entries = [Entry(key, 1, "") for key in sorted(["a\nb", "caf%E9", "é", "🐈", "", "\t", "‮x"])]
    write_listing(entries, tmp_path)
    assert read_listing(tmp_path, 0, 10) == entries


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
ENTRIES = st.lists(
    st.builds(Entry, TEXTS, st.integers(0, 30), TEXTS), max_size=4, unique_by=lambda e: e.key
)


@settings(max_examples=15, deadline=None)
@given(ENTRIES, ENTRIES)
def test_listings_share_a_digest_only_when_they_are_equal(
    tmp_path_factory: pytest.TempPathFactory, first: list[Entry], second: list[Entry]
) -> None:
    first, second = (sorted(entries, key=lambda e: e.key) for entries in (first, second))
    folder = tmp_path_factory.mktemp("listing")
    digests = {write_listing(entries, folder).digest for entries in (first, second, first)}
    assert (len(digests) == 1) == (first == second)


def test_where_a_key_ends_is_part_of_the_digest(tmp_path: Path) -> None:
    pairs = [Entry("a", 1, "b"), Entry("ab", 1, ""), Entry("", 1, "ab"), Entry("a", 11, "b")]
    assert len({write_listing([entry], tmp_path).digest for entry in pairs}) == 4


@pytest.mark.parametrize("keys", [["b", "a"], ["a", "a"]])
def test_keys_out_of_order_or_twice_are_a_mistake_of_the_program(
    tmp_path: Path, keys: list[str]
) -> None:
    with pytest.raises(ValueError, match="ascend"):
        write_listing([Entry(key, 0, "") for key in keys], tmp_path)


def test_a_listing_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[Entry]:
        yield from numbered(20_000)
        raise SourceError("The disk is gone.")

    with pytest.raises(SourceError):
        write_listing(broken(), tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SourceError):
        read_listing(tmp_path, 0, 1)


def test_writing_holds_one_row_group_at_a_time(tmp_path: Path) -> None:
    alive, most = 0, 0

    class Counted(Entry):
        def __init__(self, number: int) -> None:
            nonlocal alive, most
            super().__init__(f"{number:06d}", 0, "")
            alive += 1
            most = max(most, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    write_listing(map(Counted, range(60_000)), tmp_path)
    assert most <= 2 * 16_384 + 10
