"""kill −9 of whole processes and whole nodes: the same command again brings the same rows."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.runner.conftest import ROOT, Bench, digests, expected, rejected, samples, whole

pytestmark = pytest.mark.slow


@pytest.mark.timeout(240)
@pytest.mark.parametrize("runner", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_driver_killed_at_random_moments_loses_no_row_and_doubles_none(
    runner: str, tmp_path: Path
) -> None:
    calm = Bench("local", tmp_path / "calm")
    undisturbed = calm.plan(entries=40)
    calm.run(undisturbed)
    bench = Bench(runner, tmp_path)
    plan = bench.plan(entries=40)
    rng = random.Random(7)
    for _ in range(2):
        working = bench.spawn(plan, workers=2, pause_s=0.1)
        _wait_for_a_commit(Path(plan.run_dir), working)
        time.sleep(rng.uniform(0, 0.3))
        working.send_signal(signal.SIGKILL)
        assert working.wait() == -signal.SIGKILL
        assert whole(plan)
    last = bench.spawn(plan, workers=2)
    assert last.wait(timeout=120) == 0
    assert samples(bench) == expected(40)
    assert set(rejected(bench).values()) == {"unlucky"}
    assert digests(plan) == digests(undisturbed)
    assert whole(plan)


def _wait_for_a_commit(run_dir: Path, working: subprocess.Popen[str]) -> None:
    """Until one more record is there."""
    before = set(run_dir.glob("manifest/shards/shard-*"))
    limit = time.monotonic() + 100
    while set(run_dir.glob("manifest/shards/shard-*")) <= before:
        assert working.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.mark.ray
@pytest.mark.timeout(240)
def test_two_nodes_share_the_work_and_one_can_be_lost(tmp_path: Path) -> None:
    bench = Bench("ray", tmp_path)
    plan = bench.plan(entries=48, shards=8)
    asked = {"run_dir": plan.run_dir, "mark": str(tmp_path)}
    script = [sys.executable, "-m", "tests.runner.two_nodes", json.dumps(asked)]
    done = subprocess.run(script, cwd=ROOT, env=dict(os.environ), timeout=200, text=True,
                          capture_output=True)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (told,) = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    assert told["outcome"]["status"] == "done"
    assert told["outcome"]["workers_lost"] >= 1
    seen = (tmp_path / "seen").read_text().split("\n")
    assert {line.split()[-1] for line in seen if line} >= {"head", "other"}
    assert samples(bench) == expected(48)
    assert whole(plan)
