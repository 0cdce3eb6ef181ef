"""Laws of a whole run with a model behind an endpoint: the loopback server plays it."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from manifests.database import query
from pipeline.config import Config, config_from
from pipeline.errors import CofpipeError
from pipeline.synthesis.run import Summary, synthesize
from tests.loopback.perfect import PerfectModel
from tests.loopback.server import Loopback

pytestmark = pytest.mark.torch

SCENES = {"source": "scenes:3", "task": {"budgets": [224, 672], "per_image": 2}}
ENDPOINT = {"kind": "endpoint", "model": "loopback", "family": "qwen2.5-vl"}
CANARY = "sk-canary-6f1d0c"


def settings(runs: Path, url: str, **more: Any) -> Config:
    endpoint = {"urls": [url], "tries": 3, **more.pop("endpoint", {})}
    policy = ENDPOINT | more.pop("policy", {})
    run = {"dir": str(runs), **more.pop("run", {})}
    return config_from({**SCENES, "policy": policy, "endpoint": endpoint, "run": run, **more})


def photos(folder: Path, count: int) -> Path:
    """A folder of grainy pictures, 1008 × 672."""
    folder.mkdir()
    for number in range(count):
        grain = np.random.default_rng(number).integers(90, 140, (672, 1008, 3), np.uint8)
        Image.fromarray(grain).save(folder / f"{number}.png")
    return folder


def rows(runs: Path, summary: Summary, sql: str) -> list[dict[str, Any]]:
    return query(runs, sql, summary.run_id).to_pylist()


@pytest.fixture(scope="module")
def brain() -> PerfectModel:
    return PerfectModel(config_from(SCENES))


def test_the_perfect_model_gives_the_verified_answers_of_the_scripted_policy(
    tmp_path: Path, brain: PerfectModel
) -> None:
    config = config_from({**SCENES, "run": {"dir": str(tmp_path)}})
    scripted = synthesize(config, shards=2, address="none")
    with Loopback(brain) as server:
        summary = synthesize(settings(tmp_path, server.url), shards=2, address="none")
    assert (summary.status, summary.kept, summary.rejected) == ("done", 12, 0)
    told = "select sample_id, resolution, answer from trajectories order by all"
    perfect = rows(tmp_path, summary, told)
    known = rows(tmp_path, scripted, told)
    assert known and [row for row in perfect if row in known] == known


def test_every_call_is_a_row_with_its_tokens_and_no_price_is_no_cost(
    tmp_path: Path, brain: PerfectModel
) -> None:
    with Loopback(brain) as server:
        free = synthesize(settings(tmp_path / "a", server.url), shards=1, address="none")
        seen = len(server.log)
        prices = {"loopback": {"input_usd": 2.0, "output_usd": 8.0}}
        config = settings(tmp_path / "b", server.url, prices=prices)
        priced = synthesize(config, shards=1, address="none")
    count = "select count(*) as n, sum(cost_usd) as usd, sum(tokens_in) as t from calls"
    (told,) = rows(tmp_path / "a", free, count)
    assert told["n"] == seen and told["usd"] is None and told["t"] > 0
    (paid,) = rows(tmp_path / "b", priced, count)
    known = "sum(tokens_in) * 2e-6 + sum(tokens_out) * 8e-6 as usd"
    (worth,) = rows(tmp_path / "b", priced, f"select {known} from calls")
    assert paid["usd"] == pytest.approx(worth["usd"]) and paid["n"] == seen
    (run,) = rows(tmp_path / "b", priced, "select cost_usd, tokens_in from runs")
    assert run == {"cost_usd": pytest.approx(worth["usd"]), "tokens_in": paid["t"]}
    assert free.run_id == priced.run_id
    roles = rows(tmp_path / "a", free, "select distinct role from calls order by 1")
    assert [row["role"] for row in roles] == ["critic", "planner", "summariser"]


def test_a_spent_budget_stops_the_run_and_a_larger_one_continues_it_without_paying_twice(
    tmp_path: Path, brain: PerfectModel
) -> None:
    with Loopback(brain) as server:
        whole = synthesize(settings(tmp_path / "whole", server.url), shards=2, address="none")
        told = "sum(tokens_in + tokens_out) as t, max(tokens_in + tokens_out) as most"
        calls = f"select {told} from calls where not replayed"
        (cost,) = rows(tmp_path / "whole", whole, calls)
        first = len(server.log)
        budget = {"tokens": int(cost["t"] / 2)}
        config = settings(tmp_path / "b", server.url, budget=budget, endpoint={"in_flight": 2})
        stopped = synthesize(config, shards=2, address="none")
        assert stopped.status == "budget" and stopped.kept < whole.kept
        (spent,) = rows(tmp_path / "b", stopped, calls)
        assert budget["tokens"] <= spent["t"] <= budget["tokens"] + 2 * cost["most"]
        done = synthesize(settings(tmp_path / "b", server.url), shards=2, address="none")
        assert (done.run_id, done.status, done.kept) == (stopped.run_id, "done", whole.kept)
        assert len(server.log) == 2 * first


def test_the_key_is_in_no_file_no_output_and_no_error(
    tmp_path: Path,
    brain: PerfectModel,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    caplog.set_level("DEBUG")
    with Loopback(brain, key=CANARY) as server:
        done = synthesize(settings(tmp_path / "good", server.url), shards=1, address="none")
        assert done.kept == 12
    with Loopback(brain, key="sk-another") as server, pytest.raises(CofpipeError) as error:
        synthesize(settings(tmp_path / "bad", server.url), shards=1, address="none")
    told = "".join(traceback.format_exception(error.value)) + "".join(capfd.readouterr())
    assert "OPENAI_API_KEY" in str(error.value)
    assert CANARY not in told + caplog.text
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5 and not [f for f in files if CANARY.encode() in f.read_bytes()]
