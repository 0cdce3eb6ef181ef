"""The driver's own cost: memory by listed names, and what one commit takes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.runner.local import run_local
from pipeline.shards import Plan
from tests.bench.test_row_cost import report

pytestmark = pytest.mark.bench

_PLAN = """
import re, sys, time
from pathlib import Path
from pipeline.runner.driver import Driver
from pipeline.runner.storage import storage_at
from pipeline.shards import Plan
from pipeline.sources.base import Entry
from pipeline.sources.listing import write_listing

names, run_dir = int(sys.argv[1]), Path(sys.argv[2])
entries = (Entry(f"folder/{n // 1000:06d}/picture-{n:09d}.jpg", n, str(n)) for n in range(names))
started = time.perf_counter()
listing = write_listing(entries, run_dir / "listing")
listed = time.perf_counter() - started
plan = Plan(str(run_dir), "bench", "trajectories", listing.count, shards=64)
Driver(plan, storage_at(str(run_dir)), None)
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
print(names, listed, peak // 1024)
"""


@pytest.mark.parametrize("names", [10**3, 10**6])
def test_memory_of_the_driver(names: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _PLAN, str(names), str(tmp_path)]
    line = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    _, seconds, megabytes = line.split()
    report("driver_memory", names=names, list_s=float(seconds), peak_mb=int(megabytes))


def test_a_commit(tmp_path: Path) -> None:
    started = time.process_time(), time.perf_counter()
    plan = Plan(str(tmp_path), "bench", "trajectories", entries=200, shards=200)
    run_local(plan, "tests.runner.workers:numbers", {})
    report(
        "commit",
        commits=200,
        cpu_ms=(time.process_time() - started[0]) * 5,
        wall_ms=(time.perf_counter() - started[1]) * 5,
    )
