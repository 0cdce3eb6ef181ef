"""What SQL shows of a folder of runs: every column of the contract, whatever is there yet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests import database, tables
from manifests.database import VIEWS, connect, query, save

COLUMNS = {
    "runs": "run_id kind recipe status started_at finished_at shards_total shards_done rows "
    "rejected cost_usd tokens_in tokens_out parents",
    "shards": "run_id kind shard part attempt rows bytes sha256 seconds worker committed_at",
    "trajectories": "run_id shard sample_id image_id resolution rollout image_sha256 source_sha256 "
    "source license width height view_w view_h same_view_as question options target target_boxes "
    "task answer final_thought finish verified necessary num_zooms visual_tokens policy "
    "prompt_sha256 tokens_in tokens_out seconds recipe",
    "steps": "run_id sample_id resolution rollout step region thought x0 y0 x1 y1 label tool "
    "zoomed no_gain parent view_w view_h magnification visual_tokens confidence target_iou "
    "mask_iou saliency_inside",
    "traces": "run_id sample_id resolution rollout turn role text tool result",
    "prompts": "run_id shard sample_id image_id task num_objects level_sizes saliency_scores",
    "calls": "run_id shard attempt sample_id resolution rollout turn role model status tries "
    "latency_s tokens_in tokens_out cost_usd replayed",
    "rejections": "run_id shard sample_id resolution rollout stage reason detail",
    "scores": "run_id benchmark category method resolution rollout sample_id scorer value "
    "explanation zooms visual_tokens seconds protocol",
}
"""The contract: these columns stay."""


@pytest.mark.parametrize("there", [True, False])
def test_without_runs_every_view_is_there_typed_and_empty(tmp_path: Path, there: bool) -> None:
    with connect(tmp_path if there else tmp_path / "nowhere") as connection:
        for view in VIEWS:
            found = connection.execute(f"FROM {view}")
            assert found.fetchall() == []
        for view, columns in COLUMNS.items():
            found = connection.execute(f"FROM {view}")
            assert {column[0] for column in found.description or ()} >= set(columns.split())
        types = dict(_types(connection, "trajectories"))
        assert types["target_boxes"] == "INTEGER[][]"
        assert types["verified"] == "BOOLEAN"


def test_the_views_are_all_there_is_to_see(tmp_path: Path) -> None:
    with connect(tmp_path) as connection:
        names = connection.execute("SHOW TABLES").fetchall()
    assert {name for (name,) in names} == set(VIEWS) >= set(COLUMNS)


def test_every_query_begins_with_the_question_it_answers() -> None:
    folder = Path(database.__file__).parent / "views"
    assert {path.stem for path in folder.iterdir()} == set(VIEWS)
    for path in folder.iterdir():
        first, _, rest = path.read_text().partition("\n")
        assert first.startswith("-- ")
        assert "?" in first
        assert ";" not in rest


def _types(connection: duckdb.DuckDBPyConnection, view: str) -> list[tuple[str, str]]:
    return [(row[0], row[1]) for row in connection.execute(f"DESCRIBE {view}").fetchall()]


def _run(runs: Path, name: str, *, parts: int = 2, events: tuple[str, ...] = ("started",)) -> Path:
    """A run with two rows a part, written by hand."""
    run = runs / name
    run.mkdir(parents=True)
    fields = {"run_id": name, "kind": "trajectories", "recipe": "tiny", "shards_total": parts}
    (run / "run.json").write_text(json.dumps(fields))
    for part in range(parts):
        _commit(run, part, _stored(run, part, "a" * 8))
    rows = [{"run_id": name, "at": at, "event": event} for at, event in enumerate(events)]
    _write(run / "manifest/events/one.parquet", rows, tables.EVENTS)
    return run


def _stored(run: Path, shard: int, attempt: str) -> list[dict[str, Any]]:
    """An attempt's files."""
    name = f"shard-{shard:05d}.{attempt}.part-000.parquet"
    keys = [{"sample_id": f"s{shard}#{n}", "resolution": 224, "rollout": 0} for n in range(2)]
    stamp = {"shard": shard, "part": 0, "attempt": attempt}
    written = {
        "data/trajectories": ([{**key, "image": b"x" * 50} for key in keys], IMAGES),
        "manifest/timings": ([{**key, **stamp, "seconds": 1.5} for key in keys], tables.TIMINGS),
        "manifest/calls": ([{**stamp, "cost_usd": 2.0}], tables.CALLS),
        "manifest/rejections": ([{**stamp, "reason": "dull"}], tables.REJECTIONS),
    }
    files = []
    for folder, (rows, schema) in written.items():
        _write(run / folder / name, rows, schema)
        files.append({"kind": folder.split("/")[1], "path": f"{folder}/{name}", "rows": len(rows)})
    return files


