"""A run on Ray: every worker is an actor that reads, works and writes by itself.

Only grants, counts and records cross the driver: no picture does. An actor that dies or falls
silent is replaced and its shard granted again; an error of the worker's own code ends the run.
"""

from __future__ import annotations

import os
import secrets
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.errors import ModelError
from pipeline.runner.actor import Actor
from pipeline.runner.attempt import Counts, Result
from pipeline.runner.driver import Driver, OnEvent
from pipeline.runner.rundir import Record
from pipeline.runner.storage import storage_at
from pipeline.shards import Grant, Outcome, Plan

_LOOK_S = 1.0
"""Longest time between two questions about a worker's progress."""
_CLOSE_S = 5.0
_WATCH, _WORK = "watch", "work"
"""Concurrency groups: an actor answers while it works."""
_MOST_AT_ONCE = 8
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


def run_ray(
    plan: Plan,
    worker: str,
    settings: dict[str, Any],
    *,
    workers: int | None = None,
    on_event: OnEvent | None = None,
    stop: threading.Event | None = None,
    address: str = "local",
    num_cpus: float = 1,
    num_gpus: float = 0,
) -> Outcome:
    """Work on a run until it is done, `stop` is set, or a budget is spent.

    `address`: `local` starts a private cluster, `auto` and `ray://…` join one; a session that this
    process has is used as it is. Raises what the worker's own code raised, and `ModelError` when
    workers die one after another without progress.
    """
    driver = Driver(plan, storage_at(plan.run_dir), on_event)
    if driver.finished:
        return driver.end("done")
    with _session(address, workers):
        import ray

        count = min(workers or int(ray.cluster_resources().get("CPU", 1)), plan.shards_total)
        driver.begin(max(count, 1))
        needs = {"num_cpus": num_cpus, "num_gpus": num_gpus}
        crew = _Crew(plan, driver, (worker, settings), needs, stop or threading.Event())
        return crew.watch(max(count, 1))


@contextmanager
def _session(address: str, workers: int | None) -> Iterator[None]:
    """A Ray session: the one there is, or one that ends with the block."""
    if "ray" not in sys.modules:
        _settle_environment(address)
    import ray

    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        options |= {"num_cpus": workers or os.cpu_count() or 1, "include_dashboard": False}
    try:
        ray.init(address=address, **options)
    except (RuntimeError, OSError) as error:  # not found, not reachable, or too slow to start
        ray.shutdown()
        why = f"There is no Ray at '{address}': {_sentence(error)}"
        raise ModelError(why, "Without Ray: --address none.") from error
    try:
        yield
    finally:
        ray.shutdown()


