"""Reader `pocket`: reads what a box of a view holds, line by line, with the pocket networks.

The finder says where the lines are, the reader reads each one by itself from a few cuts of it. It
sees the view's pixels and nothing else, and knows no alphabet of codes and no answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from pipeline.agent.glyph_reader import Reading
from pipeline.agent.writing import FindsLines
from pipeline.views import ViewBox

AROUND = 0.6
"""How far about the box lines are looked for, as a share of the box's sides."""
LEAST_AROUND_PX = 12
MARGINS = (0.2, 0.45)
"""Ground left above and below a line's ink, as shares of its height: a cut for each."""
ASIDE = 0.35
"""Ground left at a line's ends, as a share of its height."""
INSIDE = 0.5
"""Share of a line that must lie in the box."""


class LineText(Protocol):
    """What the reading network says of one line."""

    @property
    def text(self) -> str: ...
    @property
    def confidence(self) -> float: ...


class ReadsLines(Protocol):
    def read(self, lines: Sequence[np.ndarray]) -> Sequence[LineText]: ...


@dataclass(frozen=True, slots=True)
class PocketReader:
    """The two networks at work on views."""

    reader: ReadsLines
    finder: FindsLines
    clear_from: float
    """Confidence from which on a line is clear: the reader's own limit."""

    def read(self, view: np.ndarray, box: ViewBox) -> Reading:
        """What stands in a box (XYXY, view pixels) of a view (uint8 HWC), its lines joined.

        It is clear when every line is.
        """
        lines = self.read_lines(view, box)
        if not lines:
            return Reading("", 0.0)
        guess = " ".join(line.guess for line in lines if line.guess)
        least = min(line.confidence for line in lines)
        return Reading(guess if all(line.clear for line in lines) else "", least, guess)

    def read_lines(self, view: np.ndarray, box: ViewBox) -> list[Reading]:
        """One reading for each line of text in a box, from the upper one to the lower one."""
        found = self.lines_in(view, box)
        cuts = [cut_line(view, spot, slope, m) for spot, slope in found for m in MARGINS]
        said = self.reader.read(cuts)
        size = len(MARGINS)
        cuts_of = (said[start : start + size] for start in range(0, len(said), size))
        return [_agreed(some, self.clear_from) for some in cuts_of]

    def lines_in(self, view: np.ndarray, box: ViewBox) -> list[tuple[ViewBox, float]]:
        """(box in the view, slope) of each line in a box; the box itself where none is found."""
        x0, y0, x1, y1 = _around(box, view.shape)
        found = []
        for line in self.finder.find(view[y0:y1, x0:x1]):
            spot = (line.box[0] + x0, line.box[1] + y0, line.box[2] + x0, line.box[3] + y0)
            if _share_inside(spot, box) >= INSIDE:
                found.append((spot, line.slope))
        found.sort(key=lambda spot: spot[0][1] + spot[0][3])
        return found or [(_clipped(box, view.shape), 0.0)]


def build_reader() -> PocketReader:
    """The shipped networks; `ModelError` where one is missing."""
    from pipeline.models import pocket_finder, pocket_reader

    return PocketReader(pocket_reader.load(), pocket_finder.load(), pocket_reader.CLEAR)


def cut_line(view: np.ndarray, box: ViewBox, slope: float, margin: float) -> np.ndarray:
    """The level crop of a line (uint8 HWC) at the view's own scale.

    `box` bounds the line's ink, which falls by `slope` (dy/dx); `margin` is the ground to leave
    above and below, as a share of the ink's height.
    """
    x0, y0, x1, y1 = box
    tall = max((y1 - y0) - abs(slope) * (x1 - x0), 0.4 * (y1 - y0), 2.0)
    middle = (y0 + y1) / 2
    top, bottom = middle - tall * (0.5 + margin), middle + tall * (0.5 + margin)
    left, right = x0 - ASIDE * tall, x1 + ASIDE * tall
    size = (max(2, round(right - left)), max(2, round(bottom - top)))
    fall = top - slope * ((x0 + x1) / 2 - left)
    numbers = ((right - left) / size[0], 0.0, left, slope, (bottom - top) / size[1], fall)
    height, width = view.shape[:2]
    room = 2 + int(max(-left, -top, right - width, bottom - height, 0) + abs(slope) * size[0])
    edged = Image.fromarray(np.pad(view, ((room, room), (room, room), (0, 0)), mode="edge"))
    a, b, c, d, e, f = numbers
    numbers = (a, b, c + room, d, e, f + room)
    way = Image.Resampling.BICUBIC
    return np.asarray(edged.transform(size, Image.Transform.AFFINE, numbers, way))


def _agreed(said: Sequence[LineText], clear_from: float) -> Reading:
    """One reading from several cuts of a line: a text counts with what all cuts give it."""
    sums: dict[str, float] = {}
    for one in said:
        key = one.text.casefold()
        sums[key] = sums.get(key, 0.0) + (one.confidence if one.text else 0.0)
    best = max(sums, key=lambda text: sums[text])
    confidence = sums[best] / len(said)
    guess = max((o for o in said if o.text.casefold() == best), key=lambda o: o.confidence).text
    return Reading(guess if guess and confidence >= clear_from else "", confidence, guess)


def _around(box: ViewBox, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Whole pixels about a box, inside the view."""
    height, width = shape[:2]
    wide = max(AROUND * (box[2] - box[0]), LEAST_AROUND_PX)
    high = max(AROUND * (box[3] - box[1]), LEAST_AROUND_PX)
    x0, y0 = max(int(box[0] - wide), 0), max(int(box[1] - high), 0)
    x1, y1 = min(int(box[2] + wide) + 1, width), min(int(box[3] + high) + 1, height)
    return min(x0, width - 1), min(y0, height - 1), max(x1, x0 + 1), max(y1, y0 + 1)


def _clipped(box: ViewBox, shape: tuple[int, ...]) -> ViewBox:
    height, width = shape[:2]
    return max(box[0], 0.0), max(box[1], 0.0), min(box[2], width), min(box[3], height)


def _share_inside(spot: ViewBox, box: ViewBox) -> float:
    """How much of a line's box lies in another box, in [0, 1]."""
    wide = min(spot[2], box[2]) - max(spot[0], box[0])
    high = min(spot[3], box[3]) - max(spot[1], box[1])
    area = (spot[2] - spot[0]) * (spot[3] - spot[1])
    return max(wide, 0.0) * max(high, 0.0) / area if area > 0 else 0.0