IMAGES = tables.TRAJECTORIES.append(pa.field("image", pa.binary()))


def _commit(run: Path, shard: int, files: list[dict[str, Any]]) -> None:
    record = {"run_id": run.name, "kind": "trajectories", "shard": shard, "part": 0, "rows": 2}
    rows = [{**record, "attempt": "a" * 8, "files": files, "rejected": 1, "last": True}]
    _write(run / f"manifest/shards/shard-{shard:05d}.000.parquet", rows, tables.SHARDS)


def _write(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), path)


def _one(runs: Path | str, sql: str) -> Any:
    return next(iter(query(runs, sql).to_pylist()[0].values()))


def test_rows_are_joined_with_their_run_shard_and_seconds(tmp_path: Path) -> None:
    _run(tmp_path, "r1")
    found = query(tmp_path, "SELECT run_id, shard, sample_id, seconds FROM trajectories ORDER BY 3")
    assert [tuple(row.values()) for row in found.to_pylist()] == [
        ("r1", 0, "s0#0", 1.5),
        ("r1", 0, "s0#1", 1.5),
        ("r1", 1, "s1#0", 1.5),
        ("r1", 1, "s1#1", 1.5),
    ]


def test_a_replayed_call_is_not_paid_again_and_no_price_is_no_cost(tmp_path: Path) -> None:
    run = _run(tmp_path, "r1", parts=1)
    more = [
        {"cost_usd": 0.5, "tokens_in": 7, "replayed": False},
        {"cost_usd": 0.0, "tokens_in": 7, "replayed": True},
        {"tokens_in": 1, "replayed": False},
    ]
    _write(run / "manifest/calls/shard-00000.bbbbbbbb.00000000.parquet", more, tables.CALLS)
    (row,) = query(tmp_path, "SELECT cost_usd, tokens_in, tokens_out FROM runs").to_pylist()
    assert row == {"cost_usd": 2.5, "tokens_in": 8, "tokens_out": None}
    _write(tmp_path / "r2/manifest/calls/one.parquet", more[2:], tables.CALLS)
    (tmp_path / "r2/run.json").write_text('{"run_id": "r2"}')
    assert query(tmp_path, "SELECT cost_usd FROM runs", "r2")["cost_usd"].to_pylist() == [None]


def test_what_no_record_names_does_not_count_but_its_calls_do(tmp_path: Path) -> None:
    run = _run(tmp_path, "r1")
    _stored(run, 0, "b" * 8)
    assert _one(tmp_path, "SELECT count(*) FROM trajectories") == 4
    assert _one(tmp_path, "SELECT count(*) FROM rejections") == 2
    assert _one(tmp_path, "SELECT count(*) FROM trajectories WHERE seconds IS NULL") == 0
    assert _one(tmp_path, "SELECT cost_usd FROM runs") == 6.0


