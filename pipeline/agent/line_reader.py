"""Second reader `line`: reads the short code on a tag as one line of print, whole.

It separates ink from fill by colour, gathers pieces of ink into a line, brings the line to a fixed
grid and takes the nearest of all codes drawn the same way, by squared distance and by the ratio of
width to height. It shares no step with the agent's own reader, so that the two err apart; it knows
the alphabet, not the answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from pipeline.scenes.needles import CODE_LENGTH
from pipeline.scenes.tags import ALPHABET, TEXT_HEIGHT

ViewBox = tuple[float, float, float, float]
"""XYXY in pixels of a crop."""

SIDE = 160
"""Pixels a side that every tag is brought to."""
REACH = 0.3
"""How far beyond the box asked for the tag may reach, as a fraction of the box's side."""
GRID = (12, 36)
"""(rows, cols) that a line is brought to."""
CONDENSED = (0.62, 1.15)
"""Least and most width of a line, as a fraction of its width uncondensed."""
NEAR = 0.105
"""Largest cost of a clear reading; right ones were seen to cost up to 0.09."""
LEAD = 1.08
"""How many times the cost of a clear reading that of any other code is, at least."""
SMALLEST_PX = 20
"""A box with a shorter side is not read: from there on, patterns pass for letters."""
FILLS = 3
"""Colours of the middle that are tried as the tag's own, the commonest first."""
INKED = {1: (0.5, 0.7), 2: (0.5, 0.35), 3: (0.35, 0.45), 4: (0.25, 0.35)}
"""By softness, px: least ink of a piece, tried in turn. Soft strokes never reach full ink; with a
higher least, dark letters come off the outline that they touch."""
BLUR_PX = 0.45
"""Softness of a view, in its own pixels, as a standard deviation."""

_CAP = SIDE * TEXT_HEIGHT
_HEIGHTS = (0.55 * _CAP, 1.9 * _CAP)
_RATIOS = (1.3, 4.6)
_RATIO_WEIGHT = 5.0
_UNEVEN = 0.25
_MARGIN = 9
_STROKE = 0.03
_OFF_LINE = 70.0
_MIDDLE_ROWS, _MIDDLE_COLS = (0.3, 0.8), (0.25, 0.75)
_BIN = 24
_BINS = 255 // _BIN + 1
_LUMA = np.array([0.299, 0.587, 0.114])
_DARK_INK_ABOVE = 120.0

Piece = tuple[int, int, int, int]
"""XYXY of connected ink, canonical pixels, right and bottom exclusive."""


def read_line(crop: np.ndarray, tag_box: ViewBox) -> str:
    """The code on the tag near `tag_box` of a crop (uint8 HWC); "" when that is unclear."""
    if min(_inside(tag_box, crop.shape)) < SMALLEST_PX:
        return ""
    pixels, box = _canonical(crop, tag_box)
    soft = _soft(tag_box)
    for fill in _fills(pixels, box):
        ink = _ink(pixels, fill)
        for least in INKED[soft]:
            lines = _lines(_pieces(ink > least))
            match = _best_match(ink, lines, _forms(soft, least)) if lines else None
            if match is not None and match.clear:
                return match.code
    return ""


def _soft(box: ViewBox) -> int:
    """How soft letters are at the scale of `SIDE`, px: the fewer pixels a tag has, the softer."""
    side = ((box[2] - box[0]) * (box[3] - box[1])) ** 0.5
    return round(min(max(BLUR_PX * SIDE / side, min(INKED)), max(INKED)))


def _inside(box: ViewBox, shape: tuple[int, ...]) -> tuple[float, float]:
    """Width and height of the box's part inside a crop of shape (height, width, …)."""
    x0, y0, x1, y1 = box
    return min(x1, shape[1]) - max(x0, 0), min(y1, shape[0]) - max(y0, 0)


@dataclass(frozen=True, slots=True)
class _Match:
    code: str
    cost: float
    """Squared difference as a share of the form's own ink squared, and what a wrong ratio adds."""
    rival: float
    """The next best code's cost."""

    @property
    def clear(self) -> bool:
        return self.cost <= NEAR and self.rival >= LEAD * self.cost


