"""Where in a view the thing that is looked for may be, and how closely it is worth looking at.

Owns the map that `locate` gives and the choice of a zoom's token budget from it. Knows nothing of
models and of what is asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pipeline.geometry import Box
from pipeline.views import View, crop_region

GRID = 64
"""Cells on the longer side of a map."""
TARGET_PIXELS = 448 * 448
"""Pixels on the target that a look is given: 256 visual tokens of it."""
LEAST_RESOLUTION = 112
"""The published smallest view."""


def relevance_map(boxes: Sequence[Box], view: View) -> np.ndarray:
    """Relevance of each part of a view, float32 (rows, cols) in [0, 1].

    `boxes`: source pixels, the most likely first; the n-th counts 1/n, an overlap as its best.
    """
    width, height = view.observation.size
    cell = max(width, height) / GRID
    rows, cols = math.ceil(height / cell), math.ceil(width / cell)
    found = np.zeros((rows, cols), np.float32)
    for rank, box in enumerate(boxes, start=1):
        x0, y0, x1, y1 = (edge / cell for edge in view.to_view(box))
        across = np.clip(
            np.minimum(np.arange(cols) + 1, x1) - np.maximum(np.arange(cols), x0), 0, 1
        )
        down = np.clip(np.minimum(np.arange(rows) + 1, y1) - np.maximum(np.arange(rows), y0), 0, 1)
        found = np.maximum(found, np.outer(down, across).astype(np.float32) / rank)
    return found


def pixels_on_target(box: Box, view: View, relevance: np.ndarray) -> float:
    """Source pixels inside a box that are relevant, as far as a view of them tells."""
    rows, cols = relevance.shape
    region = view.observation.region
    width, height = region.width / cols, region.height / rows
    lefts = region.x0 + width * np.arange(cols)
    tops = region.y0 + height * np.arange(rows)
    across = np.clip(np.minimum(lefts + width, box.x1) - np.maximum(lefts, box.x0), 0, None)
    down = np.clip(np.minimum(tops + height, box.y1) - np.maximum(tops, box.y0), 0, None)
    return float(down @ relevance @ across)


def zoom_resolution(box: Box, size: tuple[int, int], on_target: float, budget: int) -> int:
    """The resolution R, `budget` at most, at which a look at `box` gives its target enough pixels.

    `size` (width, height) of the source · `on_target`: source pixels of the target inside the box.
    """
    region = crop_region(box, size)
    shown = math.isqrt(round(region.area * TARGET_PIXELS / max(on_target, 1.0)))
    return min(budget, max(shown, LEAST_RESOLUTION))
