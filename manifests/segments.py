"""Which files of a folder of runs count: those that a commit record names, calls, and events.

Knows the layout of a run directory, and how a finished run's manifest replaces its small pieces.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests import tables
from manifests.folders import Lister

RECORDS = "manifest/shards"
COMPACT_RECORDS = f"{RECORDS}/compact.parquet"
"""All records of a finished run in one file; where it exists, it is the whole truth."""

REPLACES = b"cofpipe.replaces"
"""Metadata of a compacted segment: the names of those that it stands for."""

RUN = pa.schema(
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
"""What is known of a run before it has made anything; `parents` is JSON."""

_READERS = 16


class Moved(Exception):
    """A run was brought into one piece while it was being listed."""

    def __init__(self) -> None:
        super().__init__("The runs changed each time they were listed.")


@dataclass(frozen=True, slots=True)
class Segment:
    """A file that counts."""

    path: str
    """As DuckDB names it."""
    run_id: str
    shard: int | None
    columns: str | None
    """Digest of its columns: files with the same one are read together. None when not known."""


@dataclass(frozen=True, slots=True)
class Found:
    """What there is to show."""

    runs: pa.Table
    records: pa.Table
    segments: Mapping[str, list[Segment]]
    """By table."""


def find(lister: Lister, run_id: str | None = None) -> Found:
    """Everything that counts now, of all runs or of one; raises `Moved` when it moved meanwhile."""
    runs = _runs(lister, run_id)
    folders = [run["run_dir"] for run in runs]
    chosen = _record_files(lister, folders)
    records = _records(lister, chosen)
    ids = {run["run_dir"]: run["run_id"] for run in runs}
    segments = _named(lister, records)
    _add_calls_and_events(lister, ids, segments)
    compact = {folder for folder, name in chosen if name == COMPACT_RECORDS}
    if any(_is_compact(lister, folder) for folder in folders if folder not in compact):
        raise Moved
    return Found(pa.Table.from_pylist(runs, RUN), records, segments)


def decode(content: bytes) -> pa.Table:
    """The rows of a small Parquet file."""
    return pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)


def _runs(lister: Lister, run_id: str | None) -> list[dict[str, Any]]:
    """What `run.json` says of each run; folders without one are no runs."""
    found = []
    for folder in [run_id] if run_id else lister.folders(""):
        text = lister.read(f"{folder}/run.json")
        if text is not None:
            fields = json.loads(text)
            row = {name: fields.get(name) for name in RUN.names}
            parents = json.dumps(fields.get("parents") or [])
            run = {"run_dir": folder, "run_id": fields.get("run_id", folder), "parents": parents}
            found.append({**row, **run})
    return found


def _is_compact(lister: Lister, folder: str) -> bool:
    return COMPACT_RECORDS.rpartition("/")[2] in lister.files(f"{folder}/{RECORDS}")


def _record_files(lister: Lister, folders: Iterable[str]) -> list[tuple[str, str]]:
    """(run folder, path in it) of record files that count: a compacted one alone where it is."""
    chosen = []
    for folder in folders:
        paths = [f"{RECORDS}/{name}" for name in lister.files(f"{folder}/{RECORDS}")]
        if COMPACT_RECORDS in paths:
            paths = [COMPACT_RECORDS]
        chosen += [(folder, path) for path in paths]
    return chosen


def _records(lister: Lister, chosen: list[tuple[str, str]]) -> pa.Table:
    """Every commit record, and the folder of its run."""
    with ThreadPoolExecutor(_READERS) as pool:
        contents = list(pool.map(lambda file: lister.read("/".join(file)), chosen))
    schema = tables.SHARDS.append(pa.field("run_dir", pa.string()))
    found = [schema.empty_table()]
    for (folder, _), content in zip(chosen, contents, strict=True):
        if content is None:
            raise Moved
        rows = decode(content).replace_schema_metadata(schema.metadata)
        found.append(rows.append_column("run_dir", pa.array([folder] * len(rows), pa.string())))
    whole = pa.concat_tables(found, promote_options="permissive").select(schema.names)
    return whole.combine_chunks()  # thousands of one-row chunks are slow to hand over


def _named(lister: Lister, records: pa.Table) -> dict[str, list[Segment]]:
    """Files that records name, by table."""
    found: dict[str, dict[str, Segment]] = {}
    for row in records.select(["run_dir", "run_id", "shard", "files"]).to_pylist():
        for file in row["files"] or ():
            path = lister.at(f"{row['run_dir']}/{file['path']}")
            segment = Segment(path, row["run_id"], row["shard"], file.get("columns"))
            found.setdefault(file["kind"], {})[path] = segment
    return {kind: list(segments.values()) for kind, segments in found.items()}


def _add_calls_and_events(
    lister: Lister, ids: Mapping[str, str], segments: dict[str, list[Segment]]
) -> None:
    """Files that count without being named: all events, and what lost attempts have paid."""
    for kind in ("calls", "events"):
        named = {segment.path: segment for segment in segments.get(kind, ())}
        segments[kind] = []
        for folder, run_id in ids.items():
            below = f"{folder}/manifest/{kind}"
            for name in _standing(lister, below):
                path = lister.at(f"{below}/{name}")
                segments[kind].append(named.get(path) or Segment(path, run_id, None, None))


def _standing(lister: Lister, folder: str) -> list[str]:
    """Names in a folder without those that a compacted segment among them stands for."""
    names = lister.files(folder)
    gone: set[str] = set()
    for name in names:
        if name.startswith("compact-") and len(names) > 1:
            content = io.BytesIO(lister.read(f"{folder}/{name}") or b"")
            metadata = pq.read_schema(content).metadata or {}
            gone.update(json.loads(metadata.get(REPLACES, b"[]")))
    return [name for name in names if name not in gone]
