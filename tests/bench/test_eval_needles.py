"""The two extreme curves at full length: the embedded reader, and a model that knows nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipeline.config import Config, config_from
from pipeline.eval.curves import Curve, curves
from pipeline.eval.design import Design
from pipeline.eval.run import evaluate, plan_needles
from tests.bench.test_row_cost import report
from tests.eval.readers import FAMILY, Tiny
from tests.loopback.server import Loopback
from tests.models import tiny_qwen

pytestmark = [pytest.mark.bench, pytest.mark.torch, pytest.mark.timeout(3600)]

DESIGN = Design()


def _measured(name: str, config: Config) -> dict[tuple[str, str], Curve]:
    """The curves by factor and method, reported."""
    began = time.perf_counter()
    planned = plan_needles(config, DESIGN)
    summary = evaluate(planned)
    seconds = time.perf_counter() - began
    found = {(c.factor, c.method): c for c in curves(planned.run_dir, DESIGN)}
    for (factor, method), curve in found.items():
        read = " ".join(f"{p.level}:{p.right}/{p.scored}" for p in curve.points)
        report(f"needles_{name}", factor=factor, method=method, read=read, words=curve.words)
    report(f"needles_{name}", readings=summary.scored, seconds=seconds)
    return found


def test_the_embedded_reader_is_the_upper_curve(tmp_path: Path) -> None:
    found = _measured("scripted", config_from({"run": {"dir": str(tmp_path)}}))
    direct, zoom = found["height_px", "direct"], found["height_px", "zoom"]
    assert all(p.right >= 19 for p in zoom.points), "the source is legible at every height"
    assert all(p.right == 0 for p in direct.points[:2])
    assert all(p.right >= 19 for p in direct.points[4:])
    assert direct.threshold is not None and 4 < direct.threshold.value < 6
    assert all(p.right >= 19 for p in found["contrast", "direct"].points[2:])


def test_a_tiny_random_model_is_the_lower_curve(tmp_path: Path) -> None:
    with (
        Tiny(tiny_qwen.build(tmp_path / "tiny")) as brain,
        Loopback(brain, models=("tiny-random",)) as server,
    ):
        config = config_from(
            {
                "run": {"dir": str(tmp_path / "runs")},
                "policy": {"kind": "endpoint", "family": FAMILY, "max_tokens": 16},
                "endpoint": {"urls": [server.url], "in_flight": 4},
            }
        )
        found = _measured("tiny_random", config)
    assert all(p.right == 0 and p.scored == 20 for c in found.values() for p in c.points)
    assert {c.reads for c in found.values() if c.threshold} == {"none"}
