"""How rows become files: cut between units, pictures once, nothing volatile inside."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.runner.parts import GROUP_BYTES, Part
from pipeline.runner.rundir import File
from pipeline.runner.storage import LocalStorage
from pipeline.shards import Unit
from tests.runner.conftest import Bench, expected, samples
from tests.runner.workers import SCHEMA, row

STAMP = {"shard": 0, "part": 0, "attempt": "0" * 8}


def _unit(key: str, rows: int, picture: bytes) -> Unit:
    return Unit(key, rows, {"trajectories": [row(key, number, picture) for number in range(rows)]})


def _write(folder: Path, units: list[Unit]) -> tuple[File, Any]:
    """The file that the units make, and its metadata."""
    part = Part(LocalStorage(folder), {"trajectories": SCHEMA}, "trajectories", STAMP)
    for unit in units:
        part.add(unit)
    (file,) = part.finish()
    return file, pq.ParquetFile(folder / file.path)


@pytest.mark.parametrize(("count", "size"), [(8, 50_000), (8, 700_000), (160, 20_000)])
def test_eight_rows_of_a_picture_cost_one_picture(tmp_path: Path, count: int, size: int) -> None:
    pictures = [os.urandom(size) for _ in range(count)]
    file, _ = _write(tmp_path, [_unit(f"e{i}", 8, p) for i, p in enumerate(pictures)])
    assert file.rows == 8 * count
    assert count * size < file.bytes < count * size + 25_000


def test_rows_of_a_unit_share_a_row_group_and_groups_stay_small(tmp_path: Path) -> None:
    picture = [os.urandom(GROUP_BYTES // 5) for _ in range(12)]
    _, parquet = _write(tmp_path, [_unit(f"e{i}", 3, p) for i, p in enumerate(picture)])
    groups = [
        set(parquet.read_row_group(g, columns=["image_id"])["image_id"].to_pylist())
        for g in range(parquet.num_row_groups)
    ]
    assert len(groups) == 3
    assert sum(map(len, groups)) == len(set().union(*groups)) == 12


def test_metadata_hold_what_the_schema_says_and_the_writer_and_nothing_else(
    tmp_path: Path,
) -> None:
    _, parquet = _write(tmp_path, [_unit("e0", 2, b"x")])
    found = parquet.metadata.metadata
    assert set(found) == {b"ARROW:schema", b"cofpipe.schema_version"}
    assert parquet.metadata.created_by.startswith("parquet-cpp-arrow version")


def test_the_footer_does_not_grow_with_the_pictures(tmp_path: Path) -> None:
    small, _ = _write(tmp_path / "a", [_unit("e0", 2, os.urandom(10))])
    large, _ = _write(tmp_path / "b", [_unit("e0", 2, os.urandom(100_000))])
    assert large.bytes - small.bytes < 101_000


@pytest.mark.parametrize(
    ("changes", "settings", "most"),
    [({"part_rows": 5}, {}, 4), ({"part_bytes": 7_000}, {"picture": 2_000}, 2)],
)
def test_parts_are_cut_between_units_at_the_limit(
    local: Bench, changes: dict[str, int], settings: dict[str, int], most: int
) -> None:
    plan = local.plan(shards=1, **changes)
    local.run(plan, **settings)
    assert samples(local) == expected(24)
    found = [record.rows for record in local.records(plan)]
    assert all(rows % 2 == 0 and rows <= most for rows in found)
    assert len(found) >= len(expected(24)) / most


def test_a_long_line_of_rejections_commits_too(local: Bench) -> None:
    plan = local.plan(shards=1, part_rows=6)
    local.run(plan, per_unit=0)
    cursors = [r.next_index + r.next_skip for r in local.records(plan)]
    assert cursors == [6, 12, 18, 24, 24]


def test_an_abandoned_part_leaves_nothing(tmp_path: Path) -> None:
    part = Part(LocalStorage(tmp_path), {"trajectories": SCHEMA}, "trajectories", STAMP)
    part.add(_unit("e0", 2, b"x"))
    part.abandon()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
