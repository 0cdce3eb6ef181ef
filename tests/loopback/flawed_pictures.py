"""Pictures that can be recognised from any part of them, and what can be seen in such a part.

A picture is flat ground of a colour of its own, with grain, grey patches and tags on it, no two of
one colour. So whoever knows how they are made can tell from a crop alone which picture it is of and
which tags it shows whole, as a model would by reading.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pipeline.geometry import Box
from pipeline.samples import rng_for
from pipeline.scenes.needles import Tag, free_place
from pipeline.scenes.tags import ALPHABET, COLORS, SHAPES, draw_tag
from pipeline.sources.decode import decode, encode

SIZE = (1344, 1008)
MOST = 343
"""Pictures that can be told apart."""
TAGS = (4, 6)
SIDE_PX = (64, 128)
PATCHES = 5
READABLE_PX = 60
"""A tag is read where it is at least this wide."""
VISIBLE_PX = 8
"""Its colour and shape are made out where it is at least this wide."""

_LEVELS = tuple(range(96, 145, 8))
_GRAIN = 9
_NEAR = 48.0
"""Distance from a tag's colour, in grey levels, that is still that colour."""
_ACROSS = 100
"""Pixels of a crop's shorter side that tags are looked for on, at least."""
_MARGIN_PX = 44
"""Ground between a tag and the picture's edge: a crop of a tag has ground all around."""


@dataclass(frozen=True)
class Scene:
    """One picture and what is on it."""

    name: str
    """The file's."""
    data: bytes
    """Encoded, as the file holds it."""
    tags: tuple[Tag, ...]
    ground: tuple[int, int, int]

    @property
    def image(self) -> Image.Image:
        """RGB, decoded."""
        return decode(self.data)

    def named(self, words: str) -> list[Tag]:
        """The tags that a phrase may mean: of each colour and shape that it names."""
        said = words.casefold().split()
        colors = [c for c in COLORS if c in said] or list(COLORS)
        shapes = [s for s in SHAPES if s in said] or list(SHAPES)
        return [tag for tag in self.tags if tag.color in colors and tag.shape in shapes]


def make_scene(number: int, seed: int) -> Scene:
    """The picture of a number below `MOST`; its codes' first three letters are no other tag's."""
    rng = rng_for(seed, "flawed", number)
    ground = grounds(seed)[number]
    canvas = Image.new("RGB", SIZE, ground)
    tags: list[Tag] = []
    colors = rng.permutation(list(COLORS))[: int(rng.integers(TAGS[0], TAGS[1] + 1))]
    for place, color in enumerate(map(str, colors)):
        shape = str(rng.choice(SHAPES[:4] if place % 2 else SHAPES))
        tag = _put(canvas, shape, color, _code(number, place, seed, rng), tags, rng)
        tags += [] if tag is None else [tag]
    _draw_patches(canvas, ground, tags, rng)
    return Scene(f"{number:04d}.jpg", encode(_grained(canvas, rng)), tuple(tags), ground)


