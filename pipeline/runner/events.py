"""What happened to a run as a whole: started, resumed, interrupted, finished, a worker lost.

One small file per session of a driver, written anew with every event. A run's status is read off
its last event.
"""

from __future__ import annotations

import io
import secrets
from bisect import bisect_right
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests import tables
from pipeline.runner.storage import Storage

FOLDER = "manifest/events"


class EventLog:
    """The events of one session of a driver."""

    def __init__(self, storage: Storage, run_id: str) -> None:
        self._storage = storage
        self._run_id = run_id
        self._rows: list[dict[str, Any]] = []
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        self._path = f"{FOLDER}/{now}-{secrets.token_hex(4)}.parquet"

    def add(self, event: str, detail: str = "") -> None:
        """Record an event for good."""
        row = {"run_id": self._run_id, "at": datetime.now(UTC), "event": event, "detail": detail}
        self._rows.append(row)
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(self._rows, tables.EVENTS), sink, compression="zstd")
        with self._storage.create(self._path) as file:
            file.write(sink.getvalue())


def any_events(storage: Storage) -> bool:
    """Whether a driver has worked on this run before."""
    return any(not file.temporary for file in storage.list(FOLDER))


def last_event(storage: Storage) -> str:
    """The last thing that a driver noted of this run; empty when there is nothing."""
    files = [file for file in storage.list(FOLDER) if not file.temporary]
    if not files:
        return ""
    newest = max(files, key=lambda file: file.name)
    table = pq.ParquetFile(io.BytesIO(storage.read(newest.path))).read(["event"])
    return str(table["event"][-1])


def seconds_worked(storage: Storage, commits: Iterable[datetime]) -> float:
    """Seconds from each session's first event to its last one, or to its last commit.

    A session that was killed has noted no end; what it had committed tells how long it lived.
    """
    sessions = sorted(
        pq.ParquetFile(io.BytesIO(storage.read(file.path))).read(["at"])["at"].to_pylist()
        for file in storage.list(FOLDER)
        if not file.temporary
    )
    ends = [max(times) for times in sessions]
    begins = [min(times) for times in sessions]
    for commit in commits:
        at = bisect_right(begins, commit) - 1
        if at >= 0:
            ends[at] = max(ends[at], commit)
    return sum((end - begin).total_seconds() for begin, end in zip(begins, ends, strict=True))
