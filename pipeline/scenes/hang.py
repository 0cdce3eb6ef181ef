"""Hanging a drawn plate in a picture: perspective, light, shadow, blur, noise and compression."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.scenes.light import Light, levels, linear
from pipeline.scenes.planes import Quad

_OVER = (3, 2)
"""Pixels warped for each pixel of the picture, along each axis: of small plates, of large ones."""
_LARGE_PX = 150
_PAD = 0.35
_REDUCED_BLUR_PX = 0.35
"""Deviation of the blur that averaging the drawn pixels amounts to."""
_RELIEF = 0.6


@dataclass(frozen=True, slots=True)
class Hung:
    """How one plate is put into the picture."""

    quad: Quad
    """Its corners, source pixels."""
    light: Light
    lift: float
    """How far it stands off the surface, as a share of its height: the reach of its shadow."""
    shines: bool
    """Whether it makes its own light."""
    seed: int
    """Of its noise."""


def hang(picture: Image.Image, plate: Image.Image, hung: Hung) -> None:
    """Put a plate (RGBA, front view) into the picture (RGB), in place."""
    box = _around(hung.quad, picture.size)
    before = np.asarray(picture.crop(box), np.float32)
    color, alpha = _warped(plate, hung.quad, box)
    lit = _lit(color, hung, box, before, alpha)
    lit, alpha = _blurred(lit, alpha, hung.light.blur_px)
    shade = _shadow(alpha, hung)
    ground = before * (1 - shade[..., None] * (1 - alpha[..., None]))
    after = ground * (1 - alpha[..., None]) + lit * alpha[..., None]
    after += _noise(alpha, hung)
    mixed = Image.fromarray(np.clip(np.rint(after), 0, 255).astype(np.uint8))
    touched = Image.fromarray(((alpha > 0.004) | (shade > 0.004)).astype(np.uint8) * 255)
    picture.paste(mixed, box[:2], touched)
    _compress(picture, box, touched, hung.light.quality)


def perspective(start: Quad, end: Quad) -> tuple[float, ...]:
    """The eight numbers that send each corner of `start` to that of `end` (Pillow's order)."""
    rows, right = [], []
    for (x, y), (u, v) in zip(start, end, strict=True):
        rows += [(x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y)]
        right += [u, v]
    return tuple(np.linalg.solve(np.array(rows, float), np.array(right, float)).tolist())


def sent(point: tuple[float, float], numbers: tuple[float, ...]) -> tuple[float, float]:
    """Where a perspective sends a point."""
    a, b, c, d, e, f, g, h = numbers
    x, y = point
    below = g * x + h * y + 1
    return (a * x + b * y + c) / below, (d * x + e * y + f) / below


def corners(size: tuple[int, int]) -> Quad:
    """Corners of a picture of (width, height), clockwise from the upper left."""
    width, height = map(float, size)
    return (0.0, 0.0), (width, 0.0), (width, height), (0.0, height)


def _around(quad: Quad, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The plate's box with room for its shadow, on whole JPEG blocks where there is room."""
    xs, ys = zip(*quad, strict=True)
    pad = _PAD * (max(ys) - min(ys)) + 6
    low = (max(0, int(v - pad) // 8 * 8) for v in (min(xs), min(ys)))
    ends = zip((max(xs), max(ys)), size, strict=True)
    high = (min(most, -(-int(v + pad + 1) // 8) * 8) for v, most in ends)
    x0, y0 = low
    x1, y1 = high
    return x0, y0, x1, y1


def _warped(
    plate: Image.Image, quad: Quad, box: tuple[int, int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The plate's colours (levels, float32 HWC) and coverage (0..1, HW) over a box."""
    over = _OVER[box[3] - box[1] > _LARGE_PX]
    size = ((box[2] - box[0]) * over, (box[3] - box[1]) * over)
    moved = tuple(((x - box[0]) * over, (y - box[1]) * over) for x, y in quad)
    numbers = perspective((moved[0], moved[1], moved[2], moved[3]), corners(plate.size))
    ways = (Image.Transform.PERSPECTIVE, numbers, Image.Resampling.BICUBIC)
    color = plate.convert("RGB").transform(size, *ways).reduce(over)
    alpha = plate.getchannel("A").transform(size, *ways)
    solid = np.asarray(alpha.reduce(over), np.float32) / 255
    # Pixels half outside the plate would be darkened twice: once by black, once by their coverage.
    whole = Image.new("L", plate.size, 255).transform(size, *ways).reduce(over)
    covered = np.asarray(whole, np.float32) / 255
    return np.asarray(color, np.float32) / np.maximum(covered, 0.05)[..., None], solid


def _lit(
    color: np.ndarray,
    hung: Hung,
    box: tuple[int, int, int, int],
    before: np.ndarray,
    alpha: np.ndarray,
) -> np.ndarray:
    """The plate's colours in the light of its place, levels."""
    light = hung.light
    white, black = np.array(light.white), np.array(light.black)
    if hung.shines:
        white = 0.45 * white + 0.4 * white / max(white.max(), 1e-3)
    shade = _slope(hung, box, alpha.shape) * _relief(before, alpha)
    seen = black + (white - black) * linear(np.clip(color, 0, 255)) * shade[..., None]
    return levels(seen).astype(np.float32)


def _slope(hung: Hung, box: tuple[int, int, int, int], shape: tuple[int, ...]) -> np.ndarray:
    """The light's change over the plate, 1 in its middle, float HW."""
    xs, ys = zip(*hung.quad, strict=True)
    x = (np.arange(shape[1]) + box[0] - sum(xs) / 4) / (max(xs) - min(xs))
    y = (np.arange(shape[0]) + box[1] - sum(ys) / 4) / (max(ys) - min(ys))
    across, down = hung.light.slope
    return np.exp(np.clip(across * x[None] + down * y[:, None], -0.4, 0.4))


def _relief(before: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Soft shadows and light that fall over the surface and so over the plate, about 1."""
    grey = before.mean(2)
    coarse = Image.fromarray(grey).resize((5, 4), Image.Resampling.BOX)
    soft = np.asarray(coarse.resize(grey.shape[::-1], Image.Resampling.BICUBIC), np.float64)
    inside = alpha > 0.5
    middle = float(soft[inside].mean()) if inside.any() else float(soft.mean())
    ratio = (soft + 8) / (middle + 8)
    return np.asarray(np.clip(ratio, 0.75, 1.25) ** _RELIEF)


def _blurred(lit: np.ndarray, alpha: np.ndarray, blur_px: float) -> tuple[np.ndarray, np.ndarray]:
    """Colours and coverage with the picture's blur; reducing has blurred them a little."""
    more = max(0.0, blur_px**2 - _REDUCED_BLUR_PX**2) ** 0.5
    if more < 0.15:
        return lit, alpha
    cover = _soft(alpha, more)
    parts = [_soft(lit[..., channel] * alpha, more) for channel in range(3)]
    return np.stack(parts, 2) / np.maximum(cover, 1e-3)[..., None], cover


def _shadow(alpha: np.ndarray, hung: Hung) -> np.ndarray:
    """How much darker the surface is beside the plate, 0..1."""
    ys = [y for _, y in hung.quad]
    reach = hung.lift * (max(ys) - min(ys))
    if reach <= 0:
        return np.zeros(alpha.shape, np.float32)
    across, _ = hung.light.slope
    aside, below = round(-0.9 * reach * float(np.tanh(6 * across))), max(1, round(reach))
    moved = np.roll(alpha, (below, aside), (0, 1))
    far = _soft(moved, 0.6 * reach + 0.4 + 0.5 * hung.light.blur_px)
    return np.asarray(0.34 * far + 0.2 * _soft(alpha, 0.35 * reach + 0.6), np.float32)


def _soft(values: np.ndarray, sigma_px: float) -> np.ndarray:
    """Values (HW) under a Gaussian of a deviation in pixels; what is outside counts as the edge."""
    reach = max(1, round(3 * sigma_px))
    kernel = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma_px**2))
    kernel = (kernel / kernel.sum()).astype(np.float32)
    for axis in (0, 1):
        padded = np.pad(values, [(reach, reach) if a == axis else (0, 0) for a in (0, 1)], "edge")
        count = values.shape[axis]
        parts = (
            weight * np.take(padded, range(n, n + count), axis) for n, weight in enumerate(kernel)
        )
        values = sum(parts, np.zeros(values.shape, np.float32))
    return values


def _noise(alpha: np.ndarray, hung: Hung) -> np.ndarray:
    """Noise like the picture's on what was put in, levels, float32 HWC."""
    rng = np.random.default_rng(hung.seed)
    grey = rng.normal(0, 1, alpha.shape)
    color = rng.normal(0, 0.45, (*alpha.shape, 3))
    strength = min(hung.light.noise, 9.0)
    return (strength * alpha[..., None] * (grey[..., None] + color) / 1.1).astype(np.float32)


def _compress(
    picture: Image.Image, box: tuple[int, int, int, int], touched: Image.Image, quality: int
) -> None:
    """Give what was put in the traces of the picture's own compression."""
    if quality >= 95:
        return
    file = io.BytesIO()
    picture.crop(box).save(file, "JPEG", quality=quality, subsampling=0)
    picture.paste(Image.open(file).convert("RGB"), box[:2], touched)
