"""A finished run's manifest in one piece: one segment per table, one file of records.

The switch is one rename. First every table's compacted segment is written under a new name that
no record mentions; then `manifest/shards/compact.parquet` appears, whose records name those
segments instead of the small ones; only then are the small ones removed. A reader takes the
compacted records alone where they exist, so it sees every row once at every moment, and a crash
in between leaves nothing but files that no record names.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.segments import REPLACES
from manifests.tables import columns_digest
from pipeline.runner.parts import Hashed
from pipeline.runner.rundir import COMPACT_RECORDS, RECORDS, File, Record, encode, records
from pipeline.runner.storage import Storage

CALLS = "manifest/calls"
"""Kept whole, lost attempts included: their money was spent. Its folder is the truth, not the
records: all segments count but those that a compacted one says it stands for."""

_GROUP_ROWS = 100_000


def compact(storage: Storage) -> None:
    """Bring a finished run's manifest into one piece; does nothing when it is."""
    if not any(file.path == COMPACT_RECORDS for file in storage.list(RECORDS)):
        whole = _compacted(storage, records(storage))
        with storage.create(COMPACT_RECORDS) as file:
            file.write(encode(whole))
    _sweep(storage)


def replaced(storage: Storage, path: str) -> set[str]:
    """Names of the segments that a compacted one stands for."""
    with storage.open(path) as file:
        metadata = pq.read_schema(file).metadata or {}
    return set(json.loads(metadata.get(REPLACES, b"[]")))


def standing(storage: Storage, folder: str) -> list[str]:
    """Segments in the folder that no other one stands for."""
    every = _segments(storage, folder)
    compacted = [path for path in every if "/compact-" in path]
    gone = {name for path in compacted for name in replaced(storage, path)}
    return [path for path in every if path.rpartition("/")[2] not in gone]


def _compacted(storage: Storage, old: list[Record]) -> list[Record]:
    """The records, naming one new segment per manifest table."""
    segments: dict[str, set[str]] = {}
    for record in old:
        for file in record.files:
            if file.path.startswith("manifest/"):
                segments.setdefault(file.kind, set()).add(file.path)
    new = {
        kind: _merged(storage, kind, sorted(paths), sorted(paths))
        for kind, paths in segments.items()
        if kind != "calls"
    }
    if every := _segments(storage, CALLS):
        new["calls"] = _merged(storage, "calls", standing(storage, CALLS), every)
    return [replace(record, files=_renamed(record.files, new)) for record in old]


def _renamed(files: Iterable[File], new: dict[str, File]) -> tuple[File, ...]:
    return tuple(new[f.kind] if f.path.startswith("manifest/") else f for f in files)


def _merged(storage: Storage, kind: str, paths: list[str], stands_for: list[str]) -> File:
    """One segment with the rows of many, in their order."""
    path = f"manifest/{kind}/compact-{secrets.token_hex(4)}.parquet"
    schema = _schema(storage, paths)
    names = json.dumps([name.rpartition("/")[2] for name in stands_for])
    rows, waiting = 0, schema.empty_table()
    with storage.create(path) as file:
        sink = Hashed(file)
        labelled = schema.with_metadata({**(schema.metadata or {}), REPLACES: names})
        with pq.ParquetWriter(sink, labelled, compression="zstd") as writer:
            for place, segment in enumerate(paths, start=1):
                waiting = pa.concat_tables([waiting, _table(storage, segment, schema)])
                if waiting.num_rows >= _GROUP_ROWS or place == len(paths):
                    writer.write_table(waiting.cast(labelled))
                    rows, waiting = rows + waiting.num_rows, schema.empty_table()
    columns = columns_digest(schema)
    return File(kind, path, rows, sink.size, sink.digest.hexdigest(), columns)


def _schema(storage: Storage, paths: list[str]) -> pa.Schema:
    """Every column that the segments have, without a compacted segment's own metadata."""
    found = []
    for path in paths:
        with storage.open(path) as file:
            found.append(pq.read_schema(file))
    metadata = {k: v for k, v in (found[-1].metadata or {}).items() if k != REPLACES}
    return pa.unify_schemas([schema.remove_metadata() for schema in found]).with_metadata(metadata)


def _table(storage: Storage, path: str, schema: pa.Schema) -> pa.Table:
    """A segment's rows under the common schema; columns that it lacks are empty."""
    with storage.open(path) as file:
        table = pq.ParquetFile(file).read()
    bare = [schema.remove_metadata().empty_table(), table.replace_schema_metadata(None)]
    whole = pa.concat_tables(bare, promote_options="default")
    return whole.select(schema.names).replace_schema_metadata(schema.metadata)


def _sweep(storage: Storage) -> None:
    """Remove the small records and the segments that the compacted ones stand for."""
    named = {file.path for record in records(storage) for file in record.files}
    for kind in storage.folders("manifest"):
        folder = f"manifest/{kind}"
        whole = [path for path in _segments(storage, folder) if "/compact-" in path]
        whole = [path for path in whole if path in named or folder == CALLS]
        for name in sorted(set().union(*(replaced(storage, path) for path in whole))):
            storage.remove(f"{folder}/{name}")
    for path in _segments(storage, RECORDS):
        if path != COMPACT_RECORDS:
            storage.remove(path)


def _segments(storage: Storage, folder: str) -> list[str]:
    return [file.path for file in storage.list(folder) if not file.temporary]
