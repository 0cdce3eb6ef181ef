"""How many of the lines in held-out pictures the finder finds, and how exactly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.models.pocket_finder import Finder, TextLine
from pipeline.models.pocket_finder_scenes import HELD_OUT_SEED, Page, held_out_page
from pipeline.scenes.planes import Quad

BANDS_PX = ((3, 5), (5, 8), (8, 14), (14, 60))
"""Heights of capitals that are told apart."""

Bounds = tuple[float, float, float, float]


def evaluate(finder: Finder, pages: int = 300, side: int = 448) -> dict[str, float]:
    """Shares of lines by height: those mostly inside found boxes, and those with one of their own.

    A found box is `false` when less than a third of it is text, and `false_a_page` counts those.
    """
    seen: dict[tuple[int, int], list[float]] = {band: [] for band in BANDS_PX}
    boxed: dict[tuple[int, int], list[float]] = {band: [] for band in BANDS_PX}
    false = 0
    for seed in range(HELD_OUT_SEED, HELD_OUT_SEED + pages):
        page = held_out_page(seed, (side, side))
        found = finder.find(page.image)
        truth = [bounds(quad, side) for quad in page.quads]
        for box, cap_px in zip(truth, page.caps_px, strict=True):
            band = next((b for b in BANDS_PX if b[0] <= cap_px < b[1]), None)
            if band is None or box[2] - box[0] < 2 or box[3] - box[1] < 2:
                continue
            seen[band].append(float(_covered(box, [line.box for line in found]) >= 0.5))
            boxed[band].append(float(max((_iou(box, f.box) for f in found), default=0) >= 0.5))
        false += sum(_covered(line.box, truth) < 1 / 3 for line in found)
    figures = {}
    for low, high in BANDS_PX:
        figures[f"seen_{low}_{high}px"] = float(np.mean(seen[low, high]))
        figures[f"boxed_{low}_{high}px"] = float(np.mean(boxed[low, high]))
    return figures | {"false_a_page": false / pages}


def bounds(quad: Quad, side: float) -> Bounds:
    """Bounds of a line's corners inside a square picture."""
    xs, ys = (np.clip(axis, 0, side).tolist() for axis in zip(*quad, strict=True))
    return min(xs), min(ys), max(xs), max(ys)


def recall(found: Sequence[TextLine], page: Page, side: float) -> float:
    """Share of a page's lines that are mostly inside found boxes."""
    truth = [bounds(quad, side) for quad in page.quads]
    return float(np.mean([_covered(box, [f.box for f in found]) >= 0.5 for box in truth]))


def _covered(box: Bounds, others: Sequence[Bounds]) -> float:
    """Share of a box's area in the others, at 16 × 16 points."""
    x = np.linspace(box[0], box[2], 33)[1::2]
    y = np.linspace(box[1], box[3], 33)[1::2, None]
    inside = np.zeros((16, 16), bool)
    for x0, y0, x1, y1 in others:
        inside |= (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
    return float(inside.mean())


def _iou(one: Bounds, other: Bounds) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(wide, 0.0) * max(high, 0.0)
    areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (one, other))
    return shared / (areas - shared) if areas > shared else 0.0
