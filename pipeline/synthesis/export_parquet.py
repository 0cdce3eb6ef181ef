"""Examples as Parquet that `datasets` decodes: a file for each split, or several where it is large.

Rows are held until they fill a row group, so memory does not grow with the run; the same rows give
the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.synthesis.export_rows import SPLITS, Example, Split

if TYPE_CHECKING:
    from datasets import Features

FOLDER = "data"
GROUP_ROWS = 64
GROUP_BYTES = 32 * 2**20
FILE_BYTES = 500 * 2**20

Row = dict[str, Any]


class ParquetSplits:
    """Files below `data/`, named after the splits as `load_dataset` finds them."""

    def __init__(self, folder: Path, features: Features) -> None:
        (folder / FOLDER).mkdir()
        self._splits = {split: _Split(folder / FOLDER, split, features) for split in SPLITS}

    def add(self, split: Split, row: Row, size: int) -> None:
        """A row of about `size` bytes."""
        self._splits[split].add(row, size)

    def close(self) -> None:
        """Write what is held, and the ends of the files."""
        for split in self._splits.values():
            split.end()


class _Split:
    """The files of one split, and the rows that wait for the next row group."""

    def __init__(self, folder: Path, split: Split, features: Features) -> None:
        self._folder, self._split = folder, split
        self._schema: pa.Schema = features.arrow_schema
        self._rows: list[Row] = []
        self._held = self._written = self._files = 0
        self._writer: pq.ParquetWriter | None = None

    def add(self, row: Row, size: int) -> None:
        self._rows.append(row)
        self._held += size
        if len(self._rows) >= GROUP_ROWS or self._held >= GROUP_BYTES:
            self._flush()
        if self._written >= FILE_BYTES:
            self.end()

    def end(self) -> None:
        """End the file that is open; the next row begins another."""
        self._flush()
        if self._writer is not None:
            self._writer.close()
            self._writer, self._written = None, 0

    def _flush(self) -> None:
        """Write the rows that wait as one row group."""
        if not self._rows:
            return
        if self._writer is None:
            path = self._folder / f"{self._split}-{self._files:05d}.parquet"
            self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
            self._files += 1
        self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._written += self._held
        self._rows, self._held = [], 0


def cells(example: Example) -> list[Row]:
    """The pictures as `datasets` stores them."""
    return [
        {"bytes": data, "path": f"{example.name}-{place}.{example.ending}"}
        for place, data in enumerate(example.pictures)
    ]


def weight_of(example: Example) -> int:
    """About how many bytes a row takes while it waits."""
    return sum(map(len, example.pictures)) + len(example.source) + 4096
