"""What the agent sees: views of one picture, cut from source pixels within a budget.

The observation law lives here and in `geometry.view_size`: nothing else hands out pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.geometry import Box, Size, view_size
from pipeline.trajectory import Observation

ViewBox = tuple[float, float, float, float]
"""XYXY in pixels of a view."""

ENLARGE = 1.5
"""Each side of a box that is zoomed, about its centre."""
MAGNIFY = 2.0
"""A crop is shown at up to this many times its source size."""
SMALLEST_REGION_PX = 28
"""A region is widened to at least this many source pixels a side."""

REDUCING_GAP = 3.0
"""A picture is averaged in whole pixels down to this many times its view, then resampled."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """An observation and its pixels."""

    observation: Observation
    pixels: np.ndarray
    """uint8 HWC."""

    def to_source(self, box: ViewBox) -> Box:
        """A box of this view in whole source pixels, at least one pixel a side."""
        sx, sy, region = *self._scale(), self.observation.region
        x0, y0, x1, y1 = box
        exact = Box(
            region.x0 + x0 / sx, region.y0 + y0 / sy, region.x0 + x1 / sx, region.y0 + y1 / sy
        )
        return exact.rounded()

    def to_view(self, box: Box) -> ViewBox:
        """A source box in pixels of this view; it may reach outside."""
        sx, sy = self._scale()
        region = self.observation.region
        return (
            (box.x0 - region.x0) * sx,
            (box.y0 - region.y0) * sy,
            (box.x1 - region.x0) * sx,
            (box.y1 - region.y0) * sy,
        )

    def _scale(self) -> tuple[float, float]:
        """View pixels per source pixel on each axis."""
        width, height = self.observation.size
        return width / self.observation.region.width, height / self.observation.region.height


def first_view(image: Image.Image, resolution: int) -> View:
    """The whole picture at a budget."""
    return shown(image, whole_at(image.size, resolution))


def zoomed(image: Image.Image, box: Box, resolution: int, parent: int) -> View:
    """A box of the source, enlarged, cut from source pixels and shown at up to twice their size.

    Raises `InvalidBox` for a box outside the picture.
    """
    return shown(image, look_at(image.size, box, resolution, parent))


def whole_at(size: Size, resolution: int) -> Observation:
    """The first view of a picture of that size at a budget."""
    return Observation(Box(0, 0, *size), view_size(size, resolution))


def look_at(size: Size, box: Box, resolution: int, parent: int) -> Observation:
    """The look at a box of a picture of that size; raises `InvalidBox` for one outside."""
    region = crop_region(box, size)
    edges = int(region.width), int(region.height)
    return Observation(region, view_size(edges, resolution, magnify=MAGNIFY), parent)


def crop_region(box: Box, size: tuple[int, int]) -> Box:
    """What a look at `box` shows: the box enlarged, inside the picture, never too small to show."""
    region = box.clip(size).enlarge(ENLARGE, size)
    x0, x1 = _widened(region.x0, region.x1, size[0])
    y0, y1 = _widened(region.y0, region.y1, size[1])
    return Box(x0, y0, x1, y1)


def _widened(low: float, high: float, limit: int) -> tuple[int, int]:
    """The span, grown about its middle to the smallest region and kept in [0, limit]."""
    missing = min(SMALLEST_REGION_PX, limit) - (high - low)
    if missing <= 0:
        return int(low), int(high)
    start = int(min(max(low - missing / 2, 0), limit - SMALLEST_REGION_PX))
    return max(start, 0), max(start, 0) + min(SMALLEST_REGION_PX, limit)


def shown(image: Image.Image, observation: Observation) -> View:
    """An observation of a picture with its pixels."""
    r = observation.region
    part = image.crop((int(r.x0), int(r.y0), int(r.x1), int(r.y1)))
    size = observation.size
    if size[0] < part.width:  # most of the work on a large picture: half of LANCZOS's, no aliasing
        shown = part.resize(size, Image.Resampling.HAMMING, reducing_gap=REDUCING_GAP)
    else:
        shown = part.resize(size, Image.Resampling.LANCZOS)
    return View(observation, np.asarray(shown))
