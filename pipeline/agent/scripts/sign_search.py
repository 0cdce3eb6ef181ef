"""Where to look next for signs: at writing that is too small to read, or at a part of the picture.

Each look that could be taken is given a worth: how many signs it should make readable that are not,
and how many it should show that were not seen. Sizes of signs are as `scenes` draws them; where
they are is not known here but from views.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.agent.scripts.sign_board import SURE, Board, Plate, around
from pipeline.geometry import Box
from pipeline.views import ENLARGE, crop_region

TRIES = 2
"""Looks at one sign alone: as it was found, and with the box adjusted."""
READS_PX = (3.5, 8.0)
"""Heights of a line in a view at which none and every one can be read,"""
SEES_PX = (2.0, 5.5)
"""or is seen to be there."""
CAP_PX = 13.0
"""Height of small signs' capitals in the source: a sign is legible there."""
SEARCHED = 0.55
"""Scale from which on no sign is overlooked."""
HIDDEN = 2.0
"""Signs that a picture has beside those that are seen."""
ROOM = 1.8
"""How much wider than its writing a look may be, where that shows more."""
LEAST_WORTH = 0.02
"""Of a look at writing; a part that was not seen well enough is always worth one."""
NEAR = 0.2
"""How far from another a sign is likely to hang, as a share of the picture's diagonal."""
DOUBT = 0.15
"""Chance to be a sign's from which on writing is looked at before it is said that there is none."""
OVERLAP = 1.12
"""Of the parts of a search, so that no sign is cut in two."""
GRIDS = ((2, 1), (1, 2), (2, 2), (3, 2), (2, 3), (3, 3), (4, 4), (6, 5))
_GRID = 24


@dataclass(frozen=True, slots=True)
class Look:
    """A look that could be taken."""

    worth: float
    """Signs that it should make known."""
    box: Box
    """To be zoomed."""
    plates: tuple[Plate, ...] = ()
    """What it is at; none where it is a part of the picture."""


@dataclass(frozen=True, slots=True)
class Hunt:
    """A search for a sign that is not known yet."""

    board: Board
    likely: np.ndarray
    """Where it may be, float (rows, cols) over the whole picture, in [0, 1]."""

    @property
    def is_over(self) -> bool:
        """Whether no legible sign can have been overlooked where it may be."""
        seen = seen_at(self.board) >= SEARCHED
        return float(self.likely[~seen].sum()) <= 0.03 * float(self.likely.sum())


def hunt(board: Board, near: Plate | None = None, *, left: bool = False) -> Hunt:
    """The search for a sign anywhere, or near another, or to its left."""
    likely = np.ones((_GRID, _GRID))
    if near is not None:
        width, height = board.size
        x = (np.arange(_GRID) + 0.5)[None] * width / _GRID - near.box.centre[0]
        y = (np.arange(_GRID) + 0.5)[:, None] * height / _GRID - near.box.centre[1]
        likely = np.exp(-np.hypot(x, y) / (NEAR * math.hypot(width, height)))
        if left:
            likely = likely * ((x < 0) & (np.abs(y) < -x + height / _GRID))
    return Hunt(board, likely)


def best_look(search: Hunt) -> Look | None:
    """The look that is worth most; None where nothing is left to look at."""
    looks = [look for look in _at_plates(search) if look.worth > LEAST_WORTH]
    if not search.is_over:
        looks += _at_parts(search)
    return max(looks, key=lambda look: look.worth, default=None)


def together(search: Hunt, plates: Sequence[Plate]) -> Look:
    """The look at the first of some plates and at as many others as makes it worth most."""
    x, y = plates[0].box.centre
    board, chosen = search.board, [plates[0]]
    best = _look(search, chosen, plates)
    for plate in sorted(plates[1:], key=lambda p: math.dist(p.box.centre, (x, y))):
        chosen.append(plate)
        look = _look(search, chosen, plates)
        if look.worth > best.worth and _is_readable(board, plates[0], look.box):
            best = look
        else:
            chosen.pop()
    wide = best.box.enlarge(ROOM, board.size).rounded()
    roomy = Look(_worth(search, wide, plates), wide)
    return roomy if roomy.worth > 1.15 * best.worth else best


def _look(search: Hunt, chosen: Sequence[Plate], plates: Sequence[Plate]) -> Look:
    box = around([plate.box for plate in chosen])
    return Look(_worth(search, box, plates), box, tuple(chosen))


