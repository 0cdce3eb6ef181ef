"""Finding tags in a view: colour proposes, the segmenter outlines, the outline's form decides.

A candidate's box is the segmenter's; without a mask that agrees with the colour there is none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageFilter

from pipeline.agent.color_cue import Spot, likelihood, spots
from pipeline.scenes.tags import SHAPES, draw_mask
from pipeline.views import ViewBox

WINDOW = 4.0
"""Side of the window around a spot that the segmenter sees, in spot sides."""
WINDOW_PX = 256
"""Side at which the segmenter is shown the window."""
SMALLEST_WINDOW_PX = 24
PURE = 0.3
"""Likelihood from which on a pixel counts as the tag's fill."""
OUTLINE = 0.038
"""Width of a tag's dark outline, as a share of its fill's side."""
AGREEMENT = 0.5
"""Least agreement of a mask with the colour, as an F-measure."""
SPOTS = 4
"""Spots of one named colour that are outlined at most."""
SPOTS_ANY = 3
"""The same for each colour when none is named."""
FAINT = 0.2
"""Spots with less than this share of the weight of their colour's best are left out."""

_GRID = 32


class Embedded(Protocol):
    """A picture as a segmenter holds it: `scale` encoder pixels per pixel, `side` of its square."""

    @property
    def scale(self) -> float: ...

    @property
    def side(self) -> int: ...


class Predicted(Protocol):
    """Masks (N, k, h, w) over the encoder's square, above 0 inside, and their IoU estimates."""

    @property
    def logits(self) -> np.ndarray: ...

    @property
    def ious(self) -> np.ndarray: ...


class Segmenter(Protocol):
    """Outlines what is at a point or in a box of a picture: `models.sam.Segmenter` does."""

    def embed(self, image: np.ndarray) -> Any:
        """An `Embedded` picture, from uint8 HWC."""

    def predict(
        self, embedding: Any, *, points: Any = None, boxes: Any = None, multimask: bool = False
    ) -> Predicted:
        """Masks for points (N, 2) or boxes (N, 4), pixel coordinates."""


@dataclass(frozen=True, slots=True, eq=False)
class Outlines:
    """Masks of a picture on a coarse grid."""

    logits: np.ndarray
    """float32 (M, h, w); above 0 is inside. The last cells may reach beyond the picture."""
    ious: np.ndarray
    """The segmenter's estimates, (M,)."""
    cell_px: float
    """Side of a grid cell in pixels of the picture."""


