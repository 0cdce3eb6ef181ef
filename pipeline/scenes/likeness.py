"""How alike two pieces of picture are: correlation of small copies, and search by it.

Pixels only; what a likeness means is for the callers to say.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

Span = tuple[float, float, float, float]
"""XYXY in pixels of an array; edges may lie between pixels."""


_STEP = 32
"""Sides of Fourier transforms are multiples of this: a prime one takes many times as long."""


def small(pixels: np.ndarray, side: int | tuple[int, int], span: Span | None = None) -> np.ndarray:
    """A copy of `pixels` (uint8 HWC), or of a part of them, at `side` (or w × h): float32 HWC.

    Averages where it shrinks, so that nothing aliases.
    """
    size = (side, side) if isinstance(side, int) else side
    image = Image.fromarray(pixels)
    box = span or (0.0, 0.0, float(image.width), float(image.height))
    box = (max(box[0], 0.0), max(box[1], 0.0), min(box[2], image.width), min(box[3], image.height))
    return np.asarray(image.resize(size, Image.Resampling.BOX, box=box), np.float32)


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Normalised correlation of two float arrays HWC, each channel about its mean, in [-1, 1].

    0 where one of them is plain.
    """
    a, b = one - one.mean((0, 1)), other - other.mean((0, 1))
    energy = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / energy if energy > 1e-3 * a.size else 0.0


def shifted_correlation(one: np.ndarray, other: np.ndarray, reach: int = 2) -> float:
    """The largest `correlation` of `one`'s middle with `other` moved by up to `reach` cells."""
    rows, cols = one.shape[:2]
    middle = one[reach : rows - reach, reach : cols - reach]
    moves = [(y, x) for y in range(2 * reach + 1) for x in range(2 * reach + 1)]
    inner = (rows - 2 * reach, cols - 2 * reach)
    parts = (other[y : y + inner[0], x : x + inner[1]] for y, x in moves)
    return max(correlation(middle, part) for part in parts)


def detail(pixels: np.ndarray) -> float:
    """Standard deviation of the grey values of float HWC, in levels of 0..255."""
    return float(pixels.mean(2).std())


def correlations(picture: np.ndarray, template: np.ndarray) -> np.ndarray:
    """Normalised correlation of a template (h, w, 3) at every place of a picture (H, W, 3).

    float32 (H - h + 1, W - w + 1), by the place of the template's first row and column; each
    channel about its mean. 0 where the picture is plain. Both are float32 in 0..255.
    """
    rows, cols = template.shape[:2]
    shape = picture.shape[:2]
    flat = template - template.mean((0, 1))
    energy = float((flat * flat).sum())
    outer = (shape[0] - rows + 1, shape[1] - cols + 1)
    if min(outer) < 1 or energy < 1.0:
        return np.zeros((max(outer[0], 0), max(outer[1], 0)), np.float32)
    above = np.zeros(outer, np.float64)
    spread = np.zeros(outer, np.float64)
    fast = (-(-shape[0] // _STEP) * _STEP, -(-shape[1] // _STEP) * _STEP)
    for channel in range(picture.shape[2]):
        plane = picture[..., channel].astype(np.float64)
        kernel = np.fft.rfft2(flat[::-1, ::-1, channel], fast)
        product = np.fft.irfft2(np.fft.rfft2(plane, fast) * kernel, fast)
        above += product[rows - 1 : shape[0], cols - 1 : shape[1]]
        sums = _window_sums(plane, rows, cols)
        spread += _window_sums(plane * plane, rows, cols) - sums * sums / (rows * cols)
    plain = spread < rows * cols  # less than a level of detail
    found = above / np.sqrt(np.where(plain, 1.0, spread) * energy)
    return np.where(plain, 0.0, found).astype(np.float32)


def _window_sums(plane: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """Sums over every `rows` × `cols` window of a plane."""
    total = np.zeros((plane.shape[0] + 1, plane.shape[1] + 1))
    np.cumsum(np.cumsum(plane, 0), 1, out=total[1:, 1:])
    return total[rows:, cols:] - total[:-rows, cols:] - total[rows:, :-cols] + total[:-rows, :-cols]
