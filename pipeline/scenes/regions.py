"""Arithmetic on the pixels of one region: its box, its most interior pixel, its pieces."""

from __future__ import annotations

import numpy as np

from pipeline.geometry import Box


def mask_box(mask: np.ndarray) -> Box:
    """The tight box of a bool HW mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def interior_point(mask: np.ndarray) -> tuple[int, int]:
    """The pixel (x, y) of a bool HW mask that is farthest from the mask's outside."""
    stride = max(1, max(mask.shape) // 64)
    core = np.pad(mask[stride // 2 :: stride, stride // 2 :: stride], 1)
    if not core.any():
        stride, core = 1, np.pad(mask, 1)
    inner, straight = core, True
    while inner.any():
        core, inner = inner, _eroded(inner, diagonal=straight)
        straight = not straight
    ys, xs = np.nonzero(core)
    nearest = np.argmin((xs - xs.mean()) ** 2 + (ys - ys.mean()) ** 2)
    offset = stride // 2 if stride > 1 else 0
    return int(xs[nearest] - 1) * stride + offset, int(ys[nearest] - 1) * stride + offset


def _eroded(mask: np.ndarray, *, diagonal: bool) -> np.ndarray:
    """One step of erosion; steps with and without diagonals in turn make the norm an octagon."""
    kept = np.zeros_like(mask)
    middle = mask[1:-1, 1:-1]
    kept[1:-1, 1:-1] = middle & mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    if diagonal:
        corners = mask[:-2, :-2] & mask[:-2, 2:] & mask[2:, :-2] & mask[2:, 2:]
        kept[1:-1, 1:-1] &= corners
    return kept


def largest_share(mask: np.ndarray) -> float:
    """The largest 4-connected piece's share of the mask, judged on at most 24 × 24 pixels."""
    small = mask[:: max(1, -(-mask.shape[0] // 24)), :: max(1, -(-mask.shape[1] // 24))]
    area: list[int] = []
    parent: list[int] = []

    def root(piece: int) -> int:
        while parent[piece] != piece:
            parent[piece] = parent[parent[piece]]
            piece = parent[piece]
        return piece

    above: list[tuple[int, int, int]] = []
    for row in np.pad(small.astype(np.int8), ((0, 0), (1, 1))):
        edges = np.flatnonzero(np.diff(row)).tolist()
        runs = []
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            piece = len(parent)
            parent.append(piece)
            area.append(stop - start)
            runs.append((start, stop, piece))
            for other_start, other_stop, other in above:
                if other_start < stop and start < other_stop:
                    parent[root(other)] = root(piece)
        above = runs
    shares: dict[int, int] = {}
    for piece, pixels in enumerate(area):
        shares[root(piece)] = shares.get(root(piece), 0) + pixels
    return max(shares.values()) / sum(shares.values()) if shares else 0.0
