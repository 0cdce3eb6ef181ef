"""Laws of a whole evaluation: the extremes, what is no score, and that nothing is asked twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from manifests.database import query
from pipeline.config import Config, config_from
from pipeline.errors import ModelError
from pipeline.eval.curves import Curve, curves
from pipeline.eval.design import Design
from pipeline.eval.run import Evaluation, Summary, evaluate, plan_needles
from pipeline.runner.fsck import fsck
from tests.eval.readers import FAMILY, Sharp, Tiny
from tests.loopback.server import OVERFLOW, Answer, Body, Loopback, failing
from tests.models import tiny_qwen

pytestmark = pytest.mark.torch

HEIGHTS = Design(resolution=448, per_level=1, factors=("height_px",))
LEAST_PX = 8


@pytest.fixture(scope="module")
def sharp() -> Sharp:
    return Sharp(HEIGHTS, LEAST_PX)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    with Tiny(tiny_qwen.build(tmp_path_factory.mktemp("tiny"))) as model:
        yield model


def settings(runs: Path, url: str = "", **more: Any) -> Config:
    if url:
        more["policy"] = {"kind": "endpoint", "family": FAMILY, **more.get("policy", {})}
        more["endpoint"] = {"urls": [url], "tries": 1, "in_flight": 4}
    return config_from({"run": {"dir": str(runs)}, **more})


def done(config: Config, design: Design = HEIGHTS, **rest: Any) -> tuple[Evaluation, Summary]:
    planned = plan_needles(config, design, **rest)
    return planned, evaluate(planned)


def shares(planned: Evaluation) -> dict[tuple[str, str], list[float | None]]:
    """Accuracies by factor and method, in the order of the levels."""
    found = curves(planned.run_dir, planned.design)
    return {(c.factor, c.method): [p.accuracy for p in c.points] for c in found}


def scores(planned: Evaluation, what: str = "*", where: str = "true") -> list[dict[str, Any]]:
    sql = f"select {what} from scores where {where} order by all"
    return query(planned.run_dir.parent, sql, planned.plan.run_id).to_pylist()


def test_the_scripted_reader_needs_no_server_and_zooming_carries_it_below_where_it_goes_blind(
    tmp_path: Path,
) -> None:
    planned, summary = done(settings(tmp_path))
    assert (summary.status, summary.scored, summary.subject) == ("done", 20, "scripted")
    read = shares(planned)
    assert read["height_px", "zoom"] == [1.0] * 10
    direct = read["height_px", "direct"]
    assert direct[:2] == [0.0, 0.0] and direct[4:] == [1.0] * 6, "blind at 4 px, not at 8"
    small = scores(planned, "zooms", "method = 'zoom' and category = 'height_px=3'")
    assert all(row["zooms"] >= 1 for row in small)
    assert scores(planned, "zooms", "method = 'direct' and zooms > 0") == []


def test_a_tiny_random_model_behind_a_server_reads_nothing_anywhere(
    tmp_path: Path, tiny: Tiny
) -> None:
    design = Design(resolution=280, per_level=1, factors=("height_px", "tilt_deg"))
    with Loopback(tiny, models=("tiny-random",)) as server:
        config = settings(tmp_path, server.url, policy={"max_tokens": 16})
        planned, summary = done(config, design)
    assert (summary.status, summary.scored) == ("done", 28)
    assert all(share == 0.0 for read in shares(planned).values() for share in read)
    assert {c.reads for c in curves(planned.run_dir, design) if c.threshold} == {"none"}
    assert all(row["explanation"] for row in scores(planned)), "wrong without a reason"


def test_a_model_with_a_known_limit_is_measured_at_that_limit(tmp_path: Path, sharp: Sharp) -> None:
    with Loopback(sharp) as server:
        planned, summary = done(settings(tmp_path, server.url))
        asked = len(server.log)
    direct, zoom = curves(planned.run_dir, HEIGHTS)
    assert [p.accuracy for p in direct.points] == [0.0] * 4 + [1.0] * 6
    assert [p.accuracy for p in zoom.points] == [1.0] * 10
    assert direct.threshold is not None and 6 < direct.threshold.value < LEAST_PX
    assert direct.threshold.low <= 6 and direct.threshold.high >= LEAST_PX - 1e-9
    assert (direct.reads, zoom.reads) == ("some", "all")
    assert [p.zooms for p in zoom.points] == [1.0] * 4 + [0.0] * 6
    calls = query(tmp_path, "select role, count(*) as n from calls group by 1").to_pylist()
    assert {row["role"]: row["n"] for row in calls} == {"read": 10, "planner": 14}
    assert asked == 24 and summary.scored == 20


def test_a_run_of_scores_is_whole_and_can_be_asked_with_sql(tmp_path: Path, sharp: Sharp) -> None:
    with Loopback(sharp) as server:
        planned, _ = done(settings(tmp_path, server.url))
    assert list(fsck(planned.run_dir)) == []
    (row,) = query(
        tmp_path,
        "select r.kind, r.recipe, r.status, count(*) as n, min(s.protocol) as protocol "
        "from scores s join runs r using (run_id) group by all",
    ).to_pylist()
    told = {"kind": "scores", "recipe": "eval-needles", "status": "done", "n": 20}
    assert row == {**told, "protocol": "needles-1"}
    (first, *_) = scores(planned, "*", "method = 'zoom' and category = 'height_px=3'")
    assert first["benchmark"] == "needles" and first["scorer"] == "exact"
    assert first["sample_id"] == "height_px/3/000#zoom" and first["seconds"] > 0
    said = query(tmp_path, "select text from traces where sample_id = 'height_px/3/000#direct'")
    assert said.to_pylist() == [{"text": "I cannot make it out."}]


def test_an_endpoint_that_dies_leaves_no_zeros_and_the_same_command_asks_only_the_rest(
    tmp_path: Path, sharp: Sharp
) -> None:
    paid: list[str] = []
    alive = 13

    def mortal(body: Body) -> Answer:
        if len(paid) >= alive:
            return failing(500)
        paid.append(json.dumps(body, sort_keys=True))
        return sharp(body)

    with Loopback(mortal) as server:
        config = settings(tmp_path, server.url)
        planned = plan_needles(config, HEIGHTS, shards=5)
        with pytest.raises(ModelError):
            evaluate(planned)
        there = scores(planned)
        found = curves(planned.run_dir, HEIGHTS)
        assert 0 < len(there) < 20
        _never_wrong(found, LEAST_PX)
        assert sum(p.missing for c in found for p in c.points) == 20 - len(there)
        alive = 1000
        again, summary = done(config, shards=5)
    assert again.continued and again.plan.run_id == planned.plan.run_id
    assert (summary.status, summary.scored) == ("done", 20)
    assert len(paid) == len(set(paid)) == 24, "a call was made twice"
    _never_wrong(curves(again.run_dir, HEIGHTS), LEAST_PX)


def _never_wrong(found: list[Curve], least_px: float) -> None:
    """No answer that was not given counts as a wrong one."""
    for curve in found:
        for point in curve.points:
            if curve.method == "zoom" or float(point.level) >= least_px:
                assert point.right == point.scored


def test_a_request_that_is_too_long_is_unscored_and_an_answer_without_form_is_wrong(
    tmp_path: Path, sharp: Sharp
) -> None:
    def odd(body: Body) -> Answer:
        agent = body["messages"][0]["role"] == "system"
        told = sharp(body)
        if not agent and told == "I cannot make it out.":
            return OVERFLOW
        return "mumble" if agent else told

    with Loopback(odd) as server:
        planned, summary = done(settings(tmp_path, server.url))
    assert summary.scored == 20
    direct, zoom = curves(planned.run_dir, HEIGHTS)
    assert [p.unscored for p in direct.points] == [1] * 4 + [0] * 6
    assert [p.accuracy for p in direct.points] == [None] * 4 + [1.0] * 6
    unscored = scores(planned, "value, explanation", "value is null")
    assert all(row["explanation"].startswith("context_overflow") for row in unscored)
    assert [p.accuracy for p in zoom.points] == [0.0] * 10
    wrong = scores(planned, "distinct split_part(explanation, ':', 1) as why", "value = 0")
    assert wrong == [{"why": "malformed"}]


def test_another_design_model_or_seed_is_another_run_and_the_same_one_is_found(
    tmp_path: Path,
) -> None:
    first = plan_needles(settings(tmp_path), HEIGHTS)
    assert not first.continued
    assert plan_needles(settings(tmp_path), HEIGHTS).continued
    others = [
        plan_needles(settings(tmp_path, seed=1), HEIGHTS),
        plan_needles(settings(tmp_path), Design(448, 2, ("height_px",))),
        plan_needles(settings(tmp_path), Design(448, 1, ("height_px",), ("zoom",))),
        plan_needles(settings(tmp_path), HEIGHTS, resume="never"),
    ]
    names = {first.plan.run_id, *(planned.plan.run_id for planned in others)}
    assert len(names) == 5


def test_a_model_in_a_folder_is_another_subject_once_its_weights_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")

    def named(model: str) -> Evaluation:
        local = {"kind": "local", "model": model, "family": FAMILY}
        return plan_needles(settings(tmp_path / "runs", policy=local), HEIGHTS)

    first = named(str(folder))
    assert first.subject == "model"
    monkeypatch.chdir(tmp_path)
    assert named("model").plan.run_id == first.plan.run_id
    (folder / "model.safetensors").write_bytes(b"trained further")
    assert named("model").plan.run_id != first.plan.run_id
