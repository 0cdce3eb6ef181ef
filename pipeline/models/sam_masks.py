"""Arithmetic on low-resolution mask logits: quality, overlap, sub-pixel boxes, enlargement.

Logits are float tensors (N, h, w) over the padded square that the encoder saw; a pixel belongs to
the mask where its logit is above 0. Nothing here knows a model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from pipeline.geometry import Size
from pipeline.models import guided_edges


@dataclass(frozen=True, slots=True)
class Limits:
    """What a mask of the automatic search must be to be kept."""

    min_score: float = 0.6
    """The IoU that the model expects of it."""
    min_stability: float = 0.7
    most_area: float = 0.9
    """Share of the image."""
    most_overlap: float = 0.6
    """IoU with a better mask."""


def passing(
    inside: torch.Tensor, scores: torch.Tensor, limits: Limits
) -> tuple[torch.Tensor, torch.Tensor]:
    """(which masks are good enough, how stable each is), both (N,), of maps (N, h, w).

    `inside` are the cells of the maps that show the image; overlap is `distinct`'s business.
    """
    stable = stability(inside)
    area = (inside > 0).float().mean((1, 2))
    good = (scores >= limits.min_score) & (stable >= limits.min_stability)
    return good & (area > 0) & (area <= limits.most_area), stable


def stability(logits: torch.Tensor, offset: float = 1.0) -> torch.Tensor:
    """IoU of each mask cut at `+offset` with the same cut at `-offset`, (N,) in [0, 1]."""
    strict = (logits > offset).flatten(1).sum(1)
    loose = (logits > -offset).flatten(1).sum(1)
    return strict / loose.clamp(min=1)


def pairwise_iou(masks: torch.Tensor) -> torch.Tensor:
    """IoU of every two of N bool masks (N, h, w), as (N, N) in [0, 1]."""
    flat = masks.flatten(1).float()
    shared = flat @ flat.T
    areas = flat.sum(1)
    return shared / (areas[:, None] + areas - shared).clamp(min=1)


def distinct(masks: torch.Tensor, scores: torch.Tensor, most_overlap: float) -> list[int]:
    """Indices of masks, best score first, none of which overlaps a better one too much."""
    overlaps = pairwise_iou(masks)
    kept: list[int] = []
    for index in torch.argsort(scores, descending=True, stable=True).tolist():
        if not kept or float(overlaps[index, kept].max()) <= most_overlap:
            kept.append(index)
    return kept


def map_boxes(logits: torch.Tensor) -> torch.Tensor:
    """XYXY boxes (N, 4) of the masks, in cells of the map, edges placed between cells.

    An edge is where the highest logit of its column (row) crosses 0 on the way to the next one.
    A map without a positive logit has a row of NaN.
    """
    x0, x1 = _span(logits.amax(1))
    y0, y1 = _span(logits.amax(2))
    return torch.stack([x0, y0, x1, y1], 1)


def _span(profile: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """First and last zero crossing of each profile (N, n); cell i spans [i, i + 1]."""
    inside = profile > 0
    first = _crossing(profile, inside.float().argmax(1))
    last = profile.shape[1] - _crossing(profile.flip(1), inside.flip(1).float().argmax(1))
    empty = ~inside.any(1)
    return first.masked_fill(empty, torch.nan), last.masked_fill(empty, torch.nan)


def _crossing(profile: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Where the profile rises through 0 just before the positive cell `index`."""
    inner = profile.gather(1, index[:, None])[:, 0]
    outer = profile.gather(1, (index - 1).clamp(min=0)[:, None])[:, 0]
    step = inner / (inner - outer).clamp(min=1e-6)
    return torch.where(index == 0, torch.zeros_like(inner), index + 0.5 - step)


@dataclass(frozen=True, slots=True)
class Square:
    """How an image lies in the padded square that the encoder saw; sizes are (width, height)."""

    side: int
    """Encoder pixels."""
    inner: Size
    """The part that is image, encoder pixels."""
    size: Size
    """The image itself, pixels."""

    def inside(self, maps: torch.Tensor) -> torch.Tensor:
        """The cells of maps (N, h, w) over the square that show some of the image."""
        cell = self.side // maps.shape[-1]
        width, height = (-(-length // cell) for length in self.inner)
        return maps[:, :height, :width]

    def enlarged(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (N, h, w) over the square, at the image's own pixels: (N, height, width)."""
        square = _resized(maps, (self.side, self.side))
        return _resized(square[:, : self.inner[1], : self.inner[0]], self.size[::-1])

    def guide(self, image: np.ndarray, cells: int) -> torch.Tensor:
        """The image's mean colour in [0, 1] in each cell that `inside` leaves: (3, h, w)."""
        small = Image.fromarray(image).resize(self.inner, Image.Resampling.BOX)
        right, below = (self.side - length for length in self.inner)
        square = np.pad(np.asarray(small), ((0, below), (0, right), (0, 0)), mode="edge")
        colors = torch.from_numpy(square).permute(2, 0, 1).float().div(255)
        return self.inside(F.avg_pool2d(colors, self.side // cells))


def masks_of(logits: torch.Tensor, square: Square) -> torch.Tensor:
    """Masks of the whole image, bool (N, height, width), of maps (N, h, w)."""
    masks = torch.empty((len(logits), *square.size[::-1]), dtype=torch.bool)
    for mask, logit in zip(masks, logits, strict=True):
        mask.copy_(square.enlarged(logit[None])[0] > 0)
    return masks


def guided_masks(
    logits: torch.Tensor, square: Square, image: np.ndarray, radius: int
) -> torch.Tensor:
    """As `masks_of`, with edges that follow the image's (uint8 HWC) within `radius` cells."""
    cells = logits.shape[-1]
    guide = square.guide(image, cells)
    lines = guided_edges.fitted(square.inside(logits).sigmoid(), guide, radius)
    right, below = (cells - length for length in lines.shape[:1:-1])
    lines = F.pad(lines, (0, right, 0, below), mode="replicate")
    picture = torch.from_numpy(image.copy()).permute(2, 0, 1).float().div(255)
    masks = torch.empty((len(logits), *square.size[::-1]), dtype=torch.bool)
    for mask, line in zip(masks, lines, strict=True):
        mask.copy_(guided_edges.applied(square.enlarged(line), picture) > 0.5)
    return masks


def _resized(planes: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    if planes.shape[1:] == shape:
        return planes
    return F.interpolate(planes[None], shape, mode="bilinear", align_corners=False)[0]
