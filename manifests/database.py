"""SQL over a folder of runs: an in-memory DuckDB whose views read the runs' Parquet files.

A connection shows the runs as they are when it is made (`refresh` brings it up to date); every
file in it is whole and named by a commit record, so it may be made while runs are writing. No
database file is kept open: `save` makes one for those who want to take it away.
"""

from __future__ import annotations

import os
import re
from importlib.resources import files

import duckdb
import pyarrow as pa

from manifests import tables
from manifests.folders import lister_for
from manifests.segments import Found, Moved, Segment, find

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
    "predictions",
    "tries",
    "questions",
    "audit",
)
"""In an order in which each rests on those before it."""

MACROS = {
    "pass_at(n, c, k)": "CASE WHEN k > n THEN NULL ELSE 1 - coalesce(list_aggregate("
    "list_transform(range(n - c + 1, n + 1), lambda i: 1 - k / i), 'product'), 1) END",
}
"""`pass_at`: of n tries c are right; the chance that one of k is (arXiv 2107.03374, eq. 1)."""

_TRIES = 5
"""Times to list anew when a run is brought into one piece while it is listed."""

_FILES = pa.schema([("path", pa.string()), ("run_id", pa.string()), ("shard", pa.int32())])


def connect(
    runs_dir: str | os.PathLike[str], run_id: str | None = None
) -> duckdb.DuckDBPyConnection:
    """A connection with all views over every run below `runs_dir`, or over one of them.

    A folder that does not exist holds no runs: the views are there, typed and empty.
    """
    connection = duckdb.connect(":memory:")
    connection.execute("SET enable_progress_bar = false")  # it is drawn on stdout, among rows
    refresh(connection, runs_dir, run_id)
    return connection


def refresh(
    connection: duckdb.DuckDBPyConnection,
    runs_dir: str | os.PathLike[str],
    run_id: str | None = None,
) -> None:
    """Make the views show the runs as they are now."""
    lister = lister_for(connection, os.fspath(runs_dir))
    for attempt in range(1, _TRIES + 1):
        try:
            _define(connection, find(lister, run_id))
            return
        except (Moved, duckdb.IOException):  # small files made way for a compacted one
            if attempt == _TRIES:
                raise


def query(runs_dir: str | os.PathLike[str], sql: str, run_id: str | None = None) -> pa.Table:
    """The answer to one query over the runs, as they are now.

    A run that ends meanwhile brings its manifest into one piece and removes the small ones, which a
    connection made before then misses: here the question is asked again.
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


def _define(connection: duckdb.DuckDBPyConnection, found: Found) -> None:
    """Make the tables and views that show what was found."""
    connection.execute("SET parquet_metadata_cache = true")
    connection.execute("CREATE SCHEMA IF NOT EXISTS base")
    _table(connection, "runs", found.runs)
    _table(connection, "records", found.records)
    for name, schema in {**tables.DATA, **tables.MANIFEST}.items():
        if name != "shards":
            _relation(connection, name, schema, found.segments.get(name, []))
    for macro, meaning in MACROS.items():
        connection.execute(f"CREATE OR REPLACE TEMP MACRO {macro} AS {meaning}")
    for view in VIEWS:
        sql = files("manifests").joinpath("views", f"{view}.sql").read_text("utf-8")
        connection.execute(f"CREATE OR REPLACE VIEW {view} AS\n{sql}")


def _relation(
    connection: duckdb.DuckDBPyConnection, name: str, schema: pa.Schema, segments: list[Segment]
) -> None:
    """`base.<name>`: the rows of the segments with their run (and shard), typed when empty."""
    added = [("run_id", pa.string())] if "run_id" not in schema.names else []
    if "shard" not in schema.names and name in tables.DATA:
        added.append(("shard", pa.int32()))
    _table(connection, f"empty_{name}", pa.schema([*added, *schema]).empty_table())
    rows = [{"path": s.path, "run_id": s.run_id, "shard": s.shard} for s in segments]
    _table(connection, f"files_{name}", pa.Table.from_pylist(rows, _FILES))
    columns = "".join(f"f.{column}, " for column, _ in added)
    sources = [
        f"SELECT {columns}d.* EXCLUDE (filename) FROM {read} d "
        f"JOIN base.files_{name} f ON f.path = d.filename"
        for read in _reads(segments)
    ]
    whole = " UNION ALL BY NAME ".join([f"SELECT * FROM base.empty_{name}", *sources])
    connection.execute(f"CREATE OR REPLACE VIEW base.{name} AS {whole}")


def _reads(segments: list[Segment]) -> list[str]:
    """Table functions that read the segments, those with the same columns together.

    Files whose columns are known to be the same need not all be opened to find out what they hold:
    with thousands of them that takes longer than the query.
    """
    alike: dict[str | None, list[str]] = {}
    for segment in segments:
        alike.setdefault(segment.columns, []).append(segment.path)
    return [
        f"read_parquet([{_patterns(paths)}], union_by_name = {columns is None}, filename = true)"
        for columns, paths in alike.items()
    ]


def _patterns(paths: list[str]) -> str:
    """Patterns that match these files and no others, whatever signs their names hold."""
    return ", ".join(_text(re.sub(r"([*?\[])", r"[\1]", path)) for path in paths)


def _table(connection: duckdb.DuckDBPyConnection, name: str, rows: pa.Table) -> None:
    """Hold a few rows in memory as `base.<name>`."""
    connection.register("incoming", rows)
    connection.execute(f"CREATE OR REPLACE TABLE base.{name} AS FROM incoming")
    connection.unregister("incoming")


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
