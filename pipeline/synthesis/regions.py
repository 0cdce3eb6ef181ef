"""Which regions of a picture are worth a question: small, detailed, salient, and spread out.

Owns the choice among masks. It knows nothing of models or of what is asked.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.errors import InvalidBox
from pipeline.geometry import FACTOR, Box, Size, view_size
from pipeline.scenes.regions import mask_box
from pipeline.views import MAGNIFY, SMALLEST_REGION_PX, crop_region

MOST_SEEN_PX = 2 * FACTOR
"""A region is at most this wide (geometric mean of its box) in the first view of the lowest budget:
four visual tokens show no detail."""
LEAST_PX = 40
"""Geometric mean of the sides of its box in the source, at least: below, there is no detail."""
LEAST_GAIN = 1.5
"""A look at it shows at least this many times as much of the source's resolution."""
LEAST_LOSS = 3.0
"""Grey levels (root mean square) that the first view loses of it; a flat region loses nothing."""
HALF_LOSS = 12.0
"""Loss in grey levels that is worth half the most a loss can be worth."""
LEAST_FILL = 0.2
"""Share of its box that the mask covers: the box of a sprawling region shows other things."""
MOST_IOU = 0.3
MOST_SHARED = 0.6
"""Share of the smaller of two boxes that may lie inside the other."""
BINS = 4
"""Classes of size, evenly wide in the logarithm of the area: as many questions of each."""
APART = 0.25
"""Distance between centres, as a share of the picture's diagonal, from which no more is gained."""


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A region that can be asked about."""

    box: Box
    """Whole source pixels."""
    mask: np.ndarray
    """bool HW, as it was given: of the whole picture, at the size it was outlined at."""
    area_share: float
    """Of the picture, in (0, 1]."""
    saliency: float
    """Share of the map inside, over `area_share`: 1 is average; 1 without a map."""
    stability: float
    """Of the outline, in [0, 1]; 1 where it is not known."""
    score: float
    """How much it is worth asking about, in [0, 1]."""


def choose(
    image: Image.Image,
    masks: Sequence[np.ndarray],
    *,
    count: int,
    rng: np.random.Generator,
    budgets: Sequence[int],
    saliency: np.ndarray | None = None,
    stability: Sequence[float] | None = None,
) -> list[Region]:
    """At most `count` regions of the picture, the first the most worth asking about.

    `masks`: bool HW of the whole picture, all at one scale · `saliency`: float HW, not negative, at
    any scale · `stability` in [0, 1], one for each mask. The order depends on these and `rng` only.
    """
    lowest = min(budgets)
    seen = min(view_size(image.size, lowest)[0] / image.width, 1.0)
    grey = image.convert("L")
    told = stability if stability is not None else [1.0] * len(masks)
    prior = None if saliency is None or not masks else _prior(saliency, masks[0].shape[::-1])
    found = []
    for mask, stable in zip(masks, told, strict=True):
        box = _box(mask, image.size)
        if box is None or not _fits(box, mask, image.size, lowest, seen):
            continue
        loss = _lost(grey, box, seen)
        if loss >= LEAST_LOSS:
            found.append(_scored(box, mask, loss, stable, prior))
    order = rng.permutation(len(found))
    return _spread(
        [found[i] for i in order], count, rng.permutation(BINS).tolist(), image.size, seen
    )


def _box(mask: np.ndarray, size: Size) -> Box | None:
    """The tight box of a mask in whole source pixels; None for an empty mask."""
    if not mask.any():
        return None
    rough, sx, sy = mask_box(mask), size[0] / mask.shape[1], size[1] / mask.shape[0]
    x1, y1 = min(math.ceil(rough.x1 * sx), size[0]), min(math.ceil(rough.y1 * sy), size[1])
    return Box(math.floor(rough.x0 * sx), math.floor(rough.y0 * sy), x1, y1)


def _fits(box: Box, mask: np.ndarray, size: Size, lowest: int, seen: float) -> bool:
    """Whether a region's size lets a question be hard from afar and answerable up close."""
    if min(box.width, box.height) < SMALLEST_REGION_PX or math.sqrt(box.area) < LEAST_PX:
        return False
    if math.sqrt(box.area) * seen > MOST_SEEN_PX:
        return False
    covered = _share(mask) * size[0] * size[1] / box.area
    return covered >= LEAST_FILL and _closer(box, size, lowest) >= LEAST_GAIN * seen


