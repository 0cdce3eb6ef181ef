"""The run's own pictures, made small and clean enough to sit inside a page.

Every picture is encoded again from its pixels alone: no EXIF, no trailing bytes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import duckdb
from PIL import Image

from pipeline.crops import region_shown
from pipeline.geometry import Box, Size

PICTURE_PX = 1000
"""Longest side of a picture in the page."""
CROP_PX = 520
"""Longest side of a crop in the page."""


def read_pictures(run_dir: Path, kind: str, sample_ids: Sequence[str]) -> dict[str, bytes]:
    """The published picture of each sample of a kind; absent where the run holds none.

    Any attempt's file serves: the picture of a sample is the same in all of them.
    """
    found = sorted(str(path) for path in (run_dir / "data" / kind).glob("shard-*.parquet"))
    if not found or not sample_ids:
        return {}
    answer = duckdb.execute(
        "SELECT sample_id, first(image.bytes) FROM read_parquet(?, union_by_name = true) "
        "WHERE list_contains(?, sample_id) AND image.bytes IS NOT NULL GROUP BY sample_id",
        [found, list(sample_ids)],
    ).fetchall()
    return dict(answer)


def decode(published: bytes | None) -> Image.Image | None:
    """The picture as RGB; what a run published was decoded once already."""
    return None if published is None else Image.open(io.BytesIO(published)).convert("RGB")


def seen_at(image: Image.Image, view: Size) -> Image.Image:
    """The picture as a view of that size showed it, never larger than the page needs."""
    return _shrunk(image.resize(view, Image.Resampling.LANCZOS, reducing_gap=3.0), PICTURE_PX)


def crop_at(image: Image.Image, box: Box, view: Size, tool: str = "zoom") -> Image.Image:
    """The crop that a tool made, derived again from the box that was asked for."""
    region = region_shown(tool, box, image.size)
    cut = image.crop((int(region.x0), int(region.y0), int(region.x1), int(region.y1)))
    return _shrunk(cut.resize(view, Image.Resampling.LANCZOS), CROP_PX)


def data_uri(image: Image.Image, quality: int = 80) -> str:
    """A JPEG as a `data:` address."""
    out = io.BytesIO()
    bare = Image.frombytes("RGB", image.size, image.convert("RGB").tobytes())
    bare.save(out, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")


def flat_uri(image: Image.Image) -> str:
    """A PNG as a `data:` address: for drawings in flat colours, small and without fraying."""
    out = io.BytesIO()
    bare = Image.frombytes("RGB", image.size, image.convert("RGB").tobytes())
    bare.save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode("ascii")


def _shrunk(image: Image.Image, longest_px: int) -> Image.Image:
    if max(image.size) <= longest_px:
        return image
    scale = longest_px / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)
