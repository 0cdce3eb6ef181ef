"""A whole run in `cof-v1` over HTTP: the loopback server plays a model that zooms in its turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from manifests.database import query
from pipeline.config import Config, config_from
from pipeline.synthesis.run import synthesize
from tests.loopback.perfect import PerfectInline, PerfectModel
from tests.loopback.server import Loopback

pytestmark = pytest.mark.torch

SCENES = {"source": "scenes:2", "task": {"budgets": [224, 672]}}


def settings(runs: Path, url: str, profile: str) -> Config:
    policy = {"kind": "endpoint", "model": "loopback", "family": "qwen2.5-vl", "profile": profile}
    run = {"dir": str(runs)}
    return config_from({**SCENES, "policy": policy, "endpoint": {"urls": [url]}, "run": run})


def test_a_run_inside_one_turn_looks_and_answers_like_one_with_tools(tmp_path: Path) -> None:
    told: list[list[dict[str, Any]]] = []
    for profile, brain in (("cof-v2", PerfectModel), ("cof-v1", PerfectInline)):
        with Loopback(brain(config_from(SCENES))) as server:
            config = settings(tmp_path, server.url, profile)
            summary = synthesize(config, shards=1, address="none")
            before = len(server.log)
            again = synthesize(config, shards=1, address="none")
        assert (summary.status, summary.kept, summary.rejected) == ("done", 4, 0)
        assert (again.run_id, len(server.log)) == (summary.run_id, before)
        rows = "select sample_id, resolution, answer, finish, num_zooms from trajectories"
        steps = "select sample_id, resolution, step, x0, y0, x1, y1, thought from steps"
        for sql in (rows, steps):
            told.append(query(tmp_path, f"{sql} order by all", summary.run_id).to_pylist())
    tools, looks, inline, inline_looks = told
    assert inline == tools and inline_looks == looks and looks
    digests = query(tmp_path, "select distinct run_id, prompt_sha256 from trajectories").to_pylist()
    assert len({row["prompt_sha256"] for row in digests}) == len(digests) == 2
