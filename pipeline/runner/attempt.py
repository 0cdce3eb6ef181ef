"""The worker's loop: one attempt at a shard, from its cursor to its end, part by part.

The same code runs in a thread and in a Ray actor. It knows the storage and the worker, not who
else works: another attempt shows itself only by having published a part first.
"""

from __future__ import annotations

import importlib
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, cast

from pipeline.errors import BudgetReached, ConfigError
from pipeline.runner.journal import Journal
from pipeline.runner.parts import Part, full, overfull
from pipeline.runner.rundir import Record, data_digest, publish
from pipeline.runner.storage import Storage
from pipeline.shards import Grant, Plan, ShardWorker, Unit

Ending = Literal["done", "stopped", "lost", "budget"]


@dataclass(frozen=True, slots=True)
class Result:
    """How an attempt ended by its own will."""

    ending: Ending
    """`done`: end or quota reached · `stopped`: asked to · `lost`: another attempt was first."""
    reason: str = ""


def open_worker(name: str, settings: dict[str, Any], plan: Plan) -> ShardWorker:
    """The worker that `"module:function"` makes; raises `ConfigError` when it is not the plan's."""
    module, _, function = name.partition(":")
    try:
        make = getattr(importlib.import_module(module), function)
    except (ModuleNotFoundError, AttributeError, ValueError) as error:
        raise ConfigError(f"There is no worker {name!r}: {error}.") from error
    worker = cast(ShardWorker, make(settings))
    if worker.main != plan.kind:
        raise ConfigError(f"Worker {name!r} makes {worker.main!r}; the run is of {plan.kind!r}.")
    return worker


Counts = tuple[int, int, int]
"""Units begun, units finished, parts committed."""


class Progress:
    """What a worker has begun, finished and committed: read by whoever watches it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = 0
        self._finished = 0
        self._records: list[Record] = []

    def begin(self) -> None:
        with self._lock:
            self._begun += 1

    def finish(self) -> None:
        with self._lock:
            self._finished += 1

    def commit(self, record: Record) -> None:
        with self._lock:
            self._records.append(record)

    def since(self, seen: int) -> tuple[Counts, list[Record]]:
        """Counts so far, and the records after `seen`."""
        with self._lock:
            counts = (self._begun, self._finished, len(self._records))
            return counts, self._records[seen:]


class _Lost(Exception):
    """Another attempt has published the part."""


class Attempt:
    """One attempt at the rest of a shard."""

    def __init__(
        self,
        plan: Plan,
        grant: Grant,
        worker: ShardWorker,
        storage: Storage,
        *,
        progress: Progress,
        stopping: Callable[[], bool],
        runner: str,
    ) -> None:
        self._plan = plan
        self._grant = grant
        self._worker = worker
        self._storage = storage
        self._progress = progress
        self._stopping = stopping
        self._runner = runner
        self._left = grant.rows_left
        self._cursor = (grant.start, grant.skip)
        self._number = grant.part
        self._open_part()

    def run(self) -> Result:
        """Work until the end, the quota, a stop or a loss; the worker's errors pass through."""
        if self._stopping():
            return Result("stopped")
        self._journal = Journal(self._storage, self._grant.shard, self._grant.attempt, self._runner)
        result = Result("stopped", "error")
        try:
            result = self._work()
        finally:
            self._part.abandon()
            self._journal.close(result.reason or result.ending)
        return result

    def _work(self) -> Result:
        try:
            ending = self._entries()
            return Result(ending)
        except BudgetReached as error:
            self._commit(last=False)
            return Result("budget", str(error))
        except _Lost:
            return Result("lost")

    def _entries(self) -> Ending:
        """Every listing row from the cursor on; commits what is left over at the end."""
        for index in range(self._grant.start, self._grant.stop):
            if ending := self._entry(index):
                self._commit(last=False)
                return ending
            self._cursor = (index + 1, 0)
        self._commit(last=True)
        return "done"

    def _entry(self, index: int) -> Ending | None:
        """Every unit of one listing row; says so when the attempt is to end before its time."""
        skip = self._cursor[1] if index == self._cursor[0] else 0
        units = self._worker.units(
            index,
            skip=skip,
            rows_left=self._left,
            crashed=self._grant.crashed,
            started=self._started,
        )
        for place, unit in enumerate(units, start=skip + 1):
            self._take(unit, (index, place))
            if self._left == 0:
                return "done"
            if self._stopping():
                return "stopped"
        return "stopped" if self._stopping() else None

    def _started(self, key: str) -> None:
        self._progress.begin()
        self._journal.start(key)

    def _take(self, unit: Unit, cursor: tuple[int, int]) -> None:
        """Add a finished unit, committing before or after it as the part's limits have it."""
        self._check(unit)
        self._journal.end(unit.key)
        self._progress.finish()
        if overfull(self._part, unit, self._plan):
            self._commit(last=False)
        self._part.add(unit)
        self._cursor = cursor
        if self._left is not None:
            self._left -= unit.kept
        if full(self._part, self._plan):
            self._commit(last=False)

    def _check(self, unit: Unit) -> None:
        rows = len(unit.tables.get(self._worker.main, ()))
        if rows != unit.kept:
            raise ValueError(f"Unit {unit.key!r} says it keeps {unit.kept} rows and has {rows}.")
        if self._left is not None and unit.kept > self._left:
            raise ValueError(f"Unit {unit.key!r} keeps {unit.kept} rows; {self._left} were left.")

    def _open_part(self) -> None:
        schemas = {**self._worker.schemas, **self._worker.manifest}
        stamp = {
            "shard": self._grant.shard,
            "part": self._number,
            "attempt": self._grant.attempt,
        }
        self._part = Part(self._storage, schemas, self._worker.main, stamp)
        self._first = self._cursor
        self._since = time.monotonic()

    def _commit(self, *, last: bool) -> None:
        """Write the part's files, then publish its record; raises `_Lost` when one is there."""
        if self._cursor == self._first and not last:
            return
        record = self._record(last)
        if not publish(self._storage, record):
            raise _Lost
        self._progress.commit(record)
        self._number += 1
        self._open_part()

    def _record(self, last: bool) -> Record:
        files = self._part.finish()
        return Record(
            run_id=self._plan.run_id,
            kind=self._plan.kind,
            shard=self._grant.shard,
            part=self._number,
            attempt=self._grant.attempt,
            files=files,
            rows=self._part.rows,
            rejected=self._part.rejected,
            bytes=sum(file.bytes for file in files),
            sha256=data_digest(files),
            seconds=time.monotonic() - self._since,
            worker=f"{socket.gethostname()}/{os.getpid()}/{threading.current_thread().name}",
            committed_at=datetime.now(UTC),
            first_index=self._first[0],
            first_skip=self._first[1],
            next_index=self._cursor[0],
            next_skip=self._cursor[1],
            last=last,
        )
