"""Drawing of tags: the small coloured shapes with a printed code that questions ask about.

Owns how a tag looks. It knows nothing of pictures, of where a tag is put, or of questions.
"""

from __future__ import annotations

from math import cos, pi, radians, sin

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.errors import ConfigError

SHAPES = ("circle", "square", "triangle", "diamond", "hexagon", "star")

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (215, 25, 35),
    "orange": (255, 135, 0),
    "yellow": (250, 225, 25),
    "green": (25, 145, 50),
    "cyan": (0, 200, 215),
    "blue": (25, 65, 215),
    "purple": (125, 40, 165),
    "pink": (255, 110, 185),
}

ALPHABET = "ACEFHJKMNPRTWXY3479"
"""Capitals and digits no two of which are easily taken for each other."""

TEXT_HEIGHT = 0.2
"""Height of a capital letter as a fraction of the tag's side, the same for every shape."""

TEXT_CENTER: dict[str, tuple[float, float]] = {
    "circle": (0.5, 0.5),
    "square": (0.5, 0.5),
    "triangle": (0.5, 0.75),
    "diamond": (0.5, 0.5),
    "hexagon": (0.5, 0.5),
    "star": (0.5, 0.52),
}
"""Where the code's middle is, (x, y) as fractions of the side."""

TEXT_WIDTH: dict[str, float] = {
    "circle": 0.84,
    "square": 0.86,
    "triangle": 0.57,
    "diamond": 0.7,
    "hexagon": 0.78,
    "star": 0.62,
}
"""Widest code that still fits, as a fraction of the side; a wider one is condensed."""

_OUTLINE = 0.035
_CURVE_POINTS = 96