def _worth(search: Hunt, box: Box, plates: Sequence[Plate]) -> float:
    """Signs that a look at a box should make known."""
    board = search.board
    scale, region = board.best_scale(box), crop_region(box, board.size)
    known = sum(_gain(p, scale) for p in plates if region.contains(p.box))
    return known + _news(search, region, scale)


def _is_readable(board: Board, plate: Plate, box: Box) -> bool:
    """Whether a look at a box shows a plate in it about as well as a look at it alone does."""
    reached = _share(plate.tall * board.best_scale(box), READS_PX)
    return reached >= 0.6 * _share(plate.tall * board.best_scale(plate.box), READS_PX)


def open_plates(board: Board) -> list[Plate]:
    """Writing that may be a sign's and can still be looked at: pairs of lines first."""
    found = [p for p in board.plates if p.tries < TRIES and _gain(p, board.best_scale(p.box)) > 0]
    return sorted(found, key=lambda p: -_gain(p, board.best_scale(p.box)))


def doubtful(board: Board) -> list[Plate]:
    """Writing that could still be a sign's although it read like none, the likeliest first."""
    found = [
        p
        for p in board.plates
        if not p.is_sign and p.tries == 0 and p.chance >= DOUBT and board.can_be_finer(p)
    ]
    return sorted(found, key=lambda p: -p.chance)


def _gain(plate: Plate, scale: float) -> float:
    """How much likelier a sign is known after it was shown at a scale."""
    if plate.word.meant.belief >= SURE or (plate.is_settled and plate.lines == 1):
        return 0.0
    known = _share(plate.tall * plate.scale, READS_PX) if plate.is_read else 0.0
    return plate.chance * max(_share(plate.tall * scale, READS_PX) - known, 0.0)


def _at_plates(search: Hunt) -> Iterator[Look]:
    plates = open_plates(search.board)
    for first in plates:
        yield together(search, [first, *(p for p in plates if p is not first)])


def _at_parts(search: Hunt) -> Iterator[Look]:
    """Looks at parts of the picture, large ones to small ones, where signs may be unseen."""
    board, (width, height) = search.board, search.board.size
    scales, plates = seen_at(board), open_plates(board)
    for columns, rows in GRIDS:
        for place in range(columns * rows):
            x, y = place % columns * width / columns, place // columns * height / rows
            part = Box(x, y, x + width / columns, y + height / rows)
            box = part.enlarge(OVERLAP, board.size).enlarge(1 / ENLARGE, board.size).rounded()
            inside = _inside(board.size, crop_region(box, board.size)) & (search.likely > 0)
            if (scales[inside] < min(SEARCHED, 0.9 * board.best_scale(box))).any():
                yield Look(_worth(search, box, plates), box)


def _news(search: Hunt, region: Box, scale: float) -> float:
    """Signs that were not seen and should be seen in a region at a scale, half for each that is
    seen but not read."""
    inside = _inside(search.board.size, region)
    before, likely = seen_at(search.board)[inside], search.likely[inside]
    more = np.zeros_like(before)
    for span in (SEES_PX, READS_PX):
        more += np.maximum(_share(CAP_PX * scale, span) - _shares(CAP_PX * before, span), 0) / 2
    return HIDDEN * float((more * likely).sum()) / float(search.likely.sum() + 1e-9)


def seen_at(board: Board) -> np.ndarray:
    """The best scale at which each place was seen, float (rows, cols) over the whole picture."""
    scales = np.zeros((_GRID, _GRID))
    for view in board.views:
        inside = _inside(board.size, view.observation.region)
        scales[inside] = np.maximum(scales[inside], view.observation.magnification)
    return scales


def _inside(size: tuple[int, int], region: Box) -> np.ndarray:
    """The places whose middles lie in a region, bool (rows, cols)."""
    x, y = ((np.arange(_GRID) + 0.5) * side / _GRID for side in size)
    return np.outer((y >= region.y0) & (y < region.y1), (x >= region.x0) & (x < region.x1))


def _share(height_px: float, span: tuple[float, float]) -> float:
    return min(max((height_px - span[0]) / (span[1] - span[0]), 0.0), 1.0)


def _shares(heights_px: np.ndarray, span: tuple[float, float]) -> np.ndarray:
    return np.asarray(np.clip((heights_px - span[0]) / (span[1] - span[0]), 0, 1))
