"""What lives in a worker process of its own: a worker object, its loop, and its answers.

Made an actor by `pipeline/runner/ray.py`; knows nothing of Ray itself.
"""

from __future__ import annotations

import os
import threading
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

    def open(self, worker: str, settings: dict[str, Any]) -> None:
        """Make the worker, which loads its models."""
        self._worker = open_worker(worker, settings, self._plan)

    def attempt(self, grant: Grant) -> Result:
        """Attempt one shard."""
        assert self._worker is not None
        return Attempt(
            self._plan,
            grant,
            self._worker,
            self._storage,
            progress=self._progress,
            stopping=self._drain.is_set,
            runner="ray",
        ).run()

    def progress(self, seen: int) -> tuple[Counts, list[Record]]:
        """Counts so far, and the records after `seen`."""
        return self._progress.since(seen)

    def drain(self) -> None:
        """End attempts after their current unit."""
        self._drain.set()

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()
