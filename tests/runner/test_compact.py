"""A finished run's manifest becomes one piece, and at no moment says less or more."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from manifests import database
from pipeline.runner.compact import compact
from pipeline.runner.rundir import publish
from pipeline.runner.storage import LocalStorage
from tests.runner.conftest import Bench, attempt_all, samples, whole

QUERIES = (
    "SELECT count(*), sum(rows), count(DISTINCT sha256) FROM shards",
    "SELECT count(*), count(DISTINCT sample_id), count(seconds) FROM trajectories",
    "SELECT count(*), count(DISTINCT sample_id) FROM rejections",
    "SELECT count(*), sum(cost_usd), count(DISTINCT attempt) FROM calls",
)


class Cut(Exception):
    """The machine stops here."""


class CutStorage(LocalStorage):
    """A storage whose machine stops after so many changes."""

    def __init__(self, root: Path, after: int) -> None:
        super().__init__(root)
        self.after = after

    def create(self, path: str) -> Any:
        self._count()
        return super().create(path)

    def remove(self, path: str) -> None:
        self._count()
        super().remove(path)

    def _count(self) -> None:
        self.after -= 1
        if self.after < 0:
            raise Cut


@pytest.fixture
def loose(local: Bench) -> Bench:
    """A run with everything committed, nothing in one piece yet, and a call of a lost attempt."""
    plan = local.plan(entries=12, shards=2)
    attempt_all(plan)
    calls = Path(plan.run_dir) / "manifest/calls"
    shutil.copy(min(calls.iterdir()), calls / "shard-00000.ffffffff.part-000.parquet")
    return local


def _answers(runs_dir: Path) -> list[Any]:
    with database.connect(runs_dir) as connection:
        return [connection.execute(query).fetchall() for query in QUERIES]


@pytest.mark.slow
def test_a_reader_sees_the_same_wherever_compaction_stops(loose: Bench) -> None:
    before = _answers(loose.runs_dir)
    for after in range(100):
        copy = loose.folder / f"cut-{after}"
        shutil.copytree(loose.runs_dir, copy)
        storage = CutStorage(copy / "run", after)
        try:
            compact(storage)
        except Cut:
            assert _answers(copy) == before
            compact(LocalStorage(copy / "run"))
        assert _answers(copy) == before
        assert len(list((copy / "run/manifest/shards").iterdir())) == 1
        if storage.after >= 0:
            break
    assert after > 8


def test_every_manifest_table_ends_up_in_one_file(local: Bench) -> None:
    plan = local.plan()
    local.run(plan)
    manifest = Path(plan.run_dir) / "manifest"
    for table in ("shards", "calls", "rejections", "timings"):
        assert len(list((manifest / table).iterdir())) == 1
    assert whole(plan)


def test_a_late_attempt_cannot_add_to_a_finished_run(local: Bench) -> None:
    plan = local.plan(shards=1)
    local.run(plan)
    kept = samples(local)
    late = local.plan("late", shards=1)
    local.run(late)
    record = local.records(late)[-1]
    storage = LocalStorage(plan.run_dir)
    assert publish(storage, replace(record, run_id="run", part=99))
    assert [r.part for r in local.records(plan)] == list(range(len(local.records(plan))))
    with database.connect(local.runs_dir, "run") as connection:
        count = connection.execute("SELECT count(*) FROM trajectories").fetchall()[0][0]
    assert count == len(kept)
