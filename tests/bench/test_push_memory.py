"""What a push of 5 GB takes in memory and time, and what it leaves on the disk meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.loopback.hub import LoopbackHub
from tests.synthesis.published_runs import looked, make_run

pytestmark = pytest.mark.bench

PICTURE_BYTES, PICTURES, SHARDS = 9_000_000, 640, 64
"""Of noise, which does not compress; an eighth of the pictures is rejected."""
MOST_BYTES = 1e9
PUSH = """
import json, resource, sys, time
from pathlib import Path
from tests.synthesis.pushing import push_run
started = time.perf_counter()
done = push_run(Path(sys.argv[1]))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"peak": peak, "s": time.perf_counter() - started, "sent": done.sent_bytes,
                  "commits": done.commits}))
"""


def test_memory_does_not_grow_with_what_is_pushed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", "large", PICTURES, SHARDS, filler_bytes=PICTURE_BYTES)
    looked(run)
    with LoopbackHub(tmp_path / "store", keep=False) as hub:
        first, second = pushed(run, hub, tmp_path), pushed(run, hub, tmp_path)
    total = PICTURE_BYTES * PICTURES * 7 // 8
    figures = {"bytes": total, "files": len(hub.uploaded), "first": first, "second": second}
    print("\n" + json.dumps({"bench": "push_memory", **figures}))
    assert total <= first["sent"] < 1.02 * total and second["commits"] == 0
    assert max(first["peak"], second["peak"]) < MOST_BYTES


def pushed(run: Path, hub: LoopbackHub, home: Path) -> dict[str, float]:
    """Figures of a push in a process of its own."""
    told = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_none", "HF_HOME": str(home / "home")}
    told |= {"HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(Path.cwd())}
    known = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", PUSH, str(run)], env=known | told, capture_output=True, check=True
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures | {"with_start_s": time.perf_counter() - started}
