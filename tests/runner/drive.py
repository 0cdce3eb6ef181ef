"""Work on a run in a process of its own, which a test may kill: `python -m tests.runner.drive`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from pipeline.shards import Plan
from tests.runner.workers import NUMBERS


def main(asked: dict) -> None:
    plan = Plan(**asked["plan"])
    if asked["runner"] == "ray":
        from pipeline.runner.ray import run_ray as run
    else:
        from pipeline.runner.local import run_local as run
    outcome = run(plan, NUMBERS, asked["settings"], workers=asked["workers"])
    print(json.dumps(asdict(outcome)))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