def _settle_environment(address: str) -> None:
    """What Ray reads once, when it is imported: no telemetry, and a private cluster is private.

    A token of its own keeps others on the network out of it, and leaves the home folder alone,
    where Ray's own would decide how clusters started later behave.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if address == "local" and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


class _Hand:
    """One actor as the driver sees it."""

    def __init__(
        self, plan: Plan, worker: tuple[str, dict[str, Any]], needs: dict[str, float]
    ) -> None:
        import ray

        make: Any = ray.remote(concurrency_groups={_WATCH: 1, _WORK: _MOST_AT_ONCE})(Actor)
        options = {"max_restarts": 0, "scheduling_strategy": "SPREAD", **needs}
        self.actor = make.options(**options).remote(plan)
        self.opening: Any = self.actor.open.remote(*worker)
        self.window = plan.window
        self.asked: Any = None
        self.asked_at = 0.0
        self.attempts: dict[Any, str] = {}
        """Attempts under way or waiting, by the reference of their result."""
        self.taken = 0
        self._counts = (0, 0, 0)
        self._heard = time.monotonic()

    @property
    def references(self) -> list[Any]:
        return [r for r in (self.opening, self.asked, *self.attempts) if r is not None]

    def give(self, grant: Grant) -> None:
        if not self.attempts:
            self._heard = time.monotonic()
        work = self.actor.attempt.options(concurrency_group=_WORK)
        self.attempts[work.remote(grant)] = grant.attempt

    def ask(self, every_s: float) -> None:
        """Ask for progress, unless a question is open or the last one is recent."""
        if self.asked is None and time.monotonic() - self.asked_at >= every_s:
            watch = self.actor.progress.options(concurrency_group=_WATCH)
            self.asked, self.asked_at = watch.remote(self.taken), time.monotonic()

    def hear(self, counts: Counts) -> bool:
        """Take in an answer; whether it brings progress."""
        self.asked = None
        moved = counts != self._counts
        if moved:
            self._counts, self._heard = counts, time.monotonic()
        return moved

    def silent(self, limit_s: float) -> bool:
        return bool(self.attempts) and time.monotonic() - self._heard > limit_s


class _Crew:
    """The actors of a run, and the loop that serves them."""

    def __init__(
        self,
        plan: Plan,
        driver: Driver,
        worker: tuple[str, dict[str, Any]],
        needs: dict[str, float],
        stop: threading.Event,
    ) -> None:
        self._plan = plan
        self._driver = driver
        self._worker = worker
        self._needs = needs
        self._stop = stop
        self._hands: list[_Hand] = []
        self._draining = False
        self._budget = ""
        self._deaths = 0
        self._look_s = min(_LOOK_S, plan.stall_s / 4)

    def watch(self, count: int) -> Outcome:
        """Serve `count` workers until nothing is left to do; raise what their code raised."""
        self._patience = 3 * count + 3
        self._hands = [self._hire() for _ in range(count)]
        try:
            while not self._over():
                self._grant()
                self._listen()
                for hand in list(self._hands):
                    if hand.silent(self._plan.stall_s):
                        self._bury(hand, f"no progress for {self._plan.stall_s:g} s")
        except BaseException as error:
            self._driver.fail(f"{type(error).__name__}: {error}")
            raise
        finally:
            self._dismiss()
        return self._driver.close(self._budget)

    def _over(self) -> bool:
        self._budget = self._budget or self._driver.exhausted
        if (self._stop.is_set() or self._budget) and not self._draining:
            self._drain()
        if self._draining:
            return not any(hand.attempts for hand in self._hands)
        return self._driver.finished

    def _hire(self) -> _Hand:
        return _Hand(self._plan, self._worker, self._needs)

    def _grant(self) -> None:
        """Keep every worker in work, and some shards ahead while there are plenty."""
        for depth in range(1, max(hand.window for hand in self._hands) + 1):
            for hand in self._hands:
                plenty = depth == 1 or self._driver.waiting > len(self._hands)
                free = hand.opening is None and len(hand.attempts) < min(depth, hand.window)
                if free and plenty and not self._draining and (grant := self._driver.grant()):
                    hand.give(grant)

    def _listen(self) -> None:
        """Wait for answers a short while, and take them in."""
        import ray

        for hand in self._hands:
            if hand.opening is None:
                hand.ask(self._look_s)
        whose = {reference: hand for hand in self._hands for reference in hand.references}
        if not whose:
            time.sleep(self._look_s)
            return
        ready, _ = ray.wait(list(whose), num_returns=1, timeout=self._look_s)
        for reference in ready:
            if whose[reference] in self._hands:
                self._answer(whose[reference], reference)

    def _answer(self, hand: _Hand, reference: Any) -> None:
        """Take in one answer; an answer that is an error is the worker's or the machine's."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            value = ray.get(reference)
        except RayTaskError as error:
            if isinstance(error.cause, Exception):
                raise error.cause from error
            raise
        except RayError as error:
            self._bury(hand, _sentence(error))
            return
        if reference == hand.opening:
            hand.opening, hand.window = None, max(value, hand.window)
        elif reference == hand.asked:
            self._progress(hand, *value)
        else:
            self._settle(hand, reference, value)

    def _progress(self, hand: _Hand, counts: Counts, new: list[Record]) -> None:
        hand.taken += len(new)
        self._driver.take(new)
        if hand.hear(counts) and counts[1]:
            self._deaths = 0

    def _settle(self, hand: _Hand, reference: Any, result: Result) -> None:
        attempt = hand.attempts.pop(reference)
        self._deaths = 0
        self._driver.settle(attempt, result)

    def _bury(self, hand: _Hand, why: str) -> None:
        """Give a dead or hung worker's shards away and hire another in its place."""
        import ray

        ray.kill(hand.actor, no_restart=True)
        self._hands.remove(hand)
        for attempt in hand.attempts.values():
            self._driver.forsake(attempt, why)
        self._driver.worker_lost(why)
        self._deaths += 1
        if self._deaths > self._patience:
            raise ModelError(f"{self._deaths} workers were lost without progress; the last: {why}")
        if not self._draining and not self._driver.finished:
            self._hands.append(self._hire())

    def _drain(self) -> None:
        self._draining = True
        for hand in self._hands:
            hand.actor.drain.options(concurrency_group=_WATCH).remote()

    def _dismiss(self) -> None:
        """Let idle workers close, then end all of them."""
        import ray

        idle = [h for h in self._hands if h.opening is None and not h.attempts]
        closing = [hand.actor.close.remote() for hand in idle]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=_CLOSE_S)
        for hand in self._hands:
            ray.kill(hand.actor, no_restart=True)


def _sentence(error: BaseException) -> str:
    """The first line of a Ray error, which says what became of the actor."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
