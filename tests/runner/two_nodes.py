"""A run on a cluster of two nodes, one of which is lost half-way: `python -m …`, prints JSON."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import ray
from ray.cluster_utils import Cluster

from pipeline.runner.ray import run_ray
from pipeline.shards import Plan
from tests.runner.workers import NUMBERS

FAST = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 3,
}


def main(run_dir: str, mark: str) -> None:
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "env_vars": {"NODE": "head"}, "_system_config": FAST},
    )
    other = cluster.add_node(num_cpus=1, env_vars={"NODE": "other"})
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    commits: list[Mapping[str, Any]] = []

    def listen(event: Mapping[str, Any]) -> None:
        if event["event"] == "committed":
            commits.append(event)

    def lose() -> None:
        while len(commits) < 3:
            time.sleep(0.05)
        cluster.remove_node(other, allow_graceful=False)

    threading.Thread(target=lose, daemon=True).start()
    plan = Plan(run_dir, "run", "trajectories", entries=48, shards=8, part_rows=6)
    settings = {"pause_s": 0.2, "mark": mark}
    outcome = run_ray(plan, NUMBERS, settings, workers=2, on_event=listen)
    print(json.dumps({"outcome": asdict(outcome)}))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
