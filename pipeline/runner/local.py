"""A run in this process: every worker is a thread with a worker object of its own.

Shares the driver and the worker's loop with `pipeline/runner/ray.py`, and the laws both keep.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from pipeline.errors import CofpipeError
from pipeline.runner.attempt import Attempt, Progress, Result, open_worker
from pipeline.runner.driver import Driver, OnEvent
from pipeline.runner.storage import Storage, storage_at
from pipeline.shards import Grant, Outcome, Plan, ShardWorker

_LOOK_S = 0.2
"""Longest time between two looks at the threads."""


def run_local(
    plan: Plan,
    worker: str,
    settings: dict[str, Any],
    *,
    workers: int = 1,
    on_event: OnEvent | None = None,
    stop: threading.Event | None = None,
) -> Outcome:
    """Work on a run until it is done, `stop` is set, or a budget is spent.

    An error of the worker's own code ends the run and passes through. A thread that makes no
    progress for `plan.stall_s` cannot be ended from outside: that raises `CofpipeError`, and the
    next call counts it as a death at the unit it was working on. After a death one thread works
    alone until it has passed the units that were open then, so that a second death tells which of
    them was to blame.
    """
    storage = storage_at(plan.run_dir)
    driver = Driver(plan, storage, on_event)
    if driver.finished:
        return driver.end("done")
    workers = min(workers, plan.shards_total)
    driver.begin(workers)
    driver.clear_doubts()
    crew = _Crew(plan, driver, storage, (worker, settings), stop or threading.Event())
    return crew.watch(workers)


class _Crew:
    """The threads of a run and what they share; one lock guards all of it."""

    def __init__(
        self,
        plan: Plan,
        driver: Driver,
        storage: Storage,
        worker: tuple[str, dict[str, Any]],
        stop: threading.Event,
    ) -> None:
        self._plan = plan
        self._driver = driver
        self._storage = storage
        self._worker = worker
        self._stop = stop
        self._drain = threading.Event()
        self._changed = threading.Condition()
        self._hands: list[_Hand] = []
        self._error: BaseException | None = None
        self._budget = ""

    def watch(self, workers: int) -> Outcome:
        """Wait for the threads; raise what one of them raised, or that one of them hangs."""
        self._hire(1 if self._driver.doubtful else workers)
        while any(hand.thread.is_alive() for hand in self._hands):
            with self._changed:
                self._changed.wait(min(_LOOK_S, self._plan.stall_s / 4))
                self._budget = self._budget or self._driver.exhausted
                if self._stop.is_set() or self._budget:
                    self._drain.set()
                self._take_records()
                for hand in self._hands:
                    self._check(hand)
                if not self._driver.doubtful and not self._stopping():
                    self._hire(workers)
        with self._changed:
            self._take_records()
        if self._error is not None:
            self._driver.fail(f"{type(self._error).__name__}: {self._error}")
            raise self._error
        return self._driver.close(self._budget)

    def _hire(self, workers: int) -> None:
        """Start threads until there are so many."""
        for number in range(len(self._hands), workers):
            hand = _Hand()
            hand.thread = threading.Thread(
                target=self._work, args=(hand,), name=f"local-{number}", daemon=True
            )
            self._hands.append(hand)
            hand.thread.start()

    def _check(self, hand: _Hand) -> None:
        """Raise `CofpipeError` when a thread has been silent for too long."""
        if not hand.grants or not hand.silent(self._plan.stall_s):
            return
        why = f"no progress for {self._plan.stall_s:g} s"
        shards = ", ".join(str(grant.shard) for grant in hand.grants.values())
        for attempt in hand.grants:
            self._driver.forsake(attempt, why)
        self._driver.worker_lost(why)
        self._driver.fail(why)
        self._drain.set()
        raise CofpipeError(
            f"A worker made {why} in shard {shards}.",
            "Run the same command again; a picture that does it twice is rejected.",
        )

    def _take_records(self) -> None:
        for hand in self._hands:
            _, new = hand.progress.since(hand.taken)
            hand.taken += len(new)
            self._driver.take(new)

    def _work(self, hand: _Hand) -> None:
        """A thread's life: make the worker, then attempt shard after shard."""
        try:
            work = open_worker(*self._worker, self._plan)
            others = [
                threading.Thread(
                    target=self._attempts, args=(hand, work, True), name=f"{hand.thread.name}+{n}"
                )
                for n in range(1, work.at_once)
            ]
            try:
                for other in others:
                    other.start()
                self._attempts(hand, work, False)
            finally:
                for other in others:
                    other.join()
                work.close()
        except BaseException as error:  # noqa: BLE001 — handed to the thread that watches
            self._failed(hand, error)

    def _attempts(self, hand: _Hand, work: ShardWorker, beside: bool) -> None:
        """Attempt shard after shard; `beside` another thread of the worker only while many wait."""
        try:
            while grant := self._next(hand, beside):
                attempt = Attempt(
                    self._plan,
                    grant,
                    work,
                    self._storage,
                    progress=hand.progress,
                    stopping=self._stopping,
                    runner="local",
                )
                self._settle(hand, grant, attempt.run())
        except BaseException as error:  # noqa: BLE001 — handed to the thread that watches
            self._failed(hand, error)

    def _failed(self, hand: _Hand, error: BaseException) -> None:
        """Have the thread that watches raise the error."""
        with self._changed:
            self._error = self._error or error
            hand.grants.clear()
            self._drain.set()
            self._changed.notify_all()

    def _stopping(self) -> bool:
        return self._stop.is_set() or self._drain.is_set()

    def _next(self, hand: _Hand, beside: bool) -> Grant | None:
        """The next grant, waited for while others may still leave something to do."""
        with self._changed:
            while not self._stopping() and not self._driver.finished:
                many = self._driver.waiting > len(self._hands) and not self._driver.doubtful
                if (many or not beside) and (grant := self._driver.grant()):
                    hand.begin(grant)
                    return grant
                self._changed.wait(_LOOK_S)
        return None

    def _settle(self, hand: _Hand, grant: Grant, result: Result) -> None:
        with self._changed:
            hand.grants.pop(grant.attempt)
            self._take_records()
            self._driver.settle(grant.attempt, result)
            self._changed.notify_all()


class _Hand:
    """One thread as the watcher sees it."""

    thread: threading.Thread

    def __init__(self) -> None:
        self.progress = Progress()
        self.grants: dict[str, Grant] = {}
        """Under way, by attempt."""
        self.taken = 0
        self._counts = (0, 0, 0)
        self._since = 0.0

    def begin(self, grant: Grant) -> None:
        if not self.grants:
            self._since = time.monotonic()
        self.grants[grant.attempt] = grant

    def silent(self, limit_s: float) -> bool:
        """Whether nothing was begun, finished or committed for this long."""
        counts, _ = self.progress.since(self.taken)
        now = time.monotonic()
        if counts != self._counts:
            self._counts, self._since = counts, now
        return now - self._since > limit_s
