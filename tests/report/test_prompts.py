"""Prompts in the report: safe with hostile text, flat colours kept, every level there."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.report.page import render
from pipeline.report.prompt_strip import prompt_picture
from pipeline.report.prompts import Pictures, chosen_prompts, named_prompts, read_prompt_pictures
from tests.report.test_page import HOSTILE, Reader

TABLES = """
CREATE TABLE runs (run_id VARCHAR, kind VARCHAR, recipe VARCHAR, status VARCHAR,
    started_at TIMESTAMP, finished_at TIMESTAMP);
CREATE TABLE shards (run_id VARCHAR, shard INTEGER, part INTEGER, bytes BIGINT, seconds DOUBLE,
    worker VARCHAR);
CREATE TABLE prompts (sample_id VARCHAR, image_id VARCHAR, role VARCHAR, task VARCHAR,
    width INTEGER, height INTEGER, source VARCHAR, license VARCHAR, num_objects INTEGER,
    level_sizes INTEGER[], saliency_peak DOUBLE, flat_saliency BOOLEAN, segmenter VARCHAR,
    objects STRUCT(id BIGINT, category VARCHAR, bbox INTEGER[], saliency DOUBLE,
                   color INTEGER[])[]);
CREATE TABLE rejections (run_id VARCHAR, sample_id VARCHAR, resolution INTEGER, rollout INTEGER,
    stage VARCHAR, reason VARCHAR, detail VARCHAR);
INSERT INTO runs VALUES ('run', 'prompts', 'prompts', 'done', '2026-11-20 10:00', NULL);
INSERT INTO shards VALUES ('run', 0, 0, 123456, 2.5, 'w0');
INSERT INTO rejections VALUES ('run', 'x#seg', 0, 0, 'task', 'no_objects', '');
"""
SIZE = (900, 600)
COLORS = ((255, 128, 0), (0, 255, 255))
PEAK = 1e-4


def encoded(pixels: np.ndarray) -> dict[str, Any]:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return {"bytes": out.getvalue(), "path": None}


def half(color: tuple[int, int, int], *colors: tuple[int, int, int]) -> np.ndarray:
    """Stripes of these colours over the upper half."""
    frame = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    for place, paint in enumerate((color, *colors)):
        frame[: SIZE[1] // 2, place * 300 : place * 300 + 300] = paint
    return frame


Run = tuple[duckdb.DuckDBPyConnection, Path]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """One prompt of two objects for each task, all words hostile."""
    connection = duckdb.connect()
    connection.execute(TABLES)
    grey = np.full(SIZE[::-1], 51, np.uint8)
    score = 300 * 300 * 51 / 255 * PEAK
    shown = [
        {"id": n, "category": HOSTILE, "bbox": [0, 0, 9, 9], "saliency": score, "color": [*color]}
        for n, color in enumerate(COLORS)
    ]
    files = []
    for task in ("seg", "pose"):
        name = f"{HOSTILE}#{task}"
        connection.execute(
            "INSERT INTO prompts "
            "VALUES (?, ?, 'pool', ?, ?, ?, ?, ?, 2, [1, 2], ?, false, NULL, ?)",
            [name, HOSTILE, task, *SIZE, HOSTILE, HOSTILE, PEAK, shown],
        )
        frames = [encoded(half(COLORS[0])), encoded(half(*COLORS))]
        image = encoded(half((9, 99, 199)))
        files.append(
            {"sample_id": name, "image": image, "saliency": encoded(grey), "frames": frames}
        )
    folder = tmp_path / "run" / "data" / "prompts"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(files), folder / "shard-00000.0.part-000.parquet")
    return connection, tmp_path / "run"


def drawn(name: str, run: Run) -> Image.Image:
    (prompt,) = named_prompts(run[0], [name])
    return prompt_picture(prompt, read_prompt_pictures(run[1], [name])[name])


def count(image: Image.Image, color: tuple[int, int, int]) -> int:
    return int((np.asarray(image.convert("RGB")) == np.array(color)).all(axis=-1).sum())


def test_hostile_text_is_shown_and_never_obeyed(run: Run) -> None:
    page = Reader(render(*run, max_images=4))
    assert not {name for name, _ in page.tags} & {"script", "iframe", "object", "form", "a"}
    assert not [key for _, marks in page.tags for key in marks if key.startswith(("on", "style"))]
    assert any("<script>alert(1)</script>" in text for text in page.text)
    addresses = [marks[key] for _, marks in page.tags for key in ("src", "href") if key in marks]
    assert all(re.match(r"data:image/(jpeg|png);base64,", str(address)) for address in addresses)


def test_every_level_is_on_the_page_in_its_flat_colours(run: Run) -> None:
    text = render(*run, max_images=4)
    assert text.count("level 1 of 2: 1 of 2") == text.count("level 2 of 2: 2 of 2") == 2 * 2
    frames = [
        Image.open(io.BytesIO(base64.b64decode(data)))
        for data in re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", text)
    ]
    assert len(frames) == 4
    for frame, colors in zip(frames[:2], (COLORS[:1], COLORS), strict=True):
        found = {color for _, color in frame.convert("RGB").getcolors(99) or ()}
        assert found == {(0, 0, 0), *colors}


def test_the_page_counts_what_was_kept_and_tells_what_was_not(run: Run) -> None:
    text = render(*run, max_images=0)
    assert "prompts kept" in text and "no_objects" in text and "No prompt was kept" in text
    assert [prompt.task for prompt in chosen_prompts(run[0], 9)] == ["pose", "seg"]


def test_an_objects_share_of_the_map_is_the_same_as_its_share_of_an_even_one(run: Run) -> None:
    name = f"{HOSTILE}#seg"
    (prompt,) = named_prompts(run[0], [name])
    shares = read_prompt_pictures(run[1], [name])[name].shares(prompt)
    assert shares == pytest.approx([1 / 6, 1 / 6])


def test_a_strip_shows_picture_map_and_levels_side_by_side(run: Run) -> None:
    strip = drawn(f"{HOSTILE}#seg", run)
    assert strip.width == 1600
    assert count(strip, COLORS[0]) > 1.9 * count(strip, COLORS[1]) > 0
    assert count(strip, (9, 99, 199)) and count(strip, (51, 51, 51))


def test_a_pose_has_no_colours_of_objects_beside_their_names(run: Run) -> None:
    seg, pose = (drawn(f"{HOSTILE}#{task}", run) for task in ("seg", "pose"))
    assert count(seg, COLORS[1]) > count(pose, COLORS[1])
    assert render(*run, max_images=4).count('class="swatch"') == len(COLORS)


def test_frames_can_be_shown_without_the_photograph(run: Run) -> None:
    name = f"{HOSTILE}#seg"
    (prompt,) = named_prompts(run[0], [name])
    pictures = read_prompt_pictures(run[1], [name])[name]
    strip = prompt_picture(prompt, pictures, photograph=False)
    assert not count(strip, (9, 99, 199)) and count(strip, COLORS[1])


def test_a_prompt_without_objects_is_shown_as_picture_and_map(run: Run) -> None:
    connection, run_dir = run
    connection.execute("UPDATE prompts SET objects = [], level_sizes = [], num_objects = 0")
    (prompt,) = named_prompts(connection, [f"{HOSTILE}#seg"])
    found = read_prompt_pictures(run_dir, [prompt.sample_id])[prompt.sample_id]
    strip = prompt_picture(prompt, Pictures(found.image, found.saliency, ()))
    assert count(strip, (9, 99, 199)) and not count(strip, COLORS[0])
    assert "Nothing is marked" in render(connection, run_dir, max_images=4)
