"""One picture laid over another: how it must lie for places to fit, and whether they then agree.

Pure geometry and pixels of small pictures; upright pictures only, neither turned nor mirrored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.geometry import Size

BLOCK = 8
"""Pixels of both sides of the blocks that are compared."""
FEWEST_BLOCKS = 6
"""With structure; fewer prove nothing."""
_GRIDS = range(24, 65, BLOCK)
_PLAIN = 3.0
"""Standard deviation of a block, in grey levels, below which it shows nothing."""
_FARTHEST = 16.0
"""Largest ratio of the scales of two pictures of the same."""
_OFF = 2.0
"""Pixels, of the coarser of two levels, by which a place may be off."""
_BASELINE = 0.03
"""Least distance, in longer sides, of two places that a scale is taken from."""
_CLOSEST = 64


@dataclass(frozen=True, slots=True)
class Lay:
    """Where the upper left and lower right corners of one picture lie in another.

    In shares of the other's width and height; outside [0, 1] where it reaches over its edges.
    """

    x0: float
    y0: float
    x1: float
    y1: float


WHOLE = Lay(0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Move:
    """x' = scale_x x + x, y' = scale_y y + y, in units of the longer sides."""

    places: int
    """That fit it and lie apart from each other."""

    scale_x: float
    scale_y: float
    x: float
    y: float

    def to_shares(self, size: Size, other: Size) -> Lay:
        """Where a picture of (width, height) pixels lies in one of `other` pixels."""
        w, h = (edge / max(size) for edge in size)
        other_w, other_h = (edge / max(other) for edge in other)
        return Lay(
            self.x / other_w,
            self.y / other_h,
            (self.scale_x * w + self.x) / other_w,
            (self.scale_y * h + self.y) / other_h,
        )


def laid_by(ours: np.ndarray, theirs: np.ndarray, fewest: int) -> Move | None:
    """The move and scale that most pairs of places fit, or None where fewer than `fewest` do.

    `ours` and `theirs`: (N, 3), pairs by row: x, y in longer sides, log2 of a pixel's side. Every
    two pairs propose one. Places that lie on one another count as one.
    """
    ours, theirs = ours[:_CLOSEST], theirs[:_CLOSEST]
    scale, shift = _proposed(ours, theirs)
    if not len(scale):
        return None
    fit = np.abs(scale[:, None, None] * ours[:, :2] + shift[:, None] - theirs[:, :2]).max(-1)
    pixel = np.maximum(scale[:, None] * np.exp2(ours[:, 2]), np.exp2(theirs[:, 2]))
    fits = fit <= _OFF * pixel
    best = int(fits.sum(1).argmax())
    ours, theirs = ours[fits[best]], theirs[fits[best]]
    places = min(_apart(ours), _apart(theirs))
    if places < fewest:
        return None
    scale_x, x = _line(ours[:, 0], theirs[:, 0], float(scale[best]))
    scale_y, y = _line(ours[:, 1], theirs[:, 1], float(scale[best]))
    return Move(places, scale_x, scale_y, x, y)


def covered(lay: Lay) -> tuple[float, float]:
    """Shares of the laid picture and of the other one that the overlap covers."""
    width = min(lay.x1, 1.0) - max(lay.x0, 0.0)
    height = min(lay.y1, 1.0) - max(lay.y0, 0.0)
    area = max(width, 0.0) * max(height, 0.0)
    return area / max((lay.x1 - lay.x0) * (lay.y1 - lay.y0), 1e-9), area


def detail(ours: np.ndarray, theirs: np.ndarray, lay: Lay) -> float:
    """Pixels that the shorter edge of the overlap has in the thumb in which it has fewer."""
    own, other = _overlap(lay)
    return min(_edge(own, len(ours)), _edge(other, len(theirs)))


def agreement(ours: np.ndarray, theirs: np.ndarray, lay: Lay) -> float:
    """How far two thumbs (uint8 (T, T)) show the same where they overlap, in [0, 1].

    Mean correlation of the blocks in which either shows something, negative ones as 0, so that
    neither brightness nor something painted on a part decides. 0 where too few show anything.
    """
    own, other = _overlap(lay)
    pixels = detail(ours, theirs, lay)
    side = max((grid for grid in _GRIDS if grid <= pixels), default=0)
    if not side:
        return 0.0
    a, b = _blocks(_cut(ours, own, side)), _blocks(_cut(theirs, other, side))
    spread_a, spread_b = a.std(1), b.std(1)
    shown = np.maximum(spread_a, spread_b) > _PLAIN
    if shown.sum() < FEWEST_BLOCKS:
        return 0.0
    together = ((a - a.mean(1, keepdims=True)) * (b - b.mean(1, keepdims=True))).mean(1)
    alike = together / np.maximum(spread_a * spread_b, 1e-6)
    return float(np.clip(alike[shown], 0, 1).mean())


def _proposed(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scales (P,) and shifts (P, 2) of every two pairs that could be the same two places."""
    first, second = np.triu_indices(len(ours), 1)
    a, b = ours[second, :2] - ours[first, :2], theirs[second, :2] - theirs[first, :2]
    long_a, long_b = np.hypot(*a.T), np.hypot(*b.T)
    along = (a * b).sum(1)
    straight = along > 0.98 * long_a * long_b
    kept = straight & (np.minimum(long_a, long_b) > _BASELINE / 2)
    kept &= np.maximum(long_a, long_b) > _BASELINE
    first, second = first[kept], second[kept]
    scale = long_b[kept] / long_a[kept]
    told = np.exp2(theirs[first, 2] - ours[first, 2])
    sane = (np.abs(np.log2(scale / told)) < 1) & (np.abs(np.log2(scale)) < np.log2(_FARTHEST))
    scale, first, second = scale[sane], first[sane], second[sane]
    middle_a = (ours[first, :2] + ours[second, :2]) / 2
    middle_b = (theirs[first, :2] + theirs[second, :2]) / 2
    return scale, middle_b - scale[:, None] * middle_a


