"""What the pocket segmenter's training minimises, for the prompts of one picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from pipeline.models.pocket_sam_scenes import CELL, POINTS, SIDE


def losses_of(
    logits: torch.Tensor, ious: torch.Tensor, example: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Losses of one picture's prompts.

    `logits` (N, 4, h, w): the single mask, then the three ambiguous ones; `ious` (N, 4).
    """
    target = example["targets"].float().div(CELL * CELL)[:, None].expand_as(logits)
    weight = _attention(example["bounds"], logits.shape[-1])
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    entropy = (entropy * weight).sum((2, 3))
    chance = logits.sigmoid()
    shared = (chance * target).sum((2, 3))
    dice = 1 - (2 * shared + 1) / (chance.sum((2, 3)) + target.sum((2, 3)) + 1)
    mask_loss = entropy + dice
    with torch.no_grad():
        on, true = logits > 0, target > 0.5
        overlap = (on & true).sum((2, 3)) / (on | true).sum((2, 3)).clamp(min=1)
    return {
        "single": mask_loss[:, 0].mean(),
        "best": mask_loss[:POINTS, 1:].min(1).values.mean(),
        "iou": F.mse_loss(ious, overlap),
        "point_iou": overlap[:POINTS, 0].mean(),
        "box_iou": overlap[POINTS:, 0].mean(),
    }


def affinity_loss(embedding: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
    """Teaches the encoder directly that patches of one object are alike and others are not.

    `embedding` (C, g, g), `owners` (g, g) labels or 0. Cross-entropy of the cosine of every two
    patches within `_REACH`, as many parts "same" as "different". No head is needed or kept.
    """
    codes = F.normalize(embedding.float().flatten(1).T, dim=1)
    logits = 10 * (codes @ codes.T - 0.5)
    labels = owners.flatten()
    rows, columns = torch.meshgrid(*(torch.arange(n) for n in owners.shape), indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()], 1).float()
    known = (labels[:, None] > 0) & (labels[None] > 0) & (torch.cdist(places, places) <= _REACH)
    same = labels[:, None] == labels[None]
    alike = F.softplus(-logits)[known & same].mean()
    apart = F.softplus(logits)[known & ~same]
    return alike + (apart.mean() if len(apart) else 0.0)


_REACH = 6.0
"""Distance in patches beyond which two patches are not compared."""


def _attention(bounds: torch.Tensor, cells: int) -> torch.Tensor:
    """Weights (N, 1, h, w) that sum to 1: high around each object, low elsewhere."""
    scale = cells / SIDE
    centers = torch.arange(cells) + 0.5
    x0, y0, x1, y1 = (bounds * scale).unbind(1)
    spans = []
    for low, high in ((y0, y1), (x0, x1)):
        margin = 0.25 * (high - low) + 3
        spans.append((centers > (low - margin)[:, None]) & (centers < (high + margin)[:, None]))
    near = spans[0][:, :, None] & spans[1][:, None, :]
    weight = near + 0.06
    return (weight / weight.sum((1, 2), keepdim=True))[:, None]
