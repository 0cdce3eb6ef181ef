"""Signs on real photographs: a contact sheet to judge by eye, and how easily they are found.

The photographs lie beside the checkout and are no part of it; without them nothing is measured.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.config import Task
from pipeline.errors import BadImage
from pipeline.models.sam import Segmenter, load
from pipeline.samples import rng_for
from pipeline.scenes.draw import scene
from pipeline.scenes.fonts import face
from pipeline.scenes.signs import Sign, signs_of
from pipeline.sources.base import Picture
from pipeline.synthesis.tasks import Prepared, prepare
from tests.scenes.blob_baseline import solves
from tests.scenes.sign_views import is_blob, looks_needed

pytestmark = [pytest.mark.bench, pytest.mark.torch]

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT.parent / "shared" / "photos"
SHEET = ROOT / "docs" / "signs.jpg"
TASKS = 24
COLUMNS, CELL = 4, (360, 270)
CAPTION_PX = 34


@dataclass(frozen=True, slots=True)
class Made:
    """One task: a published picture, its signs, and a question."""

    prepared: Prepared
    signs: tuple[Sign, ...]


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return load("pocket")


def made(picture: Picture, segmenter: Segmenter, seed: int) -> Made | None:
    """The task of a picture and a seed, None where there is no room."""
    try:
        prepared = prepare(picture, Task(kind="signs", per_image=3), seed, segmenter)
    except BadImage as error:
        assert error.reason == "no_task"
        return None
    recipe = prepared.problems[0].recipe
    assert recipe is not None
    return Made(prepared, signs_of(json.loads(recipe)))


def photos() -> list[Picture]:
    if not PHOTOS.is_dir():
        pytest.skip("no photographs beside the checkout")
    files = [p for p in sorted(PHOTOS.iterdir()) if p.suffix in (".jpg", ".webp", ".png")]
    return [Picture(path.name, data=path.read_bytes(), source="photos") for path in files]


def figures(name: str, tasks: list[Made], tried: int) -> dict[str, float]:
    """Prints and gives what the signs of some tasks are like."""
    seen = [is_blob(t.prepared.image, sign) for t in tasks for sign in t.signs]
    solved = []
    for task in tasks:
        caps = {sign.box: min(sign.cap_px) for sign in task.signs}
        for problem in task.prepared.problems:
            boxes = problem.truth.target_boxes
            cap = min((caps[box] for box in boxes), default=0.0)
            solved.append(solves(task.prepared.image, boxes, cap))
    looks = Counter(looks_needed(t.prepared.image.size, t.signs) for t in tasks)
    told = {
        "pictures": float(tried), "with_signs": float(len(tasks)), "signs": float(len(seen)),
        "not_blobs": 1 - float(np.mean(seen)), "baseline_solves": float(np.mean(solved)),
        "two_looks": looks[2] / len(tasks), "questions": float(len(solved)),
    }  # fmt: skip
    rounded = {key: float(f"{value:.4g}") for key, value in told.items()}
    print("\n" + json.dumps({"bench": name, **rounded}))
    return told


def test_a_contact_sheet_of_tasks_on_photographs(segmenter: Segmenter) -> None:
    found = photos()
    tasks = [made(picture, segmenter, seed) for seed in range(4) for picture in found]
    kept = [task for task in tasks if task is not None]
    told = figures("signs on photographs", kept, len(tasks))
    SHEET.parent.mkdir(exist_ok=True)
    # The first ones: none is picked by eye.
    _sheet(kept[:TASKS]).save(SHEET, quality=80, optimize=True)
    assert len(kept) >= TASKS
    assert told["baseline_solves"] <= 0.3
    assert told["two_looks"] >= 0.2


def test_signs_on_drawn_pictures(segmenter: Segmenter) -> None:
    pictures = [
        Picture(
            f"{n:06d}", image=Image.fromarray(scene(rng_for(0, "scene", n), (2048, 1536)).image)
        )
        for n in range(24)
    ]
    tasks = [made(picture, segmenter, 0) for picture in pictures]
    told = figures("signs on drawn pictures", [t for t in tasks if t is not None], len(tasks))
    assert told["with_signs"] >= 0.9 * told["pictures"]
    assert told["baseline_solves"] <= 0.3
    assert told["two_looks"] >= 0.2


def _sheet(tasks: list[Made]) -> Image.Image:
    """Pictures with their questions below, four in a row."""
    rows = -(-len(tasks) // COLUMNS)
    step = (CELL[0] + 8, CELL[1] + CAPTION_PX + 8)
    sheet = Image.new("RGB", (COLUMNS * step[0], rows * step[1]), (250, 250, 248))
    draw = ImageDraw.Draw(sheet)
    for number, task in enumerate(tasks):
        x, y = number % COLUMNS * step[0] + 4, number // COLUMNS * step[1] + 4
        shown = task.prepared.image.copy()
        shown.thumbnail(CELL, Image.Resampling.LANCZOS)
        sheet.paste(shown, (x + (CELL[0] - shown.width) // 2, y + (CELL[1] - shown.height) // 2))
        problem = task.prepared.problems[0]
        question = problem.sample.question.split(" If there is none")[0]
        _caption(draw, question, problem.truth.target, (x, y + CELL[1] + 2))
    return sheet


def _caption(
    draw: ImageDraw.ImageDraw, question: str, answer: str, corner: tuple[int, int]
) -> None:
    """A question and its answer, made to fit."""
    size = 15.0
    while face("aileron", size).getlength(question) > CELL[0]:
        size -= 0.5
    draw.text(corner, question, (30, 30, 34), font=face("aileron", size))
    draw.text((corner[0], corner[1] + 17), answer, (110, 110, 116), font=face("aileron", 13))
