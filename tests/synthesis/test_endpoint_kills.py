"""kill −9 in the middle of 64 trajectories: what was paid for is not paid for again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from manifests.database import query
from pipeline.config import config_from
from pipeline.runner import calls
from pipeline.runner.storage import storage_at
from pipeline.synthesis.run import synthesize
from tests.loopback.perfect import PerfectModel
from tests.loopback.server import Loopback, Seen
from tests.synthesis.test_endpoint_run import photos, settings

pytestmark = [pytest.mark.slow, pytest.mark.torch]

ROOT = Path(__file__).parents[2]
TASK = {"budgets": [224, 336, 448, 672], "per_image": 2}
"""With 8 pictures, 64 trajectories."""
WORK = """
import json, sys
from pipeline.config import config_from
from pipeline.synthesis.run import synthesize
synthesize(config_from(json.loads(sys.argv[1])), shards=2, address="none")
"""


def begun(config: dict[str, Any]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WORK, json.dumps(config)], cwd=ROOT)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("after", [10, 40, 90])
def test_a_killed_worker_pays_again_for_no_more_than_was_not_yet_written(
    after: int, tmp_path: Path
) -> None:
    source = {"source": str(photos(tmp_path / "photos", 8)), "task": TASK}
    brain = PerfectModel(config_from(source))
    with Loopback(brain, latency_s=0.25) as server:
        calm = settings(tmp_path / "calm", server.url, **source)
        undisturbed = synthesize(calm, shards=2, address="none")
        server.log.clear()
        config = settings(tmp_path / "runs", server.url, **source)
        working = begun(config.describe())
        while len(server.log) < after:
            assert working.poll() is None
            time.sleep(0.01)
        working.send_signal(signal.SIGKILL)
        working.wait()
        paid = _planned(server.log)
        server.log.clear()
        (run,) = (tmp_path / "runs").glob("needles-*")
        storage = storage_at(str(run))
        entries = [e["call"] for shard in range(2) for e in calls.read_shard(storage, shard)]
        written = sum(call["role"] == "planner" for call in entries)
        summary = synthesize(config, shards=2, address="none")
        again = _planned(server.log)
    assert len(paid) > 0 and len(paid & again) <= len(paid) - written
    assert (summary.status, summary.kept) == ("done", undisturbed.kept)
    for table, last in (("trajectories", "rollout"), ("steps", "step"), ("traces", "turn")):
        sql = f"select * from {table} order by sample_id, resolution, {last}"
        before, after_kill = (_rows(tmp_path / where, sql) for where in ("calm", "runs"))
        assert before == after_kill


def _planned(log: list[Seen]) -> set[str]:
    """What planners have asked; no two trajectories ask the same."""
    bodies = (seen.body for seen in log)
    return {json.dumps(body) for body in bodies if body["messages"][0]["role"] == "system"}


def _rows(runs: Path, sql: str) -> list[dict[str, Any]]:
    """Rows without what may differ: whose run it is, and how long it took."""
    rows = query(runs, sql).to_pylist()
    return [{k: v for k, v in row.items() if k not in ("run_id", "seconds")} for row in rows]
