"""Visual prompts in the report: the picture, its saliency, and the levels, side by side."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
from PIL import Image

from pipeline.geometry import Box, Size
from pipeline.report.charts import duration, meter, number, percent, size_of
from pipeline.report.figures import table
from pipeline.report.html import Html, join, tag
from pipeline.report.pictures import data_uri, decode, flat_uri, seen_at
from pipeline.report.rows import rows

TILE_PX = 420
"""Longest side of a picture in the page."""
LISTED = 12
"""Objects of a prompt that are listed."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One object of a prompt."""

    id: int
    category: str
    box: Box
    saliency: float
    color: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt as the views have it; objects by descending saliency."""

    sample_id: str
    role: str
    task: str
    size: Size
    source: str
    license: str
    level_sizes: tuple[int, ...]
    objects: tuple[Shown, ...]
    saliency_peak: float
    """The highest value of the map: its grey 255."""
    flat_saliency: bool
    proposed: bool
    """Whether a segmenter found the objects; else the source marks them."""

    @property
    def captions(self) -> list[str]:
        """What is under the picture, the map and each level."""
        whole, count = len(self.objects), len(self.level_sizes)
        levels = [
            f"level {number_} of {count}: {size} of {whole}"
            for number_, size in enumerate(self.level_sizes, start=1)
        ]
        return ["picture", "saliency" + " (flat)" * self.flat_saliency, *levels]


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """What a run published of one prompt, RGB; the map is grey."""

    image: Image.Image
    saliency: Image.Image
    frames: tuple[Image.Image, ...]

    @property
    def all(self) -> list[Image.Image]:
        return [self.image, self.saliency, *self.frames]

    def shares(self, prompt: Prompt) -> list[float]:
        """How much of the whole map each object holds, in [0, 1]."""
        counts = self.saliency.histogram()
        whole = sum(grey * count for grey, count in enumerate(counts)) * prompt.saliency_peak / 255
        return [min(found.saliency / whole, 1.0) for found in prompt.objects]


def chosen_prompts(connection: duckdb.DuckDBPyConnection, limit: int) -> list[Prompt]:
    """`limit` prompts spread over tasks and numbers of objects; the same ones every time."""
    names = [row["sample_id"] for row in rows(connection, "prompts_chosen", limit)]
    return named_prompts(connection, names)


def named_prompts(connection: duckdb.DuckDBPyConnection, chosen: Sequence[str]) -> list[Prompt]:
    """The prompts with these sample ids, in this order; those that were not kept are left out."""
    found = {row["sample_id"]: _prompt(row) for row in rows(connection, "prompts", list(chosen))}
    return [found[name] for name in chosen if name in found]


def read_prompt_pictures(run_dir: Path, sample_ids: Sequence[str]) -> dict[str, Pictures]:
    """The published pictures of each of these prompts; absent where the run holds none.

    Any attempt's file serves: the pictures of a sample are the same in all of them.
    """
    files = sorted(str(path) for path in (run_dir / "data" / "prompts").glob("shard-*.parquet"))
    if not files or not sample_ids:
        return {}
    answer = duckdb.execute(
        "SELECT sample_id, first(image.bytes), first(saliency.bytes), "
        "first(list_transform(frames, lambda f: f.bytes)) "
        "FROM read_parquet(?, union_by_name = true) "
        "WHERE list_contains(?, sample_id) AND image.bytes IS NOT NULL GROUP BY sample_id",
        [files, list(sample_ids)],
    ).fetchall()
    return {name: _pictures(*data) for name, *data in answer}


def prompts_summary(connection: duckdb.DuckDBPyConnection) -> tuple[str, Html]:
    """Where the pictures are from, and the few numbers that say how the run went."""
    counts = rows(connection, "prompts_counts")[0]
    total = counts["kept"] + counts["rejected"]
    facts = [
        (number(counts["kept"]), "prompts kept"),
        (number(counts["rejected"]), "rejected"),
        (percent(counts["kept"] / total if total else None), "of all tries kept"),
        (number(counts["images"]), "pictures"),
        (number(counts["objects"] or 0), "objects"),
        (number(counts["flat"]), "without saliency"),
        (duration(counts["seconds"]), f"of work in {counts['parts']} parts"),
        (size_of(counts["bytes"]), "of Parquet"),
    ]
    said = " · ".join(part for part in (counts["sources"], counts["roles"]) if part)
    told = [tag("div", tag("dt", name), tag("dd", value)) for value, name in facts]
    return said, tag("dl", *told, class_="facts")


def prompt_cards(connection: duckdb.DuckDBPyConnection, run_dir: Path, limit: int) -> list[Html]:
    """A card for each of the chosen prompts."""
    shown = chosen_prompts(connection, limit)
    if not shown:
        return [tag("p", "No prompt was kept.", class_="quiet")]
    pictures = read_prompt_pictures(run_dir, [prompt.sample_id for prompt in shown])
    return [prompt_card(prompt, pictures.get(prompt.sample_id)) for prompt in shown]


def prompt_card(prompt: Prompt, pictures: Pictures | None) -> Html:
    """One prompt: picture, map and levels in a row, and the objects with their scores."""
    origin = [prompt.sample_id, prompt.role, prompt.source, prompt.license]
    heading = tag(
        "header",
        tag("p", " · ".join(part for part in origin if part), class_="quiet origin", dir="auto"),
    )
    tiles = [] if pictures is None else pictures.all
    figures = [
        _tile(tile, caption, flat=place > 1)
        for place, (tile, caption) in enumerate(zip(tiles, prompt.captions, strict=False))
    ]
    return tag("article", heading, tag("div", *figures, class_="tiles"), _objects(prompt, pictures))


def _tile(image: Image.Image, caption: str, *, flat: bool) -> Html:
    small = shrunk(image, TILE_PX, flat=flat)
    uri = flat_uri(small) if flat else data_uri(small)
    shown = tag("img", src=uri, alt=caption, loading="lazy")
    return tag("figure", shown, tag("figcaption", caption), class_="crop")


def shrunk(image: Image.Image, longest_px: int, *, flat: bool) -> Image.Image:
    """The picture at most so large; a frame keeps its flat colours."""
    scale = longest_px / max(image.size)
    if scale >= 1:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST) if flat else seen_at(image, size)


def _objects(prompt: Prompt, pictures: Pictures | None) -> Html:
    """The objects in their order, and the level that shows each first."""
    if not prompt.objects:
        return tag("p", "Nothing is marked in this picture.", class_="quiet")
    shares = [0.0] * len(prompt.objects) if pictures is None else pictures.shares(prompt)
    body = [
        (
            join(_swatch(found, prompt.task), name_of(found)),
            f"{found.saliency:.3g}",
            percent(share),
            meter(share),
            f"from level {first_level(prompt, place)}",
        )
        for place, (found, share) in enumerate(zip(prompt.objects, shares, strict=True))
    ][:LISTED]
    more = len(prompt.objects) - LISTED
    how = "proposed by the segmenter" if prompt.proposed else "marked by the source"
    note = f"Objects are {how}; a score is the sum of the map inside the object."
    return join(
        table(("Object", "Score", "Of the map", "", "Shown"), body),
        tag("p", f"and {more} more" if more > 0 else "", class_="quiet") if more > 0 else None,
        tag("p", note, class_="quiet"),
    )


def name_of(found: Shown) -> str:
    return f"{found.category or 'object'} {found.id}"


def first_level(prompt: Prompt, place: int) -> int:
    """The level, from 1, that shows the object at a place of the order first."""
    return next(n for n, size in enumerate(prompt.level_sizes, start=1) if place < size)


def _swatch(found: Shown, task: str) -> Html | None:
    """The object's colour; people are drawn in the colours of their joints."""
    if task != "seg":
        return None
    fill = "#{:02x}{:02x}{:02x}".format(*found.color)
    square = tag("rect", width=10, height=10, rx=2, fill=fill)
    return tag("svg", square, view_box="0 0 10 10", class_="swatch", aria_hidden="true")


def _prompt(row: Mapping[str, Any]) -> Prompt:
    return Prompt(
        sample_id=row["sample_id"],
        role=row["role"] or "",
        task=row["task"] or "",
        size=(row["width"], row["height"]),
        source=row["source"] or "",
        license=row["license"] or "",
        level_sizes=tuple(row["level_sizes"] or ()),
        objects=tuple(_shown(one) for one in row["objects"] or ()),
        saliency_peak=row["saliency_peak"],
        flat_saliency=bool(row["flat_saliency"]),
        proposed=row["proposed"],
    )


def _shown(one: Mapping[str, Any]) -> Shown:
    red, green, blue = one["color"]
    box = Box(*map(float, one["bbox"]))
    return Shown(one["id"], one["category"] or "", box, one["saliency"], (red, green, blue))


def _pictures(image: bytes, saliency: bytes, frames: Sequence[bytes]) -> Pictures:
    shown = decode(image)
    assert shown is not None
    found = tuple(Image.open(io.BytesIO(frame)).convert("RGB") for frame in frames)
    return Pictures(shown, Image.open(io.BytesIO(saliency)).convert("L"), found)
