"""Pictures with real texture for puzzle tests: drawn scenes, and discs that can be cut out."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image

from pipeline.geometry import Box
from pipeline.samples import rng_for
from pipeline.scenes.draw import scene
from pipeline.scenes.retouch import CutOut

SIZES = ((800, 560), (520, 700))


@cache
def photograph(key: int, size: tuple[int, int] = SIZES[0]) -> Image.Image:
    """A busy picture: a drawn scene with blotches of many sizes over it."""
    rng = rng_for(21, "photograph", key, *size)
    pixels = scene(rng, size).image.astype(np.float32)
    for cells in (12, 40, 120):
        coarse = rng.normal(0, 26, (cells, cells, 3)).astype(np.float32)
        for plane in range(3):
            layer = Image.fromarray(coarse[..., plane]).resize(size, Image.Resampling.BICUBIC)
            pixels[..., plane] += np.asarray(layer)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@cache
def with_objects(
    key: int, size: tuple[int, int] = SIZES[0]
) -> tuple[Image.Image, tuple[CutOut, ...]]:
    """A soft ground with nine discs on it, and the discs as cut-outs."""
    rng = rng_for(22, "objects", key, *size)
    coarse = rng.integers(70, 190, (7, 9, 3), dtype=np.uint8)
    ground = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    pixels = np.array(ground)
    cuts = []
    for place in range(9):
        side = int(rng.integers(36, 60))
        x = int((place % 3 + 0.25) * size[0] / 3 + rng.integers(0, 20))
        y = int((place // 3 + 0.25) * size[1] / 3 + rng.integers(0, 20))
        ys, xs = np.mgrid[:side, :side] - (side - 1) / 2
        mask = np.hypot(xs, ys) < side / 2
        color = np.where(pixels[y, x] > 130, 20, 235) + rng.integers(-15, 15, (side, side, 3))
        pixels[y : y + side, x : x + side][mask] = np.clip(color, 0, 255)[mask]
        cuts.append(CutOut(Box(x, y, x + side, y + side), mask))
    return Image.fromarray(pixels), tuple(cuts)
