"""Where each method looks: the views of a picture at a budget, the whole of it first.

Small honest baselines beside the agent's own looking. Only the controls are told where the answer
can be seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Literal

import numpy as np

from pipeline.geometry import Box, Size, view_size
from pipeline.salient import part_of
from pipeline.trajectory import Observation
from pipeline.views import MAGNIFY, look_at, whole_at

Method = Literal[
    "direct", "zoom", "coarse-to-fine", "uniform", "grid", "exhaustive", "saliency-crop",
    "oracle-crop", "random-crop",
]  # fmt: skip
"""How a picture is looked at:

    direct          the whole picture, once
    zoom            an episode with the agent's tools (Chain-of-Focus)
    coarse-to-fine  the model names a region, then attends to it more (arXiv 2412.16869)
    uniform         the whole picture, with as many pixels as the whole and a crop have together
    grid            the whole picture and its four quarters
    exhaustive      every cell of a 4 x 4 grid by itself, and the whole; the commonest sure answer
    saliency-crop   the whole picture and a crop of where it is most salient
    oracle-crop     control: the whole picture and crops of where the answer is
    random-crop     control: the whole picture and as large a crop anywhere
"""

GRID, EXHAUSTIVE = 2, 4
"""Cells on each side."""
OVERLAP = 0.1
"""By which a cell reaches into its neighbours, of its own sides."""
MOST_CROPS = 4


def observations(
    method: Method,
    size: Size,
    resolution: int,
    *,
    boxes: Sequence[Box] = (),
    salient: Box | None = None,
    rng: np.random.Generator | None = None,
) -> list[Observation]:
    """What `method` shows of a picture of `size`, no view above R² pixels.

    `boxes` are where the answer can be seen, for the controls; `salient` is for `saliency-crop`.
    """
    whole = whole_at(size, resolution)
    if method in ("grid", "exhaustive"):
        cells = tiles(size, GRID if method == "grid" else EXHAUSTIVE)
        return [whole, *(_shown(cell, resolution) for cell in cells)]
    if method == "saliency-crop":
        assert salient is not None
        return [whole, _shown(salient, resolution)]
    if method == "oracle-crop":
        return [whole, *(look_at(size, box, resolution, 0) for box in boxes[:MOST_CROPS])]
    if method == "random-crop":
        assert rng is not None
        crops = [look_at(size, box, resolution, 0).region for box in boxes[:MOST_CROPS]]
        sides = [(int(c.width), int(c.height)) for c in crops] or [part_of(size)]
        return [whole, *(_shown(_anywhere(side, size, rng), resolution) for side in sides)]
    return [whole]


def finer(resolution: int) -> int:
    """The budget of `uniform`: as many pixels at once as a first view and a look at R have."""
    return round(resolution * sqrt(2))


def tiles(size: Size, cells: int) -> list[Box]:
    """The cells of a grid over a picture, row by row, each reaching a little over its edges."""
    width, height = size
    over_x, over_y = width / cells * OVERLAP, height / cells * OVERLAP
    return [
        Box(
            col * width / cells - over_x,
            row * height / cells - over_y,
            (col + 1) * width / cells + over_x,
            (row + 1) * height / cells + over_y,
        )
        .clip(size)
        .rounded()
        for row in range(cells)
        for col in range(cells)
    ]


def _anywhere(side: Size, size: Size, rng: np.random.Generator) -> Box:
    x, y = (int(rng.integers(0, whole - part + 1)) for whole, part in zip(size, side, strict=True))
    return Box(x, y, x + side[0], y + side[1])


def _shown(region: Box, resolution: int) -> Observation:
    edges = int(region.width), int(region.height)
    return Observation(region, view_size(edges, resolution, magnify=MAGNIFY), 0)
