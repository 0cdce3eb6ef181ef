"""Grounds of the pictures that the pocket saliency network is trained on: what is not salient.

Each family draws an RGB picture of a side in pixels: land, rooms, surfaces, litter, lights out of
focus, plain paper, drawn scenes. All is drawn from noise and polygons; no photograph is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, log2

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from pipeline.scenes import textures
from pipeline.scenes.draw import scene
from pipeline.scenes.shapes import draw_outline, make_outline

Rng = np.random.Generator
Color = np.ndarray
"""float32 (3,), levels of 0..255."""


def ground(rng: Rng, side: int, *, held_out: bool = False) -> Image.Image:
    """A ground of a random family; held-out families are never seen in training."""
    families = HELD_OUT if held_out else FAMILIES
    chances = np.array([weight for _, weight in families.values()], float)
    name = str(rng.choice(list(families), p=chances / chances.sum()))
    return families[name][0](rng, side)


def fractal(rng: Rng, size: tuple[int, int], rough: float, coarse: int = 2) -> np.ndarray:
    """Noise of octaves, float32 (H, W) for (width, height), mean 0 and deviation 1.

    Each octave has `rough` times the strength of the one before; photographs have about 0.5. The
    coarsest has `coarse` cells on the longer side.
    """
    width, height = size
    total = np.zeros((height, width), np.float32)
    stretch = float(np.exp(rng.normal(0, 0.35)))
    for octave in range(max(1, ceil(log2(max(size) / coarse)))):
        cells = coarse * 2**octave
        across = max(2, round(cells * stretch * width / max(size)))
        down = max(2, round(cells / stretch * height / max(size)))
        grid = Image.fromarray(rng.standard_normal((down, across), np.float32))
        total += rough**octave * np.asarray(grid.resize(size, Image.Resampling.BICUBIC))
    total -= total.mean()
    return total / max(float(total.std()), 1e-6)


def color(rng: Rng) -> Color:
    """A colour as photographs have them: mostly muted, now and then a strong one."""
    most = rng.choice([14.0, 45.0, 120.0], p=[0.4, 0.42, 0.18])
    hue = rng.normal(0, 1, 3)
    hue = (hue - hue.mean()) / max(float(np.abs(hue).max()), 1e-6)
    return np.clip(rng.uniform(15, 240) + most * hue, 0, 255).astype(np.float32)


def near(rng: Rng, base: Color, most: float) -> Color:
    """A colour up to about `most` levels from another, differing mostly in lightness."""
    step = rng.uniform(-1, 1) * most + rng.normal(0, 0.25 * most, 3)
    return np.clip(base + step, 0, 255).astype(np.float32)


def stuff(rng: Rng, size: tuple[int, int], base: Color, contrast: float) -> Image.Image:
    """Some material of (width, height) pixels: two colours mixed by noise, and noise in its light.

    `contrast` is about the deviation in levels.
    """
    rough = float(rng.uniform(0.35, 0.95))
    mix = fractal(rng, size, rough, int(rng.choice([2, 3, 6])))
    if rng.random() < 0.35:
        mix = np.tanh(mix * rng.uniform(2, 6)) * 1.2
    toward = near(rng, np.zeros(3, np.float32) + 128, 60) - 128 + rng.normal(0, 25, 3)
    toward *= contrast / max(float(np.abs(toward).mean()), 1.0)
    light = fractal(rng, size, float(rng.uniform(0.5, 1.0)), 4)
    pixels = base + mix[..., None] * toward.astype(np.float32)
    pixels *= (1 + rng.uniform(0, 0.18) * light)[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def pattern(rng: Rng, size: tuple[int, int], base: Color, contrast: float) -> Image.Image:
    """A surface with a repeated pattern, of (width, height) pixels."""
    kinds = textures.make_atlas(rng, int(rng.choice([32, 64, 96])), 3)
    values = textures.cut(kinds[list(kinds)[int(rng.integers(1, 3))]], size, rng)
    return textures.colored(values, _rgb(base), _rgb(near(rng, base, 2.5 * contrast)))


def material(rng: Rng, size: tuple[int, int], base: Color, contrast: float) -> Image.Image:
    """Plain, mixed or patterned material."""
    kind = rng.random()
    if kind < 0.2:
        values = textures.gradient(size, rng, radial=bool(rng.random() < 0.4))
        return textures.colored(values, _rgb(base), _rgb(near(rng, base, contrast + 10)))
    return (stuff if kind < 0.75 else pattern)(rng, size, base, contrast)


def _plain(rng: Rng, side: int) -> Image.Image:
    """Paper or a studio's wall."""
    base = color(rng) if rng.random() < 0.5 else near(rng, np.full(3, 235, np.float32), 25)
    values = textures.gradient((side, side), rng, radial=bool(rng.random() < 0.6))
    return textures.colored(values, _rgb(base), _rgb(near(rng, base, 60)))


