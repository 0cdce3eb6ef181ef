"""One visual prompt as a single picture: image, saliency and levels in a row, objects below."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from pipeline.report.charts import percent
from pipeline.report.draw import GAP, INK, PAD, PAPER, QUIET, Rgb
from pipeline.report.prompts import Pictures, Prompt, first_level, name_of

LINE_PX = 30
SWATCH_PX = 16
COLUMNS = 3
"""Of the list of objects."""
MOST = 24
"""Objects that are listed."""


def prompt_picture(
    prompt: Prompt, pictures: Pictures, *, width: int = 1600, photograph: bool = True
) -> Image.Image:
    """Tiles of the prompt with their captions, and its objects with their share of the map.

    Returns RGB, `width` pixels wide. Without `photograph` neither picture nor map is shown.
    """
    tiles = list(zip(pictures.all, prompt.captions, strict=True))[0 if photograph else 2 :]
    side = (width - 2 * PAD - GAP * (len(tiles) - 1)) // max(1, len(tiles))
    height = round(side * prompt.size[1] / prompt.size[0])
    listed = prompt.objects[:MOST]
    lines = -(-len(listed) // COLUMNS)
    top = PAD + height + GAP + LINE_PX
    canvas = Image.new("RGB", (width, top + lines * LINE_PX + PAD), PAPER)
    for place, (tile, caption) in enumerate(tiles):
        x = PAD + place * (side + GAP)
        canvas.paste(_fitted(tile, (side, height)), (x, PAD))
        _write(canvas, (x, PAD + height + 8), caption, QUIET)
    shares = pictures.shares(prompt)
    column = (width - 2 * PAD) // COLUMNS
    for place, found in enumerate(listed):
        x, y = PAD + place // lines * column, top + place % lines * LINE_PX
        words = f"{name_of(found)}   {percent(shares[place])}   level {first_level(prompt, place)}"
        _entry(canvas, (x, y), words, found.color if prompt.task == "seg" else None)
    return canvas


def _entry(canvas: Image.Image, corner: tuple[int, int], words: str, color: Rgb | None) -> None:
    """One object: its colour, where it has one, and what there is to say of it."""
    x, y = corner
    if color is not None:
        edges = (x, y + 4, x + SWATCH_PX - 1, y + 3 + SWATCH_PX)
        ImageDraw.Draw(canvas).rectangle(edges, fill=color)
        x += SWATCH_PX + 10
    _write(canvas, (x, y), words, INK)


def _fitted(tile: Image.Image, size: tuple[int, int]) -> Image.Image:
    return tile.convert("RGB").resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _write(canvas: Image.Image, corner: tuple[int, int], words: str, ink: Rgb) -> None:
    ImageDraw.Draw(canvas).text(corner, words, ink, ImageFont.load_default(19))
