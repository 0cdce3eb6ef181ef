"""A photograph with a strip of four close-ups beside it: where everything lies, and the drawing.

The layout follows from the composed picture's size and the side that the strip is on, so that who
is told that side knows where to look. It knows nothing of questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageDraw

from pipeline.geometry import Box, Size
from pipeline.scenes.puzzles import LETTERS, cut
from pipeline.scenes.tags import embedded_font

Side = Literal["below", "right"]

_PAPER = (250, 250, 250)
_INK = (20, 20, 20)
_GAP = 0.01
"""Space between panels, as a share of the strip's length."""
_LABEL = 0.16
"""Height of a letter's line, as a share of a panel's side."""


@dataclass(frozen=True, slots=True)
class Strip:
    """Where things lie in a composed picture."""

    size: Size
    """(width, height) of the whole."""
    side: Side
    photo: Box
    panels: tuple[Box, ...]
    """Squares, in the order of `LETTERS`."""


def strip_for(photo: Size) -> Strip:
    """The layout for a photograph: the strip along its longer side."""
    if photo[0] >= photo[1]:
        return strip_of((photo[0], photo[1] + _depth(photo[0])), "below")
    return strip_of((photo[0] + _depth(photo[1]), photo[1]), "right")


def strip_of(size: Size, side: Side) -> Strip:
    """The layout of a composed picture."""
    length = size[0] if side == "below" else size[1]
    gap, panel, label = _measures(length)
    step = panel + gap
    if side == "below":
        photo = Box(0, 0, size[0], size[1] - _depth(length))
        corners = [(gap + n * step, int(photo.y1) + gap + label) for n in range(4)]
    else:
        photo = Box(0, 0, size[0] - _depth(length), size[1])
        corners = [(int(photo.x1) + gap + label, gap + n * step) for n in range(4)]
    panels = tuple(Box(x, y, x + panel, y + panel) for x, y in corners)
    return Strip(size, side, photo, panels)


def panel_side(photo: Size) -> int:
    """Side of a close-up for a photograph, pixels."""
    return _measures(max(photo))[1]


def compose(photo: Image.Image, places: Sequence[Box]) -> Image.Image:
    """The photograph (RGB) with close-ups of four square places of it, lettered A to D."""
    strip = strip_for(photo.size)
    canvas = Image.new("RGB", strip.size, _PAPER)
    canvas.paste(photo, (0, 0))
    draw = ImageDraw.Draw(canvas)
    gap, side, label = _measures(max(photo.size))
    font = embedded_font(0.9 * label)
    for letter, place, panel in zip(LETTERS, places, strip.panels, strict=True):
        shown = cut(photo, place).resize((side, side), Image.Resampling.LANCZOS)
        canvas.paste(shown, (int(panel.x0), int(panel.y0)))
        if strip.side == "below":
            middle = ((panel.x0 + panel.x1) / 2, panel.y0 - label / 2 - gap / 4)
        else:
            middle = (panel.x0 - label / 2 - gap / 4, (panel.y0 + panel.y1) / 2)
        draw.text(middle, letter, fill=_INK, font=font, anchor="mm")
    return canvas


def _measures(length: int) -> tuple[int, int, int]:
    """(gap, panel side, label height) of a strip of this length, pixels."""
    gap = max(3, round(_GAP * length))
    panel = (length - 5 * gap) // 4
    return gap, panel, round(_LABEL * panel)


def _depth(length: int) -> int:
    """Width of a strip of this length."""
    gap, panel, label = _measures(length)
    return panel + label + 2 * gap
