"""How good the shipped segmenter is, and how fast."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.models.pocket_sam_eval import evaluate, evaluate_tags
from pipeline.models.sam import load
from tests.bench.test_row_cost import report

pytestmark = [pytest.mark.bench, pytest.mark.torch]

PHOTOS = Path(__file__).parents[3] / "shared" / "photos"


def test_held_out_scenes() -> None:
    report("pocket_sam_scenes", **evaluate(load("pocket")))


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="no photographs beside the project")
def test_tags_on_photographs() -> None:
    images = [
        np.asarray(Image.open(path).convert("RGB"))
        for path in sorted(PHOTOS.iterdir())
        if path.suffix in (".jpg", ".webp")
    ]
    report("pocket_sam_tags_on_photographs", **evaluate_tags(load("pocket"), images))


def test_times() -> None:
    segmenter = load("pocket")
    image = np.asarray(Image.effect_noise((256, 256), 60).convert("RGB"))
    embedding = segmenter.embed(image)
    points = np.random.default_rng(0).uniform(0, 256, (64, 2))
    jobs = {
        "embed_ms": lambda: segmenter.embed(image),
        "one_box_ms": lambda: segmenter.predict(embedding, boxes=[[40, 40, 90, 90]]),
        "64_points_ms": lambda: segmenter.predict(embedding, points=points),
        "automatic_ms": lambda: segmenter.automatic(image),
    }
    figures = {}
    for name, job in jobs.items():
        job()
        started = time.process_time()
        for _ in range(10):
            job()
        figures[name] = (time.process_time() - started) * 100
    report("pocket_sam_times", **figures)
