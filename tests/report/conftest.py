"""A small run made by hand: the contract's columns as tables, one Parquet file with pictures."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

TABLES = """
CREATE TABLE runs (run_id VARCHAR, kind VARCHAR, recipe VARCHAR, status VARCHAR,
    started_at TIMESTAMP, finished_at TIMESTAMP);
CREATE TABLE shards (run_id VARCHAR, shard INTEGER, part INTEGER, bytes BIGINT, seconds DOUBLE,
    worker VARCHAR);
CREATE TABLE trajectories (run_id VARCHAR, shard INTEGER, sample_id VARCHAR, image_id VARCHAR,
    resolution INTEGER, rollout INTEGER, source VARCHAR, license VARCHAR, width INTEGER,
    height INTEGER, view_w INTEGER, view_h INTEGER, same_view_as INTEGER, question VARCHAR,
    options VARCHAR[], target VARCHAR, target_boxes DOUBLE[][], task VARCHAR, answer VARCHAR,
    final_thought VARCHAR, finish VARCHAR, verified BOOLEAN, num_zooms INTEGER,
    visual_tokens INTEGER, policy VARCHAR, seconds DOUBLE);
CREATE TABLE steps (run_id VARCHAR, sample_id VARCHAR, resolution INTEGER, rollout INTEGER,
    step INTEGER, region INTEGER, thought VARCHAR, x0 DOUBLE, y0 DOUBLE, x1 DOUBLE, y1 DOUBLE,
    label VARCHAR, tool VARCHAR, zoomed BOOLEAN, no_gain BOOLEAN, view_w INTEGER, view_h INTEGER,
    magnification DOUBLE, visual_tokens INTEGER, confidence DOUBLE, target_iou DOUBLE);
CREATE TABLE rejections (run_id VARCHAR, sample_id VARCHAR, resolution INTEGER, rollout INTEGER,
    stage VARCHAR, reason VARCHAR, detail VARCHAR);
CREATE TABLE audit (run_id VARCHAR, facet VARCHAR, class VARCHAR, tried BIGINT, kept BIGINT,
    set_aside BIGINT, rejected BIGINT, retried BIGINT, shift DOUBLE);
INSERT INTO audit VALUES ('run', 'looks', '1', 10, 6, 1, 3, 2, 0.05);
"""
SIZE = (640, 480)
BUDGETS = ((224, (252, 168), 2), (672, (644, 476), 1), (1024, (644, 476), 0))
"""(budget, first view, zooms): the larger the view, the fewer the looks."""

MakeRun = Callable[..., tuple[duckdb.DuckDBPyConnection, Path]]


def picture(seed: int) -> bytes:
    """A JPEG with an EXIF block, a comment and bytes after its end, as hostile sources have."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 220, (12, 16, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC)
    image.paste((235, 60, 40), (300, 200, 340, 230))
    exif = Image.Exif()
    exif[0x010E] = "SECRET-PLACE"
    out = io.BytesIO()
    image.save(out, "JPEG", exif=exif, comment="SECRET-WORDS")
    return out.getvalue() + b"<script>alert(1)</script>"


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """A run of `count` questions whose every text is `word`."""

    def make(count: int = 2, word: str = "plain") -> tuple[duckdb.DuckDBPyConnection, Path]:
        connection = duckdb.connect()
        connection.execute(TABLES)
        connection.execute("INSERT INTO runs VALUES (?, 'trajectories', 'scripted', 'done', "
                           "'2026-11-20 10:00', '2026-11-20 10:05')", [f"run-{word}"])  # fmt: skip
        connection.execute("INSERT INTO shards VALUES ('run', 0, 0, 123456, 2.5, 'w0')")
        names = [f"{word}/photo-{n}.jpg#0" for n in range(count)]
        for name in names:
            _fill(connection, name, word)
        connection.execute(
            "INSERT INTO rejections VALUES ('run', ?, 224, 0, 'verify', ?, ?)",
            [names[0], word, f"{word} detail"],
        )
        run_dir = tmp_path / "run"
        for kind in ("trajectories", "rejected"):
            _write_pictures(run_dir / "data" / kind, names)
        return connection, run_dir

    return make


def _fill(connection: duckdb.DuckDBPyConnection, name: str, word: str) -> None:
    for resolution, view, zooms in BUDGETS:
        shared = 672 if resolution == 1024 else None
        connection.execute(
            "INSERT INTO trajectories VALUES (" + ", ".join("?" * 26) + ")",
            ["run", 0, name, name.split("#")[0], resolution, 0, word, word, *SIZE, *view, shared,
             f"What does {word} say?", [word], word, [[300.0, 200.0, 340.0, 230.0]], word, word,
             f"So it is {word}.", "answered", True, zooms, 54 + 40 * zooms, word, 0.4],
        )  # fmt: skip
        for step in range(zooms):
            edge = 40.0 * (zooms - step - 1)
            box = [300 - edge, 200 - edge, 340 + edge, 230 + edge]
            connection.execute(
                "INSERT INTO steps VALUES (" + ", ".join("?" * 21) + ")",
                ["run", name, resolution, 0, step + 1, 0, f"{word} is small", *box, word, "zoom",
                 True, False, 112, 84, 1.9, 12, 0.93, 0.71],
            )  # fmt: skip


def _write_pictures(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    images = [{"bytes": picture(n), "path": None} for n in range(len(names))]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({"sample_id": names, "image": pa.array(images, kind)})
    pq.write_table(table, folder / "shard-00000.0.part-000.parquet")
