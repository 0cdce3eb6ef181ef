"""Masks whose edges follow the picture's: the fast guided filter on low-resolution mask maps.

Within a small window the mask is taken to be linear in the picture's colour; the line is fitted
between map and picture at the map's resolution and applied to the picture's own pixels.

Guided filter: He, Sun and Tang, IEEE TPAMI 35(6), 2013, equations 5 and 6 with a colour guide
(equations 19 and 20); fitting on a coarse grid: He and Sun 2015, arXiv 1505.00996.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

EPSILON = 3e-4
"""How far colours must differ to carry an edge: a variance, of colours in [0, 1]."""


def fitted(
    masks: torch.Tensor, guide: torch.Tensor, radius: int, epsilon: float = EPSILON
) -> torch.Tensor:
    """The line from colour to mask in the window about each cell: (N, 4, h, w).

    `masks` (N, h, w) in [0, 1] · `guide` (3, h, w), colours in [0, 1] · `radius` of the square
    window, cells. Three slopes, then the offset.
    """
    inverse = _inverse(_covariance(guide, radius, epsilon))
    colors, shares = _mean(guide[None], radius), _mean(masks[:, None], radius)
    joint = _mean(guide[None] * masks[:, None], radius) - colors * shares
    slopes = (inverse[None] * joint[:, None]).sum(2)
    offsets = shares - (slopes * colors).sum(1, keepdim=True)
    return _mean(torch.cat([slopes, offsets], 1), radius)


def applied(lines: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
    """The mask (H, W), near [0, 1], of lines (4, H, W) on a picture (3, H, W) in [0, 1]."""
    return torch.addcmul(lines[3], lines[0], picture[0]).add_((lines[1:3] * picture[1:]).sum(0))


def _covariance(guide: torch.Tensor, radius: int, epsilon: float) -> torch.Tensor:
    """Of the colours in each window, made regular: (3, 3, h, w)."""
    mean = _mean(guide[None], radius)[0]
    products = _mean((guide[:, None] * guide[None]).flatten(0, 1)[None], radius)[0]
    covariance = products.unflatten(0, (3, 3)) - mean[:, None] * mean[None]
    return covariance + epsilon * torch.eye(3)[:, :, None, None]


def _inverse(matrices: torch.Tensor) -> torch.Tensor:
    """Inverses of symmetric matrices (3, 3, h, w), by cofactors."""
    first, second, third = matrices
    cofactors = torch.stack(
        [
            torch.linalg.cross(second, third, dim=0),
            torch.linalg.cross(third, first, dim=0),
            torch.linalg.cross(first, second, dim=0),
        ]
    )
    return cofactors / (first * cofactors[0]).sum(0)


def _mean(planes: torch.Tensor, radius: int) -> torch.Tensor:
    """Mean over the part of the square window that is inside: (B, C, h, w)."""
    size, reach = 2 * radius + 1, radius
    rows = F.avg_pool2d(planes, (size, 1), 1, (reach, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, size), 1, (0, reach), count_include_pad=False)
