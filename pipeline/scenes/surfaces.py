"""Places of a picture where a plate could hang: smooth, upright ground inside one region.

Nothing here knows what a thing is. What is known of sky, water, floor and living things are rules
of thumb on a grid of at most 400 cells: sky is smooth, pale or blue and comes down from the upper
edge with no corner in it; water and lawns have their colours; a floor comes up from the lower
edge; nothing hangs at the very top; and where there are no long straight edges near by nobody hangs
a plate. When in doubt a place is left out; a bed or a table may still be taken for a wall.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.geometry import Size
from pipeline.scenes.lines import Lines, gradients, straight_lines
from pipeline.scenes.planes import Plane, plane_at

GRID = 400
"""Cells of the picture's longer side, at most."""
MOST_ROUGH = 5.5
"""Mean gradient of a smooth place, levels a cell."""
EDGE = 12.0
"""Gradient of an edge, levels a cell."""
MOST_EDGES = 0.03
"""Share of a smooth place's cells that may be edges."""
MARGIN = (1.14, 1.18)
"""A place is this many times as wide and high as its plate."""
CEILING = 0.13
"""Share of a photo's height, from its upper edge, where ceilings and skies are and no plates."""
LEAST_LINES = 12
"""Cells on long straight edges near a place where plates hang."""
LEAST_BUILT = 0.011
"""Share of a photo's cells that lie on long straight edges where there is anything built."""
BLOWN = 249.0
"""A cell as bright as this shows no surface."""
ALIKE = 34.0
"""Levels by which grounds of about the same colour may differ."""
_LINE_EDGE = 6.0
_NEAR = 3.0
_PLANES = 6
"""Places looked at for one whose edges tell how it lies."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a plate's middle can be, in source pixels, and how the surface lies there."""

    x: float
    y: float
    plane: Plane
    region: int
    """The mask it is in; -1 where it is in none."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What is known of a picture before anything is put on it; arrays are (rows, cols) of cells."""

    size: Size
    scale: float
    """Cells for each source pixel."""
    rough: np.ndarray
    """Gradient, levels a cell."""
    regions: np.ndarray
    """Number of the mask, -1 for none, int16."""
    shut: np.ndarray
    """Cells where no plate hangs: sky, water, floor, edges of regions."""
    lines: Lines
    colors: np.ndarray
    """Mean colour, levels, float32 (rows, cols, 3)."""
    drawn: bool
    """Whether no camera took it: what is flat may carry a plate, whatever it looks like."""


def survey(image: Image.Image, masks: Sequence[np.ndarray], *, drawn: bool = False) -> Survey:
    """The survey of a picture; `masks` are bool HW of all of it at any scale, small ones on top."""
    scale = min(1.0, GRID / max(image.size))
    cells = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    small = image.convert("RGB").resize(cells, Image.Resampling.BOX)
    colors = np.asarray(small, np.float32)
    luma = colors @ np.array([0.299, 0.587, 0.114], np.float32)
    rough = np.hypot(*gradients(luma))
    lines = straight_lines(luma, _LINE_EDGE)
    regions = _regions(masks, cells)
    shut = _borders(regions, rough)
    if not drawn:
        shut |= _sky(colors, luma, rough, lines) | _coloured(colors, luma) | _floor(rough)
        if (lines.level | lines.upright).mean() < LEAST_BUILT:
            shut = np.ones(rough.shape, bool)
    return Survey(image.size, scale, rough, regions, shut, lines, colors, drawn)


