"""From a picture to the saliency network's input, and from its map to objects in order.

Formulas of Chain-of-Focus prompting (ICLR 2025) on U²-Net (arXiv 2005.09007): squash to 320 x 320,
a fused map back as a probability, the share of it inside each object. Knows no network.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, JpegImagePlugin

from pipeline.errors import BadImage
from pipeline.geometry import Size
from pipeline.sources.decode import decode as decode_exactly
from pipeline.sources.decode import format_of, pixels_of

SIDE = 320
"""Width and height of the network's input and of its maps, pixels."""
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
ROWS_AT_ONCE = 8
"""Output rows of one matrix product: more waste zeros of the band, fewer convert rows twice."""


@dataclass(frozen=True, slots=True)
class _Band:
    """Some of the 320 outputs of an axis, and the only samples that they read."""

    outputs: slice
    start: int
    stop: int
    weights: np.ndarray
    """float64 (outputs, stop - start)."""


def preprocess(image: Image.Image | np.ndarray, antialias: bool = True) -> np.ndarray:
    """The network's input, float32 (3, 320, 320): squashed, divided by its maximum, normalised.

    `image` is PIL or uint8 HWC. The squash is scikit-image's `resize` (order 1, zeros around, a
    Gaussian before reducing unless not `antialias`), clipped to the picture's own range.
    """
    planes = _planes(image)
    small = _squashed(planes, antialias)
    small.clip(min(map(np.min, planes)), max(map(np.max, planes)), out=small)
    brightest = small.max() or 1  # the original divides an all-black picture by zero
    for plane, mean, std in zip(small, MEAN, STD, strict=True):
        plane /= brightest * std
        plane -= mean / std
    return small.astype(np.float32)


def is_flat(d1: np.ndarray) -> bool:
    """Whether a map prefers no place to another: it is constant, or not finite throughout."""
    with np.errstate(invalid="ignore"):
        spread = np.max(d1) - np.min(d1)
    return not (np.isfinite(spread) and spread > 0)


def to_probability(d1: np.ndarray, size: Size) -> np.ndarray:
    """The fused map d1 (320, 320) as float32 HW at a picture's (width, height).

    Min-max, divided by its sum, then enlarged (Pillow's bilinear): the result sums to about
    W·H / 320². A map that `is_flat` becomes uniform, so that scores are areas; never NaN.
    """
    d1 = np.asarray(d1, dtype=np.float32).reshape(SIDE, SIDE)
    if is_flat(d1):
        return np.full(size[::-1], 1 / (SIDE * SIDE), dtype=np.float32)
    share = (d1 - d1.min()) / (d1.max() - d1.min())
    share /= share.sum()
    return np.asarray(Image.fromarray(share).resize(size, Image.Resampling.BILINEAR))


def scores(prob: np.ndarray, masks: Iterable[np.ndarray]) -> np.ndarray:
    """The sum of `prob` (HW) inside each mask (bool HW), float64 (N,); large objects gain by it."""
    inside = (prob[np.asarray(mask, dtype=bool)] for mask in masks)
    return np.array([values.sum(dtype=np.float64) for values in inside], dtype=np.float64)


def order(scores: Sequence[float] | np.ndarray) -> list[int]:
    """Indices by descending score; of equal ones the lower index first, NaN last."""
    indices: list[int] = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable").tolist()
    return indices


def level_sizes(count: int, levels: int) -> list[int]:
    """How many objects each of the cumulative levels shows: as even steps as can be, large first.

    The last level shows all `count`; with fewer objects than levels the last ones repeat.
    """
    if count < 0 or levels < 1:
        raise ValueError(f"{count} objects in {levels} levels")
    share, extra = divmod(count, levels)
    return [share * level + min(level, extra) for level in range(1, levels + 1)]


