"""The listing: everything there is to do, written once as sorted Parquet, cut by row ranges.

Owns the file's layout and its digest. It reads no image and knows nothing of shards.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import SourceError
from pipeline.sources.base import Entry

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_FILE = "part-000.parquet"
_ROW_GROUP = 16_384
_DIGEST = b"cofpipe.listing"


@dataclass(frozen=True, slots=True)
class Listing:
    """How many entries there are, and a digest of all their keys, sizes and stamps."""

    count: int
    digest: str


def write_listing(entries: Iterable[Entry], directory: Path) -> Listing:
    """Write entries, which ascend by key, below `directory`; holds one row group at a time.

    The file appears whole or not at all. Raises `ValueError` for keys out of order or twice.
    """
    import pyarrow.parquet as pq

    directory.mkdir(parents=True, exist_ok=True)
    hidden = directory / f".{_FILE}.{os.getpid()}"
    try:
        with pq.ParquetWriter(hidden, _schema(), compression="zstd") as writer:
            listing = _write_groups(iter(entries), writer)
        _publish(hidden, directory / _FILE)
    finally:
        hidden.unlink(missing_ok=True)
    return listing


def load_listing(directory: Path) -> Listing:
    """Count and digest of a listing written earlier."""
    with _open(directory) as file:
        known = file.metadata.metadata or {}
        if _DIGEST not in known:
            raise SourceError(f"'{directory.name}' is not a listing of this program.")
        return Listing(file.metadata.num_rows, known[_DIGEST].decode())


def read_listing(directory: Path, start: int, stop: int) -> list[Entry]:
    """Entries of the rows `start` to `stop` (exclusive), reading only their row groups."""
    with _open(directory) as file:
        groups, first = _groups_between(file, start, stop)
        if not groups:
            return []
        table = file.read_row_groups(groups, columns=["key", "size", "stamp"])
    rows = table.slice(max(start, 0) - first, stop - max(start, 0)).to_pydict()
    return [Entry(*row) for row in zip(rows["key"], rows["size"], rows["stamp"], strict=True)]


def _write_groups(entries: Iterator[Entry], writer: pq.ParquetWriter) -> Listing:
    """Write all entries and the digest, one row group after another."""
    import pyarrow as pa

    digest, count, last = hashlib.blake2b(digest_size=16), 0, None
    while chunk := list(islice(entries, _ROW_GROUP)):
        keys = [entry.key for entry in chunk]
        _check_order(last, keys)
        last = keys[-1]
        digest.update("".join(map(_identity, chunk)).encode("utf-8"))
        sizes, stamps = [entry.size for entry in chunk], [entry.stamp for entry in chunk]
        writer.write_table(pa.table([keys, sizes, stamps], schema=_schema()))
        count += len(chunk)
    writer.add_key_value_metadata({_DIGEST.decode(): digest.hexdigest()})
    return Listing(count, digest.hexdigest())


def _identity(entry: Entry) -> str:
    """Text that no other sequence of entries shares: lengths first, then the parts."""
    return f"{len(entry.key)},{len(entry.stamp)},{entry.size}:{entry.key}{entry.stamp}"


def _check_order(last: str | None, keys: list[str]) -> None:
    """Raise unless `last` and `keys` ascend strictly."""
    before = keys[0] if last is None else last
    for key in keys if last is not None else keys[1:]:
        if key <= before:
            raise ValueError(f"The listing's keys must ascend: {key!r} came after {before!r}.")
        before = key


def _groups_between(file: pq.ParquetFile, start: int, stop: int) -> tuple[list[int], int]:
    """Row groups that hold rows of [start, stop), and the row at which the first one begins."""
    groups: list[int] = []
    first = row = 0
    for group in range(file.metadata.num_row_groups):
        end = row + file.metadata.row_group(group).num_rows
        if row < stop and end > max(start, 0):
            first = first if groups else row
            groups.append(group)
        row = end
    return groups, first


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([("key", pa.string()), ("size", pa.int64()), ("stamp", pa.string())])


def _open(directory: Path) -> pq.ParquetFile:
    import pyarrow.parquet as pq

    path = directory / _FILE
    if not path.exists():
        raise SourceError(f"There is no listing in '{directory.name}'.")
    return pq.ParquetFile(path)


def _publish(hidden: Path, path: Path) -> None:
    """Make a written file durable under its name."""
    with hidden.open("rb") as file:
        os.fsync(file.fileno())
    hidden.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
