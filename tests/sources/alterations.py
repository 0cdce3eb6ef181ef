"""What is done to pictures before they are used elsewhere, and pictures to do it to."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.samples import rng_for
from pipeline.scenes.draw import scene
from pipeline.sources.decode import decode

SHARED = Path(__file__).parents[3] / "shared"
FOLDERS = (SHARED / "photos", SHARED / "coco_mini" / "images")
SMALL = (224, 168)
"""(width, height) of drawn pictures."""
Alter = Callable[[Image.Image], Image.Image]


def photographs(longest: int | None = None) -> list[Image.Image]:
    """The real ones beside the checkout, none without; at most `longest` pixels a side."""
    files = [path for folder in FOLDERS if folder.is_dir() for path in sorted(folder.iterdir())]
    found = [decode(p.read_bytes()) for p in files if p.suffix in (".jpg", ".webp")]
    if longest is not None:
        for image in found:
            image.thumbnail((longest, longest))
    return found


@cache
def drawn(number: int) -> Image.Image:
    """A scene of its own seed range."""
    return Image.fromarray(scene(rng_for(5, "unrelated", number), SMALL).image)


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=quality)
    return decode(sink.getvalue())


def part(image: Image.Image, x0: float, y0: float, x1: float, y1: float) -> Image.Image:
    """A part in shares of the sides."""
    (w, h), shares = image.size, (x0, y0, x1, y1)
    box = [round(s * edge) for s, edge in zip(shares, (w, h, w, h), strict=True)]
    return image.crop((box[0], box[1], box[2], box[3]))


def brighter(image: Image.Image, factor: float) -> Image.Image:
    """Every value times a factor, clipped."""
    return image.point(lambda value: min(255, round(value * factor)))


def pasted(image: Image.Image) -> Image.Image:
    """On soft blotches of twice its size, as in a collage."""
    coarse = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    ground = Image.fromarray(coarse).resize((image.width * 2, image.height * 2))
    ground.paste(image, (image.width // 2, image.height // 3))
    return ground


def quarters(image: Image.Image) -> list[Image.Image]:
    """Four parts that share no pixel."""
    edges = ((0, 0.5), (0.5, 1))
    return [part(image, x0, y0, x1, y1) for y0, y1 in edges for x0, x1 in edges]


WHOLE: dict[str, Alter] = {
    "half": lambda i: i.resize((i.width // 2, i.height // 2), Image.Resampling.LANCZOS),
    "jpeg 40": lambda i: as_jpeg(i, 40),
    "5 % off every border": lambda i: part(i, 0.05, 0.05, 0.95, 0.95),
    "a fifth brighter": lambda i: brighter(i, 1.2),
    "a fifth darker": lambda i: brighter(i, 0.8),
}
"""By which a picture stays the same picture: `near`."""
PARTS: dict[str, Alter] = {
    "2/3 of each side": lambda i: part(i, 0.1, 0.2, 0.77, 0.87),
    "1/2 of each side": lambda i: part(i, 0.25, 0.25, 0.75, 0.75),
    "1/3 of each side": lambda i: part(i, 0.33, 0.33, 0.66, 0.66),
    "1/4 of each side": lambda i: part(i, 0.3, 0.4, 0.55, 0.65),
    "1/5 of each side": lambda i: part(i, 0.4, 0.4, 0.6, 0.6),
    "in a collage": pasted,
}
"""By which one of the two is a part of the other: `crop`."""
