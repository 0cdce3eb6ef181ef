"""A searcher that cannot read: it looks for the most saturated blob of the first view and crops it.

Tasks that it solves are tasks about colour.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from pipeline.geometry import Box
from pipeline.views import crop_region, first_view, zoomed

READABLE_CAP_PX = 5.6
"""About the smallest capital that is read, pixels of a view."""
CUT = 0.8
"""A blob is what has at least this share of the strongest saturation."""


def saturation(pixels: np.ndarray) -> np.ndarray:
    """Difference of the strongest and the weakest channel, smoothed a little; float HW."""
    spread = (pixels.max(2) - pixels.min(2)).astype(np.uint8)
    return np.asarray(Image.fromarray(spread).filter(ImageFilter.BoxBlur(1)), float)


def strongest_blob(values: np.ndarray) -> tuple[int, int, int, int]:
    """XYXY of the 4-connected cells above the cut that hang together with the strongest one."""
    above = values >= CUT * values.max()
    start = tuple(int(v) for v in np.unravel_index(int(values.argmax()), values.shape))
    seen, todo = {start}, [start]
    while todo:
        row, col = todo.pop()
        for r, c in ((row + 1, col), (row - 1, col), (row, col + 1), (row, col - 1)):
            inside = 0 <= r < above.shape[0] and 0 <= c < above.shape[1]
            if inside and above[r, c] and (r, c) not in seen:
                seen.add((r, c))
                todo.append((r, c))
    rows, cols = zip(*seen, strict=True)
    return min(cols), min(rows), max(cols) + 1, max(rows) + 1


def blob_look(image: Image.Image, resolution: int = 224) -> Box:
    """What the baseline crops, source pixels."""
    view = first_view(image, resolution)
    return view.to_source(strongest_blob(saturation(view.pixels)))


def solves(
    image: Image.Image, targets: tuple[Box, ...], cap_px: float, resolution: int = 224
) -> bool:
    """Whether one look at the blob shows every target whole, with capitals of readable size.

    `cap_px` is the height of the smallest capital to be read, source pixels.
    """
    if not targets:
        return False
    blob = blob_look(image, resolution)
    region = crop_region(blob, image.size)
    view = zoomed(image, blob, resolution, 0)
    scale = view.pixels.shape[1] / region.width
    return all(region.contains(box) for box in targets) and cap_px * scale >= READABLE_CAP_PX
