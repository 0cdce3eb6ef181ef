"""A whole run with a model in this process: a tiny Qwen that knows nothing, so nothing is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from manifests.database import query
from pipeline.config import Config, config_from
from pipeline.synthesis.run import synthesize

pytestmark = pytest.mark.torch

pytest.importorskip("transformers")

from tests.models import tiny_qwen  # noqa: E402

MARKS = ("<|box_start|>", "<|box_end|>", "<|image_zoomin|>")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen.build(tmp_path_factory.mktemp("qwen") / "tiny", special=MARKS)


def settings(runs: Path, folder: Path, profile: str, **budget: int) -> Config:
    policy = {"kind": "local", "model": str(folder), "family": "qwen2.5-vl", "max_tokens": 16}
    policy |= {"profile": profile, "temperature": 1.0}
    return config_from(
        {
            "source": "scenes:1",
            "task": {"budgets": [224]},
            "policy": policy,
            "run": {"dir": str(runs)},
            "budget": budget,
        }
    )


def rows(runs: Path, run_id: str, sql: str) -> list[dict[str, Any]]:
    return query(runs, sql, run_id).to_pylist()


CALLS = "select role, status, tokens_in, tokens_out, replayed from calls order by turn, replayed"


@pytest.mark.parametrize("profile", ["cof-v2", "cof-v1"])
def test_babble_ends_as_a_rejection_and_what_was_said_is_not_said_twice(
    profile: str, folder: Path, tmp_path: Path
) -> None:
    stopped = synthesize(settings(tmp_path, folder, profile, tokens=1), shards=1, address="none")
    assert (stopped.status, stopped.kept) == ("budget", 0)
    paid = rows(tmp_path, stopped.run_id, CALLS)
    done = synthesize(settings(tmp_path, folder, profile), shards=1, address="none")
    assert (done.run_id, done.status, done.kept) == (stopped.run_id, "done", 0)
    (why,) = rows(tmp_path, done.run_id, "select stage, reason, detail from rejections")
    assert (why["stage"], why["reason"]) == ("agent", "malformed") and why["detail"]
    calls = rows(tmp_path, done.run_id, CALLS)
    assert [call["replayed"] for call in paid] == [False]
    assert [call["replayed"] for call in calls] == [False, True, False, False, False]
    assert {(call["role"], call["status"]) for call in calls} == {("planner", "ok")}
    assert all(call["tokens_in"] > 60 and 0 < call["tokens_out"] <= 16 for call in calls)
    again = synthesize(settings(tmp_path, folder, profile), shards=1, address="none")
    assert again.status == "done" and rows(tmp_path, done.run_id, CALLS) == calls
