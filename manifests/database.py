"""SQL over a folder of runs: an in-memory DuckDB whose views read the runs' Parquet files.

A connection shows the runs as they are when it is made (`refresh` brings it up to date); every
file in it is whole and named by a commit record, so it may be made while runs are writing. No
database file is kept open: `save` makes one for those who want to take it away.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import duckdb
import pyarrow as pa

from manifests import tables
from manifests.segments import Lister, lister_for, unreplaced

VIEWS = (
    "runs",
    "shards",
    "trajectories",
    "steps",
    "traces",
    "prompts",
    "calls",
    "rejections",
    "scores",
)

_RECORDS = "manifest/shards"
_COMPACT = "compact.parquet"
_TRIES = 5
"""Times to list anew when a run is compacted while it is listed."""

_RUN = pa.schema(
    [
        ("run_dir", pa.string()),
        ("run_id", pa.string()),
        ("kind", pa.string()),
        ("recipe", pa.string()),
        ("created_at", pa.string()),
        ("shards_total", pa.int64()),
        ("parents", pa.string()),
    ]
)


def connect(
    runs_dir: str | os.PathLike[str], run_id: str | None = None
) -> duckdb.DuckDBPyConnection:
    """A connection with all views over every run below `runs_dir`, or over one of them.

    A folder that does not exist holds no runs: the views are there, typed and empty.
    """
    connection = duckdb.connect(":memory:")
    refresh(connection, runs_dir, run_id)
    return connection


def refresh(
    connection: duckdb.DuckDBPyConnection,
    runs_dir: str | os.PathLike[str],
    run_id: str | None = None,
) -> None:
    """Make the views show the runs as they are now."""
    lister = lister_for(connection, os.fspath(runs_dir))
    for attempt in range(_TRIES):
        try:
            _define(connection, lister, run_id)
            return
        except _Moved:
            continue
        except duckdb.IOException:
            if attempt == _TRIES - 1:
                raise
    raise duckdb.IOException("The runs changed each time they were listed.")


def query(runs_dir: str | os.PathLike[str], sql: str, run_id: str | None = None) -> pa.Table:
    """The answer to one query over the runs, as they are now.

    A run that ends meanwhile brings its manifest into one piece and removes the small ones: what
    was read of them is then asked for again.
    """
    connection = connect(runs_dir, run_id)
    try:
        return connection.execute(sql).to_arrow_table()
    except duckdb.IOException:
        refresh(connection, runs_dir, run_id)
        return connection.execute(sql).to_arrow_table()
    finally:
        connection.close()


def save(connection: duckdb.DuckDBPyConnection, file: str | os.PathLike[str]) -> None:
    """Write what the views show into the tables of a new DuckDB file."""
    connection.execute(f"ATTACH {_text(os.fspath(file))} AS saved")
    try:
        for view in VIEWS:
            connection.execute(f"CREATE OR REPLACE TABLE saved.{view} AS FROM {view}")
    finally:
        connection.execute("DETACH saved")


class _Moved(Exception):
    """A run was compacted between the listing and the end of the reading."""


@dataclass(frozen=True, slots=True)
class _Segment:
    """A file that counts."""

    run_id: str
    shard: int | None
    path: str


def _define(connection: duckdb.DuckDBPyConnection, lister: Lister, run_id: str | None) -> None:
    runs = _runs(lister, run_id)
    ids = {run["run_dir"]: run["run_id"] for run in runs}
    chosen, compact = _record_files(lister, list(ids))
    connection.execute("CREATE SCHEMA IF NOT EXISTS base")
    _table(connection, "runs", pa.Table.from_pylist(runs, _RUN))
    _records(connection, chosen)
    segments = _segments(connection, lister, ids)
    if _record_files(lister, list(ids))[1] != compact:
        raise _Moved
    for name, schema in {**tables.DATA, **tables.MANIFEST}.items():
        if name != "shards":
            _relation(connection, name, schema, segments.get(name, []))
    for view in VIEWS:
        sql = files("manifests").joinpath("views", f"{view}.sql").read_text("utf-8")
        connection.execute(f"CREATE OR REPLACE VIEW {view} AS\n{sql}")


def _runs(lister: Lister, run_id: str | None) -> list[dict[str, Any]]:
    """What `run.json` says of each run; folders without one are no runs."""
    found = []
    for name in [run_id] if run_id else lister.folders(""):
        text = lister.read(f"{name}/run.json")
        if text is not None:
            fields = json.loads(text)
            row = {key: fields.get(key) for key in ("kind", "recipe", "created_at", "shards_total")}
            parents = json.dumps(fields.get("parents") or [])
            run = {"run_dir": name, "run_id": fields.get("run_id", name), "parents": parents}
            found.append({**row, **run})
    return found


def _record_files(lister: Lister, runs: Iterable[str]) -> tuple[list[str], list[str]]:
    """Record files that count (a compacted one alone, where it exists), and the compacted ones."""
    chosen, compact = [], []
    for run in runs:
        folder = f"{run}/{_RECORDS}"
        names = lister.files(folder)
        if _COMPACT in names:
            names = [_COMPACT]
            compact.append(run)
        chosen += [lister.at(f"{folder}/{name}") for name in names]
    return chosen, compact


def _records(connection: duckdb.DuckDBPyConnection, paths: list[str]) -> None:
    """`base.records`: every commit record, and the run folder it was found in."""
    _table(connection, "records", tables.SHARDS.append(_FOLDER).empty_table())
    if paths:
        connection.execute(
            "INSERT INTO base.records BY NAME "
            "SELECT * EXCLUDE (filename), "
            r"regexp_extract(filename, '([^/\\]+)[/\\]manifest[/\\]shards[/\\]', 1) AS run_dir "
            f"FROM {_read(paths)}"
        )


_FOLDER = pa.field("run_dir", pa.string())


def _segments(
    connection: duckdb.DuckDBPyConnection, lister: Lister, ids: Mapping[str, str]
) -> dict[str, list[_Segment]]:
    """Files that count, by table: those a record names, all calls, all events."""
    found: dict[str, list[_Segment]] = {}
    named = connection.execute(
        "SELECT run_dir, run_id, file.kind, file.path, any_value(shard) "
        "FROM (SELECT *, unnest(files) AS file FROM base.records) "
        "WHERE file.kind <> 'calls' GROUP BY ALL ORDER BY ALL"
    )
    for folder, run_id, kind, path, shard in named.fetchall():
        segment = _Segment(run_id, shard, lister.at(f"{folder}/{path}"))
        found.setdefault(kind, []).append(segment)
    for kind in ("calls", "events"):
        for folder, run_id in ids.items():
            paths = [
                f"{folder}/manifest/{kind}/{n}" for n in lister.files(f"{folder}/manifest/{kind}")
            ]
            standing = unreplaced(lister, paths) if kind == "calls" else paths
            found.setdefault(kind, []).extend(
                _Segment(run_id, None, lister.at(path)) for path in standing
            )
    return found


def _relation(
    connection: duckdb.DuckDBPyConnection, name: str, schema: pa.Schema, segments: list[_Segment]
) -> None:
    """`base.<name>`: the rows of the segments with their run (and shard), typed when empty."""
    stamped = "attempt" in schema.names
    added = [("run_id", pa.string())] if "run_id" not in schema.names else []
    if not stamped and name in tables.DATA:
        added.append(("shard", pa.int32()))
    whole = pa.schema([*added, *schema])
    _table(connection, f"empty_{name}", whole.empty_table())
    source = f"FROM base.empty_{name}"
    if segments:
        rows = [{"path": s.path, "run_id": s.run_id, "shard": s.shard} for s in segments]
        _table(connection, f"files_{name}", pa.Table.from_pylist(rows, _FILES))
        columns = "".join(f"f.{column}, " for column, _ in added)
        source += (
            f" UNION ALL BY NAME SELECT {columns}d.* EXCLUDE (filename) "
            f"FROM {_read([s.path for s in segments])} d "
            f"JOIN base.files_{name} f ON f.path = d.filename"
        )
    connection.execute(f"CREATE OR REPLACE VIEW base.{name} AS {source}")


_FILES = pa.schema([("path", pa.string()), ("run_id", pa.string()), ("shard", pa.int32())])


def _table(connection: duckdb.DuckDBPyConnection, name: str, rows: pa.Table) -> None:
    """Hold a few rows in memory as `base.<name>`."""
    connection.register("incoming", rows)
    connection.execute(f"CREATE OR REPLACE TABLE base.{name} AS FROM incoming")
    connection.unregister("incoming")


def _read(paths: list[str]) -> str:
    """The table function that reads these files, and no others that their names would match."""
    listed = ", ".join(_text(re.sub(r"([*?\[])", r"[\1]", path)) for path in paths)
    return f"read_parquet([{listed}], union_by_name = true, filename = true)"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
