"""Where a picture is most salient, from a map of it: for looks that no box tells.

Knows nothing of networks: a map is an array.
"""

from __future__ import annotations

import numpy as np

from pipeline.geometry import Box, Size

PART = 1 / 3
"""Sides of what is taken, as a share of the picture's."""


def most_salient(saliency: np.ndarray) -> Box:
    """The window of a ninth of the picture that holds most of a saliency map (float HW)."""
    height, width = saliency.shape
    wide, high = part_of((width, height))
    sums = np.zeros((height + 1, width + 1))
    sums[1:, 1:] = saliency.cumsum(0, dtype=np.float64).cumsum(1)
    held = sums[high:, wide:] - sums[:-high, wide:] - sums[high:, :-wide] + sums[:-high, :-wide]
    y, x = np.unravel_index(int(held.argmax()), held.shape)
    return Box(int(x), int(y), int(x) + wide, int(y) + high)


def part_of(size: Size) -> Size:
    """(width, height) of such a part of a picture of `size`."""
    return max(1, round(size[0] * PART)), max(1, round(size[1] * PART))
