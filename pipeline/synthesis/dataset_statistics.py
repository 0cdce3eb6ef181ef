"""What is in a dataset, in numbers, asked of the published Parquet and of nothing else.

So whoever has the files can ask again. Every query tells rows of (name, class, value): a plain
number has no class, a distribution has one for each value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import duckdb

from manifests.tables import DATA
from pipeline.synthesis.published_files import Table

Numbers = dict[str, Any]
"""Of a configuration: a count, or counts by class."""

KNOWN = ("trajectories", "prompts", "steps", "traces", "rejected", "rejections", "calls")
"""Tables with a query of their own; of others the rows are counted, and what they are about."""

_MEMORY = "512MB"


def connection_over(
    found: Mapping[str, Sequence[str]], connection: duckdb.DuckDBPyConnection | None = None
) -> duckdb.DuckDBPyConnection:
    """A connection with a view over the files of each configuration, named like it.

    Columns that older files lack are NULL. `connection` is one that can read the files, where they
    are not on this machine.
    """
    connection = connection or duckdb.connect(":memory:")
    connection.execute(f"SET memory_limit = '{_MEMORY}'")
    connection.execute("SET threads = 1")
    connection.execute("SET enable_progress_bar = false")  # it is drawn on stdout
    for config, paths in found.items():
        source = f"SELECT * FROM read_parquet([{listed(paths)}], union_by_name = true)"
        if config in DATA:
            connection.register("incoming", DATA[config].empty_table())
            connection.execute(f'CREATE OR REPLACE TEMP TABLE "empty_{config}" AS FROM incoming')
            connection.unregister("incoming")
            source = f'SELECT * FROM "empty_{config}" UNION ALL BY NAME {source}'
        connection.execute(f'CREATE OR REPLACE TEMP VIEW "{config}" AS {source}')
    return connection


def numbers(connection: duckdb.DuckDBPyConnection, configs: Sequence[str]) -> dict[str, Numbers]:
    """The numbers of each configuration; names and classes in a stable order."""
    return {config: _numbers(connection, config) for config in configs}


def numbers_of(tables: Sequence[Table]) -> dict[str, Numbers]:
    """The numbers of tables on this machine, by configuration."""
    found: dict[str, list[str]] = {}
    for table in tables:
        found.setdefault(table.config, []).extend(str(file) for file in table.files)
    with connection_over(found) as connection:
        return numbers(connection, list(found))


def listed(paths: Sequence[str]) -> str:
    """Paths as DuckDB reads them, whatever signs of a pattern they hold."""
    plain = (re.sub(r"([*?\[])", r"[\1]", path).replace("'", "''") for path in paths)
    return ", ".join(f"'{path}'" for path in plain)


def query(name: str) -> str:
    """The text of a query."""
    return files("pipeline.synthesis").joinpath("queries", f"{name}.sql").read_text("utf-8")


def _numbers(connection: duckdb.DuckDBPyConnection, config: str) -> Numbers:
    sql = query(config) if config in KNOWN else _counts(connection, config)
    told: Numbers = {}
    for name, kind, value in connection.execute(sql).fetchall():
        number = value if value != int(value) else int(value)
        if kind is None:
            told[name] = number
        else:
            told.setdefault(name, {})[str(kind)] = number
    plain = sorted((n, v) for n, v in told.items() if not isinstance(v, dict))
    spread = sorted((n, v) for n, v in told.items() if isinstance(v, dict))
    ordered = {n: dict(sorted(v.items(), key=_by_number)) for n, v in spread}
    rows = {"rows": told["rows"]} if "rows" in told else {}
    return rows | dict(plain) | ordered


def _counts(connection: duckdb.DuckDBPyConnection, config: str) -> str:
    """A query for an exported table, of the columns that it has."""
    columns = {row[0] for row in connection.execute(f'DESCRIBE "{config}"').fetchall()}
    table = f'FROM "{config}"'
    asked = [f"SELECT 'rows' AS name, NULL AS class, count(*) AS value {table}"]
    for name, column in (("questions", "sample_id"), ("pictures", "image_id")):
        if column in columns:
            asked.append(f"SELECT '{name}', NULL, count(DISTINCT {column}) {table}")
    for name, column in (("resolutions", "resolution"), ("tasks", "task")):
        if column in columns:
            known = f"coalesce({column}::VARCHAR, 'not known')"
            asked.append(f"SELECT '{name}', {known}, count(*) {table} GROUP BY {column}")
    return " UNION ALL ".join(asked)


def _by_number(entry: tuple[str, Any]) -> tuple[bool, float, str]:
    """Classes that are numbers go by size, before the others."""
    name = entry[0]
    return (False, float(name), name) if name.isdecimal() else (True, 0.0, name)
