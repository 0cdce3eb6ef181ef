"""Places in a picture that look the same at any size: where they are, and a code of each.

Extrema of a difference of Gaussians, each level a factor √2 smaller than the last, described by
histograms of gradients as in SIFT (Lowe 2004, §3–6), upright, one bit for each bin. Knows nothing
of what is compared with what.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image

SIDE = 640
"""Pixels of the longer side at which a picture is looked at; smaller ones are enlarged."""
SMALLEST = 40
"""The same of the last level."""
FINEST = 128
"""Places kept of the first level; of each next one fewer, as its area is smaller."""
FEWEST = 10
STEP = 2.0**0.5
BITS = 128

_SIGMA = 1.4
_FAINTEST = 0.6
"""Least difference of Gaussians, in grey levels of 255."""
_EDGE = 10.0
"""Largest ratio of a place's principal curvatures (Lowe 2004, §4.1)."""
_MARGIN = 8
_PATCH, _CELLS, _DIRECTIONS = 20, 4, 8
_APART = 2
"""Pixels between the points of a patch, which are smooth enough for it."""


def keypoints(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes uint64 (N, 2) and places float16 (N, 3) of an 8-bit picture (HW), strongest first.

    A place is x and y in units of the longer side, and log2 of the side of its level's pixel in
    the same unit. Any first part of the list has places of all levels.
    """
    base = Image.fromarray(np.asarray(grey, dtype=np.float32))
    longer = max(base.size)
    codes, places, ranks = [], [], []
    side, most = float(SIDE), float(FINEST)
    while side >= SMALLEST:
        size = [max(1, round(edge * side / longer)) for edge in base.size]
        if min(size) >= 2 * _MARGIN + 3:
            level = np.asarray(base.resize((size[0], size[1]), Image.Resampling.BICUBIC))
            smooth, xs, ys = _extrema(level, int(most))
            codes.append(_codes(_histograms(smooth, xs, ys)))
            scale = np.full(len(xs), -np.log2(max(size)))
            places.append(np.stack([*((c + 0.5) / max(size) for c in (xs, ys)), scale], axis=-1))
            ranks.append((np.arange(len(xs)) + 0.5) / most)
        side, most = side / STEP, max(most / STEP, FEWEST)
    if not codes:
        return np.zeros((0, 2), np.uint64), np.zeros((0, 3), np.float16)
    order = np.argsort(np.concatenate(ranks), kind="stable")
    return np.concatenate(codes)[order], np.concatenate(places)[order].astype(np.float16)


def _extrema(level: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The smoothed level, and x and y of at most so many extrema, the strongest first."""
    smooth = _blurred(level)
    change = _blurred(smooth) - smooth
    strength = np.abs(change)
    tallest = np.maximum(np.maximum(strength[:-2], strength[1:-1]), strength[2:])
    tallest = np.maximum(np.maximum(tallest[:, :-2], tallest[:, 1:-1]), tallest[:, 2:])
    inner = slice(_MARGIN, -_MARGIN)
    here = strength[inner, inner]
    tallest = tallest[_MARGIN - 1 : 1 - _MARGIN, _MARGIN - 1 : 1 - _MARGIN]
    ys, xs = (at + _MARGIN for at in np.nonzero((here == tallest) & (here > _FAINTEST)))
    corner = _is_no_edge(change, xs, ys)
    xs, ys = xs[corner], ys[corner]
    first = np.argsort(-strength[ys, xs], kind="stable")[:most]
    return smooth, xs[first], ys[first]


def _is_no_edge(change: np.ndarray, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """Whether each place is fixed in both directions (Lowe 2004, §4.1)."""
    here = 2 * change[ys, xs]
    along_x = change[ys, xs + 1] + change[ys, xs - 1] - here
    along_y = change[ys + 1, xs] + change[ys - 1, xs] - here
    falling = change[ys + 1, xs + 1] + change[ys - 1, xs - 1]
    rising = change[ys - 1, xs + 1] + change[ys + 1, xs - 1]
    trace, determinant = along_x + along_y, along_x * along_y - ((falling - rising) / 4) ** 2
    bound = (_EDGE + 1) ** 2 / _EDGE
    answer: np.ndarray = (determinant > 0) & (trace * trace < bound * determinant)
    return answer


def _histograms(smooth: np.ndarray, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """Gradients by direction and cell around each place, float32 (N, 8, 16)."""
    span = _PATCH * _APART
    padded = np.pad(smooth, span // 2 + 1, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (span + 2, span + 2))
    patches = windows[ys, xs, ::_APART, ::_APART]
    across = (patches[:, :-1, 1:] - patches[:, :-1, :-1]).reshape(len(xs), _PATCH**2)
    down = (patches[:, 1:, :-1] - patches[:, :-1, :-1]).reshape(len(xs), _PATCH**2)
    found = np.empty((len(xs), _DIRECTIONS, _CELLS**2), np.float32)
    for number in range(_DIRECTIONS):
        angle = 2 * np.pi * number / _DIRECTIONS
        part = across * np.float32(np.cos(angle)) + down * np.float32(np.sin(angle))
        found[:, number] = np.maximum(part, 0) @ _cell_weights()
    return found


def _codes(histograms: np.ndarray) -> np.ndarray:
    """One bit for each bin: whether it is above the median of its place; uint64 (N, 2)."""
    bins = histograms.reshape(len(histograms), BITS)
    above = bins > np.median(bins, axis=1, keepdims=True)
    return np.packbits(above, axis=1).view(np.uint64)


@cache
def _cell_weights() -> np.ndarray:
    """How much each pixel of a patch counts for each cell, float32 (576, 16)."""
    at = np.arange(_PATCH) - (_PATCH - 1) / 2
    cell = _PATCH / _CELLS
    centres = (np.arange(_CELLS) - (_CELLS - 1) / 2) * cell
    near = np.clip(1 - np.abs(at[:, None] - centres) / cell, 0, None)
    near *= np.exp(-(at**2) / (2 * (_PATCH / 2) ** 2))[:, None]
    return np.einsum("yi,xj->yxij", near, near).reshape(_PATCH**2, _CELLS**2).astype(np.float32)


def _blurred(values: np.ndarray) -> np.ndarray:
    """Convolved with a Gaussian, edges repeated."""
    for axis in (0, 1):
        values = _along(values, axis)
    return values


def _along(values: np.ndarray, axis: int) -> np.ndarray:
    """Convolved along one axis."""
    taps = _taps()
    reach, count = len(taps) // 2, values.shape[axis]
    widths = [(reach, reach) if a == axis else (0, 0) for a in (0, 1)]
    padded = np.pad(values, widths, mode="edge")

    def moved(by: int) -> np.ndarray:
        return padded[by : by + count] if axis == 0 else padded[:, by : by + count]

    summed = taps[reach] * moved(reach)
    for near in range(reach):
        summed += taps[near] * (moved(near) + moved(2 * reach - near))
    return summed


@cache
def _taps() -> np.ndarray:
    """A Gaussian's weights to three standard deviations."""
    reach = int(np.ceil(3 * _SIGMA))
    at = np.arange(-reach, reach + 1)
    weights = np.exp(-(at**2) / (2 * _SIGMA**2))
    return (weights / weights.sum()).astype(np.float32)