def _closer(box: Box, size: Size, resolution: int) -> float:
    """Share of the source's resolution, in [0, 1], that a look at a box shows."""
    region = crop_region(box, size)
    try:
        shown = view_size((int(region.width), int(region.height)), resolution, magnify=MAGNIFY)
    except InvalidBox:  # too thin
        return 0.0
    return min(shown[0] / region.width, shown[1] / region.height, 1.0)


def _lost(grey: Image.Image, box: Box, seen: float) -> float:
    """Root mean square of what a view at `seen` of the source's scale loses of a box: grey levels.

    `grey`: the picture, L.
    """
    patch = grey.crop((int(box.x0), int(box.y0), int(box.x1), int(box.y1)))
    small = max(1, round(patch.width * seen)), max(1, round(patch.height * seen))
    shown = patch.resize(small, Image.Resampling.BOX).resize(patch.size, Image.Resampling.BICUBIC)
    difference = np.asarray(patch, np.float32) - np.asarray(shown, np.float32)
    return float(np.sqrt(np.mean(difference**2)))


def _share(mask: np.ndarray) -> float:
    """Of the picture, in [0, 1]."""
    return int(np.count_nonzero(mask)) / mask.size


def _prior(saliency: np.ndarray, size: Size) -> np.ndarray:
    """The map at the masks' scale, summing to 1; even where it is nothing but zeros."""
    drawn = Image.fromarray(np.asarray(saliency, np.float32))
    scaled = np.asarray(drawn.resize(size, Image.Resampling.BILINEAR), np.float64)
    total = scaled.sum()
    return scaled / total if total > 0 else np.full(scaled.shape, 1 / scaled.size)


def _scored(
    box: Box, mask: np.ndarray, loss: float, stable: float, prior: np.ndarray | None
) -> Region:
    """The region with its score: what a look gains, times how salient and how sure it is."""
    share = _share(mask)
    salient = 1.0 if prior is None else float(prior[mask].sum()) / share
    score = loss / (loss + HALF_LOSS) * salient / (salient + 1.0) * stable
    return Region(box, mask, share, salient, stable, score)


def _spread(
    found: Sequence[Region], count: int, bins: Sequence[int], size: Size, seen: float
) -> list[Region]:
    """Regions one after the other: from the class of size that has fewest, far from the others.

    `bins`: the classes in the order in which ties between them are decided.
    """
    chosen: list[Region] = []
    filled = Counter({int(name): 0 for name in bins})
    left = [(region, _bin(region.box, seen)) for region in found]
    while left and len(chosen) < count:
        open_bins = {name for _, name in left}
        fewest = min((name for name in filled if name in open_bins), key=filled.__getitem__)
        worth = [(_worth(r, chosen, size) if b == fewest else -1.0) for r, b in left]
        best = left[int(np.argmax(worth))][0]
        chosen.append(best)
        filled[fewest] += 1
        left = [(r, b) for r, b in left if not _same(r.box, best.box)]
    return chosen


def _bin(box: Box, seen: float) -> int:
    """Which class of size a box is of, 0 the smallest."""
    span = math.log((MOST_SEEN_PX / seen) ** 2 / LEAST_PX**2)
    place = math.log(box.area / LEAST_PX**2) / span if span > 0 else 0.0
    return min(int(BINS * place), BINS - 1)


def _worth(region: Region, chosen: Sequence[Region], size: Size) -> float:
    """The score, down to half of it beside a region that is chosen already."""
    near = min((math.dist(region.box.centre, c.box.centre) for c in chosen), default=math.inf)
    apart = min(near / (APART * math.hypot(*size)), 1.0)
    return region.score * (1 + apart) / 2


def _same(box: Box, other: Box) -> bool:
    """Whether two boxes show much the same."""
    shared = box.intersection(other) / min(box.area, other.area)
    return shared > MOST_SHARED or box.iou(other) > MOST_IOU
