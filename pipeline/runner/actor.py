"""What lives in a worker process of its own: a worker object, its loop, and its answers.

Made an actor by `pipeline/runner/ray.py`; knows nothing of Ray itself.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.runner.attempt import Attempt, Counts, Progress, Result, open_worker
from pipeline.runner.rundir import Record
from pipeline.runner.storage import storage_at
from pipeline.shards import Grant, Plan, ShardWorker

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Actor:
    """One worker process. `attempt` takes its time; `progress` and `drain` are asked meanwhile."""

    def __init__(self, plan: Plan) -> None:
        # Read by torch when the worker's module imports it: sums in one order, whoever does them.
        os.environ.update(dict.fromkeys(_THREADS, "1"))
        self._plan = plan
        self._storage = storage_at(plan.run_dir)
        self._progress = Progress()
        self._drain = threading.Event()
        self._worker: ShardWorker | None = None
        self._at_once = 1
        self._places = threading.Semaphore(1)
        self._entrance = threading.Lock()

    def open(self, worker: str, settings: dict[str, Any]) -> int:
        """Make the worker, which loads its models; how many attempts it takes at once."""
        self._worker = open_worker(worker, settings, self._plan)
        self._at_once = self._worker.at_once
        self._places = threading.Semaphore(self._at_once)
        return self._at_once

    def attempt(self, grant: Grant) -> Result:
        """Attempt one shard, beside as many others as the worker takes at once.

        One that looks for the unit that killed a process is alone in this one.
        """
        assert self._worker is not None
        with self._room(self._at_once if grant.doubted else 1):
            return Attempt(
                self._plan,
                grant,
                self._worker,
                self._storage,
                progress=self._progress,
                stopping=self._drain.is_set,
                runner="ray",
            ).run()

    @contextmanager
    def _room(self, places: int) -> Iterator[None]:
        with self._entrance:
            for _ in range(places):
                self._places.acquire()
        try:
            yield
        finally:
            self._places.release(places)

    def progress(self, seen: int) -> tuple[Counts, list[Record]]:
        """Counts so far, and the records after `seen`."""
        return self._progress.since(seen)

    def drain(self) -> None:
        """End attempts after their current unit."""
        self._drain.set()

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()