@dataclass(frozen=True, slots=True, eq=False)
class _Forms:
    """Every code's line on the grid."""

    codes: tuple[str, ...]
    ink: np.ndarray
    """float32 (codes, rows × cols), in [0, 1]."""
    energy: np.ndarray
    """Sum of squares of each, (codes,)."""
    ratios: np.ndarray
    """Width over height of each, uncondensed, (codes,)."""


def _canonical(crop: np.ndarray, box: ViewBox) -> tuple[np.ndarray, ViewBox]:
    """What surrounds the box, float32 HWC, and the box in it, at the scale of a tag of `SIDE`."""
    height, width = crop.shape[:2]
    side = ((box[2] - box[0]) * (box[3] - box[1])) ** 0.5
    grow, scale = REACH * side, SIDE / side
    x0, y0 = max(box[0] - grow, 0.0), max(box[1] - grow, 0.0)
    x1, y1 = min(box[2] + grow, width), min(box[3] + grow, height)
    size = (max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale)))
    part = Image.fromarray(crop).resize(size, Image.Resampling.BICUBIC, box=(x0, y0, x1, y1))
    left, top, right, bottom = (v - o for v, o in zip(box, (x0, y0, x0, y0), strict=True))
    inside = (left * scale, top * scale, right * scale, bottom * scale)
    return np.asarray(part, np.float32), inside


