"""How well the shipped saliency network finds what stands out, and how fast."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.saliency.maps import preprocess, to_probability
from pipeline.saliency.pocket_u2netp_eval import evaluate
from pipeline.saliency.u2net import SIDE, Saliency, build, load
from pipeline.sources.decode import decode
from tests.bench.test_row_cost import report

pytestmark = [pytest.mark.bench, pytest.mark.torch, pytest.mark.timeout(1800)]

PHOTOS = Path(__file__).parents[3] / "shared" / "photos"
SHEET = Path(__file__).parents[2] / "docs" / "saliency.jpg"
CELL = (300, 225)


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


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs the photographs beside the checkout")
def test_a_contact_sheet_of_the_maps_of_photographs() -> None:
    """The maps alone, by name: the photographs are others' and stay where they are."""
    saliency = Saliency(load("pocket-u2netp"))
    files = sorted(path for path in PHOTOS.iterdir() if path.suffix in (".jpg", ".webp"))
    columns = 4
    size = columns * CELL[0], -(-len(files) // columns) * (CELL[1] + 18)
    sheet = Image.new("RGB", size, (250, 250, 248))
    draw = ImageDraw.Draw(sheet)
    for number, path in enumerate(files):
        image = decode(path.read_bytes())
        prob = to_probability(saliency.predict(preprocess(image)[None])[0], image.size)
        shown = Image.fromarray((255 * (prob - prob.min()) / np.ptp(prob)).astype(np.uint8))
        shown.thumbnail((CELL[0] - 8, CELL[1] - 8))
        x, y = number % columns * CELL[0], number // columns * (CELL[1] + 18)
        sheet.paste(shown, (x + 4, y + 4))
        draw.text((x + 4, y + CELL[1] - 2), path.stem, fill=(70, 70, 70))
    sheet.save(SHEET, quality=85)