@pytest.mark.parametrize(
    ("events", "status", "done"),
    [
        ((), "planned", 2),
        (("started",), "running", 2),
        (("started", "worker_lost"), "running", 2),
        (("started", "interrupted"), "interrupted", 2),
        (("started", "interrupted", "resumed"), "running", 2),
        (("started", "failed"), "failed", 2),
        (("started", "finished"), "done", 2),
    ],
)
def test_a_runs_status_is_its_last_event(
    tmp_path: Path, events: tuple[str, ...], status: str, done: int
) -> None:
    _run(tmp_path, "r1", events=events)
    (row,) = query(tmp_path, "FROM runs").to_pylist()
    assert (row["status"], row["shards_done"], row["rows"], row["rejected"]) == (status, done, 4, 2)
    assert (row["finished_at"] is not None) == (status == "done")


def test_one_run_can_be_asked_alone_and_folders_that_are_no_runs_are_passed_over(
    tmp_path: Path,
) -> None:
    _run(tmp_path, "r1")
    _run(tmp_path, "r2", parts=1)
    (tmp_path / "notes").mkdir()
    (tmp_path / "a file").write_text("")
    assert query(tmp_path, "SELECT run_id FROM runs ORDER BY 1")["run_id"].to_pylist() == [
        "r1",
        "r2",
    ]
    assert query(tmp_path, "SELECT count(*) AS n FROM trajectories", "r2")["n"].to_pylist() == [2]


def test_names_with_signs_that_mean_something_elsewhere_are_read(tmp_path: Path) -> None:
    odd = tmp_path / "it's [1] *what?*"
    _run(odd, "r1")
    assert _one(odd, "SELECT count(*) FROM trajectories") == 4


def test_an_older_file_without_a_column_stays_readable(tmp_path: Path) -> None:
    run = _run(tmp_path, "r1")
    path = next((run / "data/trajectories").iterdir())
    pq.write_table(pq.read_table(path).drop_columns(["answer", "steps"]), path)
    assert _one(tmp_path, "SELECT count(*) FROM trajectories WHERE answer IS NULL") == 4


def test_pictures_are_never_read(tmp_path: Path) -> None:
    run = _run(tmp_path, "r1")
    path = min((run / "data/trajectories").iterdir())
    group = pq.ParquetFile(path).metadata.row_group(0)
    columns = [group.column(place) for place in range(group.num_columns)]
    (chunk,) = (column for column in columns if column.path_in_schema == "image")
    data = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + chunk.total_compressed_size] = b"\0" * chunk.total_compressed_size
    path.write_bytes(data)
    assert len(query(tmp_path, "FROM trajectories")) == 4
    with pytest.raises(duckdb.Error):
        query(tmp_path, "SELECT image FROM base.trajectories")


def test_saving_makes_a_file_of_tables(tmp_path: Path) -> None:
    _run(tmp_path / "runs", "r1")
    file = tmp_path / "it's.duckdb"
    with connect(tmp_path / "runs") as connection:
        save(connection, file)
        save(connection, file)
    with duckdb.connect(str(file), read_only=True) as saved:
        assert saved.execute("SELECT count(*) FROM trajectories").fetchall() == [(4,)]
        assert {name for (name,) in saved.execute("SHOW TABLES").fetchall()} == set(VIEWS)


def test_refresh_shows_what_was_added(tmp_path: Path) -> None:
    run = _run(tmp_path, "r1", parts=1)
    with connect(tmp_path) as connection:
        _commit(run, 1, _stored(run, 1, "a" * 8))
        count = "SELECT count(*) FROM trajectories"
        assert connection.execute(count).fetchall() == [(2,)]
        database.refresh(connection, tmp_path)
        assert connection.execute(count).fetchall() == [(4,)]


def test_a_url_is_read_like_a_folder(tmp_path: Path) -> None:
    _run(tmp_path, "r1")
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path), "/sqltest", recursive=True)
    try:
        assert _one("memory://sqltest", "SELECT count(*) FROM trajectories") == 4
    finally:
        memory.rm("/sqltest", recursive=True)
