"""The main job end to end on small pictures: the same rows whoever makes them, and none lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from manifests.database import connect
from pipeline.config import Config, config_from
from pipeline.runner.rundir import records
from pipeline.runner.storage import storage_at
from pipeline.shards import Passed, Unit, Work
from pipeline.synthesis.run import Summary, synthesize
from tests.agent.fakes import Paper

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("synthesis")]


def settings(source: Path, runs: Path, **run: Any) -> Config:
    return config_from(
        {
            "source": str(source),
            "task": {"per_image": 2, "budgets": [224, 448]},
            "run": {"dir": str(runs), **run},
        }
    )


def digests(summary: Summary) -> dict[tuple[int, int], str]:
    """The digest of every part's data."""
    return {(r.shard, r.part): r.sha256 for r in records(storage_at(summary.run_dir))}


def ask(runs: Path, query: str) -> list[tuple[Any, ...]]:
    return connect(runs).execute(query).fetchall()


@pytest.fixture
def done(photos: Path, tmp_path: Path) -> Summary:
    return synthesize(settings(photos, tmp_path / "runs"), shards=4, address="none")


def test_parts_are_the_same_for_one_two_and_four_workers(
    done: Summary, photos: Path, tmp_path: Path
) -> None:
    for workers in (2, 4):
        config = settings(photos, tmp_path / f"runs-{workers}", workers=workers)
        other = synthesize(config, shards=4, address="none")
        assert other.run_id == done.run_id
        assert digests(other) == digests(done)


@pytest.mark.ray
def test_parts_are_the_same_on_ray(done: Summary, photos: Path, tmp_path: Path) -> None:
    config = settings(photos, tmp_path / "runs-ray", workers=2)
    assert digests(synthesize(config, shards=4, address="local")) == digests(done)


def test_every_input_is_accounted_for(done: Summary, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    ((kept,),) = ask(runs, "select count(*) from trajectories")
    ((rejected,),) = ask(runs, "select count(*) from rejections where stage = 'verify'")
    asked = ask(runs, "select count(*), count(distinct sample_id) from traces where turn = 0")
    assert kept == done.kept and kept > 0
    assert kept + rejected == asked[0][0] == 7 * 2 * 2
    assert ask(runs, "select sample_id, reason from rejections where stage = 'decode'") == [
        ("broken.jpg#0", "truncated")
    ]


def test_the_same_command_continues_and_another_setting_is_another_run(
    done: Summary, photos: Path, tmp_path: Path
) -> None:
    again = synthesize(settings(photos, tmp_path / "runs"), shards=4, address="none")
    assert again.continued and again.run_id == done.run_id
    assert (again.kept, again.rejected) == (done.kept, done.rejected)
    config = settings(photos, tmp_path / "runs")
    other = synthesize(config.model_copy(update={"seed": 1}), shards=4, dry_run=True)
    assert other.run_id != done.run_id and not other.continued


def test_a_file_that_changed_since_it_was_listed_is_rejected(photos: Path, tmp_path: Path) -> None:
    from pipeline.sources.listing import read_listing
    from pipeline.synthesis.worker import open_worker

    config = settings(photos, tmp_path / "runs")
    summary = synthesize(config, shards=1, rows=1, address="none")
    listing = Path(summary.run_dir) / "listing"
    (photos / "0.png").write_bytes((photos / "0.png").read_bytes() + b"\0")
    row = next(i for i, e in enumerate(read_listing(listing, 0, 99)) if e.key == "0.png")
    worker = open_worker(
        {"config": config.describe(), "source": str(photos), "listing": str(listing)}
    )
    unit, passed = worker.units(
        Work(shard=0, entries=range(row, row + 1), started=lambda key: None, ledger=Paper())
    )
    worker.close()
    assert isinstance(unit, Unit) and passed == Passed(row)
    assert [r["reason"] for r in unit.tables["rejections"]] == ["source_changed"]


@pytest.mark.parametrize("rows", [1, 5])
def test_rows_stops_at_exactly_so_many(rows: int, photos: Path, tmp_path: Path) -> None:
    config = settings(photos, tmp_path / "runs")
    assert synthesize(config, shards=3, rows=rows, address="none").kept == rows


def test_the_dataset_loads_with_pictures(done: Summary) -> None:
    from datasets import load_dataset

    files = str(Path(done.run_dir) / "data" / "trajectories" / "*.parquet")
    whole = load_dataset("parquet", data_files=files, split="train")
    assert len(whole) == done.kept
    row = whole[0]
    assert (row["image"].width, row["image"].height) == (row["width"], row["height"])
    first = next(iter(load_dataset("parquet", data_files=files, split="train", streaming=True)))
    assert first["image"].size == row["image"].size
    assert first["sample_id"] == row["sample_id"]
