"""Pictures with salient things and their masks, for training and judging the pocket U²-NetP.

One thing, or a few alike, stand out before a ground by colour, lightness, texture or sharpness;
strewn bits and dull things behind them do not count. Training pictures are keyed (seed, index);
held-out ones have seeds from `HELD_OUT_SEED` on and kinds of things and grounds of their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from pipeline.saliency.pocket_u2netp_grounds import (
    Color,
    Rng,
    color,
    fractal,
    ground,
    material,
    near,
)
from pipeline.saliency.pocket_u2netp_things import thing
from pipeline.samples import rng_for
from pipeline.scenes.lettering import jpeg, noise
from pipeline.scenes.shapes import FAMILIES, draw_outline, make_outline

HELD_OUT_SEED = 10**6
HELD_OUT_SHAPES = ("mug", "fish", "lamp", "ring", "crescent")
"""Families of outlines that training pictures do not have."""
_SHAPES = tuple(family for family in FAMILIES if family not in HELD_OUT_SHAPES)
_KINDS = ("outline", "creature", "lump", "built")


@dataclass(frozen=True, slots=True)
class Sighting:
    """A picture and what is salient in it."""

    image: np.ndarray
    """uint8 HWC, RGB."""
    mask: np.ndarray
    """uint8 HW: coverage of the salient things, 0..255."""


def training_sighting(seed: int, index: int, side: int = 128) -> Sighting:
    """The training picture of a key, square."""
    return sighting(rng_for(seed, "pocket-u2netp", index), side)


def held_out_sighting(seed: int, side: int = 320) -> Sighting:
    """The frozen picture of a seed ≥ `HELD_OUT_SEED`: half of each kind of strangeness."""
    rng = rng_for(seed, "pocket-u2netp", "held out")
    return sighting(rng, side, held_out=True)


def generator_digest(pictures: int = 10) -> str:
    """BLAKE2b (hex, 16 bytes) of the first held-out pictures and their masks."""
    digest = hashlib.blake2b(digest_size=16)
    for seed in range(HELD_OUT_SEED, HELD_OUT_SEED + pictures):
        seen = held_out_sighting(seed)
        digest.update(seen.image.tobytes() + seen.mask.tobytes())
    return digest.hexdigest()


def sighting(rng: Rng, side: int, *, held_out: bool = False) -> Sighting:
    """A picture of a random ground with salient things on it.

    Half of the held-out pictures have a held-out ground, and half have held-out shapes.
    """
    behind = ground(rng, side, held_out=held_out and bool(rng.random() < 0.5))
    shapes = HELD_OUT_SHAPES if held_out and rng.random() < 0.5 else _SHAPES
    return on_ground(rng, behind, shapes)


def on_ground(rng: Rng, behind: Image.Image, shapes: Sequence[str] = _SHAPES) -> Sighting:
    """Salient things of some shapes put before a square ground, and what a camera makes of it."""
    side = behind.width
    picture = behind.copy()
    _strew(rng, picture)
    if rng.random() < 0.4:
        blur = ImageFilter.GaussianBlur(rng.uniform(0.004, 0.025) * side)
        picture = picture.filter(blur)
    mask = Image.new("L", picture.size)
    count = int(rng.choice([1, 2, 3, 4], p=[0.68, 0.18, 0.09, 0.05]))
    kind = str(rng.choice(_KINDS, p=[0.35, 0.3, 0.15, 0.2]))
    kind = "outline" if shapes != _SHAPES else kind
    shade: Color | None = None
    for number in range(count):
        if number and rng.random() < 0.35:
            kind = str(rng.choice(_KINDS)) if shapes == _SHAPES else kind
            shade = None
        cover, corner = thing(rng, side, kind, shapes, count)
        shade = _standing_out(rng, picture, cover, corner, shade)
        if rng.random() < 0.35:
            _cast_shadow(rng, picture, cover, corner)
        picture.paste(_filled(rng, cover, shade), corner, cover)
        alone = Image.new("L", picture.size)
        alone.paste(cover, corner)
        mask = ImageChops.lighter(mask, alone)
    return _taken(rng, picture, mask)


def _standing_out(
    rng: Rng, picture: Image.Image, cover: Image.Image, corner: tuple[int, int], last: Color | None
) -> Color:
    """A colour that differs from what is around the thing, more or less; or the last thing's."""
    if last is not None:
        return near(rng, last, 15)
    x, y = corner
    around = picture.crop((x - 4, y - 4, x + cover.width + 4, y + cover.height + 4))
    behind = np.asarray(around.resize((4, 4), Image.Resampling.BOX), np.float32).reshape(-1, 3)
    wanted, chosen, most = rng.uniform(25, 110), np.zeros(3, np.float32), -1.0
    for _ in range(10):
        shade = color(rng)
        apart = float(np.abs(behind - shade).mean())
        if apart > most:
            chosen, most = shade, apart
        if most >= wanted:
            break
    return chosen


