"""Fields and colours: what the surfaces of a drawn picture look like.

A *field* is a greyscale picture (L); a surface is a field run through a ramp of two colours. Fields
are cut from an *atlas* of tiles made once for a picture, so a large surface costs a few copies.
"""

from __future__ import annotations

import colorsys
from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageOps

Rgb = tuple[int, int, int]
Atlas = dict[str, Image.Image]

TILES = ("grain", "clouds", "fibres", "stripes", "checks", "bricks", "speckle", "marble")

CONTRAST = [max(0, min(255, 128 + (v - 128) * 3)) for v in range(256)]
"""A lookup table that turns clouds into patches with soft edges."""


def make_atlas(rng: np.random.Generator, side: int, kinds: int = 4) -> Atlas:
    """Square L tiles of `side` pixels: `clouds`, `grain` and some other kinds."""
    others = rng.permutation(TILES[2:])[: max(0, kinds - 2)]
    return {name: _TILES[str(name)](rng, side) for name in ("grain", "clouds", *others)}


def cut(tile: Image.Image, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A window of (width, height) pixels at a random place of the tile repeated without end."""
    side = tile.width
    x, y = (int(v) for v in rng.integers(0, side, 2))
    if x + size[0] <= side and y + size[1] <= side:
        return tile.crop((x, y, x + size[0], y + size[1]))
    window = Image.new("L", size)
    for left in range(-x, size[0], side):
        for top in range(-y, size[1], side):
            window.paste(tile, (left, top))
    return window


def gradient(size: tuple[int, int], rng: np.random.Generator, *, radial: bool) -> Image.Image:
    """A smooth field over (width, height): a slope in a random direction, or a lit ball."""
    width, height = (max(1, min(s, 96)) for s in size)
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
    if radial:
        cx, cy = rng.uniform(-0.5, 0.5, 2)
        values = 1 - np.sqrt((x - cx) ** 2 + (y[:, None] - cy) ** 2) / 1.6
    else:
        turn = rng.uniform(0, 2 * pi)
        values = 0.5 + 0.37 * (cos(turn) * x + sin(turn) * y[:, None])
    small = Image.fromarray((np.clip(values, 0, 1) * 255).astype(np.uint8))
    return small if small.size == size else small.resize(size, Image.Resampling.BILINEAR)


def field(atlas: Atlas, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A random field over (width, height): flat, shaded, patterned, or shaded and patterned."""
    choice = rng.random()
    if choice < 0.15:
        return Image.new("L", size, 128)
    if choice < 0.4:
        return gradient(size, rng, radial=bool(rng.random() < 0.5))
    pattern = cut(atlas[str(rng.choice(list(atlas)))], size, rng)
    if choice < 0.65:
        return pattern
    shade = gradient(size, rng, radial=bool(rng.random() < 0.5))
    return Image.blend(pattern, shade, float(rng.uniform(0.3, 0.8)))


def colored(values: Image.Image, low: Rgb, high: Rgb) -> Image.Image:
    """A field as RGB: black becomes `low`, white becomes `high`."""
    steps = np.linspace(0, 1, 256)[:, None]
    ramp = np.rint(np.asarray(low) * (1 - steps) + np.asarray(high) * steps).astype(np.uint8)
    indexed = values.copy()
    indexed.putpalette(ramp.tobytes())
    return indexed.convert("RGB")


def make_palette(rng: np.random.Generator, colors: int = 10) -> list[Rgb]:
    """Colours that go together; most palettes are muted, as in photographs."""
    most = float(rng.choice([0.12, 0.35, 0.6, 0.9], p=[0.2, 0.45, 0.25, 0.1]))
    home, spread = rng.random(), rng.choice([0.08, 0.25, 1.0])
    palette = []
    for value in rng.permutation(np.linspace(0.12, 0.97, colors)):
        hue = (home + spread * rng.uniform(-0.5, 0.5)) % 1
        palette.append(_rgb(hue, most * rng.uniform(0.2, 1), float(value)))
    return palette


def vivid(rng: np.random.Generator) -> Rgb:
    """A saturated colour."""
    return _rgb(rng.random(), rng.uniform(0.7, 1), rng.uniform(0.55, 1))


def shifted(color: Rgb, rng: np.random.Generator, most: float) -> Rgb:
    """The colour made lighter or darker by up to `most` levels, with a little change of hue."""
    step = rng.uniform(0.25, 1) * most * rng.choice([-1, 1])
    moved = np.asarray(color) + step + rng.normal(0, 6, 3)
    red, green, blue = (int(v) for v in np.clip(moved, 0, 255))
    return red, green, blue


def _rgb(hue: float, saturation: float, value: float) -> Rgb:
    red, green, blue = (round(255 * c) for c in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue


def _noise(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    values = rng.integers(0, 256, (height, width), dtype=np.uint8)
    return Image.fromarray(values)


def _grain(rng: np.random.Generator, side: int) -> Image.Image:
    return _noise(rng, side, side)


def _clouds(rng: np.random.Generator, side: int) -> Image.Image:
    half = side // 2
    cells = int(rng.integers(3, 7))
    total = _noise(rng, cells, cells).resize((half, half), Image.Resampling.BICUBIC)
    fade = float(rng.uniform(0.2, 0.45))
    while cells * 2 < half:
        cells *= 2
        octave = _noise(rng, cells, cells).resize((half, half), Image.Resampling.BICUBIC)
        total = Image.blend(total, octave, fade)
    return _mirrored(ImageOps.autocontrast(total, cutoff=1))


def _fibres(rng: np.random.Generator, side: int) -> Image.Image:
    half = side // 2
    long = max(2, half // int(rng.integers(4, 20)))
    size = (long, half) if rng.random() < 0.5 else (half, long)
    return _mirrored(_noise(rng, *size).resize((half, half), Image.Resampling.BICUBIC))


def _mirrored(quarter: Image.Image) -> Image.Image:
    """A tile of twice the side without seams: the quarter and its reflections."""
    side = quarter.width
    tile = Image.new("L", (2 * side, 2 * side))
    tile.paste(quarter, (0, 0))
    tile.paste(ImageOps.mirror(quarter), (side, 0))
    tile.paste(ImageOps.flip(tile.crop((0, 0, 2 * side, side))), (0, side))
    return tile


def _waves(rng: np.random.Generator, side: int, bend: float) -> np.ndarray:
    """Values of a plane wave that repeats at the tile's edges, float32 HW in [-1, 1]."""
    a, b = (int(v) for v in rng.integers(-12, 13, 2))
    a = a or 5
    axis = np.arange(side, dtype=np.float32) * (2 * pi / side)
    phase = a * axis + b * axis[:, None] + bend * np.sin(2 * axis + 3 * np.sin(axis[:, None]))
    return np.sin(phase)


def _stripes(rng: np.random.Generator, side: int) -> Image.Image:
    sharp = rng.choice([1.0, 3.0, 20.0])
    values = np.clip(_waves(rng, side, 0.0) * sharp, -1, 1)
    return Image.fromarray((127.5 + 127 * values).astype(np.uint8))


def _marble(rng: np.random.Generator, side: int) -> Image.Image:
    values = _waves(rng, side, float(rng.uniform(1, 4)))
    return Image.fromarray((127.5 + 127 * values).astype(np.uint8))


def _checks(rng: np.random.Generator, side: int) -> Image.Image:
    cells = 2 * int(rng.integers(2, 11))
    board = (np.indices((cells, cells)).sum(0) % 2 * 255).astype(np.uint8)
    return Image.fromarray(board).resize((side, side), Image.Resampling.NEAREST)


def _bricks(rng: np.random.Generator, side: int) -> Image.Image:
    tile = Image.new("L", (side, side), 40)
    pen = ImageDraw.Draw(tile)
    rows = 2 * int(rng.integers(2, 7))
    columns = int(rng.integers(2, 6))
    high, wide, gap = side / rows, side / columns, max(1, side // 128)
    for row in range(rows):
        for column in range(-1, columns):
            left = (column + (row % 2) / 2) * wide
            box = (left + gap, row * high + gap, left + wide - gap, (row + 1) * high - gap)
            pen.rectangle(box, fill=int(rng.integers(150, 256)))
    return tile


def _speckle(rng: np.random.Generator, side: int) -> Image.Image:
    tile = Image.new("L", (side, side), 90)
    pen = ImageDraw.Draw(tile)
    for _ in range(60):
        x, y = rng.uniform(0, side, 2)
        r = side * rng.uniform(0.008, 0.035)
        pen.ellipse((x - r, y - r, x + r, y + r), fill=int(rng.integers(0, 256)))
    return ImageChops.add(tile, _noise(rng, side, side).point(lambda v: v // 8))


_TILES = {
    "grain": _grain,
    "clouds": _clouds,
    "fibres": _fibres,
    "stripes": _stripes,
    "checks": _checks,
    "bricks": _bricks,
    "speckle": _speckle,
    "marble": _marble,
}
