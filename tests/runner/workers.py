"""Small real workers for the laws of the runners: every way to behave, and to misbehave.

An entry is a number; its unit is `e<index>` and keeps `per_unit` rows, a few of them not. Every
unit takes `calls` model calls of half a dollar and three tokens, one after the other.
Settings: per_unit, units_per_entry, picture (times), ahead (units in work at a time), pause_s,
delay_s (by key), at_once (attempts), calls, call_s, unpriced, mark (a folder); poison, hang,
freeze, kill_once, bug (lists of keys); broken, lie, extra.
"""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import chain, repeat
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from manifests import tables
from pipeline.shards import Ledger, Passed, Unit, Work

NUMBERS = "tests.runner.workers:numbers"

SCHEMA = pa.schema(
    [
        *tables.TRAJECTORIES,
        pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
    ],
    tables.TRAJECTORIES.metadata,
)


class Job(NamedTuple):
    """A unit to make, or without a key the end of an entry."""

    entry: int
    key: str | None


class Here(Executor):
    """Does what is submitted at once, in the thread that submits it."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **rest: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(work(*args, **rest))
        return done


class Numbers:
    """Makes rows of numbers."""

    main = "trajectories"
    schemas: Mapping[str, pa.Schema] = {"trajectories": SCHEMA, "steps": tables.STEPS}
    manifest: Mapping[str, pa.Schema] = {
        "rejections": tables.REJECTIONS,
        "timings": tables.TIMINGS,
    }

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.at_once = settings.get("at_once", 1)

    def units(self, work: Work) -> Generator[Unit | Passed, None, None]:
        """One thread per unit that is in work, and one `Job` after the other yielded."""
        jobs, rows_left = self._jobs(work.entries, work.skip), work.rows_left
        ahead = 1 if work.careful else self.settings.get("ahead", 1)
        with ThreadPoolExecutor(ahead) if ahead > 1 else Here() as pool:
            begun: deque[tuple[Job, Future[None] | None]] = deque()
            try:
                for job in chain(jobs, repeat(None)):
                    if job is not None:
                        begun.append((job, self._begin(pool, job, work)))
                    if job is not None and sum(f is not None for _, f in begun) < ahead:
                        continue
                    if not begun:
                        return
                    job, future = begun.popleft()
                    if future is not None:
                        future.result()
                    made = self._result(job, work.crashed, rows_left)
                    if isinstance(made, Unit) and rows_left is not None:
                        rows_left -= made.kept
                    yield made
            finally:
                for _, future in begun:
                    if future is not None:
                        future.cancel()

    def _jobs(self, entries: range, skip: int) -> Iterator[Job]:
        for index in entries:
            for place in range(skip, self.settings.get("units_per_entry", 1)):
                yield Job(index, f"e{index}" if not place else f"e{index}-{place}")
            yield Job(index, None)
            skip = 0

    def _begin(self, pool: Executor, job: Job, work: Work) -> Future[None] | None:
        if job.key is None or job.key in work.crashed:
            return None
        work.started(job.key)
        return pool.submit(self._work, job.key, work.ledger)

    def _work(self, key: str, ledger: Ledger) -> None:
        for turn in range(self.settings.get("calls", 1)):
            self._call(key, turn, ledger)
        self._behave(key)

    def _call(self, key: str, turn: int, ledger: Ledger) -> None:
        name = f"{key}/{turn}"
        if known := ledger.find(name):
            assert known["reply"] == f"seen {name}"
            ledger.replayed(name, known)
            return
        ledger.check()
        self._mark(name, "paid")
        time.sleep(self.settings.get("call_s", 0))
        sample = {"sample_id": f"{key}#0", "resolution": 224, "rollout": 0, "turn": turn}
        cost = None if self.settings.get("unpriced") else 0.5
        price = {"cost_usd": cost, "tokens_in": 2, "tokens_out": 1}
        ledger.add(name, {**sample, **price, "reply": f"seen {name}"})

    def _result(self, job: Job, crashed: frozenset[str], rows_left: int | None) -> Unit | Passed:
        if job.key is None:
            return Passed(job.entry)
        if job.key in crashed:
            return rejected(job.key, "crashed_worker")
        return self._unit(job.key, job.entry, rows_left)

    def close(self) -> None:
        self._mark("closed")

    def _behave(self, key: str) -> None:
        delay = self.settings.get("delay_s", {})
        time.sleep(delay.get(key, self.settings.get("pause_s", 0)))
        self._mark(key)
        if key in self.settings.get("poison", ()):
            os._exit(13)
        if key in self.settings.get("hang", ()):
            time.sleep(3600)
        if key in self.settings.get("freeze", ()):
            os.kill(os.getpid(), signal.SIGSTOP)
        if key in self.settings.get("kill_once", ()) and self._first(key):
            os.kill(os.getpid(), signal.SIGKILL)
        if key in self.settings.get("bug", ()):
            raise ZeroDivisionError(f"a bug at {key}")

    def _first(self, key: str) -> bool:
        """Whether this key is met for the first time, by anyone."""
        try:
            (Path(self.settings["mark"]) / f"once-{key}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def _mark(self, key: str, what: str = "seen") -> None:
        if folder := self.settings.get("mark"):
            with (Path(folder) / what).open("a") as file:
                file.write(f"{key} {os.getpid()} {os.environ.get('NODE', '')}\n")

    def _unit(self, key: str, index: int, rows_left: int | None) -> Unit:
        if index % 7 == 3:
            return rejected(key, "unlucky")
        count = self.settings.get("per_unit", 2)
        if rows_left is not None:
            count = min(count, rows_left)
        picture = key.encode() * self.settings.get("picture", 1)
        extra = self.settings.get("extra", {})
        rows = [{**row(key, number, picture), **extra} for number in range(count)]
        names = [{"sample_id": r["sample_id"], "resolution": 224, "rollout": 0} for r in rows]
        made = {
            "trajectories": rows,
            "steps": [{**name, "step": 0, "region": 0} for name in names],
            "timings": [{**name, "seconds": time.time()} for name in names],
        }
        return Unit(key, self.settings.get("lie", count), made)


def row(key: str, number: int, picture: bytes) -> dict[str, Any]:
    return {
        "sample_id": f"{key}#{number}",
        "image_id": key,
        "resolution": 224,
        "rollout": 0,
        "question": f"What is {key}?",
        "target_boxes": [[1, 2, 3, 4]],
        "num_zooms": number,
        "image": {"bytes": picture, "path": f"{key}.jpg"},
    }


def rejected(key: str, reason: str) -> Unit:
    line = {
        "sample_id": f"{key}#0",
        "image_id": key,
        "resolution": 0,
        "rollout": 0,
        "stage": "worker",
        "reason": reason,
    }
    return Unit(key, 0, {"rejections": [line]})


def numbers(settings: dict[str, Any]) -> Numbers:
    """The worker all laws are tried with."""
    if settings.get("broken"):
        raise ZeroDivisionError("a bug before the first picture")
    return Numbers(settings)