def _filled(rng: Rng, cover: Image.Image, shade: Color) -> Image.Image:
    """A thing's surface: its material, perhaps a part of another, and light from one side."""
    size = cover.size
    surface = material(rng, size, shade, rng.uniform(3, 40))
    most = float(rng.choice([0.9, 0.35]))
    for _ in range(int(rng.choice([0, 1, 2, 4, 7], p=[0.25, 0.25, 0.2, 0.15, 0.15]))):
        other = color(rng) if rng.random() < 0.5 else near(rng, shade, 110)
        inner = (max(3, int(size[0] * rng.uniform(0.08, most))),
                 max(3, int(size[1] * rng.uniform(0.08, most))))  # fmt: skip
        at = (int(rng.uniform(-0.2, 0.9) * size[0]), int(rng.uniform(-0.2, 0.9) * size[1]))
        part = draw_outline(make_outline(rng), inner, 1)
        surface.paste(material(rng, inner, other, rng.uniform(3, 30)), at, part)
    if rng.random() < 0.65:
        y, x = np.linspace(-1, 1, size[1])[:, None], np.linspace(-1, 1, size[0])[None]
        turn, depth = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.55)
        light = 1 + depth * (np.cos(turn) * x + np.sin(turn) * y) / 1.4
        light = light - rng.uniform(0, 0.3) * (x**2 + y**2)
        pixels = np.asarray(surface, np.float32) * light[..., None].astype(np.float32)
        surface = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return surface


def _strew(rng: Rng, picture: Image.Image) -> None:
    """Bits and dull things that do not count, in place."""
    side = picture.width
    for _ in range(int(rng.choice([0, 3, 8], p=[0.5, 0.3, 0.2]))):
        small = rng.random() < 0.6
        low, high = (0.01, 0.06) if small else (0.1, 0.45)
        size = (
            max(2, int(rng.uniform(low, high) * side)),
            max(2, int(rng.uniform(low, high) * side)),
        )
        x, y = (int(v) for v in rng.uniform(-0.1, 1, 2) * side)
        there = picture.crop((x, y, x + size[0], y + size[1])).resize((1, 1), Image.Resampling.BOX)
        behind = np.asarray(there, np.float32)[0, 0]
        shade = color(rng) if small else near(rng, behind, 30)
        fill = material(rng, size, shade, 8)
        picture.paste(fill, (x, y), draw_outline(make_outline(rng), size, 1))


def _cast_shadow(
    rng: Rng, picture: Image.Image, cover: Image.Image, corner: tuple[int, int]
) -> None:
    """A soft shadow beside or under the thing, in place; it is not part of the mask."""
    reach = max(1, max(cover.size) // 12)
    flat = rng.random() < 0.5
    squashed = cover.resize((cover.width, max(2, cover.height // 4))) if flat else cover
    depth = rng.uniform(0.25, 0.75)
    soft = Image.new("L", (squashed.width + 4 * reach, squashed.height + 4 * reach))
    soft.paste(squashed.point(lambda v: int(v * depth)), (2 * reach, 2 * reach))
    soft = soft.filter(ImageFilter.BoxBlur(reach))
    dx = corner[0] - 2 * reach + int(rng.normal(0, reach))
    lower = cover.height - squashed.height // 2 if flat else int(rng.uniform(0, reach))
    picture.paste((8, 8, 10), (dx, corner[1] - 2 * reach + lower), soft)


def _taken(rng: Rng, picture: Image.Image, mask: Image.Image) -> Sighting:
    """What a camera and a file make of it: focus, light, tone, grain, JPEG."""
    side = picture.width
    if rng.random() < 0.5:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.006 * side)))
    pixels: np.ndarray = np.array(picture, np.float32)
    if rng.random() < 0.45:
        gains = np.exp(rng.normal(0, 0.12, 3)).astype(np.float32)
        light = 1 + rng.uniform(0, 0.25) * fractal(rng, picture.size, 0.3)
        pixels = pixels * (gains * light[..., None].astype(np.float32))
    if rng.random() < 0.5:
        pixels = 255 * (np.clip(pixels, 0, 255) / 255) ** np.float32(exp(rng.normal(0, 0.3)))
    if rng.random() < 0.12:
        pixels[:] = pixels.mean(-1, keepdims=True)
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if rng.random() < 0.5:
        picture = noise(picture, rng, min(float(rng.exponential(6.0)), 30.0))
    if rng.random() < 0.35:
        picture = jpeg(picture, int(rng.integers(35, 96)))
    return Sighting(np.asarray(picture), np.asarray(mask))
