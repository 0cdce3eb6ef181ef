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
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, cast

from pipeline.errors import BudgetReached, ConfigError
from pipeline.runner.journal import Journal
from pipeline.runner.ledger import CallLedger
from pipeline.runner.parts import Part, full, overfull
from pipeline.runner.rundir import Record, data_digest, publish
from pipeline.runner.storage import Storage
from pipeline.shards import Grant, Passed, Plan, ShardWorker, Spent, Unit, Work

Ending = Literal["done", "stopped", "lost", "budget"]


@dataclass(frozen=True, slots=True)
class Result:
    """How an attempt ended by its own will."""

    ending: Ending
    """`done`: end or quota reached · `stopped`: asked to · `lost`: another attempt was first ·
    `budget`: its slice, or something that the worker knows of, is spent."""
    reason: str = ""
    spent: Spent = field(default_factory=Spent)


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
"""Units begun and calls made, units finished, parts committed."""


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
        self._tally = Counter(grant.tally)
        self._doubted = set(grant.doubted)
        self._cursor = (grant.start, grant.skip)
        self._number = grant.part
        self._open_part()

    def run(self) -> Result:
        """Work until the end, the quota, a stop or a loss; the worker's errors pass through."""
        if self._stopping():
            return Result("stopped")
        with ExitStack() as ends:
            result = Result("stopped", "error")
            grant = self._grant
            self._journal = Journal(self._storage, grant.shard, grant.attempt, self._runner)
            ends.callback(lambda: self._journal.close(result.reason or result.ending))
            self._ledger = CallLedger(self._storage, grant, self._progress.begin)
            ends.callback(self._ledger.close)
            ends.callback(lambda: self._part.abandon())
            result = self._work()
        return replace(result, spent=self._ledger.spent)

    def _work(self) -> Result:
        try:
            ending: Ending | None = None
            while ending is None:
                ending = self._walk(careful=bool(self._doubted))
            self._commit()
            return Result(ending)
        except BudgetReached as error:
            self._commit()
            return Result("budget", str(error))
        except _Lost:
            return Result("lost")

    def _walk(self, *, careful: bool) -> Ending | None:
        """Units from the cursor on; None when no doubt is left, so that it may go on faster."""
        entry, skip = self._cursor
        work = Work(
            shard=self._grant.shard,
            entries=range(entry, self._grant.stop),
            ledger=self._ledger,
            started=self._started,
            skip=skip,
            rows_left=self._left,
            crashed=self._grant.crashed,
            careful=careful,
            tally=dict(self._tally),
        )
        units = self._worker.units(work)
        with closing(units):
            for unit in units:
                if isinstance(unit, Passed):
                    self._pass(unit)
                else:
                    self._take(unit)
                if self._left == 0:
                    return "done"
                if self._stopping():
                    return "stopped"
                if careful and not self._doubted:
                    return None
        if not self._at_end:
            raise ValueError(f"The worker ended at row {self._cursor[0]}, not {self._grant.stop}.")
        return "done"

    @property
    def _at_end(self) -> bool:
        return self._cursor == (self._grant.stop, 0)

    def _started(self, key: str) -> None:
        self._progress.begin()
        self._journal.start(key)

    def _pass(self, passed: Passed) -> None:
        entry, _ = self._cursor
        if passed.entry != entry:
            raise ValueError(f"The worker passed row {passed.entry} when row {entry} was next.")
        self._cursor = (entry + 1, 0)

    def _take(self, unit: Unit) -> None:
        """Add a finished unit, committing before or after it as the part's limits have it."""
        self._check(unit)
        self._journal.end(unit.key)
        self._progress.finish()
        self._doubted.discard(unit.key)
        if overfull(self._part, unit, self._plan):
            self._commit()
        self._part.add(unit)
        entry, place = self._cursor
        self._cursor = (entry, place + 1)
        self._tally.update(unit.tally)
        if self._left is not None:
            self._left -= unit.kept
        if full(self._part, self._plan):
            self._commit()

    def _check(self, unit: Unit) -> None:
        if self._at_end:
            raise ValueError(f"Unit {unit.key!r} comes after the last row was passed.")
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

    def _commit(self) -> None:
        """Keep the part's calls, write its files, then publish its record: that is when it counts.

        Raises `_Lost` when another attempt has published one.
        """
        if self._cursor == self._first:
            return
        self._ledger.publish()
        record = self._record()
        if not publish(self._storage, record):
            raise _Lost
        self._ledger.next_part()
        self._progress.commit(record)
        self._number += 1
        self._open_part()

    def _record(self) -> Record:
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
            tally=dict(self._part.tally),
            bytes=sum(file.bytes for file in files),
            sha256=data_digest(files),
            seconds=time.monotonic() - self._since,
            worker=f"{socket.gethostname()}/{os.getpid()}/{threading.current_thread().name}",
            committed_at=datetime.now(UTC),
            first_index=self._first[0],
            first_skip=self._first[1],
            next_index=self._cursor[0],
            next_skip=self._cursor[1],
            last=self._at_end,
        )
