"""Published files hold the rows in their order, whole, and in pieces that readers take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import load_dataset

from pipeline.synthesis.dataset_statistics import numbers_of
from pipeline.synthesis.published_files import (
    GROUP_BYTES,
    GROUP_MOST,
    Table,
    described,
    planned,
    write,
)
from tests.synthesis.published_runs import make_run


def parquet(path: Path, rows: list[dict[str, Any]], schema: pa.Schema, group: int = 10) -> Path:
    pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=group)
    return path


def test_small_files_become_one_and_large_ones_are_cut_in_order(tmp_path: Path) -> None:
    schema = pa.schema([("n", pa.int64()), ("noise", pa.binary())])
    rows = [{"n": n, "noise": bytes([n % 251]) * 9 + n.to_bytes(4, "big") * 500} for n in range(60)]
    files = tuple(
        parquet(tmp_path / f"{place}.parquet", rows[20 * place : 20 * place + 20], schema)
        for place in range(3)
    )
    table = Table("rows", "train", files)
    (one,) = planned([table])
    several = planned([table], shard_bytes=2000)
    assert several[0].path.endswith(f"train-00000-of-{len(several):05d}.parquet")
    assert len(several) > 1
    for plans in ([one], several):
        found, digests = list[int](), list[str]()
        for plan in plans:
            done = write(plan, tmp_path / "out.parquet")
            digests.append(done.sha256)
            found += pq.read_table(tmp_path / "out.parquet")["n"].to_pylist()
        assert found == list(range(60))
        assert digests == [write(plan, tmp_path / "again.parquet").sha256 for plan in plans]


def written(tmp_path: Path, rows: list[dict[str, Any]], group: int) -> list[pq.RowGroupMetaData]:
    """The row groups of what is published of a file."""
    schema = pa.schema([("n", pa.int64()), ("noise", pa.binary())])
    table, file = pa.Table.from_pylist(rows, schema), tmp_path / "long.parquet"
    limit = {"dictionary_pagesize_limit": 1 << 30}
    pq.write_table(table, file, row_group_size=group, compression="zstd", **limit)
    (plan,) = planned([Table("rows", "train", (file,))])
    write(plan, tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet")["n"].to_pylist() == list(range(len(rows)))
    found = pq.read_metadata(tmp_path / "out.parquet")
    return [found.row_group(number) for number in range(found.num_row_groups)]


def test_no_row_group_is_longer_than_readers_take(tmp_path: Path) -> None:
    size = GROUP_MOST // 12
    rows = [{"n": n, "noise": bytes([n]) * size} for n in range(16)]
    groups = written(tmp_path, rows, group=16)
    assert len(groups) > 1 and max(group.total_byte_size for group in groups) < 100e6


def test_a_picture_that_many_rows_share_is_stored_once(tmp_path: Path) -> None:
    size = GROUP_BYTES // 10
    rows = [{"n": n, "noise": bytes([n // 4]) * size} for n in range(48)]
    groups = written(tmp_path, rows, group=12)
    total = sum(group.total_byte_size for group in groups)
    assert total < 1.01 * 12 * size and max(g.total_byte_size for g in groups) <= GROUP_BYTES


def test_files_with_fewer_columns_are_read_with_the_others(tmp_path: Path) -> None:
    run = make_run(tmp_path, "small", 8, 1)
    (file,) = list((run / "data/trajectories").glob("shard-00000.*"))
    older = pq.read_table(file).drop_columns(["weight", "flaws"])
    pq.write_table(older, tmp_path / "old.parquet")
    table = Table("trajectories", "train", (tmp_path / "old.parquet", file))
    (plan,) = planned([table])
    done = write(plan, tmp_path / "out.parquet")
    assert done.rows == 2 * older.num_rows
    rows = load_dataset("parquet", data_files=str(tmp_path / "out.parquet"), split="train")
    assert rows[0]["weight"] is None and rows[done.rows - 1]["weight"] == 1.0
    assert rows[0]["image"].size == (96, 72)
    assert numbers_of([table])["trajectories"]["rows"] == done.rows
    assert sorted(json.loads(described(pq.read_schema(file))), key=str) == sorted(
        json.loads(done.features), key=str
    )
