"""Stand-ins for the networks that find and read writing: exact, and blind below a size.

They are given pixels, as the networks are. Where a view is in the picture they tell from the
ground, a ramp of red from left to right and of green from above to below; the signs they know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.agent.glyph_reader import Reading
from pipeline.agent.writing import Line
from pipeline.geometry import Box, Size
from pipeline.views import ViewBox

SEEN_PX, READ_PX = 2.5, 6.0
"""Heights of a line in a view from which on it is found, and read."""


@dataclass(frozen=True, slots=True)
class Known:
    """A sign of a word above a code, its lines `cap_px` high, and their upper left corner."""

    word: str
    code: str
    corner: tuple[int, int]
    cap_px: int = 12
    legible: bool = True

    @property
    def lines(self) -> tuple[tuple[str, Box], tuple[str, Box]]:
        """What stands where, source pixels."""
        (x, y), tall = self.corner, self.cap_px
        wide, below = 3 * tall, y + round(1.5 * tall)
        code = self.code if self.legible else ""
        upper, lower = Box(x, y, x + wide, y + tall), Box(x, below, x + wide, below + tall)
        return (self.word, upper), (code, lower)

    @property
    def box(self) -> Box:
        (_, upper), (_, lower) = self.lines
        return Box(upper.x0, upper.y0, lower.x1, lower.y1)


def ramp(size: Size) -> Image.Image:
    """The ground that tells a view's place: red and green from 0 to 255 over the picture, RGB."""
    x = np.linspace(0, 255, size[0])[None].repeat(size[1], 0)
    y = np.linspace(0, 255, size[1])[:, None].repeat(size[0], 1)
    return Image.fromarray(np.rint(np.stack([x, y, 0 * x], 2)).astype(np.uint8))


@dataclass(frozen=True)
class Eyes:
    """Finder and reader in one: `SignReader`."""

    signs: Sequence[Known]
    size: Size

    @property
    def finder(self) -> Eyes:
        return self

    def find(self, view: np.ndarray) -> list[Line]:
        """The lines that lie wholly in a view and are large enough to be seen."""
        return [line for line, _ in self._lines(view, SEEN_PX)]

    def read_lines(self, view: np.ndarray, box: ViewBox) -> list[Reading]:
        """What the lines say whose middles lie in a box; unclear where they are too small."""
        said = []
        for line, text in self._lines(view, SEEN_PX):
            x, y = line.middle
            if box[0] < x < box[2] and box[1] < y < box[3]:
                clear = bool(text) and line.tall >= READ_PX
                said.append(Reading(text, 0.95, text) if clear else Reading("", 0.1, "?"))
        return said

    def read(self, view: np.ndarray, box: ViewBox) -> Reading:
        """All lines joined."""
        lines = self.read_lines(view, box)
        text = " ".join(line.text for line in lines)
        return Reading(text, min((line.confidence for line in lines), default=0.0), text)

    def _lines(self, view: np.ndarray, least_px: float) -> list[tuple[Line, str]]:
        (left, wide), (top, high) = (self._span(view, axis) for axis in (0, 1))
        sx, sy = view.shape[1] / wide, view.shape[0] / high
        found = []
        for sign in self.signs:
            for text, box in sign.lines:
                x0, y0, x1, y1 = box.as_list()
                spot = ((x0 - left) * sx, (y0 - top) * sy, (x1 - left) * sx, (y1 - top) * sy)
                inside = min(spot) > -1 and spot[2] < view.shape[1] + 1
                inside = inside and spot[3] < view.shape[0] + 1
                if inside and spot[3] - spot[1] >= least_px:
                    found.append((Line(spot, 0.99), text))
        return found

    def _span(self, view: np.ndarray, axis: int) -> tuple[float, float]:
        """Where a view begins in the picture on an axis, and how long it is, source pixels."""
        profile = view[..., axis].astype(float).mean(axis)
        count, side = len(profile), self.size[axis]
        inner = slice(count // 8, count - count // 8)  # the rim is resampled otherwise
        slope, start = np.polyfit(np.arange(count)[inner] + 0.5, profile[inner], 1)
        per_px = 255 / (side - 1)
        return start / per_px + 0.5, count * slope / per_px
