"""Where a view shows something of a named colour: rough square spots for the segmenter to refine.

Works on a reduced copy of the view by centre-surround contrast of a hue likelihood. It proposes;
it never decides what a spot is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from pipeline.scenes.tags import COLORS

WORK_PX = 448
"""Longest side of the reduced copy, at most."""
SMALLEST_PX = 4
"""Smallest spot looked for, in pixels of the reduced copy."""
LARGEST = 0.85
"""Largest spot, as a share of the reduced copy's shorter side."""
LEAST = 4.0
"""Least sum of likelihood, in pixels of the reduced copy, that is worth a search."""
CONTRAST = 0.16
"""Least difference between a spot's mean likelihood and its surround's."""

_RATIO = 1.4
_HUE_TOLERANCE = np.deg2rad(15.0)
_SURROUND = 1.7


@dataclass(frozen=True, slots=True)
class Spot:
    """A square that stands out, in pixels of the view."""

    color: str
    x: float
    y: float
    side: float
    contrast: float
    """Mean likelihood inside less that of the surround, in [0, 1]."""

    @property
    def weight(self) -> float:
        """What spots are ranked by: pointed shapes fill their square badly, so size counts too."""
        return float(self.contrast * self.side**0.75)

    def near(self, other: Spot) -> bool:
        """Whether both are about the same place at about the same size."""
        reach = 0.6 * max(self.side, other.side)
        return abs(self.x - other.x) < reach and abs(self.y - other.y) < reach


def likelihood(pixels: np.ndarray, color: str) -> np.ndarray:
    """How much each pixel (uint8 HWC) looks like a colour or a mix of it with grey: [0, 1] HW."""
    hue, chroma, value = _hue_chroma(pixels)
    return _match(hue, chroma, value, color)


def spots(pixels: np.ndarray, colors: tuple[str, ...], limit: int) -> list[Spot]:
    """At most `limit` spots for each colour, best first."""
    height, width = pixels.shape[:2]
    factor = math.ceil(max(height, width) / WORK_PX)
    small = np.asarray(Image.fromarray(pixels).reduce(factor))
    size = (small.shape[1], small.shape[0])
    scale = (width / size[0], height / size[1])
    hue, chroma, value = _hue_chroma(small)
    found = []
    for color in colors:
        match = _match(hue, chroma, value, color)
        if match.sum() < LEAST:
            continue
        sums = np.pad(match, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
        best = _pick([s for side in _sides(size) for s in _maxima(sums, side, color)], limit)
        found += [
            Spot(s.color, s.x * scale[0], s.y * scale[1], s.side * scale[0], s.contrast)
            for s in best
        ]
    return sorted(found, key=lambda s: (-s.weight, s.y, s.x))


def _hue_chroma(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hue angle in radians, chroma and value in [0, 1], each float32 HW."""
    red, green, blue = (np.ascontiguousarray(pixels[..., c]) / np.float32(255) for c in range(3))
    alpha = red - (green + blue) / 2
    beta = np.float32(3**0.5 / 2) * (green - blue)
    value = np.maximum(np.maximum(red, green), blue)
    return np.arctan2(beta, alpha), np.hypot(alpha, beta), value


@cache
def _reference(color: str) -> tuple[float, float, float]:
    hue, chroma, value = _hue_chroma(np.array([[COLORS[color]]], np.uint8))
    return float(hue[0, 0]), float(chroma[0, 0]), float(value[0, 0])


def _match(hue: np.ndarray, chroma: np.ndarray, value: np.ndarray, color: str) -> np.ndarray:
    """Hue close, chroma at least about half: mixing with ink or outline keeps the hue."""
    hue0, chroma0, value0 = _reference(color)
    turn = np.abs((hue - hue0 + np.pi) % (2 * np.pi) - np.pi)
    close = np.clip(1.6 - 1.6 * turn / _HUE_TOLERANCE, 0, 1)
    strong = np.clip((chroma / chroma0 - 0.35) / 0.3, 0, 1)
    bright = np.clip((value / value0 - 0.45) / 0.25, 0, 1)
    return close * strong * bright


def _sides(size: tuple[int, int]) -> list[int]:
    """Spot sides to try, geometric, in pixels of the reduced copy."""
    out, side = [], float(SMALLEST_PX)
    while side <= LARGEST * min(size):
        out.append(round(side))
        side *= _RATIO
    return sorted(set(out))


def _maxima(sums: np.ndarray, side: int, color: str) -> list[Spot]:
    """Local maxima of centre-surround contrast for one spot side, from an integral image."""
    ring = max(1, round(side * (_SURROUND - 1) / 2))
    stride = max(1, side // 6)
    rows = np.arange(0, max(sums.shape[0] - side, 1), stride)
    cols = np.arange(0, max(sums.shape[1] - side, 1), stride)
    inside = _sums(sums, rows, cols, side, 0)
    around = _sums(sums, rows, cols, side, ring) - inside
    contrast = inside / side**2 - around / ((side + 2 * ring) ** 2 - side**2)
    top = (contrast > CONTRAST) & (contrast >= _neighbour_max(contrast))
    half = side / 2
    return [
        Spot(color, float(cols[c]) + half, float(rows[r]) + half, side, float(contrast[r, c]))
        for r, c in zip(*np.nonzero(top), strict=True)
    ]


def _sums(sums: np.ndarray, rows: np.ndarray, cols: np.ndarray, side: int, ring: int) -> np.ndarray:
    """Sums over square boxes grown by `ring`; nothing matches outside the picture."""
    y0, y1 = np.clip([rows - ring, rows + side + ring], 0, sums.shape[0] - 1)
    x0, x1 = np.clip([cols - ring, cols + side + ring], 0, sums.shape[1] - 1)
    right, left = sums[:, x1], sums[:, x0]
    band = right[y1] - left[y1]
    return band - right[y0] + left[y0]


def _neighbour_max(values: np.ndarray) -> np.ndarray:
    padded = np.pad(values, 1, constant_values=-1.0)
    rows = np.maximum(np.maximum(padded[:-2], padded[1:-1]), padded[2:])
    return np.maximum(np.maximum(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])


def _pick(found: list[Spot], limit: int) -> list[Spot]:
    """The best of each place."""
    kept: list[Spot] = []
    for spot in sorted(found, key=lambda s: (-s.weight, s.y, s.x, s.side)):
        if len(kept) == limit:
            break
        if not any(spot.near(other) for other in kept):
            kept.append(spot)
    return kept
