"""Whose fault a death was."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.runner import journal
from pipeline.runner.journal import Journal
from pipeline.runner.storage import FsspecStorage, LocalStorage, Storage


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return LocalStorage(tmp_path)
    return FsspecStorage(f"memory://{tmp_path.name}")


def _die(storage: Storage, attempt: str, key: str, *, runner: str = "local") -> None:
    """An attempt that did one unit and died at the next one."""
    lines = Journal(storage, 12, attempt, runner)
    lines.start("good")
    lines.end("good")
    lines.start(key)


def test_a_unit_is_given_up_after_two_deaths(storage: Storage) -> None:
    _die(storage, "a", "bad \ud800\n")
    assert journal.crashed(storage, 12) == frozenset()
    _die(storage, "b", "bad \ud800\n")
    assert journal.crashed(storage, 12) == {"bad \ud800\n"}
    assert journal.crashed(storage, 1) == frozenset()
    assert journal.shards(storage) == {12}


def test_deaths_at_different_units_give_up_none(storage: Storage) -> None:
    for attempt in "abc":
        _die(storage, attempt, f"unit {attempt}")
    assert journal.crashed(storage, 12) == frozenset()


def test_units_open_at_a_death_are_in_doubt_until_somebody_ends_them(storage: Storage) -> None:
    lines = Journal(storage, 12, "a", "local")
    lines.start("one")
    lines.start("two")
    assert journal.doubted(storage, 12) == {"one", "two"}
    later = Journal(storage, 12, "b", "local")
    later.start("one")
    later.end("one")
    later.start("two")
    assert journal.doubted(storage, 12) == frozenset()
    assert journal.crashed(storage, 12) == {"two"}


def test_an_attempt_that_closed_has_not_died(storage: Storage) -> None:
    for attempt in "abc":
        _die(storage, attempt, "slow")
        lines = Journal(storage, 12, f"{attempt}2", "local")
        lines.start("slow")
        lines.close("error")
    _die(storage, "d", "other")
    assert journal.crashed(storage, 12) == {"slow"}


def test_on_ray_only_a_death_that_was_seen_counts(storage: Storage) -> None:
    for attempt in "abc":
        _die(storage, attempt, "unit", runner="ray")
    journal.mark_died(storage, 12, "a", "the actor died")
    assert journal.crashed(storage, 12) == frozenset()
    journal.mark_died(storage, 12, "b", "the actor died")
    assert journal.crashed(storage, 12) == {"unit"}


def test_a_line_torn_by_the_death_is_left_out(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    for attempt in "ab":
        _die(storage, attempt, "bad")
        storage.append(journal.journal_path(12, attempt))(b'{"end": "ba')
    assert journal.crashed(storage, 12) == {"bad"}
