"""A run's directory: the names of its files, `run.json`, and the commit records.

The records are the truth about what is done; every other file is there because a record names it.
Knows how to read and publish them, not when.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests import segments, tables
from pipeline.errors import CheckFailed, SourceError
from pipeline.runner.storage import Storage

RUN = "run.json"
LISTING = "listing"
RECORDS = segments.RECORDS
COMPACT_RECORDS = segments.COMPACT_RECORDS

_READERS = 16
_PLAIN = {"compression": "none", "use_dictionary": False, "write_statistics": False}
"""A record is one row: what helps large files makes it twice as slow to write and to read."""


@dataclass(frozen=True, slots=True)
class File:
    """A committed file."""

    kind: str
    path: str
    rows: int
    bytes: int
    sha256: str
    columns: str
    """Digest of its columns: files with the same one can be read together."""


@dataclass(frozen=True, slots=True)
class Record:
    """A committed part of a shard: a row of `manifest/shards`."""

    run_id: str
    kind: str
    shard: int
    part: int
    attempt: str
    files: tuple[File, ...]
    rows: int
    """Of the main kind."""
    rejected: int
    """Samples that failed."""
    bytes: int
    sha256: str
    """Digest over the digests of the data files: equal for equal data, whoever made it."""
    seconds: float
    worker: str
    committed_at: datetime
    first_index: int
    first_skip: int
    next_index: int
    next_skip: int
    last: bool
    """Whether the shard's last entry is done."""
    tally: Mapping[str, int] = field(default_factory=dict)
    """Sums over the part's units."""


def record_path(shard: int, part: int) -> str:
    """Where the record of a part is published; the name that two attempts compete for."""
    return f"{RECORDS}/shard-{shard:05d}.{part:03d}.parquet"


def part_path(kind: str, *, shard: int, attempt: str, part: int) -> str:
    """Where an attempt puts its rows of a kind; manifest tables and data lie apart."""
    folder = "manifest" if kind in tables.MANIFEST else "data"
    return f"{folder}/{kind}/shard-{shard:05d}.{attempt}.part-{part:03d}.parquet"


def data_digest(files: Iterable[File]) -> str:
    """Digest of the data files' contents, their names and manifest tables left out."""
    lines = sorted(f"{f.kind}:{f.sha256}\n" for f in files if f.path.startswith("data/"))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def publish(storage: Storage, record: Record) -> bool:
    """Publish a part's record; False when another attempt was first."""
    return storage.put_if_absent(record_path(record.shard, record.part), encode([record]))


def encode(records: Iterable[Record]) -> bytes:
    """Records as one Parquet file."""
    rows = [asdict(record) for record in records]
    sink = io.BytesIO()
    table = pa.Table.from_pylist(rows, tables.SHARDS)
    pq.write_table(table, sink, **_PLAIN)
    return sink.getvalue()


def decode(data: bytes) -> list[Record]:
    """The records of a file that `encode` made."""
    rows = segments.decode(data).to_pylist()
    return [_record(row) for row in rows]


def _record(row: dict[str, Any]) -> Record:
    files = tuple(File(**file) for file in row["files"])
    return Record(**{**row, "files": files, "tally": dict(row.get("tally") or ())})


def records(storage: Storage) -> list[Record]:
    """The run's records, by shard and part."""
    found = _compact(storage)
    if found is None:
        paths = [f.path for f in storage.list(RECORDS) if f.name.startswith("shard-")]
        with ThreadPoolExecutor(_READERS) as pool:
            found = [record for data in pool.map(storage.read, paths) for record in decode(data)]
    return sorted(found, key=lambda record: (record.shard, record.part))


def records_after(storage: Storage, shard: int, part: int) -> list[Record]:
    """A shard's records from a part on, without looking at any other shard's."""
    found: list[Record] = []
    try:
        while True:
            found += decode(storage.read(record_path(shard, part + len(found))))
    except FileNotFoundError:
        whole = _compact(storage)
    if whole is None:
        return found
    return [record for record in whole if record.shard == shard and record.part >= part]


def write_run(storage: Storage, fields: Mapping[str, Any]) -> bool:
    """Write `run.json` for good, unless the run has one: False then."""
    text = json.dumps(fields, indent=2, ensure_ascii=False, sort_keys=False)
    return storage.put_if_absent(RUN, (text + "\n").encode())


def read_run(storage: Storage) -> dict[str, Any]:
    """The run's `run.json`; raises `SourceError` when this is not a run directory."""
    try:
        fields: dict[str, Any] = json.loads(storage.read(RUN))
    except FileNotFoundError as error:
        raise SourceError("There is no run here: run.json is missing.") from error
    except ValueError as error:
        raise CheckFailed(f"run.json is not JSON: {error}.") from error
    return fields


def _compact(storage: Storage) -> list[Record] | None:
    """The records of a finished run; None while it is not."""
    try:
        return decode(storage.read(COMPACT_RECORDS))
    except FileNotFoundError:
        return None
