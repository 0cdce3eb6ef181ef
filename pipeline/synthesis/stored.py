"""Rows of committed files, read back a few at a time: for proofs and exports alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow.parquet as pq

from pipeline.runner.storage import Storage


def stored_rows(
    storage: Storage, path: str, batch: int, columns: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """The rows of a file, `batch` at a time; memory does not grow with the file.

    `columns` may reach into one (`image.bytes`); one that an older file lacks is None in every row.
    """
    with storage.open(path) as stream:
        file = pq.ParquetFile(stream)
        names = set(file.schema_arrow.names)
        lacking = {c: None for c in columns or () if c.partition(".")[0] not in names}
        known = None if columns is None else [c for c in columns if c not in lacking]
        for group in range(file.num_row_groups):  # one iterator over all of them keeps what it read
            for found in file.iter_batches(batch, row_groups=[group], columns=known):
                yield from (lacking | row for row in found.to_pylist())
