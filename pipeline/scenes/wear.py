"""What time does to a plate: dirt, fading, folds, scratches, smeared print, screws and tape.

Works on the flat drawing alone; lengths follow from the height of a capital in pixels.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from pipeline.scenes.textures import Rgb

_SMEARED_INK = 0.34
"""Share of the ink that is left on a smeared line, at most."""


def clouds(shape: tuple[int, int], cell_px: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth random field, float32 HW of mean 0 and deviation about 1, in lumps of `cell_px`."""
    height, width = shape
    grid = max(2, round(height / cell_px) + 2), max(2, round(width / cell_px) + 2)
    values = Image.fromarray(rng.normal(0, 1, grid).astype(np.float32))
    return np.asarray(values.resize((width, height), Image.Resampling.BICUBIC))


def aged(
    face: np.ndarray, kind: str, age: float, cap_px: float, rng: np.random.Generator
) -> np.ndarray:
    """The face (float32 HWC, 0..255) after some years, uint8; `age` is in [0, 1]."""
    shape = face.shape[:2]
    shade = 1 + 0.012 * clouds(shape, 1.5 * cap_px, rng)
    shade = shade + 0.02 * age * clouds(shape, 0.25 * cap_px, rng)
    shade = shade - 0.16 * age * _grime(shape, cap_px, rng)
    if kind == "plate":
        shade = shade + 0.014 * rng.normal(0, 1, (shape[0], 1)).astype(np.float32)
        shade = shade + _bevel(shape, 0.05 * cap_px, 0.16)
    elif kind == "label":
        shade = shade + _fold(shape, cap_px, rng)
    elif kind in ("sticker", "screen"):
        shade = shade + _gloss(shape, rng, 0.05)
    else:
        shade = shade + _bevel(shape, 0.07 * cap_px, 0.12)
    faded = face + 0.10 * age * (face.mean(axis=(0, 1)) - face)
    if kind == "screen":
        shade = 1 + 0.4 * (shade - 1)
    return np.clip(np.rint(faded * shade[..., None]), 0, 255).astype(np.uint8)


def smeared(layer: Image.Image, cap_px: float, rng: np.random.Generator) -> Image.Image:
    """A line's ink (L) rubbed until no letter can be told from another."""
    values = np.asarray(layer, np.float32) / 255
    reach = max(3, round(1.5 * cap_px))
    kernel = np.hanning(reach + 2)[1:-1]
    rubbed = _along_rows(values, kernel / kernel.sum())
    soft = Image.fromarray(np.uint8(255 * np.clip(rubbed, 0, 1)))
    soft = soft.filter(ImageFilter.GaussianBlur(0.28 * cap_px))
    blotches = 0.55 + 0.3 * clouds(values.shape, 0.6 * cap_px, rng)
    streaks = 1 + 0.35 * clouds((values.shape[0], 1), 0.16 * cap_px, rng)
    left = np.asarray(soft, np.float32) / 255 * np.clip(blotches, 0.1, 1) * np.clip(streaks, 0.3, 2)
    return Image.fromarray(np.uint8(255 * np.clip(left * 1.5, 0, _SMEARED_INK)))


def screw(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, face: Rgb) -> None:
    """A screw's head with a slot."""
    metal = tuple(int(0.5 * c + 70) for c in face)
    dark = tuple(int(0.45 * c) for c in metal)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=metal, outline=dark)
    slot = max(1, round(0.3 * radius))
    draw.line((x - 0.6 * radius, y - 0.4 * radius, x + 0.6 * radius, y + 0.4 * radius), dark, slot)


def taped(plate: Image.Image, cap_px: float, rng: np.random.Generator) -> Image.Image:
    """The plate (RGBA) with a strip of tape over two opposite corners or its upper edge."""
    tape = Image.new("RGBA", plate.size)
    draw = ImageDraw.Draw(tape)
    width, _ = plate.size
    wide, high = 0.75 * cap_px, 0.42 * cap_px
    for middle in (0.18 * width, 0.82 * width) if rng.random() < 0.6 else (0.5 * width,):
        x = middle + float(rng.normal(0, 0.1 * cap_px))
        draw.rectangle((x - wide / 2, 0, x + wide / 2, high), fill=(214, 204, 172, 120))
    taped_plate = Image.alpha_composite(plate, tape)
    taped_plate.putalpha(plate.getchannel("A"))
    return taped_plate


def _grime(shape: tuple[int, int], cap_px: float, rng: np.random.Generator) -> np.ndarray:
    """Dirt in [0, 1]: patches, more of them toward the edges."""
    height, width = shape
    y, x = np.arange(height)[:, None], np.arange(width)[None]
    edge = np.minimum(np.minimum(x, width - 1 - x), np.minimum(y, height - 1 - y))
    near = np.exp(-edge / (0.45 * cap_px)).astype(np.float32)
    patches = np.clip(0.5 + 0.5 * clouds(shape, 0.7 * cap_px, rng), 0, 1)
    return np.clip(near * patches + 0.5 * patches**3, 0, 1)


def _bevel(shape: tuple[int, int], thick_px: float, strength: float) -> np.ndarray:
    """A lit upper and left edge, a dark lower and right one."""
    height, width = shape
    rows = np.exp(-np.arange(height) / max(thick_px, 0.5))
    columns = np.exp(-np.arange(width) / max(thick_px, 0.5))
    lit = rows[:, None] - rows[::-1, None] + 0.6 * (columns[None] - columns[None, ::-1])
    return (strength * lit).astype(np.float32)


def _fold(shape: tuple[int, int], cap_px: float, rng: np.random.Generator) -> np.ndarray:
    """Paper is never quite flat: a slow wave, and perhaps a crease."""
    height, width = shape
    x = np.linspace(0, 1, width, dtype=np.float32)[None]
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    turn, phase = rng.uniform(0, 2 * np.pi, 2)
    wave = 0.035 * np.sin(3 * (np.cos(turn) * x + np.sin(turn) * y) + phase)
    if rng.random() < 0.35:
        tilt = float(rng.uniform(-0.3, 0.3))
        away = (x - float(rng.uniform(0.25, 0.75)) + tilt * (y - 0.5)) * width / (0.12 * cap_px)
        wave = wave + 0.08 * np.tanh(away) * np.exp(-np.abs(away) / 6)
    return np.asarray(wave, np.float32)


def _gloss(shape: tuple[int, int], rng: np.random.Generator, strength: float) -> np.ndarray:
    """A soft reflection across a smooth film or glass."""
    height, width = shape
    x = np.linspace(0, 1, width, dtype=np.float32)[None]
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    away = (x + 0.6 * y - float(rng.uniform(0.2, 1.3))) / 0.35
    return np.asarray(strength * np.exp(-(away**2)), np.float32)


def _along_rows(values: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Each row convolved with a kernel, same size."""
    return np.stack([np.convolve(row, kernel, "same")[: values.shape[1]] for row in values])
