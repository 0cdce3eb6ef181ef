"""What the laws of the runners share: a bench to run them on, in this process and on Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from manifests import database
from pipeline.runner import rundir
from pipeline.runner.attempt import Attempt, Progress, Result, open_worker
from pipeline.runner.driver import Driver
from pipeline.runner.fsck import fsck
from pipeline.runner.local import run_local
from pipeline.runner.storage import LocalStorage, Storage
from pipeline.shards import Grant, Outcome, Plan
from tests.runner.workers import NUMBERS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray cluster for all tests that use it."""
    ray = pytest.importorskip("ray")
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.ray)])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    """Either runner, and an empty folder of runs."""
    if request.param == "ray":
        request.getfixturevalue("ray_session")
    return Bench(request.param, tmp_path)


@pytest.fixture
def local(tmp_path: Path) -> Bench:
    return Bench("local", tmp_path)


@dataclass(frozen=True)
class Bench:
    """A runner and a folder of runs to try it on."""

    runner: str
    folder: Path

    @property
    def runs_dir(self) -> Path:
        return self.folder / "runs"

    def plan(self, name: str = "run", **changes: Any) -> Plan:
        """A small run, planned."""
        run_dir = self.runs_dir / name
        plan = Plan(str(run_dir), name, "trajectories", entries=24, shards=4, part_rows=6)
        plan = replace(plan, **changes)
        fields = {"run_id": name, "kind": plan.kind, "recipe": "numbers", "entries": plan.entries}
        storage = LocalStorage(run_dir)
        rundir.write_run(storage, {**fields, "shards_total": plan.shards_total})
        return plan

    def run(self, plan: Plan, *, workers: int = 2, **rest: Any) -> Outcome:
        """Work on it in this process (and its actors)."""
        settings = {key: rest.pop(key) for key in list(rest) if key not in ("on_event", "stop")}
        if self.runner == "local":
            return run_local(plan, NUMBERS, settings, workers=workers, **rest)
        from pipeline.runner.ray import run_ray

        return run_ray(plan, NUMBERS, settings, workers=workers, **rest)

    def records(self, plan: Plan) -> list[rundir.Record]:
        """The run's commit records."""
        return rundir.records(LocalStorage(plan.run_dir))

    def run_until_done(self, plan: Plan, *, workers: int = 2, **settings: Any) -> Outcome:
        """Work on it, again where the death of a worker is the death of the process."""
        if self.runner == "ray":
            return self.run(plan, workers=workers, **settings)
        for _ in range(6):
            ended = self.spawn(plan, workers=workers, **settings)
            out, _ = ended.communicate(timeout=60)
            if ended.returncode == 0:
                return Outcome(**json.loads(out))
        raise AssertionError("six attempts did not finish the run")

    def spawn(self, plan: Plan, *, workers: int = 1, **settings: Any) -> subprocess.Popen[str]:
        """Work on it in a process of its own."""
        asked = {"runner": self.runner, "plan": asdict(plan), "workers": workers}
        command = [
            sys.executable,
            "-m",
            "tests.runner.drive",
            json.dumps({**asked, "settings": settings}),
        ]
        errors = (self.folder / "stderr").open("a")
        quiet = {"stdout": subprocess.PIPE, "stderr": errors}
        return subprocess.Popen(command, cwd=ROOT, text=True, env=dict(os.environ), **quiet)  # type: ignore[call-overload, no-any-return]


def attempt_all(plan: Plan) -> None:
    """Commit every shard, and leave the run as a driver does that is killed before the end."""
    storage = LocalStorage(plan.run_dir)
    driver = Driver(plan, storage)
    while grant := driver.grant():
        driver.settle(grant.attempt, attempt(plan, grant, storage))


def attempt(plan: Plan, grant: Grant, storage: Storage, **settings: Any) -> Result:
    """One attempt, here and now."""
    return Attempt(
        plan,
        grant,
        open_worker(NUMBERS, settings, plan),
        storage,
        progress=Progress(),
        stopping=lambda: False,
        runner="local",
    ).run()


def digests(plan: Plan) -> dict[tuple[int, int, str], str]:
    """SHA-256 of every committed data file by shard, part and kind."""
    return {
        (record.shard, record.part, file.kind): file.sha256
        for record in rundir.records(LocalStorage(plan.run_dir))
        for file in record.files
        if file.path.startswith("data/")
    }


def samples(bench: Bench) -> list[str]:
    """Every kept row's sample, sorted, as SQL tells it."""
    table = database.query(bench.runs_dir, "SELECT sample_id FROM trajectories ORDER BY 1")
    return [str(name) for name in table["sample_id"].to_pylist()]


def rejected(bench: Bench) -> dict[str, str]:
    """Reason by rejected sample."""
    table = database.query(bench.runs_dir, "SELECT sample_id, reason FROM rejections")
    return dict(zip(table["sample_id"].to_pylist(), table["reason"].to_pylist(), strict=True))


def expected(entries: int, per_unit: int = 2, without: tuple[int, ...] = ()) -> list[str]:
    """What the workers of these tests keep of a listing."""
    kept = [i for i in range(entries) if i % 7 != 3 and i not in without]
    return sorted(f"e{i}#{number}" for i in kept for number in range(per_unit))


def whole(plan: Plan) -> bool:
    """Whether the run passes its own proof; prints what does not hold."""
    report = fsck(plan.run_dir)
    for problem in report:
        print(problem)
    return not report.problems


def stop_after(commits: int) -> tuple[threading.Event, Callable[[Mapping[str, Any]], None]]:
    """A stop event, and a listener that sets it after so many commits."""
    stop = threading.Event()
    seen: list[Mapping[str, Any]] = []

    def listen(event: Mapping[str, Any]) -> None:
        if event["event"] == "committed":
            seen.append(event)
        if len(seen) >= commits:
            stop.set()

    return stop, listen
