"""One line of print: the ink of a text in a family of letterforms, at a given capital height."""

from __future__ import annotations

from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from pipeline.scenes.fonts import REGULAR, face

_GAUGE_PX = 64
"""Size per em at which a family's proportions are measured."""


def ink(text: str, font: str, cap_px: float, weight: int = REGULAR) -> Image.Image:
    """The ink of a text, L, cut to its bounds; a capital H is `cap_px` high."""
    letters = _letters(font, max(8, round(_GAUGE_PX * cap_px / _cap(font, weight))), weight)
    left, top, right, bottom = letters.getbbox(text)
    drawn = Image.new("L", (max(1, round(right - left)), max(1, round(bottom - top))))
    ImageDraw.Draw(drawn).text((-left, -top), text, fill=255, font=letters)
    return drawn


@lru_cache(maxsize=4096)
def ink_width(text: str, font: str, weight: int = REGULAR) -> float:
    """Width of a text's ink in heights of a capital."""
    left, _, right, _ = _letters(font, _GAUGE_PX, weight).getbbox(text)
    return float(right - left) / _cap(font, weight)


@lru_cache(maxsize=64)
def _cap(font: str, weight: int) -> float:
    """Height of a capital H at the gauge's size, pixels."""
    _, top, _, bottom = _letters(font, _GAUGE_PX, weight).getbbox("H")
    return float(bottom - top)


@lru_cache(maxsize=128)
def _letters(font: str, size_px: int, weight: int) -> ImageFont.FreeTypeFont:
    return face(font, size_px, weight)
