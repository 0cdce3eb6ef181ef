"""The automatic search with fewer points: the likeliest first, and none where masks are already.

A batch of points is asked at a time; a point that a found mask covers is not asked any more, for
it would mostly find the same again. Most of a search's time is the mask decoder's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline.geometry import Box
from pipeline.models.point_grid import SPREAD, ask_order
from pipeline.models.sam import Embedding, Mask, Segmenter, grid_points
from pipeline.models.sam_masks import Limits, distinct, passing

GRID = 32
"""Points along each side: the published search's."""
SHARE = 0.5
"""Most of the points that are asked."""
BATCH = 64
"""Points asked at a time."""
MOST_COVERING = 0.5
"""A mask that covers more of the picture does not keep the points in it from being asked."""


@dataclass(frozen=True, slots=True)
class Search:
    """What a search found, and what it took."""

    masks: list[Mask]
    """Distinct masks, best first."""
    asked: int
    """Points that the decoder was asked."""


def search(
    segmenter: Segmenter,
    image: np.ndarray,
    prior: np.ndarray | None = None,
    *,
    grid: int = GRID,
    share: float = SHARE,
    spread: float = SPREAD,
    limits: Limits | None = None,
) -> Search:
    """Masks of everything in an image, uint8 HWC, for at most a share of a grid of points.

    `prior` is a map of the image, float HW of any size and scale, high where objects are likely.
    """
    limits = limits or Limits()
    embedding = segmenter.embed(image)
    points = grid_points(embedding.size, grid)
    waiting = ask_order(prior, grid, spread=spread)
    left = max(1, round(share * len(points)))
    found: list[_Batch] = []
    while left and len(waiting):
        batch = _asked(segmenter, embedding, points[waiting[: min(BATCH, left)]], limits)
        waiting, left = waiting[len(batch.points) :], left - len(batch.points)
        waiting = waiting[~_covered(embedding, batch, points[waiting])]
        found.append(batch)
    return Search(_best(segmenter, embedding, found, limits), sum(len(b.points) for b in found))


class Searching(Segmenter):
    """A segmenter whose masks of a whole picture come from the search by a prior."""

    def __init__(self, segmenter: Segmenter, prior: Callable[[Image.Image], np.ndarray]) -> None:
        super().__init__(
            segmenter.model, segmenter.variant, segmenter.digest, str(segmenter.model.device)
        )
        self._prior = prior

    def automatic(self, image: np.ndarray, *, limit: int | None = None, **_: Any) -> list[Mask]:
        """Masks of everything in an image, uint8 HWC, best first."""
        return search(self, image, self._prior(Image.fromarray(image))).masks[:limit]


@dataclass(frozen=True, slots=True)
class _Batch:
    """Some points, and the masks of theirs that pass."""

    points: np.ndarray
    """float (P, 2)."""
    owners: np.ndarray
    """int (M,): which point each mask answers."""
    maps: torch.Tensor
    """float32 (M, h, w) over the padded square."""
    scores: torch.Tensor
    stable: torch.Tensor


def _asked(
    segmenter: Segmenter, embedding: Embedding, points: np.ndarray, limits: Limits
) -> _Batch:
    """What some points find."""
    prediction = segmenter.predict(embedding, points=points, multimask=True)
    maps = torch.from_numpy(prediction.logits).flatten(0, 1)
    scores = torch.from_numpy(prediction.ious).flatten()
    good, stable = passing(embedding.square.inside(maps), scores, limits)
    chosen = torch.nonzero(good)[:, 0]
    owners = chosen.numpy() // prediction.ious.shape[1]
    return _Batch(points, owners, maps[chosen], scores[chosen], stable[chosen])


def _covered(embedding: Embedding, batch: _Batch, points: np.ndarray) -> np.ndarray:
    """Which points (N, 2) lie in one of the batch's masks that is no larger than an object."""
    inside = embedding.square.inside(batch.maps) > 0
    small = inside[inside.float().mean((1, 2)) <= MOST_COVERING]
    union = small.any(0).numpy()
    cells = (points * embedding.scale / embedding.side * batch.maps.shape[-1]).astype(int)
    rows = cells[:, 1].clip(0, union.shape[0] - 1)
    return union[rows, cells[:, 0].clip(0, union.shape[1] - 1)]


def _best(
    segmenter: Segmenter, embedding: Embedding, found: list[_Batch], limits: Limits
) -> list[Mask]:
    """The distinct masks of all batches, best first, at the image's own pixels."""
    maps = torch.cat([batch.maps for batch in found])
    scores = torch.cat([batch.scores for batch in found])
    stable = torch.cat([batch.stable for batch in found])
    points = np.concatenate([batch.points[batch.owners] for batch in found])
    kept = distinct(embedding.square.inside(maps) > 0, scores, limits.most_overlap)
    logits = maps[kept].numpy()
    masks, boxes = segmenter.masks(embedding, logits), segmenter.boxes(embedding, logits)
    return [
        Mask(mask, Box(*box.tolist()), scores[n].item(), stable[n].item(), (*points[n].tolist(),))
        for n, mask, box in zip(kept, masks, boxes, strict=True)
    ]
