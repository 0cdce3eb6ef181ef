"""The ledger of one attempt: model calls kept for good, found again, and held to a budget.

What `pipeline/shards.py` promises to workers. Calls are written by a thread of its own, so that
nobody who adds one waits for a disk; where they lie is `pipeline/runner/calls.py`'s business.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from manifests.tables import CALLS
from pipeline.errors import BudgetReached
from pipeline.runner import calls
from pipeline.runner.calls import COUNTED, Entry
from pipeline.runner.storage import Storage
from pipeline.shards import Grant, Spent

FLUSH_S = 0.05
FLUSH_BYTES = 64 * 1024
"""A call is on disk this long after it was added, or when so much is waiting."""


class CallLedger:
    """The calls of one attempt, and those that earlier attempts at its shard have left."""

    def __init__(self, storage: Storage, grant: Grant, on_call: Callable[[], None]) -> None:
        self._storage = storage
        self._grant = grant
        self._on_call = on_call
        self._lock = threading.Lock()
        self._writer = _Writer(storage, calls.journal_path(grant.shard, grant.attempt))
        self._known: dict[str, dict[str, Any]] = {}
        self._fresh: list[Entry] = []
        """Added, and not in the table yet."""
        self._published = 0
        self._part = grant.part
        self._spent = Spent()
        if grant.attempted:
            for entry in calls.read_shard(storage, grant.shard):
                self._known[entry["key"]] = entry["call"]

    @property
    def spent(self) -> Spent:
        """What this attempt has paid."""
        return self._spent

    def find(self, key: str) -> dict[str, Any] | None:
        with self._lock:
            call = self._known.get(key)
        return dict(call) if call is not None else None

    def add(self, key: str, call: Mapping[str, Any]) -> None:
        _check_types(call)
        self._enter(key, dict(call), replayed=False)

    def replayed(self, key: str, call: Mapping[str, Any]) -> None:
        told = {name: call.get(name) for name in COUNTED}
        told["cost_usd"] = None if told["cost_usd"] is None else 0.0
        told["latency_s"] = None
        self._enter(key, told, replayed=True)

    def check(self) -> None:
        budget = self._grant.budget
        if not budget.covers(self._spent):
            raise BudgetReached("What this attempt may spend is spent.")
        if budget.until is not None and time.time() >= budget.until:
            raise BudgetReached("The hours that this run may take are over.")

    def publish(self) -> None:
        """Make all calls so far durable, and bring them into the table; then a part may commit."""
        grant = self._grant
        with self._lock:
            fresh = list(self._fresh)
        self._writer.flush()
        calls.publish(self._storage, grant.shard, grant.attempt, fresh, self._published)
        with self._lock:
            del self._fresh[: len(fresh)]
        self._published += len(fresh)

    def next_part(self) -> None:
        """A part was committed: calls from now on belong to the next one."""
        self._part += 1

    def close(self) -> None:
        """The attempt ends by its own will: nothing of it is left to others."""
        try:
            self.publish()
            if self._published:
                calls.mark_done(self._storage, self._grant.shard, self._grant.attempt)
        finally:
            self._writer.close()

    def _enter(self, key: str, call: dict[str, Any], *, replayed: bool) -> None:
        entry = {"key": key, "call": call, "part": self._part, "replayed": replayed}
        framed = calls.frame(entry)
        counted = {name: call.get(name) for name in COUNTED}
        with self._lock:
            self._writer.add(framed)  # in the order of the journal: the table counts on it
            self._fresh.append({**entry, "call": counted})
            if not replayed:
                self._known[key] = call
                self._spent += calls.sum_of([call])
        self._on_call()


class _Writer:
    """Appends to a file from a thread of its own, soon and for good."""

    def __init__(self, storage: Storage, path: str) -> None:
        self._storage = storage
        self._path = path
        self._append: Callable[[bytes], None] | None = None
        self._changed = threading.Condition()
        self._waiting = bytearray()
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._error: Exception | None = None

    def add(self, data: bytes) -> None:
        """Have the bytes written; raises what an earlier write has met."""
        with self._changed:
            self._raise()
            self._waiting += data
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="calls", daemon=True)
                self._thread.start()
            self._changed.notify()

    def flush(self) -> None:
        """Return once all that was added is durable."""
        with self._writing:
            with self._changed:
                self._raise()
                data = bytes(self._waiting)
                self._waiting.clear()
            if not data:
                return
            try:
                if self._append is None:
                    self._append = self._storage.append(self._path, durable=True)
                self._append(data)
            except Exception as error:
                self._error = error  # what lies in the file now may be half a frame
                raise

    def close(self) -> None:
        """End the thread; what was not flushed is dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                self._changed.wait_for(self._urgent, FLUSH_S)
                if self._closed:
                    return
            try:
                self.flush()
            except Exception:  # noqa: BLE001 — kept: whoever adds or flushes next raises it
                return

    def _urgent(self) -> bool:
        return self._closed or len(self._waiting) >= FLUSH_BYTES

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error


_PYTHON = {
    name: (str,) if pa.types.is_string(kind) else (int, float) if kind == pa.float64() else (int,)
    for name, kind in zip(CALLS.names, CALLS.types, strict=True)
}


def _check_types(call: Mapping[str, Any]) -> None:
    """Raise `TypeError` here and now for what the table could not hold later."""
    for name in COUNTED:
        value = call.get(name)
        if value is not None and not isinstance(value, _PYTHON[name]):
            raise TypeError(f"A call's {name} cannot be {value!r}.")