def find_place(
    known: Survey,
    wanted: Size,
    taken: Sequence[tuple[float, float, float, float]],
    rng: np.random.Generator,
    *,
    like: np.ndarray | None = None,
) -> Place | None:
    """A place for a plate of (width, height) source pixels apart from the `taken` XYXY boxes.

    A place in a mask, near straight edges and smoother than others, is likelier. With `like`
    (levels, (3,)) the ground has about that colour. None where the picture has no room.
    """
    window = tuple(max(5, round(s * known.scale * m)) for s, m in zip(wanted, MARGIN, strict=True))
    score = _scores(known, (window[0], window[1]), taken, like)
    rows, cols = np.nonzero(np.isfinite(score))
    if not len(rows):
        return None
    some = rng.choice(len(rows), min(64, len(rows)), replace=False)
    luck = score[rows[some], cols[some]] + rng.gumbel(0, 0.35, len(some))
    level: Place | None = None
    for best in some[np.argsort(-luck)][:_PLANES]:
        x, y = int(cols[best]) + window[0] / 2, int(rows[best]) + window[1] / 2
        plane = plane_at(known.lines, x, y, max(window), known.scale)
        if plane is None:
            continue
        region = int(known.regions[int(y), int(x)])
        place = Place(x / known.scale, y / known.scale, plane, region)
        if plane.known:
            return place
        level = level or place
    return level