def _surface(rng: Rng, side: int) -> Image.Image:
    """One material."""
    return material(rng, (side, side), color(rng), rng.uniform(5, 45))


def _land(rng: Rng, side: int) -> Image.Image:
    """Sky, and one to three bands of land or water below it."""
    sky = near(rng, np.array([170, 195, 225], np.float32), 50)
    sky = color(rng) if rng.random() < 0.4 else sky
    values = textures.gradient((side, side), rng, radial=False)
    picture = textures.colored(values, _rgb(sky), _rgb(near(rng, sky, 60)))
    if rng.random() < 0.5:
        picture = Image.blend(picture, stuff(rng, (side, side), sky, rng.uniform(10, 35)), 0.6)
    horizon = rng.uniform(0.1, 0.75)
    for _ in range(int(rng.integers(1, 4))):
        band = material(rng, (side, side), color(rng), rng.uniform(5, 40))
        if rng.random() < 0.45:
            _paint_row(rng, picture, horizon)
        picture.paste(band, (0, 0), _below(rng, side, horizon))
        horizon += rng.uniform(0.05, 0.3)
    return picture


def _paint_row(rng: Rng, picture: Image.Image, level: float) -> None:
    """Houses or trees side by side on a line at `level` of the height, in place."""
    side, base, high = picture.width, color(rng), rng.uniform(0.05, 0.4)
    pen = ImageDraw.Draw(picture)
    round_, spread, x = rng.random() < 0.5, rng.uniform(15, 60), -0.1 * side
    while x < side:
        wide, tall = rng.uniform(0.03, 0.25) * side, rng.uniform(0.4, 1) * high * side
        box = (x, level * side - tall, x + wide, level * side + (0.3 * tall if round_ else side))
        fill = _rgb(near(rng, base, spread))
        (pen.ellipse if round_ else pen.rectangle)(box, fill=fill)
        for _ in range(0 if round_ else int(rng.integers(0, 5))):
            a, b = x + rng.uniform(0, 0.8) * wide, level * side - rng.uniform(0.1, 0.9) * tall
            pane = (a, b, a + 0.2 * wide, b + 0.12 * tall)
            pen.rectangle(pane, fill=_rgb(near(rng, base, spread)))
        x += wide * rng.uniform(0.5, 1.3)


def _below(rng: Rng, side: int, level: float) -> Image.Image:
    """What is below a line at `level` of the height, even, hilly or jagged: coverage, L."""
    rise = rng.choice([0.0, 0.02, 0.08]) * side
    edge = level * side + rise * fractal(rng, (side, 4), rng.uniform(0.4, 0.8))[0]
    edge = edge + rng.normal(0, 0.04) * (np.arange(side) - side / 2)
    cover = np.clip(np.arange(side)[:, None] - edge + 0.5, 0, 1)
    return Image.fromarray((255 * cover).astype(np.uint8))


def _room(rng: Rng, side: int) -> Image.Image:
    """A wall, a floor, and oblong things against them that look much like them."""
    wall = color(rng)
    picture = material(rng, (side, side), wall, rng.uniform(2, 20))
    floor = rng.uniform(0.45, 0.95)
    other = near(rng, wall, 90) if rng.random() < 0.6 else color(rng)
    picture.paste(material(rng, (side, side), other, rng.uniform(4, 30)), (0, 0),
                  _below(rng, side, floor))  # fmt: skip
    pen = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(0, 9))):
        x0, y0 = rng.uniform(-0.1, 1, 2) * side
        wide, high = rng.uniform(0.03, 0.4, 2) * side
        shade = _rgb(near(rng, wall, rng.uniform(15, 70)))
        edge = _rgb(near(rng, wall, 80)) if rng.random() < 0.5 else None
        pen.rectangle((x0, y0, x0 + wide, min(y0 + high, side)), fill=shade, outline=edge)
    for _ in range(int(rng.integers(0, 7))):
        ends = (rng.uniform(0, 1, 4) * side).tolist()
        pen.line(ends, fill=_rgb(near(rng, wall, 70)), width=max(1, side // 96))
    return picture


def _litter(rng: Rng, side: int) -> Image.Image:
    """Leaves, pebbles or grass all over: many alike, none of them salient."""
    base = color(rng)
    picture = material(rng, (side, side), base, rng.uniform(5, 30))
    long, thin = rng.uniform(0.015, 0.09) * side, rng.uniform(0.08, 1)
    spread, upright = rng.uniform(20, 80), rng.random() < 0.4
    pen = ImageDraw.Draw(picture)
    count = int(min(260, rng.uniform(0.2, 1.2) * side**2 / max(4.0, long**2 * thin)))
    places = rng.uniform(0, side, (count, 2))
    turns = rng.normal(0.5 * np.pi, 0.3, count) if upright else rng.uniform(0, 2 * np.pi, count)
    outline = np.array([(-1, 0), (-0.3, 0.8), (0.4, 0.7), (1, 0), (0.4, -0.7), (-0.3, -0.8)])
    for place, turn in zip(places, turns, strict=True):
        shape = outline * (long, long * thin) * rng.uniform(0.5, 1) / 2
        spun = shape @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        pen.polygon((spun + place).ravel().tolist(), fill=_rgb(near(rng, base, spread)))
    return picture


def _lights(rng: Rng, side: int) -> Image.Image:
    """Things so far out of focus that they are discs of light and colour."""
    base = color(rng)
    picture = stuff(rng, (side, side), base, rng.uniform(10, 50))
    pen = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(4, 30))):
        x, y = rng.uniform(0, side, 2)
        reach = rng.uniform(0.02, 0.14) * side
        shade = near(rng, base, 90) if rng.random() < 0.7 else color(rng)
        pen.ellipse((x - reach, y - reach, x + reach, y + reach), fill=_rgb(shade))
    return picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.02, 0.06) * side))


