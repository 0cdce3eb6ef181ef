"""What a first view shows of signs, and how many looks they need: measures for the tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from pipeline.geometry import Box, view_size
from pipeline.scenes.signs import Sign
from pipeline.views import MAGNIFY, first_view
from tests.scenes.blob_baseline import READABLE_CAP_PX

SMALL_PX = 8.0
"""A sign with a shorter side than this, in a view, is a blob only if its colour tells it."""
CONTRAST = 60.0
"""Difference in colour (RGB distance, levels) by which a small sign is seen,"""
LEAST_CONTRAST = 25.0
"""and by which any sign is."""


def is_blob(image: Image.Image, sign: Sign, resolution: int = 224) -> bool:
    """Whether a sign can be told from its surroundings without reading, in the first view."""
    view = first_view(image, resolution)
    x0, y0, x1, y1 = view.to_view(sign.box)
    rows, cols = np.mgrid[0 : view.pixels.shape[0], 0 : view.pixels.shape[1]] + 0.5
    inside = (cols > x0) & (cols < x1) & (rows > y0) & (rows < y1)
    near = (cols > x0 - 3) & (cols < x1 + 3) & (rows > y0 - 3) & (rows < y1 + 3)
    if not inside.any():
        return False
    own, ring = view.pixels[inside].mean(0), view.pixels[near & ~inside].mean(0)
    contrast = float(np.linalg.norm(own - ring))
    small = min(x1 - x0, y1 - y0) < SMALL_PX
    return contrast >= (CONTRAST if small else LEAST_CONTRAST)


def looks_needed(size: tuple[int, int], signs: Sequence[Sign], resolution: int = 224) -> int:
    """Looks that reading every sign takes at least: 0, 1, or 2 for two or more.

    One look is enough if some crop shows them all at a readable size; who does not know which sign
    is asked for has no better first look.
    """
    cap = min(min(sign.cap_px) for sign in signs)
    first = view_size(size, resolution)
    if cap * first[0] / size[0] >= READABLE_CAP_PX:
        return 0
    boxes = [sign.box for sign in signs]
    around = Box(
        min(b.x0 for b in boxes), min(b.y0 for b in boxes),
        max(b.x1 for b in boxes), max(b.y1 for b in boxes),
    )  # fmt: skip
    shown = view_size((int(around.width), int(around.height)), resolution, magnify=MAGNIFY)
    return 1 if cap * shown[0] / around.width >= READABLE_CAP_PX else 2