def draw_tag(
    shape: str,
    color: str,
    code: str,
    side_px: int,
    *,
    rotation_deg: float = 0.0,
    font: ImageFont.FreeTypeFont | None = None,
    ink: tuple[int, int, int] | None = None,
) -> Image.Image:
    """A tag as an RGBA picture of `side_px` × `side_px`; alpha > 127 is the tag.

    The shape touches all four sides, whatever the rotation (clockwise, degrees), so the picture's
    box is the tag's box. `code` has up to four characters; "" draws a blank tag. `font` gives the
    letterforms only: the size is always `TEXT_HEIGHT` of the side. `ink` is the code's colour, else
    black or white.
    """
    if side_px < 1:
        raise ValueError(f"side_px must be at least 1, not {side_px}")
    over = 4 if side_px < 256 else 2
    side = side_px * over
    outline = _outline(shape, rotation_deg)
    fill = COLORS[color]
    tag = Image.new("RGB", (side, side), tuple(c * 45 // 100 for c in fill))
    inset = 1 - 2 * _OUTLINE
    inner = [((x - 0.5) * inset + 0.5, (y - 0.5) * inset + 0.5) for x, y in outline]
    ImageDraw.Draw(tag).polygon(_scaled(inner, side), fill=fill)
    if code:
        text = _text_mask(code, shape, side, rotation_deg, font)
        x, y = _turned([TEXT_CENTER[shape]], shape, rotation_deg)[0]
        corner = (round(x * side - text.width / 2), round(y * side - text.height / 2))
        tag.paste(ink or text_color(color), corner, text)
    tag = tag.reduce(over)
    tag.putalpha(_alpha(outline, side, over))
    return tag


def draw_mask(shape: str, side_px: int, *, rotation_deg: float = 0.0) -> np.ndarray:
    """The pixels of a tag, bool HW of `side_px` × `side_px`."""
    over = 4 if side_px < 256 else 2
    alpha = _alpha(_outline(shape, rotation_deg), side_px * over, over)
    return np.asarray(alpha) > 127


def text_color(color: str) -> tuple[int, int, int]:
    """Black or white, whichever is easier to read on `color`."""
    red, green, blue = COLORS[color]
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 125 else (255, 255, 255)


def embedded_font(size_px: float) -> ImageFont.FreeTypeFont:
    """Pillow's own letterforms; raises `ConfigError` where Pillow was built without FreeType."""
    font = ImageFont.load_default(size_px)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise ConfigError("This Pillow cannot draw letters.", "Install one built with FreeType.")
    return font


def outline_points(shape: str) -> list[tuple[float, float]]:
    """The upright shape's outline as (x, y) points in the unit square, touching its four sides."""
    if shape == "circle":
        turns = [2 * pi * i / _CURVE_POINTS for i in range(_CURVE_POINTS)]
        return [(0.5 + 0.5 * cos(t), 0.5 + 0.5 * sin(t)) for t in turns]
    if shape == "star":
        radii = [(0.5, 0.3)[i % 2] for i in range(10)]
        return _fitted([(r * sin(pi * i / 5), -r * cos(pi * i / 5)) for i, r in enumerate(radii)])
    return list(_POLYGONS[shape])


_POLYGONS: dict[str, tuple[tuple[float, float], ...]] = {
    "square": ((0, 0), (1, 0), (1, 1), (0, 1)),
    "triangle": ((0.5, 0), (1, 1), (0, 1)),
    "diamond": ((0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)),
    "hexagon": ((0.25, 0), (0.75, 0), (1, 0.5), (0.75, 1), (0.25, 1), (0, 0.5)),
}


def _outline(shape: str, rotation_deg: float) -> list[tuple[float, float]]:
    return _turned(outline_points(shape), shape, rotation_deg)


def _turned(
    points: list[tuple[float, float]], shape: str, rotation_deg: float
) -> list[tuple[float, float]]:
    """Points of the upright shape after turning it and fitting it to the unit square again."""
    if not rotation_deg:
        return points
    box = _bounds(_rotated(outline_points(shape), rotation_deg))
    return _fitted(_rotated(points, rotation_deg), box)


def _rotated(points: list[tuple[float, float]], rotation_deg: float) -> list[tuple[float, float]]:
    c, s = cos(radians(rotation_deg)), sin(radians(rotation_deg))
    return [
        (0.5 + c * (x - 0.5) - s * (y - 0.5), 0.5 + s * (x - 0.5) + c * (y - 0.5))
        for x, y in points
    ]


def _bounds(points: list[tuple[float, float]]) -> tuple[float, float, float, float]:
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _fitted(
    points: list[tuple[float, float]], box: tuple[float, float, float, float] | None = None
) -> list[tuple[float, float]]:
    """Points moved and stretched so that `box` (their own bounds) becomes the unit square."""
    x0, y0, x1, y1 = box or _bounds(points)
    return [((x - x0) / (x1 - x0), (y - y0) / (y1 - y0)) for x, y in points]


def _scaled(points: list[tuple[float, float]], side: int) -> list[tuple[float, float]]:
    return [(x * side - 0.5, y * side - 0.5) for x, y in points]


def _alpha(outline: list[tuple[float, float]], side: int, over: int) -> Image.Image:
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).polygon(_scaled(outline, side), fill=255)
    return mask.reduce(over)


def _text_mask(
    code: str,
    shape: str,
    side: int,
    rotation_deg: float,
    font: ImageFont.FreeTypeFont | None,
) -> Image.Image:
    """The code's ink, L, scaled to `TEXT_HEIGHT` of `side` and turned."""
    font = font or embedded_font(max(8, round(side * TEXT_HEIGHT / 0.7)))
    stroke = max(1, round(font.size * 0.03))
    left, top, right, bottom = font.getbbox(code, stroke_width=stroke)
    ink = Image.new("L", (round(right - left), round(bottom - top)))
    ImageDraw.Draw(ink).text((-left, -top), code, fill=255, font=font, stroke_width=stroke)
    _, cap_top, _, cap_bottom = font.getbbox("H", stroke_width=stroke)
    scale = TEXT_HEIGHT * side / (cap_bottom - cap_top)
    width = min(ink.width * scale, TEXT_WIDTH[shape] * side)
    size = (max(1, round(width)), max(1, round(ink.height * scale)))
    ink = ink.resize(size, Image.Resampling.BILINEAR)
    if rotation_deg:
        ink = ink.rotate(-rotation_deg, Image.Resampling.BILINEAR, expand=True)
    return ink
