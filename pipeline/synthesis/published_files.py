"""Rows as the Parquet files of a dataset repository: which there are, and how each is written.

Small files become few large ones in a stable order, large ones are cut, row groups stay below what
readers on the Hub take. The same rows give the same bytes. Knows nothing of the Hub, of cards, or
of what the rows mean.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.runner.parts import Hashed
from pipeline.shards import MEGABYTE
from pipeline.synthesis.export_folder import sha256_of

FOLDER = "data"
RECIPES = "recipes"
"""Where the folders of exports without pixels lie, each as it was made."""
SHARD_BYTES = 500 * MEGABYTE
GROUP_BYTES = 32 * MEGABYTE
"""A row group is closed before its values, repeated pictures counted once, pass this."""
GROUP_MOST = 96 * MEGABYTE
"""A row group that is found is kept whole up to this, so that no picture is stored twice."""
GROUP_MEMORY = 96 * MEGABYTE
"""And up to this with every repeat counted; a single row may be more."""
FEATURES = b"huggingface"
"""The key of the Parquet metadata that `datasets` reads features from."""

_SHARD = re.compile(rf"{FOLDER}/([^/]+)/([^/]+)-\d{{5}}-of-(\d{{5}})\.parquet")
_RECIPE = re.compile(rf"{RECIPES}/([^/]+)/([^/]+)\.parquet")
_DICTIONARY_LIMIT = 1 << 30
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Table:
    """Files whose rows, in this order, become a split of a configuration."""

    config: str
    split: str
    files: tuple[Path, ...]
    path: str | None = None
    """Where its one file is put as it is; None: the files are cut anew."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A file that is to be published: some row groups of a table's files."""

    config: str
    split: str
    path: str
    """In the repository."""
    groups: tuple[tuple[Path, int], ...]
    schema: pa.Schema
    features: str
    """Its columns as `datasets` describes them, JSON."""
    copied: Path | None = None
    """The file that it is a copy of."""


@dataclass(frozen=True, slots=True)
class Published:
    """A file as it is published."""

    config: str
    split: str
    path: str
    """In the repository."""
    rows: int
    bytes: int
    held: int
    """Bytes of its row groups before compression."""
    sha256: str
    features: str
    """Its columns as `datasets` describes them, JSON."""


def planned(tables: Sequence[Table], shard_bytes: int = SHARD_BYTES) -> list[Planned]:
    """The files to be published, by table; tables without rows have none.

    `data/<config>/<split>-00000-of-000NN.parquet`, each of about `shard_bytes` at most.
    """
    return [plan for table in tables for plan in _planned(table, shard_bytes)]


def write(plan: Planned, file: Path) -> Published:
    """Write a planned file; memory does not grow with it."""
    if plan.copied:
        shutil.copyfile(plan.copied, file)
        sha256 = sha256_of(file)
        with file.open("rb") as opened:
            return published(plan.path, opened, file.stat().st_size, sha256)
    rows, waiting = 0, list[_Piece]()
    with file.open("wb") as out:
        sink = Hashed(out)
        with pq.ParquetWriter(
            sink,
            plan.schema,
            compression="zstd",
            dictionary_pagesize_limit=_DICTIONARY_LIMIT,
            write_page_index=True,
        ) as writer:
            for piece in _pieces(plan):
                once, held = (sum(p.once for p in waiting), sum(p.held for p in waiting))
                if once + piece.once > GROUP_BYTES or held + piece.held > GROUP_MEMORY:
                    rows += _flush(writer, waiting, plan.schema)
                    waiting = []
                waiting.append(piece)
            rows += _flush(writer, waiting, plan.schema)
    groups = pq.read_metadata(file)
    size = sum(groups.row_group(n).total_byte_size for n in range(groups.num_row_groups))
    known = plan.config, plan.split, plan.path, rows, sink.size, size, sink.digest.hexdigest()
    return Published(*known, plan.features)


def published(path: str, file: Any, size: int, sha256: str) -> Published:
    """A file that is there, opened for reading; raises `ValueError` for another name."""
    config, split = place_of(path)
    found = pq.ParquetFile(file)
    groups = found.metadata
    held = sum(groups.row_group(n).total_byte_size for n in range(groups.num_row_groups))
    told = described(found.schema_arrow)
    return Published(config, split, path, groups.num_rows, size, held, sha256, told)


def place_of(path: str) -> tuple[str, str]:
    """(configuration, split) of a published file; raises `ValueError` where it is none."""
    if found := _RECIPE.fullmatch(path):
        return f"{found[1]}_{found[2]}", "train"
    if found := _SHARD.fullmatch(path):
        return found[1], found[2]
    raise ValueError(f"{path!r} is no file of a published table.")


def pattern(paths: Sequence[str]) -> str:
    """What names the files of a split, and no others."""
    found = _SHARD.fullmatch(paths[0])
    return paths[0] if found is None else f"{FOLDER}/{found[1]}/{found[2]}-*-of-{found[3]}.parquet"