def read_scaled(data: bytes, decode: Literal["exact", "fast"] = "exact") -> Image.Image:
    """An encoded picture as upright RGB; raises `BadImage` only.

    "fast" decodes a large JPEG at a half, quarter or eighth, no side under twice `SIDE`: quicker,
    but no longer the pixels that `preprocess` is exact for.
    """
    if decode == "exact" or format_of(data) != "JPEG":
        return decode_exactly(data)
    pixels_of(data)  # refuses what the header already tells
    try:
        with JpegImagePlugin.JpegImageFile(io.BytesIO(data)) as image:
            image.draft("RGB", (2 * SIDE, 2 * SIDE))
            return ImageOps.exif_transpose(image).convert("RGB")
    except Exception as error:  # the decoder raises anything on hostile bytes
        raise BadImage("corrupt", f"{type(error).__name__}: {error}"[:200]) from error


def _planes(image: Image.Image | np.ndarray) -> list[np.ndarray]:
    """Red, green and blue as uint8 (H, W); Pillow splits faster than it exports pixels."""
    if not isinstance(image, Image.Image):
        return list(np.ascontiguousarray(image.transpose(2, 0, 1)))
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    return [np.asarray(band) for band in rgb.split()]


def _squashed(planes: list[np.ndarray], antialias: bool) -> np.ndarray:
    """uint8 planes (H, W) as float64 (3, 320, 320) in 0..255: both operators applied, down first.

    Buffers are made once: fresh memory for every block would cost more than the arithmetic.
    """
    height, width = planes[0].shape
    down, across = _bands(height, antialias), _bands(width, antialias)
    tall = np.empty((SIDE, width))
    block = np.empty((max(band.stop - band.start for band in down), width))
    small = np.empty((len(planes), SIDE, SIDE))
    for plane, squashed in zip(planes, small, strict=True):
        for band in down:
            rows = block[: band.stop - band.start]
            rows[:] = plane[band.start : band.stop]
            np.matmul(band.weights, rows, out=tall[band.outputs])
        for band in across:
            columns = tall[:, band.start : band.stop]
            np.matmul(columns, band.weights.T, out=squashed[:, band.outputs])
    return small


@lru_cache(maxsize=64)
def _bands(length: int, antialias: bool) -> tuple[_Band, ...]:
    """The operator from `length` samples to 320."""
    taps, weights = _taps(length, antialias)
    return tuple(
        _band(slice(first, first + ROWS_AT_ONCE), length, taps, weights)
        for first in range(0, SIDE, ROWS_AT_ONCE)
    )


def _band(outputs: slice, length: int, taps: np.ndarray, weights: np.ndarray) -> _Band:
    """The rows `outputs` of the operator without the columns in which they are all zero."""
    taps, weights = taps[outputs], weights[outputs]
    inside = (taps >= 0) & (taps < length)  # zeros lie around the picture
    start, stop = int(taps[inside].min()), int(taps[inside].max()) + 1
    dense = np.zeros((len(taps), stop - start))
    np.add.at(dense, (np.nonzero(inside)[0], taps[inside] - start), weights[inside])
    return _Band(outputs, start, stop, dense)


def _taps(length: int, antialias: bool) -> tuple[np.ndarray, np.ndarray]:
    """The samples each of 320 outputs reads, and their weights, both (320, taps).

    Linear between the two samples about (o + 0.5)·length/320 - 0.5, after a Gaussian of sigma
    (length/320 - 1)/2 cut at four sigma, where the axis is reduced.
    """
    place = (np.arange(SIDE) + 0.5) * (length / SIDE) - 0.5
    low = np.floor(place).astype(np.int64)
    kernel = _gaussian(max(0.0, (length / SIDE - 1) / 2)) if antialias else np.ones(1)
    reach = len(kernel) // 2
    share = (place - low)[:, None]
    padded = np.pad(kernel, (0, 1))
    weights = (1 - share) * padded + share * np.roll(padded, 1)
    return low[:, None] + np.arange(-reach, reach + 2), weights


def _gaussian(sigma: float) -> np.ndarray:
    """A normalised kernel that reaches int(4·sigma + 0.5) samples each way."""
    reach = int(4 * sigma + 0.5)
    if reach == 0:
        return np.ones(1)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    normalised: np.ndarray = kernel / kernel.sum()
    return normalised
