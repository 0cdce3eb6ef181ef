"""What a visual prompt costs end to end, against decoding, preprocessing and the network alone."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config import config_from
from pipeline.saliency.maps import preprocess
from pipeline.saliency.u2net import Saliency, load
from pipeline.samples import rng_for
from pipeline.scenes.draw import Scene, scene
from pipeline.sources.decode import decode, encode
from pipeline.synthesis.run import synthesize
from tests.bench.test_row_cost import report

pytestmark = [pytest.mark.bench, pytest.mark.torch, pytest.mark.timeout(1800)]

FEW, MANY, MOST = 8, 40, 160
SIZE = (640, 480)
"""COCO's usual size."""


def coco(folder: Path, count: int) -> str:
    """A source of so many drawn pictures with boxes as polygons, as COCO writes them."""
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(count):
        drawn = scene(rng_for(9, "prompt-bench", number), SIZE)
        name = f"{number:012d}.jpg"
        (folder / "images" / name).write_bytes(encode(Image.fromarray(drawn.image)))
        images.append({"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
        for place, (x0, y0, x1, y1) in enumerate(boxes(drawn)):
            ring = [x0, y0, x1, y0, (x0 + x1) / 2, y1, x0, y1]
            about = {"image_id": number, "id": 1000 * number + place, "category_id": 1}
            area = {"area": 0.75 * (x1 - x0) * (y1 - y0), "bbox": [x0, y0, x1 - x0, y1 - y0]}
            annotations.append({**about, **area, "iscrowd": 0, "segmentation": [ring]})
    told = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "thing"}],
    }
    (folder / "instances.json").write_text(json.dumps(told))
    return f"coco:{folder / 'images'}:{folder / 'instances.json'}"


def boxes(drawn: Scene) -> Iterator[tuple[int, int, int, int]]:
    """Of the drawn objects, XYXY."""
    for thing in drawn.objects:
        rows, cols = np.nonzero(drawn.labels == thing.label)
        if len(rows):
            yield int(cols.min()), int(rows.min()), int(cols.max()) + 1, int(rows.max()) + 1


def test_a_prompt_end_to_end_against_its_parts_alone(tmp_path: Path) -> None:
    sources = {count: coco(tmp_path / str(count), count) for count in (FEW, MANY, MOST)}
    spent, peak = {}, {}
    for count, source in sources.items():
        run = {"dir": str(tmp_path / "runs"), "workers": 1}
        started = time.process_time()
        summary = synthesize(
            config_from({"source": source, "run": run}), kind="prompts", shards=1, address="none"
        )
        spent[count] = time.process_time() - started
        peak[count] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        assert summary.kept == count
    whole = (spent[MANY] - spent[FEW]) / (MANY - FEW)  # what it takes to begin cancels out
    network = Saliency(load("pocket-u2netp"))
    files = sorted((tmp_path / str(MANY) / "images").iterdir())
    started = time.process_time()
    for path in files:
        network.predict(preprocess(decode(path.read_bytes()))[None])
    alone = (time.process_time() - started) / len(files)
    report(
        "prompt_cost",
        row_cpu_ms=1000 * whole,
        parts_cpu_ms=1000 * alone,
        ratio=whole / alone,
        peak_mb_few=peak[FEW],
        peak_mb_many=peak[MANY],
        peak_mb_most=peak[MOST],
    )
    assert whole <= 1.15 * alone
    assert peak[MOST] <= 1.25 * peak[MANY], "memory grows with the number of pictures"
