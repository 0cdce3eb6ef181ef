"""Drawn scenes for the pocket VLM: coloured things that bear a mark, some too small to read it.

Owns what is drawn and what is true of it. Training scenes are keyed (seed, index); held-out ones
have seeds from `HELD_OUT_SEED` on.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from pipeline.geometry import Box
from pipeline.samples import rng_for

HELD_OUT_SEED = 10**6
SIDE = 500
"""Of a picture, px: a pixel is two thousandths, so boxes on whole pixels are written exactly."""
RESOLUTION = 224
"""The budget at which a picture is first seen."""
GRID = 10
"""A box that is said lies on multiples of this, px: 51 numbers to learn on each axis."""
READABLE_PX = 28
"""Side in a view from which on a thing's mark can be read."""
SMALL, LARGE = (24, 44), (66, 130)
"""Sides of things in px: those whose mark needs a look, and those whose mark does not."""
SHAPES = ("square", "disc", "diamond")
COLORS: tuple[tuple[str, tuple[int, int, int], int], ...] = (
    ("red", (200, 40, 40), 255),
    ("blue", (40, 70, 200), 255),
    ("yellow", (230, 200, 50), 0),
    ("green", (30, 130, 60), 255),
    ("purple", (130, 40, 160), 255),
    ("cyan", (70, 200, 210), 0),
)
"""Name, RGB, and the grey of a mark on it."""
MARKS = ("dot", "bar", "pole", "plus", "ring", "cross", "wedge", "hook")
EASIEST = (2, 2, 4)
"""Shapes, colours and marks that are drawn at the very start."""
MOST = 4
"""Things in a scene."""
APART_PX = 64
"""Least distance of two things' middles on an axis: over a merged cell of the first view."""
_FINE = 3
"""Times finer that a thing is drawn before it is averaged."""


