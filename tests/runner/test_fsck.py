"""A run that was damaged does not pass; one that was interrupted does."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import SourceError
from pipeline.runner import rundir
from pipeline.runner.fsck import fsck
from pipeline.runner.gc import gc, orphans
from pipeline.runner.storage import LocalStorage
from pipeline.shards import Plan
from pipeline.sources.base import Entry
from pipeline.sources.listing import write_listing
from tests.runner.conftest import Bench, samples, stop_after, whole


@pytest.fixture
def run(local: Bench) -> tuple[Bench, Plan]:
    """An interrupted run: its records are still one by one."""
    plan = local.plan(shards=2)
    stop, listen = stop_after(3)
    local.run(plan, workers=1, pause_s=0.03, stop=stop, on_event=listen)
    assert len(local.records(plan)) >= 3
    return local, plan


def test_an_interrupted_run_is_whole_and_says_what_is_left(run: tuple[Bench, Plan]) -> None:
    report = fsck(run[1].run_dir)
    assert not report.problems
    assert not report
    assert 1 in report.unfinished
    assert report.parts >= 3
    assert report.rows == len(samples(run[0]))


def _first(plan: Plan, pattern: str) -> Path:
    return min(Path(plan.run_dir).glob(pattern))


def _flip(plan: Plan) -> None:
    path = _first(plan, "data/trajectories/*")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _shorten(plan: Plan) -> None:
    path = _first(plan, "data/steps/*")
    path.write_bytes(path.read_bytes()[:-1])


def _lose(plan: Plan) -> None:
    _first(plan, "manifest/timings/*").unlink()


def _lose_record(plan: Plan) -> None:
    _first(plan, "manifest/shards/*.000.parquet").unlink()


def _change(plan: Plan, **changes: object) -> None:
    """Publish the first record anew with something else in it."""
    storage = LocalStorage(plan.run_dir)
    record = rundir.records(storage)[0]
    storage.remove(rundir.record_path(record.shard, record.part))
    rundir.publish(storage, replace(record, **changes))  # type: ignore[arg-type]


def _double(plan: Plan) -> None:
    """A second part whose rows are those of the first."""
    storage = LocalStorage(plan.run_dir)
    first, second = rundir.records(storage)[:2]
    storage.remove(rundir.record_path(second.shard, second.part))
    copies = []
    for file in first.files:
        path = file.path.replace("part-000", "part-077")
        (storage.root / path).write_bytes(storage.read(file.path))
        copies.append(replace(file, path=path))
    rundir.publish(storage, replace(second, files=tuple(copies), rows=first.rows))


DAMAGE: dict[str, tuple[Callable[[Plan], None], str]] = {
    "a flipped byte": (_flip, "has changed since it was committed"),
    "a short file": (_shorten, "bytes; "),
    "a missing file": (_lose, "is missing"),
    "a missing record": (_lose_record, "parts are missing"),
    "a gap": (lambda plan: _change(plan, next_index=1), "does not begin where"),
    "a wrong count": (lambda plan: _change(plan, rows=99), "says 99 rows"),
    "another run's record": (lambda plan: _change(plan, run_id="other"), "belongs to run"),
    "rows twice": (_double, "more than once"),
    "an early end": (lambda plan: _change(plan, last=True), "does not begin where"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found(run: tuple[Bench, Plan], name: str) -> None:
    damage, told = DAMAGE[name]
    damage(run[1])
    report = fsck(run[1].run_dir)
    assert any(told in problem for problem in report), report.problems


def test_a_flipped_byte_is_found_wherever_it_is(run: tuple[Bench, Plan]) -> None:
    plan = run[1]
    storage = LocalStorage(plan.run_dir)
    (file,) = (f for f in rundir.records(storage)[0].files if f.kind == "trajectories")
    whole = storage.read(file.path)
    for place in range(0, len(whole), max(1, len(whole) // 300)):
        data = bytearray(whole)
        data[place] ^= 1
        (storage.root / file.path).write_bytes(data)
        assert any("has changed" in problem for problem in fsck(plan.run_dir)), place


def test_a_listing_that_changed_is_found(local: Bench, tmp_path: Path) -> None:
    entries = [Entry(f"{n:02d}.jpg", n, "") for n in range(24)]
    run_dir = tmp_path / "runs" / "listed"
    digest = write_listing(iter(entries), run_dir / "listing").digest
    fields = {"run_id": "listed", "entries": 24, "shards_total": 4, "listing_digest": digest}
    rundir.write_run(LocalStorage(run_dir), fields)
    assert not fsck(run_dir).problems
    write_listing(iter(entries[:-1]), run_dir / "listing")
    assert any("listing" in problem for problem in fsck(run_dir))


def test_what_is_no_run_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no run here"):
        fsck(tmp_path)


def _stray(plan: Plan, name: str, *, age_s: float) -> Path:
    path = Path(plan.run_dir) / "data/trajectories" / name
    path.write_bytes(b"left over")
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_gc_removes_orphans_that_are_old_and_nothing_else(run: tuple[Bench, Plan]) -> None:
    bench, plan = run
    storage = LocalStorage(plan.run_dir)
    old = _stray(plan, "shard-00000.aaaaaaaa.part-000.parquet", age_s=7200)
    new = _stray(plan, "shard-00000.bbbbbbbb.part-000.parquet", age_s=60)
    torn = _stray(plan, ".shard-00001.cccccccc.part-001.parquet.12345678.tmp", age_s=7200)
    live = _stray(plan, ".shard-00001.dddddddd.part-001.parquet.12345678.tmp", age_s=7200)
    storage.append("journal/shard-00001.dddddddd.jsonl")(b'{"start": "slow"}\n')
    assert {file.path for file in orphans(storage)} == {
        str(path.relative_to(plan.run_dir)) for path in (old, new, torn, live)
    }
    before = samples(bench)
    assert len(gc(storage, dry_run=True).paths) == 2
    assert old.exists()
    assert len(gc(storage).paths) == 2
    assert [path.exists() for path in (old, new, torn, live)] == [False, True, False, True]
    assert samples(bench) == before
    assert whole(plan)


def test_money_spent_by_a_lost_attempt_is_no_orphan(run: tuple[Bench, Plan]) -> None:
    path = Path(run[1].run_dir) / "manifest/calls/shard-00000.eeeeeeee.part-000.parquet"
    path.write_bytes(_first(run[1], "manifest/calls/*").read_bytes())
    assert gc(LocalStorage(run[1].run_dir), older_than_s=0).paths == ()
    assert path.exists()