def outlines(segmenter: Segmenter, image: np.ndarray, box: ViewBox) -> Outlines:
    """The segmenter's masks for a box of a picture."""
    embedding: Embedded = segmenter.embed(image)
    answer = segmenter.predict(embedding, boxes=[box])
    logits = answer.logits[0]
    cell_px = embedding.side / logits.shape[-1] / embedding.scale
    rows = min(math.ceil(image.shape[0] / cell_px), logits.shape[1])
    cols = min(math.ceil(image.shape[1] / cell_px), logits.shape[2])
    return Outlines(logits[:, :rows, :cols], answer.ious[0], cell_px)


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something in a view that may be a tag."""

    box: ViewBox
    color: str
    shapes: tuple[float, ...]
    """Belief in each of `SHAPES`, summing to 1."""
    agreement: float
    """Of mask and colour, in [0, 1]."""

    @property
    def side(self) -> float:
        """Shorter side, in pixels of the view."""
        return min(self.box[2] - self.box[0], self.box[3] - self.box[1])

    def belief(self, shape: str | None) -> float:
        """How likely this is the tag asked for, in [0, 1]."""
        return self.agreement * (1.0 if shape is None else self.shapes[SHAPES.index(shape)])

    @property
    def shape(self) -> str:
        return SHAPES[int(np.argmax(self.shapes))]


def find_tags(pixels: np.ndarray, colors: tuple[str, ...], segmenter: Segmenter) -> list[Candidate]:
    """Candidates of the given colours in a view (uint8 HWC), best agreement first."""
    found = spots(pixels, colors, SPOTS if len(colors) == 1 else SPOTS_ANY)
    best = {
        color: max((s.weight for s in found if s.color == color), default=0) for color in colors
    }
    bright = [spot for spot in found if spot.weight > FAINT * best[spot.color]]
    outlined = [_outlined(pixels, spot, segmenter) for spot in bright]
    candidates = [c for c in outlined if c is not None]
    candidates.sort(key=lambda c: (-c.agreement, c.box))
    kept: list[Candidate] = []
    for candidate in candidates:
        if not any(_overlap(candidate.box, other.box) > 0.4 for other in kept):
            kept.append(candidate)
    return kept


def _outlined(pixels: np.ndarray, spot: Spot, segmenter: Segmenter) -> Candidate | None:
    """The spot with the mask that agrees best with its colour, if any does.

    The mask says what belongs together; its edge is then drawn to the colour's own edge, as the
    masks of a small segmenter are rounder than what they cover.
    """
    window, corner, scale = _window(pixels, spot)
    half = spot.side * scale / 2
    middle = WINDOW_PX / 2
    around = (middle - half, middle - half, middle + half, middle + half)
    found = outlines(segmenter, window, around)
    match = likelihood(window, spot.color)
    best, agreement = _best_mask(found, match, 2 * half, (middle, middle))
    if agreement < AGREEMENT:
        return None
    form = (match > PURE) & _near(found.logits[best], found.cell_px, reach_px=0.2 * half)
    edges = _edges(form)
    if edges is None:
        return None
    x0, y0, x1, y1 = _with_outline(edges)
    box = (
        corner[0] + x0 / scale,
        corner[1] + y0 / scale,
        corner[0] + x1 / scale,
        corner[1] + y1 / scale,
    )
    return Candidate(box, spot.color, _shape_beliefs(form, edges, (x1 - x0) / scale), agreement)


def _window(pixels: np.ndarray, spot: Spot) -> tuple[np.ndarray, tuple[float, float], float]:
    """A square about the spot at `WINDOW_PX`, its corner in the view, and its magnification.

    What lies beyond the view repeats its edge, so that a spot always fills the same share.
    """
    side = max(WINDOW * spot.side, SMALLEST_WINDOW_PX)
    x0, y0 = round(spot.x - side / 2), round(spot.y - side / 2)
    x1, y1 = x0 + round(side), y0 + round(side)
    height, width = pixels.shape[:2]
    cut = pixels[max(y0, 0) : max(y1, 1), max(x0, 0) : max(x1, 1)]
    beyond = [(max(-y0, 0), max(y1 - height, 0)), (max(-x0, 0), max(x1 - width, 0)), (0, 0)]
    if any(map(any, beyond)):
        cut = np.pad(cut, beyond, mode="edge")
    size = (WINDOW_PX, WINDOW_PX)
    square = Image.fromarray(np.ascontiguousarray(cut)).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(square), (float(x0), float(y0)), WINDOW_PX / round(side)


def _near(logits: np.ndarray, cell_px: float, reach_px: float) -> np.ndarray:
    """The mask (h, w) at the window's resolution, grown by `reach_px`: bool HW."""
    plane = Image.fromarray((logits > 0).astype(np.uint8) * 255)
    size = (round(logits.shape[1] * cell_px), round(logits.shape[0] * cell_px))
    grown = plane.resize(size, Image.Resampling.BILINEAR).filter(ImageFilter.BoxBlur(reach_px))
    return np.asarray(grown)[:WINDOW_PX, :WINDOW_PX] > 4


def _edges(form: np.ndarray) -> ViewBox | None:
    """XYXY of a form (bool HW) without stray pixels; None when there is next to nothing."""
    rows, columns = form.sum(axis=1), form.sum(axis=0)
    least = max(2.0, 0.05 * float(rows.max(initial=0)))
    ys, xs = np.flatnonzero(rows >= least), np.flatnonzero(columns >= least)
    if len(xs) < 3 or len(ys) < 3:
        return None
    return float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1)