@dataclass(frozen=True, slots=True)
class Thing:
    """A shape with a mark on it; its kinds are places in `SHAPES`, `COLORS` and `MARKS`."""

    shape: int
    color: int
    mark: int
    box: Box
    """Whole pixels of the picture, a square."""

    @property
    def name(self) -> str:
        return f"{COLORS[self.color][0]} {SHAPES[self.shape]}"

    @property
    def readable(self) -> bool:
        """Whether its mark can be read in the first view."""
        return self.box.width * RESOLUTION / SIDE >= READABLE_PX

    @property
    def said(self) -> Box:
        """The smallest box of the grid that holds it, px."""
        x0, y0 = (GRID * int(value // GRID) for value in (self.box.x0, self.box.y0))
        x1, y1 = (GRID * int(-(-value // GRID)) for value in (self.box.x1, self.box.y1))
        return Box(x0, y0, x1, y1)


@dataclass(frozen=True, slots=True)
class Scene:
    """Things, no two alike in colour, on a ground of greys."""

    things: tuple[Thing, ...]
    """The first one is asked for."""
    greys: tuple[tuple[int, ...], ...]
    """The ground, coarsely; it is shown smooth."""

    def image(self) -> Image.Image:
        """The picture, RGB."""
        ground = Image.fromarray(np.asarray(self.greys, np.uint8))
        picture = ground.resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB")
        for thing in self.things:
            drawn, cover = _drawn(thing)
            picture.paste(drawn, (int(thing.box.x0), int(thing.box.y0)), cover)
        return picture


def scene_of(rng: np.random.Generator, along: float = 1.0) -> Scene:
    """A scene; more things, shapes, colours and marks occur as `along` goes from 0 to 1/2."""
    grown = min(1.0, 2 * along)
    shapes, colors, marks = (
        round(few + grown * (len(all_) - few))
        for few, all_ in zip(EASIEST, (SHAPES, COLORS, MARKS), strict=True)
    )
    count = int(rng.integers(1, 2 + round(grown * (MOST - 1))))
    own = rng.permutation(colors)[:count].tolist()
    boxes = _boxes(rng, len(own))
    things = [
        Thing(int(rng.integers(shapes)), color, int(rng.integers(marks)), box)
        for color, box in zip(own, boxes, strict=True)
    ]
    greys = rng.integers(90, 200) + rng.integers(-25, 26, (5, 5))
    return Scene(tuple(things), tuple(map(tuple, greys.tolist())))


def training_scene(seed: int, index: int, along: float) -> Scene:
    """A scene to learn from; seeds below `HELD_OUT_SEED`."""
    return scene_of(rng_for(seed, "pocket-vlm", index), along)


def held_out_scene(number: int) -> Scene:
    """A scene that no training has seen, of all kinds."""
    return scene_of(rng_for(HELD_OUT_SEED, "pocket-vlm", number))


def generator_digest(count: int = 8) -> str:
    """SHA-256 (hex) of drawn pictures: tells one generator from another."""
    drawn = (training_scene(0, index, 1.0).image().tobytes() for index in range(count))
    return hashlib.sha256(b"".join(drawn)).hexdigest()


def _boxes(rng: np.random.Generator, count: int) -> list[Box]:
    """Boxes that touch neither each other nor the picture's edge, half of them small ones."""
    while True:
        ends = [SMALL if small else LARGE for small in rng.random(count) < 0.5]
        sides = np.array([rng.integers(low, high + 1) for low, high in ends])
        corners = np.array([rng.integers(4, SIDE - 4 - side, 2) for side in sides])
        middles = corners + sides[:, None] / 2
        least = np.maximum((sides[:, None] + sides) / 2 + 6, APART_PX)
        off = abs(middles[:, None] - middles).max(-1)
        if (off + np.diag([SIDE] * count) >= least).all():
            pairs = zip(corners.tolist(), sides.tolist(), strict=True)
            return [Box(x, y, x + side, y + side) for (x, y), side in pairs]


def _drawn(thing: Thing) -> tuple[Image.Image, Image.Image]:
    """A thing's pixels (RGB), and how much of each it covers (L)."""
    side = int(thing.box.width)
    fine = side * _FINE
    _, color, ink = COLORS[thing.color]
    cover = Image.new("L", (fine, fine))
    pen, ends, half = ImageDraw.Draw(cover), (0, 0, fine - 1, fine - 1), fine / 2
    if SHAPES[thing.shape] == "disc":
        pen.ellipse(ends, fill=255)
    elif SHAPES[thing.shape] == "diamond":
        pen.polygon([(half, 0), (fine, half), (half, fine), (0, half)], fill=255)
    else:
        pen.rectangle(ends, fill=255)
    drawn = Image.new("RGB", (fine, fine), color)
    _draw_mark(ImageDraw.Draw(drawn), MARKS[thing.mark], fine, (ink, ink, ink))
    return drawn.reduce(_FINE), cover.reduce(_FINE)


def _draw_mark(pen: ImageDraw.ImageDraw, mark: str, side: int, ink: tuple[int, int, int]) -> None:
    """A mark in the middle half of a square of `side` px."""
    low, middle, high, wide = side // 4, side // 2, side - side // 4, max(1, side // 8)
    across = [(low, middle), (high, middle)]
    down = [(middle, low), (middle, high)]
    strokes = {
        "bar": [across],
        "pole": [down],
        "plus": [across, down],
        "cross": [[(low, low), (high, high)], [(low, high), (high, low)]],
        "hook": [[(low, low), (low, high)], [(low, high), (high, high)]],
    }
    for stroke in strokes.get(mark, []):
        pen.line(stroke, fill=ink, width=wide)
    if mark == "dot":
        pen.ellipse((low, low, high, high), fill=ink)
    elif mark == "ring":
        pen.ellipse((low, low, high, high), outline=ink, width=wide)
    elif mark == "wedge":
        pen.polygon([(middle, low), (high, high), (low, high)], fill=ink)