def _apart(places: np.ndarray) -> int:
    """How many of the places lie apart from each other."""
    return len(np.unique(np.floor(places[:, :2] / (_BASELINE / 2)), axis=0))


def _line(x: np.ndarray, y: np.ndarray, scale: float) -> tuple[float, float]:
    """Slope and offset of the straight line through the points, the slope near `scale`."""
    spread = x - x.mean()
    below = float((spread * spread).sum())
    slope = float((spread * y).sum()) / below if below > 0 else scale
    slope = float(np.clip(slope, scale / 1.1, scale * 1.1))
    return slope, float(y.mean() - slope * x.mean())


def _overlap(lay: Lay) -> tuple[Lay, Lay]:
    """The overlap in shares of the laid picture, and of the other one."""
    other = Lay(max(lay.x0, 0.0), max(lay.y0, 0.0), min(lay.x1, 1.0), min(lay.y1, 1.0))
    wide, high = lay.x1 - lay.x0, lay.y1 - lay.y0
    own = Lay(
        (other.x0 - lay.x0) / wide,
        (other.y0 - lay.y0) / high,
        (other.x1 - lay.x0) / wide,
        (other.y1 - lay.y0) / high,
    )
    return own, other


def _edge(part: Lay, thumb: int) -> float:
    """Pixels of a thumb along the shorter edge of a part."""
    return thumb * min(part.x1 - part.x0, part.y1 - part.y0)


def _cut(thumb: np.ndarray, part: Lay, side: int) -> np.ndarray:
    """A part of a thumb at `side` x `side` pixels, float32."""
    box = tuple(len(thumb) * float(np.clip(v, 0, 1)) for v in (part.x0, part.y0, part.x1, part.y1))
    image = Image.fromarray(thumb.astype(np.float32))
    return np.asarray(
        image.resize((side, side), Image.Resampling.BILINEAR, box=(box[0], box[1], box[2], box[3]))
    )


def _blocks(pixels: np.ndarray) -> np.ndarray:
    """Square pixels as blocks, (N, BLOCK²)."""
    count = len(pixels) // BLOCK
    cut = pixels.reshape(count, BLOCK, count, BLOCK)
    return cut.swapaxes(1, 2).reshape(count * count, BLOCK * BLOCK)
