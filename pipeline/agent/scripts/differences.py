"""Where two pictures of the same thing differ, though their pixels do not quite fall together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from pipeline.scenes.likeness import correlation

LEAST = 14.0
"""Levels by which a pixel lies outside what the other picture has near it, to count."""
LEAST_PX = 10
"""Pixels that a difference has, at least."""

_LIGHT = np.array([0.299, 0.587, 0.114], np.float32)
_CELL = 2
_MOST = 12
"""Pieces that are looked into."""
_AROUND = 5


@dataclass(frozen=True, slots=True)
class Spot:
    """One place where they differ."""

    x: float
    """Middle, in pixels."""
    y: float
    box: tuple[int, int, int, int]
    """XYXY pixels."""
    weight: float
    """Sum of the differences, in levels × pixels."""
    light: float
    """Mean difference of brightness, in levels."""
    color: float
    """Mean difference of colour, in levels."""
    light_kept: float
    """Correlation of the brightness around it in both pictures, in [-1, 1]."""
    bias: float
    """In [-1, 1]: above 0 where the second picture has the stronger outline there."""


def spots(first: np.ndarray, second: np.ndarray) -> list[Spot]:
    """The places where two pictures (float32 HWC, one size) differ, the heaviest first."""
    if min(first.shape[:2]) < 4 * _CELL:
        return []
    away = np.maximum(_outside(first, second), _outside(second, first)).max(2)
    away = np.where(away >= LEAST, away, 0)
    found = [_spot(first, second, away, ys, xs) for ys, xs in _pieces(away)]
    return sorted(found, key=lambda spot: -spot.weight)


def _outside(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How far each value of `one` lies outside the range of `other` around it: HWC."""
    low, high = (
        np.stack(
            [
                np.asarray(Image.fromarray(plane).filter(kind), np.float32)
                for plane in np.moveaxis(np.rint(other).astype(np.uint8), 2, 0)
            ],
            2,
        )
        for kind in (ImageFilter.MinFilter(3), ImageFilter.MaxFilter(3))
    )
    return np.maximum(np.maximum(one - high, low - one), 0)


def _spot(
    first: np.ndarray, second: np.ndarray, away: np.ndarray, ys: np.ndarray, xs: np.ndarray
) -> Spot:
    """The piece whose pixels lie at these rows and columns."""
    step = second[ys, xs] - first[ys, xs]
    light = step @ _LIGHT
    weights = away[ys, xs]
    edges = _outlines(first, second, ys, xs)
    rows = slice(max(int(ys.min()) - _AROUND, 0), int(ys.max()) + _AROUND)
    cols = slice(max(int(xs.min()) - _AROUND, 0), int(xs.max()) + _AROUND)
    return Spot(
        x=float(np.average(xs, weights=weights)) + 0.5,
        y=float(np.average(ys, weights=weights)) + 0.5,
        box=(int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1),
        weight=float(weights.sum()),
        light=float(np.abs(light).mean()),
        color=float(np.abs(step - light[:, None]).mean()),
        light_kept=correlation(
            (first[rows, cols] @ _LIGHT)[..., None], (second[rows, cols] @ _LIGHT)[..., None]
        ),
        bias=(edges[1] - edges[0]) / max(sum(edges), 1e-3),
    )


def _outlines(
    first: np.ndarray, second: np.ndarray, ys: np.ndarray, xs: np.ndarray
) -> tuple[float, float]:
    """Mean strength of edges along the border of a piece, in both pictures."""
    top, left = max(int(ys.min()) - _AROUND, 0), max(int(xs.min()) - _AROUND, 0)
    part = np.zeros((int(ys.max()) + _AROUND - top, int(xs.max()) + _AROUND - left), bool)
    window = (slice(top, top + part.shape[0]), slice(left, left + part.shape[1]))
    part = part[: first.shape[0] - top, : first.shape[1] - left]
    part[ys - top, xs - left] = True
    plane = Image.fromarray(part.astype(np.uint8) * 255)
    closed = plane.filter(ImageFilter.MaxFilter(5)).filter(ImageFilter.MinFilter(5))
    outer = np.asarray(closed.filter(ImageFilter.MaxFilter(5))) > 0
    inner = np.asarray(closed.filter(ImageFilter.MinFilter(5))) > 0
    border = outer & ~inner
    strengths = (np.hypot(*np.gradient(one[window] @ _LIGHT)) for one in (first, second))
    one, other = (float(strength[border].mean()) for strength in strengths)
    return one, other


def _pieces(away: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rows, columns) of the pixels of the heaviest connected pieces.

    Pieces hang together in cells of `_CELL` pixels, so that small gaps do not part them.
    """
    rows, cols = (-(-side // _CELL) for side in away.shape)
    padded = np.pad(away, ((0, rows * _CELL - away.shape[0]), (0, cols * _CELL - away.shape[1])))
    names = _named(padded.reshape(rows, _CELL, cols, _CELL).max((1, 3)) > 0)
    ys, xs = np.nonzero(away)
    of = names[ys // _CELL, xs // _CELL]
    weights = np.bincount(of, weights=away[ys, xs], minlength=2)
    sizes = np.bincount(of, minlength=2)
    for name in np.argsort(-weights)[:_MOST].tolist():
        if sizes[name] >= LEAST_PX:
            yield ys[of == name], xs[of == name]


def _named(cells: np.ndarray) -> np.ndarray:
    """A number from 1 for each connected piece of bool cells, corners included; else 0."""
    names = np.zeros(cells.shape, np.int32)
    rows, cols = cells.shape
    count = 0
    for start in zip(*(place.tolist() for place in np.nonzero(cells)), strict=True):
        if names[start]:
            continue
        count += 1
        names[start] = count
        waiting = [start]
        while waiting:
            y, x = waiting.pop()
            for v in range(max(y - 1, 0), min(y + 2, rows)):
                for u in range(max(x - 1, 0), min(x + 2, cols)):
                    if cells[v, u] and not names[v, u]:
                        names[v, u] = count
                        waiting.append((v, u))
    return names
