"""Where a picture's prompt objects come from: its annotations, or a segmenter's proposals.

COCO's and SA-1B's marks come alike, as `Picture.masks`; without any, a proposer finds masks of
everything, and what is too small, nearly the whole picture or found twice is left out. Knows no
saliency and no model: which objects come first is asked of `maps`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pipeline.geometry import Box, Size
from pipeline.scenes.regions import mask_box
from pipeline.sources.annotations import bad_annotation
from pipeline.sources.base import Picture, Region
from pipeline.sources.masks import decode_region

if TYPE_CHECKING:
    from pipeline.models.sam import Segmenter

SMALLEST_SHARE = 0.002
"""A proposal that covers less of the picture is left out."""
LARGEST_SHARE = 0.5
"""One that covers more is the picture, or what lies behind everything."""
MOST_OVERLAP = 0.8
"""Two proposals whose masks have a higher IoU are one."""

JOINTS = 17
Prior = Callable[[np.ndarray], np.ndarray]
"""From an image, uint8 HWC, to a map, float HW of any size, high where objects are likely."""


@dataclass(frozen=True, slots=True, eq=False)
class Instance:
    """One object of a picture that a prompt may show."""

    id: int
    """The annotation's number; the rank among proposals."""
    category: str
    """As the source names it; "" where nobody does."""
    mask: np.ndarray
    """bool HW of the whole picture, not empty."""
    area: float
    """Pixels, as the source tells it, else the mask's."""
    iscrowd: bool = False
    keypoints: np.ndarray | None = None
    """float64 (17, 3) of x, y, visibility 0..2 (COCO); None where no joint is marked."""

    @property
    def box(self) -> Box:
        """The tight box of the mask."""
        return mask_box(self.mask)


class Proposer(Protocol):
    """Finds masks of everything in a picture: `SamProposer` does."""

    def propose(self, image: np.ndarray) -> Sequence[np.ndarray]:
        """Masks, bool HW, of an image, uint8 HWC; the best first."""


def objects_of(
    picture: Picture, image: np.ndarray, proposer: Proposer | None = None, *, crowds: bool = True
) -> list[Instance]:
    """A picture's annotated objects; where it has none, what the proposer finds, if there is one.

    `image` is the decoded picture, uint8 HWC. Raises `BadImage` for annotations that do not fit.
    """
    if picture.masks:
        return annotated(picture.masks, (image.shape[1], image.shape[0]), crowds=crowds)
    return [] if proposer is None else proposed(image, proposer)


def annotated(regions: Sequence[Region], size: Size, *, crowds: bool = True) -> list[Instance]:
    """The objects that a source marks in a picture of (width, height), the largest first.

    Sorted by the source's `area`, descending, stable (Chain-of-Focus Prompting, its code). Objects
    without a pixel are left out, groups too unless `crowds`. Raises `BadImage` for marks of another
    frame, for masks that do not decode and for keypoints that are none.
    """
    told = [region.id for region in regions if region.id is not None]
    unique = len(set(told)) == len(regions)
    found = []
    for place, region in enumerate(regions):
        if (region.width, region.height) != size:
            frames = f"{region.width} x {region.height}, the picture {size[0]} x {size[1]}"
            raise bad_annotation(f"marks of {frames}")
        mask = decode_region(region)
        if not mask.any() or (region.crowd and not crowds):
            continue
        number = region.id if unique and region.id is not None else place
        area = float(mask.sum()) if region.area is None else region.area
        points = _keypoints(region.keypoints)
        found.append(Instance(number, region.label, mask, area, region.crowd, points))
    return sorted(found, key=lambda one: -one.area)


def proposed(
    image: np.ndarray,
    proposer: Proposer,
    *,
    smallest_share: float = SMALLEST_SHARE,
    largest_share: float = LARGEST_SHARE,
    most_overlap: float = MOST_OVERLAP,
) -> list[Instance]:
    """What a proposer finds in an image, uint8 HWC, without annotations: the largest first.

    Of masks that nearly agree the proposer's best stays; shares are of the picture's pixels.
    """
    masks = list(proposer.propose(image))
    areas = np.array([np.count_nonzero(mask) for mask in masks], float)
    pixels = image.shape[0] * image.shape[1]
    sized = (areas >= smallest_share * pixels) & (areas <= largest_share * pixels) & (areas > 0)
    fitting = np.flatnonzero(sized).tolist()
    kept = [fitting[n] for n in distinct([masks[n] for n in fitting], most_overlap)]
    found = [Instance(n, "", masks[n], float(areas[n])) for n in kept]
    return sorted(found, key=lambda one: -one.area)


def distinct(masks: Sequence[np.ndarray], most_overlap: float) -> list[int]:
    """Which of the masks (bool HW, none empty) have an IoU of at most so much with all before.

    Exact: only pairs whose boxes and areas allow more are compared, inside the smaller box.
    """
    boxes = [_corners(mask) for mask in masks]
    areas = [int(np.count_nonzero(mask)) for mask in masks]
    kept: list[int] = []
    for n, mask in enumerate(masks):
        x0, y0, x1, y1 = boxes[n]
        part = mask[y0:y1, x0:x1]
        for other in kept:
            if not _may_overlap(boxes[n], boxes[other], areas[n], areas[other], most_overlap):
                continue
            shared = int(np.count_nonzero(part & masks[other][y0:y1, x0:x1]))
            if shared > most_overlap * (areas[n] + areas[other] - shared):
                break
        else:
            kept.append(n)
    return kept


@dataclass(frozen=True, slots=True)
class SamProposer:
    """A segmenter asked on a grid of points, fewer where a prior says that little is to find."""

    segmenter: Segmenter
    prior: Prior | None = None
    """None spreads the points evenly."""
    grid: int = 32
    """Points along each side."""
    share: float = 0.5
    """Most of the points that are asked."""

    def propose(self, image: np.ndarray) -> list[np.ndarray]:
        """Masks, bool HW, of an image, uint8 HWC; the best first."""
        from pipeline.models.sam_search import search

        prior = None if self.prior is None else self.prior(image)
        found = search(self.segmenter, image, prior, grid=self.grid, share=self.share)
        return [one.mask for one in found.masks]


def _keypoints(values: Sequence[float]) -> np.ndarray | None:
    """COCO's flat keypoints as (17, 3); None where there are none, or none is marked."""
    if not values:
        return None
    points = np.array(values, float)
    if points.size != 3 * JOINTS or not np.isfinite(points).all():
        raise bad_annotation(f"{points.size} numbers of keypoints")
    points = points.reshape(JOINTS, 3)
    if not np.isin(points[:, 2], (0, 1, 2)).all():
        raise bad_annotation("a keypoint whose visibility is not 0, 1 or 2")
    return points if points[:, 2].any() else None


def _corners(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The tight box (x0, y0, x1, y1) of a mask in whole pixels."""
    box = mask_box(mask)
    return int(box.x0), int(box.y0), int(box.x1), int(box.y1)


def _may_overlap(
    box: tuple[int, ...], other: tuple[int, ...], area: int, area_of_other: int, most: float
) -> bool:
    """Whether two masks can have an IoU above `most`, by their boxes and areas alone."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    shared = min(max(width, 0) * max(height, 0), area, area_of_other)
    return shared > most * (area + area_of_other - shared)
