"""A finished model call is kept, found again, and counted once, whatever is killed and when."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.runner import calls
from pipeline.runner.calls import frame, frames
from pipeline.runner.ledger import CallLedger
from pipeline.runner.storage import FsspecStorage, LocalStorage, Storage
from pipeline.shards import Grant, Spent

CALL = {"sample_id": "s#0", "turn": 1, "tokens_in": 2, "tokens_out": 1, "cost_usd": 0.5}


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return LocalStorage(tmp_path)
    return FsspecStorage(f"memory://{tmp_path.name}")


def _open(storage: Storage, attempt: str = "a" * 8, *, part: int = 0) -> CallLedger:
    grant = Grant(12, 0, 9, attempt, None, part=part, attempted=True)
    return CallLedger(storage, grant, lambda: None)


def _add(ledger: CallLedger, *keys: str, **changes: Any) -> None:
    for key in keys:
        ledger.add(key, {**CALL, "reply": f"said {key}", **changes})


def _table(storage: Storage) -> list[dict[str, Any]]:
    """Rows of the calls table, by attempt and in order."""
    rows = []
    for file in storage.list(calls.TABLE):
        with storage.open(file.path) as stream:
            rows += pq.ParquetFile(stream).read().to_pylist()
    return rows


def test_a_journal_cut_anywhere_holds_the_calls_before_the_cut() -> None:
    entries = [{"key": f"k{n} \ud800", "call": {"n": n, "reply": "ü" * n}} for n in range(4)]
    framed = [frame(entry) for entry in entries]
    whole = b"".join(framed)
    for cut in range(len(whole) + 1):
        kept = sum(len(b"".join(framed[: n + 1])) <= cut for n in range(4))
        assert list(frames(whole[:cut])) == entries[:kept]


def test_a_flipped_byte_hides_its_call_and_those_after_it() -> None:
    entries = [{"key": f"k{n}"} for n in range(3)]
    framed = [frame(entry) for entry in entries]
    whole = b"".join(framed)
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        assert list(frames(bytes(damaged))) == entries[: place // len(framed[0])]


def test_a_call_of_an_attempt_that_died_is_found_by_the_next(storage: Storage) -> None:
    dead = _open(storage)
    _add(dead, "one", "two")
    dead.replayed("old", CALL)
    assert dead.find("one") == {**CALL, "reply": "said one"}
    _wait_until(lambda: len(list(calls.read_shard(storage, 12))) == 2)
    next_one = _open(storage, "b" * 8)
    assert next_one.find("two") == {**CALL, "reply": "said two"}
    assert next_one.find("old") is None
    assert next_one.find("three") is None
    assert next_one.spent == Spent()


def _wait_until(done: Callable[[], bool]) -> None:
    limit = time.monotonic() + 20
    while not done():
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_a_call_that_was_torn_by_the_death_is_neither_found_nor_counted(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    dead = _open(storage)
    _add(dead, "one", "two")
    dead._writer.flush()
    path = tmp_path / calls.journal_path(12, "a" * 8)
    path.write_bytes(path.read_bytes()[:-1])
    assert _open(storage, "b" * 8).find("two") is None
    calls.salvage(storage)
    assert len(_table(storage)) == 1
    assert calls.spent_by(storage, 12, "a" * 8) == Spent(0.5, 3)


def test_who_adds_a_call_does_not_write_it(tmp_path: Path) -> None:
    writers = []

    class Watched(LocalStorage):
        def append(self, path: str, *, durable: bool = False) -> Callable[[bytes], None]:
            add = super().append(path, durable=durable)
            assert durable

            def watched(data: bytes) -> None:
                writers.append(threading.current_thread())
                add(data)

            return watched

    _add(_open(Watched(tmp_path)), "one")
    _wait_until(lambda: bool(writers))
    assert writers[0] is not threading.current_thread()


def test_each_call_is_in_the_table_once_whoever_brings_it_there(storage: Storage) -> None:
    ledger = _open(storage, part=3)
    _add(ledger, "one", "two")
    ledger.publish()
    ledger.next_part()
    _add(ledger, "three")
    ledger._writer.flush()
    calls.salvage(storage)
    _add(ledger, "four")
    ledger._writer.flush()
    calls.salvage(storage, 12)
    calls.salvage(storage, 11)
    _add(ledger, "five")
    ledger.publish()
    ledger.close()
    calls.salvage(storage, for_good=True)
    rows = _table(storage)
    assert [(row["part"], row["shard"], row["cost_usd"]) for row in rows] == [
        (3, 12, 0.5), (3, 12, 0.5), (4, 12, 0.5), (4, 12, 0.5), (4, 12, 0.5)
    ]  # fmt: skip
    assert calls.total(storage) == ledger.spent == Spent(2.5, 15)


def test_a_journal_that_was_closed_is_not_read_again(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    ledger = _open(storage)
    _add(ledger, "one")
    ledger.close()
    (tmp_path / calls.journal_path(12, "a" * 8)).write_bytes(b"")
    (segment,) = storage.list(calls.TABLE)
    storage.remove(segment.path)
    calls.salvage(storage)
    assert _table(storage) == []


def test_an_attempt_without_calls_leaves_no_file(tmp_path: Path) -> None:
    ledger = _open(LocalStorage(tmp_path))
    ledger.check()
    ledger.publish()
    ledger.close()
    assert list(tmp_path.rglob("*")) == []


def test_what_is_replayed_costs_nothing_and_what_has_no_price_has_no_cost(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    ledger = _open(storage)
    _add(ledger, "dear")
    _add(ledger, "own", cost_usd=None)
    for key in ("dear", "own"):
        ledger.replayed(key, ledger.find(key) or {})
    ledger.close()
    rows = [(row["cost_usd"], row["tokens_in"], row["replayed"]) for row in _table(storage)]
    assert rows == [(0.5, 2, False), (None, 2, False), (0.0, 2, True), (None, 2, True)]
    assert ledger.spent == Spent(0.5, 6)


def test_a_call_that_its_table_cannot_hold_is_an_error_at_once(tmp_path: Path) -> None:
    ledger = _open(LocalStorage(tmp_path))
    for wrong in ({"tokens_in": "many"}, {"tokens_in": 1.5}, {"model": 4}):
        with pytest.raises(TypeError, match="A call's"):
            ledger.add("one", {**CALL, **wrong})
    with pytest.raises(TypeError):
        ledger.add("one", {"reply": object()})
    assert ledger.find("one") is None


def test_a_journal_that_cannot_be_written_is_an_error_and_nothing_is_counted(
    tmp_path: Path,
) -> None:
    class Full(LocalStorage):
        def append(self, path: str, *, durable: bool = False) -> Callable[[bytes], None]:
            raise OSError("no space left")

    storage = Full(tmp_path)
    ledger = _open(storage)
    _add(ledger, "one")
    for _ in range(2):
        with pytest.raises(OSError, match="no space"):
            ledger.publish()
    with pytest.raises(OSError, match="no space"):
        _add(ledger, "two")
    with pytest.raises(OSError, match="no space"):
        ledger.close()
    assert _table(storage) == []


def test_many_threads_may_add_at_once(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    ledger = _open(storage)
    keys = [[f"{thread}-{n}" for n in range(50)] for thread in range(4)]
    threads = [threading.Thread(target=_add, args=(ledger, *some)) for some in keys]
    for thread in threads:
        thread.start()
    for _ in range(3):
        ledger.publish()
    for thread in threads:
        thread.join()
    ledger.close()
    found = [entry["key"] for entry in calls.read_shard(storage, 12)]
    assert sorted(found) == sorted(key for some in keys for key in some)
    assert len(_table(storage)) == 200