def _scores(
    known: Survey,
    window: Size,
    taken: Sequence[tuple[float, float, float, float]],
    like: np.ndarray | None,
) -> np.ndarray:
    """How good each place is by its upper left cell; -inf where none is possible."""
    width, height = window
    rows, cols = known.rough.shape
    if width >= 0.9 * cols or height >= 0.9 * rows:
        return np.full((1, 1), -np.inf)
    shut = known.shut.copy()
    if like is not None:
        shut |= np.abs(known.colors - like.astype(np.float32)).max(-1) > ALIKE
    for x0, y0, x1, y1 in (np.array(box) * known.scale for box in taken):
        shut[max(0, int(y0)) : int(y1) + 2, max(0, int(x0)) : int(x1) + 2] = True
    edge = max(2, round(0.015 * cols))
    top = edge if known.drawn else round(CEILING * rows)
    shut[:top] = shut[-edge:] = True
    shut[:, :edge] = shut[:, -edge:] = True
    area = width * height
    rough = _sums(known.rough, window) / area
    edges = _sums(known.rough > EDGE, window) / area
    near = _near(known.lines.level | known.lines.upright, window)
    upright = _near(known.lines.upright, window)
    open_ = (_sums(shut, window) == 0) & (rough < MOST_ROUGH) & (edges <= MOST_EDGES)
    open_ &= (near >= LEAST_LINES) | known.drawn
    inside = known.regions[height // 2 :, width // 2 :][: rough.shape[0], : rough.shape[1]] >= 0
    middle = (np.arange(rough.shape[0]) + height / 2) / rows
    score = 0.4 * inside - 0.5 * rough / MOST_ROUGH + 0.4 * np.minimum(near / 80, 1)
    score = score + 0.6 * np.minimum(upright / 24, 1)
    other = _near(known.lines.other, window)
    score = score - (0.0 if known.drawn else 1.4) * other / (other + 2 * near + 20)
    score = score - 0.8 * _crowded(known, window, taken, rough.shape)
    score = score - 2.0 * (np.clip(0.2 - middle, 0, 1) + np.clip(middle - 0.7, 0, 1))[:, None]
    return np.where(open_, score, -np.inf)


def _crowded(
    known: Survey,
    window: Size,
    taken: Sequence[tuple[float, float, float, float]],
    shape: tuple[int, ...],
) -> np.ndarray:
    """How close each place is to a plate that hangs already, from 0 to 1."""
    reach = 0.22 * min(known.rough.shape)
    y = np.arange(shape[0])[:, None] + window[1] / 2
    x = np.arange(shape[1])[None] + window[0] / 2
    most = np.zeros((shape[0], shape[1]))
    for x0, y0, x1, y1 in (np.array(box) * known.scale for box in taken):
        away = np.hypot(x - (x0 + x1) / 2, y - (y0 + y1) / 2)
        most = np.maximum(most, np.exp(-away / reach))
    return most


def _near(found: np.ndarray, window: Size) -> np.ndarray:
    """How many of the cells are around each place, by its upper left cell."""
    reach = round(max(12, _NEAR * max(window)))
    wide = _sums(np.pad(found, reach), (window[0] + 2 * reach, window[1] + 2 * reach))
    return wide[: found.shape[0] - window[1] + 1, : found.shape[1] - window[0] + 1]


def _sums(values: np.ndarray, window: Size) -> np.ndarray:
    """Sums over each window of (width, height) cells, by its upper left cell."""
    total = np.pad(values.astype(np.float64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    w, h = window
    return total[h:, w:] - total[:-h, w:] - total[h:, :-w] + total[:-h, :-w]


def _regions(masks: Sequence[np.ndarray], cells: Size) -> np.ndarray:
    """The number of the smallest mask over each cell, -1 for none."""
    regions = np.full((cells[1], cells[0]), -1, np.int16)
    areas = [int(mask.sum()) for mask in masks]
    for number in sorted(range(len(masks)), key=lambda n: -areas[n]):
        mask = masks[number]
        rows = (np.arange(cells[1]) + 0.5) * mask.shape[0] / cells[1]
        cols = (np.arange(cells[0]) + 0.5) * mask.shape[1] / cells[0]
        regions[mask[rows.astype(int)][:, cols.astype(int)]] = number
    return regions


def _borders(regions: np.ndarray, rough: np.ndarray) -> np.ndarray:
    """Cells whose right or lower neighbour is of another region, where the picture shows it.

    A coarse mask ends somewhere in the middle of a wall: that is no edge of anything.
    """
    border = np.zeros(regions.shape, bool)
    border[:, :-1] |= regions[:, :-1] != regions[:, 1:]
    border[:-1] |= regions[:-1] != regions[1:]
    return border & _grown(rough > 0.4 * EDGE, 1)


def _sky(colors: np.ndarray, luma: np.ndarray, rough: np.ndarray, lines: Lines) -> np.ndarray:
    """Smooth blue or pale cells that come down from the upper edge.

    A pale area with an upright edge in it is a room's wall with its corners, not sky.
    """
    red, blue = colors[..., 0], colors[..., 2]
    smooth = rough < EDGE
    clear = smooth & (blue >= red + 12) & (luma > 70)
    pale = smooth & (luma > 80) & (colors.max(-1) - colors.min(-1) < 45) & (blue >= red - 14)
    overcast = _reached(clear | pale)
    upper = max(1, overcast.shape[0] // 2)
    corners = (lines.upright & _grown(overcast, 2))[:upper].sum()
    return _reached(clear & (blue >= red + 40)) if corners > 0.06 * upper else overcast


def _coloured(colors: np.ndarray, luma: np.ndarray) -> np.ndarray:
    """Bright cells with the colour of water, cells with that of leaves, and blown-out ones."""
    red, green, blue = np.moveaxis(colors, -1, 0)
    most = np.maximum(colors.max(-1), 1)
    water = (np.minimum(green, blue) > red + 0.25 * most) & (luma > 95)
    leaves = (green > red + 10) & (green > blue + 14) & (luma > 40)
    return water | leaves | (luma > BLOWN)


def _floor(rough: np.ndarray) -> np.ndarray:
    """Cells that can be reached from the lower edge without crossing an edge, where they are many
    along it."""
    reached = _reached((rough < EDGE)[::-1])[::-1]
    lowest = reached[-max(1, rough.shape[0] // 40) :].any(0)
    if lowest.mean() < 0.45:
        return np.zeros(rough.shape, bool)
    reached = reached.copy()
    reached[: round(0.5 * rough.shape[0])] = False
    return reached


def _reached(like: np.ndarray) -> np.ndarray:
    """Cells of `like` that hang together with its first row, going down and sideways."""
    found = np.zeros(like.shape, bool)
    above = np.ones(like.shape[1], bool)
    for row, cells in enumerate(like):
        starts = np.flatnonzero(np.diff(cells.astype(np.int8), prepend=0, append=0))
        for start, stop in zip(starts[::2], starts[1::2], strict=True):
            found[row, start:stop] = above[start:stop].any()
        above = found[row]
    return found


def _grown(mask: np.ndarray, by: int) -> np.ndarray:
    """The mask with everything within `by` cells on each axis."""
    wide = _sums(np.pad(mask, by), (2 * by + 1, 2 * by + 1))
    return wide > 0
