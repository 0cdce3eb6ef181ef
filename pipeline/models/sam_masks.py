"""Arithmetic on low-resolution mask logits: quality, overlap, sub-pixel boxes, enlargement.

Logits are float tensors (N, h, w) over the padded square that the encoder saw; a pixel belongs to
the mask where its logit is above 0. Nothing here knows a model.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


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


def enlarged(
    logits: torch.Tensor, side: int, inner: tuple[int, int], size: tuple[int, int]
) -> torch.Tensor:
    """Masks of the whole image, bool (N, height, width).

    `side`: of the padded square in encoder pixels · `inner`: (width, height) of the part of it that
    is image · `size`: (width, height) of the image.
    """
    masks = torch.empty((len(logits), size[1], size[0]), dtype=torch.bool)
    for mask, logit in zip(masks, logits, strict=True):
        square = _resized(logit, (side, side))
        mask.copy_(_resized(square[: inner[1], : inner[0]], (size[1], size[0])) > 0)
    return masks


def _resized(plane: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    if plane.shape == shape:
        return plane
    return F.interpolate(plane[None, None], shape, mode="bilinear", align_corners=False)[0, 0]
