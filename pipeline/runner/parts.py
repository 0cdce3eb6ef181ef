"""Rows to Parquet: one part of a shard, one file per table, cut and grouped by what the rows are.

The bytes of a data file follow from its units alone: no clock, no worker, no attempt in it. Rows
of one unit stay together in one row group, so a picture that many rows carry is stored once.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.tables import columns_digest
from pipeline.runner.rundir import File, part_path
from pipeline.runner.storage import Storage
from pipeline.shards import MEGABYTE, SET_ASIDE, Plan, Unit

GROUP_ROWS = 10_000
GROUP_BYTES = 16 * MEGABYTE
"""A row group is closed once its values, repeated pictures counted once, reach this."""
GROUP_MEMORY = 64 * MEGABYTE
"""And once its values, every repeat counted, reach this: what they take in memory."""

_DICTIONARY_LIMIT = 1 << 30
"""Bytes of distinct values up to which a column stays dictionary-encoded: no group reaches it."""


class Part:
    """The part of a shard that an attempt is filling."""

    def __init__(
        self,
        storage: Storage,
        schemas: Mapping[str, pa.Schema],
        main: str,
        stamp: Mapping[str, Any],
    ) -> None:
        self._storage = storage
        self._schemas = schemas
        self._main = main
        self._stamp = stamp
        self._tables: dict[str, _TableFile] = {}
        self.units = 0
        self.rows = 0
        self.rejected = 0
        self.tally: Counter[str] = Counter()
        self.bytes = 0
        """Of the values, a unit's repeated pictures counted once."""

    def add(self, unit: Unit) -> None:
        """Take in a unit; raises `ValueError` when its rows do not fit their tables."""
        for kind, rows in unit.tables.items():
            if kind not in self._schemas:
                raise ValueError(f"Unit {unit.key!r} has rows for {kind!r}, which has no schema.")
            if rows:
                self._table(kind).add([self._stamped(kind, row) for row in rows])
        self.units += 1
        self.rows += unit.kept
        self.rejected += sum(r["stage"] != SET_ASIDE for r in unit.tables.get("rejections", ()))
        self.tally.update(unit.tally)
        self.bytes += weight(unit)

    def finish(self) -> tuple[File, ...]:
        """Write the files for good; they count only once a record names them."""
        return tuple(self._tables[kind].finish() for kind in sorted(self._tables))

    def abandon(self) -> None:
        """Drop what was written."""
        for table in self._tables.values():
            table.abandon()

    def _table(self, kind: str) -> _TableFile:
        if kind not in self._tables:
            path = part_path(kind, **self._stamp)
            self._tables[kind] = _TableFile(self._storage, kind, path, self._schemas[kind])
        return self._tables[kind]

    def _stamped(self, kind: str, row: dict[str, Any]) -> dict[str, Any]:
        """The row with its attempt's stamp, where its table has those columns."""
        names = self._schemas[kind].names
        return {**row, **self._stamp} if "attempt" in names else row


def full(part: Part, plan: Plan) -> bool:
    """Whether the part is to be committed as it is; a part of rejections is long, too, some day."""
    return max(part.rows, part.units) >= plan.part_rows or part.bytes >= plan.part_bytes


def overfull(part: Part, unit: Unit, plan: Plan) -> bool:
    """Whether the part is to be committed before this unit."""
    if not part.units:
        return False
    return part.rows + unit.kept > plan.part_rows or part.bytes + weight(unit) > plan.part_bytes


def weight(unit: Unit) -> int:
    """Bytes of a unit's values, repeats within a table counted once."""
    return sum(_weights(rows)[0] for rows in unit.tables.values())


def _weights(rows: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """Bytes of the rows' values: with repeated byte strings counted once, and all of them."""
    once = total = 0
    seen: set[bytes] = set()
    stack: list[Any] = list(rows)
    while stack:
        value = stack.pop()
        if isinstance(value, Mapping):
            stack.extend(value.values())
        elif isinstance(value, (list, tuple)):
            stack.extend(value)
        elif isinstance(value, bytes):
            total += len(value)
            if value not in seen:
                seen.add(value)
                once += len(value)
        else:
            size = len(value) if isinstance(value, str) else 8
            once, total = once + size, total + size
    return once, total


class _TableFile:
    """One table's file of a part, streamed: it never holds more than a row group."""

    def __init__(self, storage: Storage, kind: str, path: str, schema: pa.Schema) -> None:
        self._kind = kind
        self._path = path
        self._schema = schema
        self._names = set(schema.names)
        self._batches: list[pa.RecordBatch] = []
        self._rows = 0
        self._once = self._total = self._written = 0
        self._stack = ExitStack()
        self._sink = Hashed(self._stack.enter_context(storage.create(path)))
        self._writer = _writer(self._sink, schema)

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Take in a unit's rows, then close the row group if it has become long."""
        for row in rows:
            if unknown := row.keys() - self._names:
                raise ValueError(f"Table {self._kind!r} has no column {sorted(unknown)}.")
        once, total = _weights(rows)
        self._batches.append(pa.RecordBatch.from_pylist(rows, self._schema))
        self._rows += len(rows)
        self._once += once
        self._total += total
        long = self._rows >= GROUP_ROWS
        if long or self._once >= GROUP_BYTES or self._total >= GROUP_MEMORY:
            self._flush()

    def finish(self) -> File:
        self._flush()
        self._writer.close()
        self._stack.close()
        size, digest = self._sink.size, self._sink.digest.hexdigest()
        columns = columns_digest(self._schema)
        return File(self._kind, self._path, self._written, size, digest, columns)

    def abandon(self) -> None:
        """Leave the block of `storage.create` by an error, so that nothing appears."""
        self._writer.close()
        self._stack.__exit__(_Abandoned, _Abandoned(), None)

    def _flush(self) -> None:
        if self._batches:
            table = pa.Table.from_batches(self._batches, self._schema)
            self._writer.write_table(table, row_group_size=table.num_rows)
            self._written += table.num_rows
        self._batches, self._rows, self._once, self._total = [], 0, 0, 0


class _Abandoned(Exception):
    """Tells a half-written file to vanish."""


class Hashed(io.RawIOBase):
    """A file being written, with its size and SHA-256 so far."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.size = 0
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._file.write(data)
        self.digest.update(data)
        self.size += len(data)
        return len(data)

    def tell(self) -> int:
        return self.size


def _writer(sink: io.RawIOBase, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        use_dictionary=True,
        dictionary_pagesize_limit=_DICTIONARY_LIMIT,
        write_page_index=True,
    )