def _with_outline(edges: ViewBox) -> ViewBox:
    """The tag's box from that of its fill: the dark outline belongs to it."""
    x0, y0, x1, y1 = edges
    dx, dy = (x1 - x0) * OUTLINE, (y1 - y0) * OUTLINE
    return x0 - dx, y0 - dy, x1 + dx, y1 + dy


def _best_mask(
    found: Outlines, match: np.ndarray, side: float, centre: tuple[float, float]
) -> tuple[int, float]:
    """Index and F-measure of the mask that covers the spot's colour best and little else.

    `match`: likelihood of the colour, float HW · `side`, `centre`: of the spot, pixels of `match`.
    """
    height, width = found.logits.shape[1:]
    cell = found.cell_px
    plane = Image.fromarray(match.astype(np.float32))
    like = np.asarray(plane.resize((width, height), Image.Resampling.BOX))
    inside = found.logits > 0
    reach = 0.9 * side
    near_y = np.abs((np.arange(height) + 0.5) * cell - centre[1]) < reach
    near_x = np.abs((np.arange(width) + 0.5) * cell - centre[0]) < reach
    near = like * (near_y[:, None] & near_x[None])
    precision = (like * inside).sum(axis=(1, 2)) / np.maximum(inside.sum(axis=(1, 2)), 1)
    recall = (near * inside).sum(axis=(1, 2)) / max(float(near.sum()), 1e-6)
    measure = 2 * precision * recall / np.maximum(precision + recall, 1e-6)
    best = int(np.argmax(measure))
    return best, float(measure[best])


def logit_box(logits: np.ndarray) -> ViewBox:
    """XYXY of a mask in cells of its map (h, w), edges placed where the logit crosses 0."""
    x0, x1 = _span(logits.max(axis=0))
    y0, y1 = _span(logits.max(axis=1))
    return x0, y0, x1, y1


def _span(profile: np.ndarray) -> tuple[float, float]:
    """First and last zero crossing of a profile; cell i spans [i, i + 1]."""
    inside = np.flatnonzero(profile > 0)
    first, last = int(inside[0]), int(inside[-1])
    low = 0.0 if first == 0 else first + 0.5 - _fraction(profile[first], profile[first - 1])
    high = float(len(profile))
    if last < len(profile) - 1:
        high = last + 0.5 + _fraction(profile[last], profile[last + 1])
    return low, high


def _fraction(inner: float, outer: float) -> float:
    return float(inner / max(inner - outer, 1e-6))


def _shape_beliefs(form: np.ndarray, edges: ViewBox, side_px: float) -> tuple[float, ...]:
    """Belief in each shape from a form (bool HW); nearly even where the view has few pixels of it.

    The part where the letters may stand is left out: ink has another colour than the tag.
    """
    plane = Image.fromarray(form.astype(np.float32))
    grid = np.asarray(plane.resize((_GRID, _GRID), Image.Resampling.BILINEAR, box=edges)) > 0.5
    seen = ~_letters()
    overlaps = np.array([(grid & t & seen).sum() / ((grid | t) & seen).sum() for t in _templates()])
    sharpness = float(np.clip(side_px - 4, 1, 24))
    weights = np.exp(sharpness * (overlaps - overlaps.max()))
    return tuple((weights / weights.sum()).tolist())


@lru_cache(maxsize=1)
def _templates() -> tuple[np.ndarray, ...]:
    return tuple(draw_mask(shape, _GRID) for shape in SHAPES)


@lru_cache(maxsize=1)
def _letters() -> np.ndarray:
    """Where letters may stand on a tag of some shape: bool (grid, grid)."""
    part = np.zeros((_GRID, _GRID), bool)
    part[int(0.38 * _GRID) : int(0.88 * _GRID), int(0.2 * _GRID) : int(0.8 * _GRID)] = True
    return part


def _overlap(a: ViewBox, b: ViewBox) -> float:
    """Shared area over the smaller box's, in [0, 1]."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return max(width, 0.0) * max(height, 0.0) / max(smaller, 1e-6)
