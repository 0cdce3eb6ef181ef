"""Cut-outs of a picture: from the masks that its source brings, else from the segmenter's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image

from pipeline.errors import ConfigError
from pipeline.geometry import Box
from pipeline.scenes.regions import largest_share, mask_box
from pipeline.scenes.retouch import CutOut
from pipeline.sources.base import Picture
from pipeline.sources.masks import decode_region

WINDOWS = 6
"""Parts of a picture that are segmented, at most: a whole one shows its large objects only."""
ENOUGH = 10
"""Cut-outs after which no further part is segmented."""
WINDOW_SHARE = 0.3
"""Side of a part, as a share of the picture's longer side."""
SMALLEST_WINDOW_PX = 160
WHOLE = 0.9
"""Least share of a mask that is in one piece."""


class Found(Protocol):
    """A mask of an image, bool HW."""

    @property
    def mask(self) -> np.ndarray: ...


class Outliner(Protocol):
    """Masks of everything in an image: `models.sam.Segmenter` does."""

    def automatic(self, image: np.ndarray, *, limit: int | None = None) -> Iterable[Any]:
        """`Found` masks of an image, uint8 HWC, best first."""


def cutouts(
    picture: Picture, image: Image.Image, outliner: Outliner | None, rng: np.random.Generator
) -> list[CutOut]:
    """Objects of an RGB picture that can be cut out.

    Raises `BadImage` for masks that do not decode, `ConfigError` where there is nothing to ask.
    """
    known = list(_from_source(picture, image))
    if known:
        return known
    if outliner is None:
        raise ConfigError("Task 'change' needs a segmenter.", "Pass the run's segmenter.")
    found: list[CutOut] = []
    pixels = np.asarray(image)
    for x, y, side in _windows(image.size, rng):
        part = np.ascontiguousarray(pixels[y : y + side, x : x + side])
        masks = (one.mask for one in outliner.automatic(part, limit=24))
        found += _usable(masks, (x, y))
        if len(found) >= ENOUGH:
            break
    return found


def _from_source(picture: Picture, image: Image.Image) -> Iterator[CutOut]:
    """The source's own masks, where they are of this picture's size."""
    for region in picture.masks:
        if (region.width, region.height) == image.size and not region.crowd:
            yield from _usable([decode_region(region)], (0, 0))


def _usable(masks: Iterable[np.ndarray], corner: tuple[int, int]) -> Iterator[CutOut]:
    """Masks in one piece that do not reach their picture's edge."""
    for mask in masks:
        edges = mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()
        if edges or not mask.any():
            continue
        box = mask_box(mask)
        part = mask[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)]
        if largest_share(part) >= WHOLE:
            x, y = corner
            yield CutOut(Box(box.x0 + x, box.y0 + y, box.x1 + x, box.y1 + y), part)


def _windows(size: Sequence[int], rng: np.random.Generator) -> Iterator[tuple[int, int, int]]:
    """(x, y, side) of square parts of a picture, in its quarters in turn."""
    width, height = size
    side = min(max(round(WINDOW_SHARE * max(size)), SMALLEST_WINDOW_PX), *size)
    order = rng.permutation(4).tolist()
    for n in range(WINDOWS):
        column, row = order[n % 4] % 2, order[n % 4] // 2
        x = _start(column * width // 2, (column + 1) * width // 2, side, width, rng)
        yield x, _start(row * height // 2, (row + 1) * height // 2, side, height, rng), side


def _start(low: int, high: int, side: int, length: int, rng: np.random.Generator) -> int:
    """Where a part begins along an axis: inside low..high if it fits there, else about there."""
    start = int(rng.integers(low, max(high - side, low) + 1))
    return min(start, length - side)
