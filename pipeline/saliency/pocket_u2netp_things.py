"""Outlines of the things that the pocket saliency network learns to see: kinds beyond `shapes`.

A thing is its coverage (L) and where it lies; knows nothing of colours or grounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log

import numpy as np
from PIL import Image, ImageDraw

from pipeline.saliency.pocket_u2netp_grounds import Rng, fractal
from pipeline.scenes.shapes import Outline, draw_outline, make_outline


def thing(
    rng: Rng, side: int, kind: str, shapes: Sequence[str], count: int
) -> tuple[Image.Image, tuple[int, int]]:
    """A thing's coverage (L) and where its upper left goes: mostly in the middle, mostly whole."""
    long = side * exp(rng.uniform(log(0.2), log(1.0 if count == 1 else 0.6)))
    if count == 1 and rng.random() < 0.5:
        long = side * rng.uniform(0.45, 1.0)
    aspect = float(np.clip(exp(rng.normal(0, 0.35)), 0.35, 2.8))
    size = (max(6, round(long * min(1, aspect))), max(6, round(long / max(1, aspect))))
    cover = COVERS[kind](rng, size, shapes)
    spread = 0.12 if count == 1 else 0.22
    if rng.random() < 0.2:
        spread *= 2.5
    over = 0.1 if rng.random() < 0.75 else 0.4
    corner = []
    for mine in cover.size:
        middle = side * float(np.clip(rng.normal(0.5, spread), 0, 1))
        low, high = -over * mine, max(-over * mine + 1, side - mine * (1 - over))
        corner.append(int(np.clip(middle - mine / 2, low, high)))
    return cover, (corner[0], corner[1])


def _outline(rng: Rng, size: tuple[int, int], shapes: Sequence[str]) -> Image.Image:
    outline = _outline_of(rng, shapes)
    long = max(size)
    wide = max(4, round(long * min(1.0, outline.aspect)))
    high = max(4, round(long / max(1.0, outline.aspect)))
    return draw_outline(outline, (wide, high), 3 if long < 160 else 2)


def _outline_of(rng: Rng, shapes: Sequence[str]) -> Outline:
    while True:
        outline = make_outline(rng)
        if outline.family in shapes:
            return outline


def _creature(rng: Rng, size: tuple[int, int], shapes: Sequence[str]) -> Image.Image:
    """A body with a head, legs or arms, and a tail: rounded parts joined at random."""
    width, height = (2 * s for s in size)
    drawn = Image.new("L", (width, height))
    pen = ImageDraw.Draw(drawn)
    upright = rng.random() < 0.5
    middle = np.array([0.5, 0.45]) + rng.normal(0, 0.04, 2)
    half = np.array([0.2, 0.28]) if upright else np.array([0.32, 0.2])
    half = half * rng.uniform(0.75, 1.15, 2)
    _oval(pen, middle, half, drawn.size)
    toward = (
        np.array([rng.normal(0, 0.2), -1.0]) if upright else np.array([rng.choice([-1, 1]), -0.8])
    )
    head = middle + toward * half * rng.uniform(0.9, 1.25)
    _oval(pen, head, half.min() * rng.uniform(0.45, 0.8, 2), drawn.size)
    _limb(pen, middle, head, half.min() * rng.uniform(0.3, 0.9), drawn.size)
    for _ in range(int(rng.integers(1, 7))):
        root = middle + rng.uniform(-0.85, 0.85, 2) * half
        reach = np.array([rng.normal(0, 0.12), rng.uniform(0.2, 0.55)])
        if rng.random() < 0.25:
            reach = rng.normal(0, 0.25, 2)
        _limb(pen, root, root + reach, rng.uniform(0.015, 0.08), drawn.size)
    return _trimmed(drawn.reduce(2), size)


def _lump(rng: Rng, size: tuple[int, int], shapes: Sequence[str]) -> Image.Image:
    """What is above a level of noise that falls off toward the borders: bushes, stones, food."""
    y, x = np.linspace(-1, 1, size[1])[:, None], np.linspace(-1, 1, size[0])[None]
    height = 1.05 - np.sqrt(x**2 + y**2) * 1.25
    height = height + rng.uniform(0.08, 0.3) * fractal(rng, size, rng.uniform(0.3, 0.65))
    steep = max(size) / 8
    return _trimmed(Image.fromarray((np.clip(height * steep, 0, 1) * 255).astype(np.uint8)), size)


def _built(rng: Rng, size: tuple[int, int], shapes: Sequence[str]) -> Image.Image:
    """Boxes, wedges and wheels joined: vehicles, furniture, buildings, devices."""
    wide = (2 * size[0], 2 * size[1])
    drawn = Image.new("L", wide)
    pen = ImageDraw.Draw(drawn)
    low, high = rng.uniform(0.02, 0.3, 2), rng.uniform(0.7, 0.98, 2)
    skew = rng.normal(0, 0.06, (4, 2)) * (rng.random() < 0.5)
    body = np.array([(low[0], low[1]), (high[0], low[1]), (high[0], high[1]), (low[0], high[1])])
    pen.polygon(((body + skew) * wide).ravel().tolist(), fill=255)
    for _ in range(int(rng.integers(0, 5))):
        at, half = rng.uniform(0.1, 0.9, 2), rng.uniform(0.04, 0.25, 2)
        part = rng.random()
        if part < 0.4:
            _oval(pen, at, np.full(2, half.min()), wide)
        elif part < 0.8:
            pen.rectangle(((at - half).clip(0, 1) * wide).tolist()
                          + ((at + half).clip(0, 1) * wide).tolist(), fill=255)  # fmt: skip
        else:
            hole = half * 0.5
            _oval(pen, at, hole, wide, 0)
    return _trimmed(drawn.reduce(2), size)


def _oval(
    pen: ImageDraw.ImageDraw, middle: np.ndarray, half: np.ndarray, size: tuple[int, int],
    fill: int = 255,
) -> None:  # fmt: skip
    x0, y0 = (middle - half) * size
    x1, y1 = (middle + half) * size
    pen.ellipse((x0, y0, max(x0, x1), max(y0, y1)), fill=fill)


def _limb(
    pen: ImageDraw.ImageDraw, start: np.ndarray, end: np.ndarray, wide: float, size: tuple[int, int]
) -> None:
    (x0, y0), (x1, y1) = start * size, end * size
    pen.line((x0, y0, x1, y1), fill=255, width=max(2, round(wide * 2 * min(size))))


def _trimmed(cover: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Without the empty margins; a disc where nothing is left."""
    box = cover.getbbox()
    if box is None or cover.histogram()[255] < 12:
        cover = Image.new("L", size)
        ImageDraw.Draw(cover).ellipse((0, 0, size[0] - 1, size[1] - 1), fill=255)
        return cover
    return cover.crop(box)


COVERS = {"outline": _outline, "creature": _creature, "lump": _lump, "built": _built}
"""Kinds of things."""