def _fills(pixels: np.ndarray, box: ViewBox) -> Iterator[np.ndarray]:
    """The commonest colours of the box's middle, float32 RGB: one should be the tag's fill."""
    x0, y0, x1, y1 = box
    rows = [max(int(y0 + part * (y1 - y0)), 0) for part in _MIDDLE_ROWS]
    cols = [max(int(x0 + part * (x1 - x0)), 0) for part in _MIDDLE_COLS]
    middle = pixels[slice(*rows), slice(*cols)].reshape(-1, 3)
    kind = (middle // _BIN).astype(np.int64) @ np.array([_BINS**2, _BINS, 1])
    counts = np.bincount(kind)
    for common in np.argsort(-counts, kind="stable")[:FILLS]:
        if counts[common]:
            yield np.median(middle[kind == common], axis=0)


def _ink(pixels: np.ndarray, fill: np.ndarray) -> np.ndarray:
    """How far each pixel is on the way from the fill to the ink: float32 HW in [0, 1]."""
    dark = float(fill @ _LUMA) > _DARK_INK_ABOVE
    way = np.full(3, 0.0 if dark else 255.0, np.float32) - fill
    share = (pixels - fill) @ way / (way @ way)
    off = np.linalg.norm(pixels - fill - share[..., None] * way, axis=-1)
    return np.where(off < _OFF_LINE, np.clip(share, 0, 1), 0).astype(np.float32)


def _pieces(mask: np.ndarray) -> list[Piece]:
    """Boxes of the 4-connected pieces of a mask (bool HW)."""
    parent: list[int] = []
    boxes: list[list[int]] = []

    def root(piece: int) -> int:
        while parent[piece] != piece:
            parent[piece] = parent[parent[piece]]
            piece = parent[piece]
        return piece

    above: list[tuple[int, int, int]] = []
    for y, row in enumerate(np.pad(mask.astype(np.int8), ((0, 0), (1, 1)))):
        edges = np.flatnonzero(np.diff(row)).tolist()
        runs = []
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            piece = len(parent)
            parent.append(piece)
            boxes.append([start, y, stop, y + 1])
            for other_start, other_stop, other in above:
                if other_start < stop and start < other_stop:
                    parent[root(piece)] = root(other)
            runs.append((start, stop, piece))
        above = runs
    whole: dict[int, Piece] = {}
    for piece, box in enumerate(boxes):
        seen = whole.get(root(piece), (box[0], box[1], box[2], box[3]))
        whole[root(piece)] = _union(seen, (box[0], box[1], box[2], box[3]))
    return list(whole.values())


def _union(a: Piece, b: Piece) -> Piece:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _lines(pieces: list[Piece]) -> list[Piece]:
    """Boxes of neighbouring pieces as high as a letter and side by side: what may be the code."""
    letters = sorted(p for p in pieces if _HEIGHTS[0] <= p[3] - p[1] <= _HEIGHTS[1])
    found: set[Piece] = set()
    for place, first in enumerate(letters):
        line = first
        for piece in letters[place:]:
            if not _level(piece, first):
                continue
            if piece[0] - line[2] > _CAP:
                break
            line = _union(line, piece)
            if _RATIOS[0] <= (line[2] - line[0]) / (line[3] - line[1]) <= _RATIOS[1]:
                found.add(line)
    return sorted(found)


def _level(a: Piece, b: Piece) -> bool:
    """Whether two letters stand on one line."""
    return abs(a[1] - b[1]) < _UNEVEN * _CAP and abs(a[3] - b[3]) < _UNEVEN * _CAP


def _best_match(ink: np.ndarray, lines: list[Piece], forms: _Forms) -> _Match:
    """The code that is nearest to any of the lines, of which there is at least one."""
    seen = np.stack([_gridded(ink, line) for line in lines], axis=1)
    distance = forms.energy[:, None] - 2 * (forms.ink @ seen) + (seen * seen).sum(axis=0)
    ratios = np.array([(x1 - x0) / (y1 - y0) for x0, y0, x1, y1 in lines], np.float32)
    condensed = ratios / forms.ratios[:, None]
    beyond = np.log(condensed / np.clip(condensed, *CONDENSED))
    cost = distance / forms.energy[:, None] + _RATIO_WEIGHT * beyond**2
    best = cost[:, int(cost.min(axis=0).argmin())]
    first, second = np.argsort(best)[:2]
    return _Match(forms.codes[first], float(best[first]), float(best[second]))


def _gridded(ink: np.ndarray, line: Piece) -> np.ndarray:
    """A line on the grid, flat float32 in [0, 1]."""
    rows, cols = GRID
    image = Image.fromarray(ink[line[1] : line[3], line[0] : line[2]])
    return np.asarray(image.resize((cols, rows), Image.Resampling.BOX)).reshape(-1)


@lru_cache(maxsize=12)
def _forms(soft: int, least: float) -> _Forms:
    """All codes there are, each set from its letters' pictures; some tenths of a second, once."""
    font = ImageFont.load_default(_CAP / 0.7)
    assert isinstance(font, ImageFont.FreeTypeFont)
    drawn = {char: _drawn(char, font, soft) for char in ALPHABET}
    advances = {char: font.getlength(char) for char in ALPHABET}
    codes = tuple("".join(letters) for letters in product(ALPHABET, repeat=CODE_LENGTH))
    lines, ratios = [], []
    for code in codes:
        ink = _set(code, drawn, advances)
        line = _bounds(ink, least)
        lines.append(_gridded(ink, line))
        ratios.append((line[2] - line[0]) / (line[3] - line[1]))
    ink = np.stack(lines)
    return _Forms(codes, ink, (ink * ink).sum(axis=1), np.array(ratios, np.float32))


def _drawn(char: str, font: ImageFont.FreeTypeFont, soft: int) -> np.ndarray:
    """A letter's ink, a little soft as in a crop, `_MARGIN` px around it: float32 HW in [0, 1]."""
    size = (round(font.getlength(char)) + 2 * _MARGIN, round(1.5 * _CAP) + _MARGIN)
    cell = Image.new("L", size)
    stroke = _STROKE * font.size
    ImageDraw.Draw(cell).text((_MARGIN, 0), char, fill=255, font=font, stroke_width=stroke)
    return np.asarray(cell.filter(ImageFilter.GaussianBlur(soft)), np.float32) / 255


def _set(code: str, drawn: dict[str, np.ndarray], advances: dict[str, float]) -> np.ndarray:
    """Letters side by side at their advances: float32 HW in [0, 1]."""
    starts = [round(sum(advances[char] for char in code[:place])) for place in range(len(code))]
    height, last = drawn[code[-1]].shape
    ink = np.zeros((height, starts[-1] + last), np.float32)
    for start, char in zip(starts, code, strict=True):
        part = ink[:, start : start + drawn[char].shape[1]]
        np.maximum(part, drawn[char], out=part)
    return ink


def _bounds(ink: np.ndarray, least: float) -> Piece:
    """Box of the ink above `least`."""
    xs = np.flatnonzero(ink.max(axis=0) > least)
    ys = np.flatnonzero(ink.max(axis=1) > least)
    return int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1
