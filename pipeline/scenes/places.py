"""Choosing square places of a photograph that cannot be taken for one another.

A place is worth asking about when it has detail and nothing else in the photograph looks nearly
like it. Everything is judged on a copy in which a place is `CELLS` pixels wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.geometry import Box, Size, view_size
from pipeline.scenes.likeness import correlations, detail, shifted_correlation, small

CELLS = 16
"""Width of a place where places are compared, pixels."""
DETAIL = 12.0
"""Least standard deviation of a place's grey values."""
ALONE = 0.8
"""Nothing else in the photograph correlates this well with a place that is asked about."""
UNLIKE = 0.5
"""Places that stand beside each other as close-ups correlate less than this."""
DIFFERENCE = 14.0
"""Least mean difference of two such places, in levels of 0..255."""
SEEN_PX = (8.0, 40.0)
"""Range of a place's side in the view of the budget that its size is drawn for."""
MAGNIFIED = (2, 8)
"""Least and most that a close-up enlarges its place."""

_TRIES = 320
_ANCHORS = 10


@dataclass(frozen=True, slots=True)
class Field:
    """A photograph reduced until a place of `side` source pixels is `CELLS` pixels wide."""

    pixels: np.ndarray
    """float32 HWC."""
    size: Size
    """(width, height) of the photograph."""
    side: int
    margin: int
    """Least distance of a place from the photograph's edges, source pixels."""

    def box(self, corner: tuple[int, int]) -> Box:
        """The source box of the place at a corner (x, y) of the reduced copy."""
        x = round(corner[0] * self.size[0] / self.pixels.shape[1])
        y = round(corner[1] * self.size[1] / self.pixels.shape[0])
        return Box(x, y, x + self.side, y + self.side)

    def patch(self, corner: tuple[int, int]) -> np.ndarray:
        x, y = corner
        return self.pixels[y : y + CELLS, x : x + CELLS]

    def inside(self, box: Box) -> bool:
        edge = self.margin
        room = Box(edge, edge, self.size[0] - edge, self.size[1] - edge)
        return room.contains(box)

    def alone(self, corner: tuple[int, int]) -> bool:
        """Whether nothing else in the photograph looks nearly like the place."""
        found = correlations(self.pixels, self.patch(corner))
        x, y = corner
        near = CELLS // 2
        found[max(y - near, 0) : y + near + 1, max(x - near, 0) : x + near + 1] = -1
        return bool(found.max() < ALONE)


def field_of(image: Image.Image, side: int, margin: int) -> Field:
    """The reduced copy of an RGB photograph for places of this side."""
    scale = CELLS / side
    size = (max(CELLS, round(image.width * scale)), max(CELLS, round(image.height * scale)))
    return Field(small(np.asarray(image), size), image.size, side, margin)


def draw_side(panel: int, composed: Size, rng: np.random.Generator, budgets: Sequence[int]) -> int:
    """A place's side for a close-up of `panel` pixels, in source pixels."""
    budget = int(rng.choice(list(budgets)))
    scale = min(view_size(composed, budget)[0] / composed[0], 1.0)
    least, most = panel // MAGNIFIED[1], panel // MAGNIFIED[0]
    return int(np.clip(rng.uniform(*SEEN_PX) / scale, least, most))


def alike_places(
    field: Field, rng: np.random.Generator, asked: int, count: int
) -> list[Box] | None:
    """`count` places that are similar in colour and texture and yet plainly different.

    The first `asked` of them look like nothing else in the photograph. None where there are none.
    """
    corners = _corners(field, rng)
    for anchor in corners[:_ANCHORS]:
        if not field.alone(anchor):
            continue
        chosen = [anchor]
        for corner in sorted(corners, key=lambda c: _distance(field, anchor, c)):
            if len(chosen) == count:
                break
            if _apart(field, corner, chosen) and _unlike(field, corner, chosen):
                if len(chosen) < asked and not field.alone(corner):
                    continue
                chosen.append(corner)
        if len(chosen) == count:
            return [field.box(corner) for corner in chosen]
    return None


def lone_place(field: Field, rng: np.random.Generator, taken: Sequence[Box]) -> Box | None:
    """A place that looks like nothing else in the photograph, apart from those taken."""
    tries = 0
    for corner in _corners(field, rng):
        box = field.box(corner)
        if any(box.intersection(other) for other in taken):
            continue
        if field.alone(corner):
            return box
        tries += 1
        if tries == _ANCHORS:
            return None
    return None


def any_place(field: Field, rng: np.random.Generator, taken: Sequence[Box]) -> Box | None:
    """A place with detail apart from those taken."""
    boxes = (field.box(corner) for corner in _corners(field, rng))
    return next((b for b in boxes if not any(b.intersection(o) for o in taken)), None)


def _corners(field: Field, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Random places with detail, by corner, in random order."""
    rows, cols = field.pixels.shape[0] - CELLS, field.pixels.shape[1] - CELLS
    if min(rows, cols) < 1:
        return []
    drawn = zip(
        rng.integers(0, cols + 1, _TRIES).tolist(),
        rng.integers(0, rows + 1, _TRIES).tolist(),
        strict=True,
    )
    return [
        corner
        for corner in drawn
        if field.inside(field.box(corner)) and detail(field.patch(corner)) >= DETAIL
    ]


def _distance(field: Field, one: tuple[int, int], other: tuple[int, int]) -> float:
    """How different two places are in colour and texture, wherever things lie in them."""
    a, b = field.patch(one), field.patch(other)
    means = np.abs(a.mean((0, 1)) - b.mean((0, 1))).sum()
    return float(means + np.abs(a.std((0, 1)) - b.std((0, 1))).sum())


def _apart(field: Field, corner: tuple[int, int], chosen: Sequence[tuple[int, int]]) -> bool:
    """Whether a place keeps clear of the others and of frames around them."""
    box, gap = field.box(corner), 2 * field.margin
    grown = Box(box.x0 - gap, box.y0 - gap, box.x1 + gap, box.y1 + gap)
    return not any(grown.intersection(field.box(other)) for other in chosen)


def _unlike(field: Field, corner: tuple[int, int], chosen: Sequence[tuple[int, int]]) -> bool:
    patch = field.patch(corner)
    others = [field.patch(other) for other in chosen]
    return all(
        float(np.abs(patch - other).mean()) >= DIFFERENCE
        and shifted_correlation(patch, other) < UNLIKE
        for other in others
    )
