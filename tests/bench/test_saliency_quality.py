"""How well the shipped saliency network finds what stands out, and how fast."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.saliency.pocket_u2netp_eval import evaluate
from pipeline.saliency.u2net import SIDE, Saliency, build, load
from tests.bench.test_row_cost import report

pytestmark = [pytest.mark.bench, pytest.mark.torch, pytest.mark.timeout(1800)]

PHOTOS = Path(__file__).parents[3] / "shared" / "photos"


def test_held_out_pictures() -> None:
    photos = PHOTOS if PHOTOS.is_dir() else None
    figures = evaluate(Saliency(load("pocket-u2netp")), 200, photos=photos)
    report("saliency_quality", **figures)
    assert figures["mae"] <= 0.05 and figures["max_f"] >= 0.90


def test_times() -> None:
    batch = np.random.default_rng(0).normal(size=(1, 3, SIDE, SIDE)).astype(np.float32)
    figures = {}
    for name, network in (("pocket", load("pocket-u2netp")), ("u2net", build("u2net"))):
        saliency = Saliency(network)
        saliency.predict(batch)
        started = time.process_time()
        for _ in range(5):
            saliency.predict(batch)
        figures[f"{name}_cpu_ms"] = (time.process_time() - started) * 200
    report("saliency_times", **figures)