def digest_of(files: Sequence[Published]) -> str:
    """Digest over the names and digests of files: the published data in one line."""
    lines = sorted(f"{file.path}:{file.sha256}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def described(schema: pa.Schema) -> str:
    """Columns as `datasets` describes them: a list of YAML's plain values, as JSON."""
    from datasets import Features

    return json.dumps(Features.from_arrow_schema(schema)._to_yaml_list())


def _planned(table: Table, shard_bytes: int) -> Iterator[Planned]:
    """The files of a split: row groups in order, a new file before one would be too long."""
    if table.path:
        (file,) = table.files
        schema = pq.read_schema(file)
        yield Planned(table.config, table.split, table.path, (), schema, described(schema), file)
        return
    shards, held = list[list[tuple[Path, int]]](), 0
    schemas = dict[bytes, pa.Schema]()
    for path in table.files:
        footer = pq.read_metadata(path)
        schema = footer.schema.to_arrow_schema()
        schemas.setdefault(schema.serialize().to_pybytes(), schema)
        for number in range(footer.num_row_groups):
            group = footer.row_group(number)
            size = sum(group.column(n).total_compressed_size for n in range(group.num_columns))
            if not group.num_rows:
                continue
            if not shards or held + size > shard_bytes:
                shards.append([])
                held = 0
            shards[-1].append((path, number))
            held += size
    if not shards:
        return
    whole = _unified(list(schemas.values()))
    features = described(whole)
    for number, groups in enumerate(shards):
        name = f"{table.split}-{number:05d}-of-{len(shards):05d}.parquet"
        path_in = f"{FOLDER}/{table.config}/{name}"
        yield Planned(table.config, table.split, path_in, tuple(groups), whole, features)


def _unified(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Every column that some file has, and the features of all of them."""
    from datasets import Features

    if len(schemas) == 1:
        return schemas[0]
    bare = pa.unify_schemas([s.remove_metadata() for s in schemas], promote_options="permissive")
    features = dict[str, Any]()
    metadata = dict[bytes, bytes]()
    for schema in schemas:
        features |= Features.from_arrow_schema(schema)
        metadata |= schema.metadata or {}
    told: Mapping[bytes, bytes] = Features(features).arrow_schema.metadata
    return bare.with_metadata(metadata | {FEATURES: told[FEATURES]})


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """Rows that stay together."""

    batches: list[pa.RecordBatch]
    once: int
    """Bytes of its values, repeated ones counted once."""
    held: int
    """All of them."""


def _pieces(plan: Planned) -> Iterator[_Piece]:
    """The rows of a planned file in the planned columns: each row group, in parts where it is too
    long."""
    opened: tuple[Path, pq.ParquetFile] | None = None
    for path, number in plan.groups:
        if opened is None or opened[0] != path:
            # A row group is not read whole before its first batch.
            opened = path, pq.ParquetFile(path, pre_buffer=False, buffer_size=_READ_BYTES)
        yield from _parts(opened[1], number, plan.schema)


def _parts(file: pq.ParquetFile, number: int, schema: pa.Schema) -> Iterator[_Piece]:
    """A row group as one piece, or as several where it is too long."""
    group = file.metadata.row_group(number)
    size, rows = max(1, group.total_byte_size), group.num_rows
    waiting, held = list[pa.RecordBatch](), 0
    reading = file.iter_batches(
        max(1, rows * GROUP_BYTES // size), row_groups=[number], use_threads=False
    )
    for batch in (small for found in reading for small in _small(_fitted(found, schema))):
        if waiting and (size > GROUP_MOST or held + batch.nbytes > GROUP_MEMORY):
            yield _Piece(waiting, size * sum(b.num_rows for b in waiting) // rows, held)
            waiting, held = [], 0
        waiting.append(batch)
        held += batch.nbytes
    if waiting:
        yield _Piece(waiting, size * sum(b.num_rows for b in waiting) // rows, held)


def _fitted(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch in the planned columns; those that it lacks are empty."""
    if batch.schema.equals(schema):
        return batch
    bare = schema.remove_metadata().empty_table()
    found = pa.Table.from_batches([batch]).replace_schema_metadata(None)
    whole = pa.concat_tables([bare, found], promote_options="permissive")
    (one,) = whole.select(schema.names).combine_chunks().to_batches()
    return one


def _small(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """A batch as several where repeated pictures make it larger than memory is meant for."""
    rows = max(1, batch.num_rows * GROUP_MEMORY // max(1, batch.nbytes))
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


def _flush(writer: pq.ParquetWriter, pieces: list[_Piece], schema: pa.Schema) -> int:
    """Write what waits as one row group; how many rows that was."""
    if not pieces:
        return 0
    batches = [batch.replace_schema_metadata(None) for p in pieces for batch in p.batches]
    table = pa.Table.from_batches(batches)
    writer.write_table(table.cast(schema), row_group_size=table.num_rows)
    return table.num_rows
