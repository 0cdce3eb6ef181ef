"""Prove a run whole: everything its records say is there, once, and nothing else counts.

Reads every committed byte. Orphans and unfinished shards are stated, not complained of: a run may
be interrupted, and an interrupted run is whole as far as it goes.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.tables import KEY, MANIFEST
from pipeline.errors import CofpipeError
from pipeline.runner.gc import orphans
from pipeline.runner.rundir import LISTING, File, Record, read_run, records
from pipeline.runner.storage import LocalStorage, Storage, storage_at
from pipeline.shards import Plan
from pipeline.sources.listing import load_listing, read_listing, write_listing

_CHUNK = 1 << 20
_SHOWN = 3
"""Examples named in a problem that many rows share."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was found; as a collection it is its problems, so an empty one is good news."""

    problems: tuple[str, ...]
    orphans: tuple[str, ...]
    """Files that no record names; `gc` removes them."""
    unfinished: tuple[int, ...]
    """Shards that have entries left (of a run that stops at N rows, too)."""
    parts: int
    files: int
    rows: int
    bytes: int

    def __iter__(self) -> Iterator[str]:
        return iter(self.problems)

    def __len__(self) -> int:
        return len(self.problems)


def fsck(run_dir: str | Path) -> Report:
    """Check a run; raises `SourceError` when there is none."""
    storage = storage_at(str(run_dir))
    run = read_run(storage)
    found = records(storage)
    files = {file.path: file for record in found for file in record.files}
    total = int(run.get("shards_total") or 0)
    ended = {record.shard for record in found if record.last}
    damage = {path: list(_file_problems(storage, file)) for path, file in files.items()}
    problems = [
        *_listing_problems(storage, run),
        *_chain_problems(found, run),
        *(problem for told in damage.values() for problem in told),
        *_sum_problems(found),
        *_key_problems(storage, found, {path for path, told in damage.items() if told}),
    ]
    rows = sum(record.rows for record in found)
    return Report(
        problems=tuple(problems),
        orphans=tuple(file.path for file in orphans(storage)),
        unfinished=() if _enough(rows, run) else tuple(s for s in range(total) if s not in ended),
        parts=len(found),
        files=len(files),
        rows=rows,
        bytes=sum(file.bytes for file in files.values()),
    )


def _enough(rows: int, run: Mapping[str, Any]) -> bool:
    """Whether a run that was to keep so many rows has them: its shards end where they do."""
    wanted = run.get("config", {}).get("rows")
    return wanted is not None and rows >= wanted


def _listing_problems(storage: Storage, run: Mapping[str, Any]) -> Iterator[str]:
    """Whether the listing is the one the run was planned with, entry by entry."""
    if not isinstance(storage, LocalStorage) or "listing_digest" not in run:
        return
    folder = storage.root / LISTING
    try:
        said = load_listing(folder)
        with tempfile.TemporaryDirectory() as copy:
            actual = write_listing(iter(read_listing(folder, 0, said.count)), Path(copy))
    except (CofpipeError, OSError, ValueError, pa.ArrowException) as error:
        yield f"The listing cannot be read: {error}"
        return
    if actual.digest != run["listing_digest"]:
        yield "The listing is not the one this run was planned with."
    if actual.count != run.get("entries", actual.count):
        yield f"The listing has {actual.count} entries; the run was planned with {run['entries']}."


def _chain_problems(found: list[Record], run: Mapping[str, Any]) -> Iterator[str]:
    """Whether each shard's parts follow one another from its first entry on, without a gap."""
    entries, total = int(run.get("entries") or 0), int(run.get("shards_total") or 0)
    ranges = Plan("", "", "", entries, max(total, 1)).ranges()
    for shard, parts in groupby(found, key=lambda record: record.shard):
        if shard >= len(ranges):
            yield f"Shard {shard} is committed; the run has {len(ranges)}."
            continue
        cursor, ended = (ranges[shard][0], 0), False
        for number, record in enumerate(parts):
            where = f"Shard {shard} part {record.part}"
            if record.run_id != run.get("run_id"):
                yield f"{where} belongs to run {record.run_id!r}."
            if record.part != number:
                yield f"{where} follows part {number - 1}: parts are missing."
                break
            if (record.first_index, record.first_skip) != cursor or ended:
                yield f"{where} does not begin where the part before it ends."
            cursor, ended = (record.next_index, record.next_skip), record.last
        if ended and cursor != (ranges[shard][1], 0):
            yield f"Shard {shard} ends at entry {cursor[0]} instead of {ranges[shard][1]}."


def _file_problems(storage: Storage, file: File) -> Iterator[str]:
    """Whether a committed file is there with the bytes and the rows that were committed."""
    digest, size = hashlib.sha256(), 0
    try:
        with storage.open(file.path) as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except FileNotFoundError:
        yield f"{file.path} is missing."
        return
    if size != file.bytes:
        yield f"{file.path} has {size} bytes; {file.bytes} were committed."
    elif digest.hexdigest() != file.sha256:
        yield f"{file.path} has changed since it was committed."
    else:
        with storage.open(file.path) as stream:
            rows = pq.read_metadata(stream).num_rows
        if rows != file.rows:
            yield f"{file.path} has {rows} rows; {file.rows} were committed."


def _sum_problems(found: list[Record]) -> Iterator[str]:
    """Whether each record's own counts are those of its files."""
    for record in found:
        rows = sum(f.rows for f in record.files if f.kind == record.kind)
        if rows != record.rows and record.kind not in MANIFEST:
            yield (
                f"Shard {record.shard} part {record.part} says {record.rows} rows of "
                f"{record.kind}; its files have {rows}."
            )


def _key_problems(storage: Storage, found: list[Record], damaged: Collection[str]) -> Iterator[str]:
    """Whether any row of the main kind, or of the rejected ones, is there twice in sound files."""
    for kind in sorted({record.kind for record in found} | {"rejected"}):
        paths = sorted({f.path for r in found for f in r.files if f.kind == kind} - set(damaged))
        keys = [table for path in paths if (table := _keys(storage, path)) is not None]
        if not keys:
            continue
        whole = pa.concat_tables(keys)
        names = whole.column_names
        counted = whole.group_by(names).aggregate([([], "count_all")])
        twice = [row for row in counted.to_pylist() if row["count_all"] > 1]
        if twice:
            shown = ", ".join(str(tuple(row[name] for name in names)) for row in twice[:_SHOWN])
            yield f"{len(twice)} rows of {kind} are there more than once: {shown}."


def _keys(storage: Storage, path: str) -> pa.Table | None:
    """The key columns of a file; None when it has no such columns."""
    with storage.open(path) as stream:
        file = pq.ParquetFile(stream)
        names = [name for name in KEY if name in file.schema_arrow.names]
        return file.read(columns=names).select(names) if names else None