def _drawn(rng: Rng, side: int) -> Image.Image:
    """A drawn scene, faded or out of focus, so that none of its things is salient."""
    picture = Image.fromarray(scene(rng, (128, 128)).image).resize((side, side))
    if rng.random() < 0.7:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.015, 0.05) * side))
    veil = Image.new("RGB", picture.size, _rgb(color(rng)))
    return Image.blend(picture, veil, float(rng.uniform(0.1, 0.6)))


def _crowd(rng: Rng, side: int) -> Image.Image:
    """Middle-sized things of much the same colours, side by side, out of focus or not."""
    base = color(rng)
    picture = material(rng, (side, side), base, rng.uniform(10, 35))
    spread = rng.uniform(25, 70)
    for _ in range(int(rng.integers(5, 18))):
        size = (int(rng.uniform(0.08, 0.4) * side) + 3, int(rng.uniform(0.08, 0.4) * side) + 3)
        mask = draw_outline(make_outline(rng), size, 1)
        x, y = (int(v) for v in rng.uniform(-0.1, 0.95, 2) * side)
        picture.paste(_rgb(near(rng, base, spread)), (x, y), mask)
    if rng.random() < 0.6:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.008, 0.04) * side))
    return Image.blend(picture, stuff(rng, (side, side), base, 30), float(rng.uniform(0.1, 0.5)))


def _mosaic(rng: Rng, side: int) -> Image.Image:
    """Flat cells of nearby colours, each around a seed point."""
    base, spread = color(rng), rng.uniform(15, 60)
    seeds = rng.uniform(0, side, (int(rng.integers(12, 60)), 2)).astype(np.float32)
    shades = np.stack([near(rng, base, spread) for _ in seeds])
    y, x = np.mgrid[:side, :side].astype(np.float32)
    owner = np.argmin([(x - at[0]) ** 2 + (y - at[1]) ** 2 for at in seeds], axis=0)
    return Image.fromarray(shades[owner].astype(np.uint8))


def _weave(rng: Rng, side: int) -> Image.Image:
    """Crossing threads with folds, as of cloth."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    turn, pitch = rng.uniform(0, np.pi), rng.uniform(0.03, 0.12) * side
    along = (np.cos(turn) * x + np.sin(turn) * y) * (2 * np.pi / pitch)
    across = (np.cos(turn) * y - np.sin(turn) * x) * (2 * np.pi / pitch)
    folds = fractal(rng, (side, side), 0.3)
    level = np.sin(along + folds) * np.sin(across) * rng.uniform(6, 25) + folds * rng.uniform(5, 25)
    pixels = color(rng) + level[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _rgb(shade: Sequence[float] | Color) -> tuple[int, int, int]:
    red, green, blue = (int(v) for v in shade)
    return red, green, blue


Families = dict[str, tuple[Callable[[Rng, int], Image.Image], float]]
FAMILIES: Families = {
    "plain": (_plain, 1.0),
    "surface": (_surface, 2.0),
    "land": (_land, 3.0),
    "room": (_room, 2.0),
    "litter": (_litter, 1.5),
    "lights": (_lights, 1.2),
    "drawn": (_drawn, 0.8),
    "crowd": (_crowd, 1.2),
}
"""Grounds of training pictures by name: how they are drawn and how often, relatively."""
HELD_OUT: Families = {"mosaic": (_mosaic, 1.0), "weave": (_weave, 1.0)}
"""Grounds that only held-out pictures have."""