def save_scenes(folder: Path, count: int, seed: int) -> None:
    """Write the first `count` pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        scene = make_scene(number, seed)
        (folder / scene.name).write_bytes(scene.data)


@cache
def grounds(seed: int) -> tuple[tuple[int, int, int], ...]:
    """The ground of each picture: muted colours eight levels apart."""
    every = [(r, g, b) for r in _LEVELS for g in _LEVELS for b in _LEVELS]
    order = rng_for(seed, "grounds").permutation(len(every))
    return tuple(every[int(i)] for i in order)


def pixels_of(jpeg: bytes) -> np.ndarray:
    """uint8 HWC of a picture as it was sent."""
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))


def ground_of(pixels: np.ndarray) -> tuple[int, int, int]:
    """The level nearest to the median of a crop's rim, for each channel."""
    rim = max(2, min(pixels.shape[:2]) // 12)
    inner = np.zeros(pixels.shape[:2], dtype=bool)
    inner[rim:-rim, rim:-rim] = True
    middle = np.median(pixels[~inner], axis=0)
    r, g, b = (min(_LEVELS, key=lambda level: abs(level - value)) for value in middle)
    return r, g, b


def shown_tags(scene: Scene, pixels: np.ndarray) -> dict[Tag, Box]:
    """The tags that a crop (uint8 HWC) shows whole, and where: pixels of the crop."""
    found = {tag: _blob(pixels, tag) for tag in scene.tags}
    return {tag: box for tag, box in found.items() if box is not None}


def _blob(pixels: np.ndarray, tag: Tag) -> Box | None:
    """The square that is of a tag's colour, if it does not reach the crop's edge."""
    step = max(1, min(pixels.shape[:2]) // _ACROSS)
    away = pixels[::step, ::step].astype(np.int32) - COLORS[tag.color]
    near = np.einsum("ijk,ijk->ij", away, away) < _NEAR**2
    (x0, x1), (y0, y1) = (_span(near.sum(axis)) for axis in (0, 1))
    height, width = near.shape
    if (x1 - x0) * step < VISIBLE_PX or min(x0, y0) < 2 or x1 > width - 2 or y1 > height - 2:
        return None
    aspect, covered = (x1 - x0) / max(y1 - y0, 1), near[y0:y1, x0:x1].mean()
    whole = 0.8 < aspect < 1.25 and covered > 0.2
    return Box(*(edge * step for edge in (x0, y0, x1, y1))) if whole else None


def _span(counts: np.ndarray) -> tuple[int, int]:
    """Where a profile is more than stray pixels."""
    inside = np.flatnonzero(counts > 0.06 * max(counts.max(), 1))
    return (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0)


def _put(
    canvas: Image.Image,
    shape: str,
    color: str,
    code: str,
    tags: list[Tag],
    rng: np.random.Generator,
) -> Tag | None:
    """Draw a tag at a free place away from the edges; None where there is none."""
    side = round(float(np.exp(rng.uniform(*np.log(SIDE_PX)))))
    inner = canvas.crop((_MARGIN_PX, _MARGIN_PX, SIZE[0] - _MARGIN_PX, SIZE[1] - _MARGIN_PX))
    taken = [
        Box(*(edge - _MARGIN_PX for edge in tag.box.enlarge(2, SIZE).as_list())) for tag in tags
    ]
    place = free_place(inner, side, color, taken, rng)
    if place is None:
        return None
    box = Box(*(edge + _MARGIN_PX for edge in place.as_list()))
    drawn = draw_tag(shape, color, code, side)
    canvas.paste(drawn, (int(box.x0), int(box.y0)), drawn)
    return Tag(shape, color, code, box)


def _draw_patches(
    canvas: Image.Image, ground: tuple[int, int, int], tags: list[Tag], rng: np.random.Generator
) -> None:
    """Things with nothing to ask about, away from the tags."""
    draw = ImageDraw.Draw(canvas)
    for _ in range(PATCHES):
        side, shade = int(rng.integers(60, 200)), int(rng.choice([-26, 26]))
        x, y = (int(rng.integers(0, limit - side)) for limit in SIZE)
        patch = Box(x, y, x + side, y + side)
        if all(patch.intersection(tag.box.enlarge(2.5, SIZE)) == 0 for tag in tags):
            r, g, b = (level + shade for level in ground)
            draw.ellipse((x, y, x + side, y + side), fill=(r, g, b))


def _code(number: int, place: int, seed: int, rng: np.random.Generator) -> str:
    """Four letters; the first three are the tag's own among all pictures."""
    base = len(ALPHABET)
    index = int(_prefixes(seed)[number * TAGS[1] + place])
    first = "".join(ALPHABET[index // base**power % base] for power in range(3))
    return first + ALPHABET[int(rng.integers(base))]


@cache
def _prefixes(seed: int) -> np.ndarray:
    return rng_for(seed, "codes").permutation(len(ALPHABET) ** 3)


def _grained(canvas: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The picture with grain of two pixels: detail that a small view loses, and no colour."""
    rows, cols = SIZE[1] // 2, SIZE[0] // 2
    grain = rng.integers(-_GRAIN, _GRAIN + 1, (rows, cols, 1)).repeat(2, 0).repeat(2, 1)
    return Image.fromarray(np.clip(np.asarray(canvas) + grain, 0, 255).astype(np.uint8))
