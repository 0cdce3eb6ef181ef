"""Flat plates with two lines of print, as seen from the front: a word, and a code below it.

Owns how a plate looks: its kind, colours, letters, border, screws and wear. It knows nothing of
pictures, of where a plate hangs, or of questions. Plates that share a `Look` are alike but for
what is printed on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from pipeline.scenes import wear
from pipeline.scenes.fonts import BOLD, FAMILIES, REGULAR
from pipeline.scenes.imprint import ink, ink_width
from pipeline.scenes.palettes import KINDS, PALETTES, Kind
from pipeline.scenes.textures import Rgb

Border = Literal["none", "line", "rim"]
"""Nothing, a line a little inside the edge, or an edge of another colour."""
Point = tuple[float, float]

LEAST_CONTRAST = 0.36
"""Between ink and face, as a share of the way from black to white."""
_TONED_CONTRAST = 0.46


@dataclass(frozen=True, slots=True)
class Look:
    """What the plates of one picture have in common; lengths in heights of a code's capital."""

    kind: Kind
    face: Rgb
    ink: Rgb
    font: str
    """A family of `fonts.FAMILIES`."""
    weight: int
    """Of the letters: `fonts.REGULAR` or `fonts.BOLD`."""
    word_cap: float
    """Height of the word's capitals."""
    span: float
    """Width that the lines may take; a wider line is condensed."""
    margin: Point
    """Left and right of the lines, above and below them."""
    gap: float
    """Between the two lines."""
    corner: float
    """Radius of the corners."""
    border: Border
    band: bool
    """Whether the word stands on a band with the two colours exchanged."""
    screws: int
    """0, 2 or 4."""
    tape: bool
    """Whether two strips of tape hold it."""
    age: float
    """How worn it is, in [0, 1]."""

    def describe(self) -> dict[str, Any]:
        """Plain values that `Look.of` takes back."""
        return asdict(self)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Look:
        """A look from `describe`'s values, also after JSON has made lists of the tuples."""
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**plain)

    @property
    def size(self) -> Point:
        """(width, height) of the whole plate."""
        return self.span + 2 * self.margin[0], self.code_top + 1 + self.margin[1]

    @property
    def word_top(self) -> float:
        return self.margin[1]

    @property
    def code_top(self) -> float:
        return self.word_top + self.word_cap + self.gap


@dataclass(frozen=True, slots=True)
class Plate:
    """A drawn plate; quads are four corners (x, y) in its pixels, clockwise from the upper left."""

    image: Image.Image
    """RGBA; alpha is the plate's outline."""
    word_quad: tuple[Point, ...]
    code_quad: tuple[Point, ...]
    word_cap_px: float
    code_cap_px: float


def draw_look(
    rng: np.random.Generator,
    kind: Kind | None = None,
    fonts: Sequence[str] = tuple(FAMILIES),
    *,
    compact: bool = False,
) -> Look:
    """A look of a kind (any by default) in muted colours, its letters of one of the families.

    Handwriting comes on labels and stickers only, where the families leave a choice. `compact`
    leaves little room around the print.
    """
    kind = kind or KINDS[int(rng.integers(len(KINDS)))]
    by_hand = kind in ("label", "sticker")
    fitting = [name for name in fonts if by_hand or FAMILIES[name].kind != "hand"] or list(fonts)
    font = fitting[int(rng.integers(len(fitting)))]
    thin = FAMILIES[font].kind in ("hand", "condensed")
    palette = PALETTES[kind]
    face, letters = palette[int(rng.integers(len(palette)))]
    shift = rng.normal(0, 5, 3) + rng.normal(0, 6)
    band = kind in ("sign", "label", "sticker") and rng.random() < 0.3
    rounded = {"plate": 0.3, "label": 0.06, "sticker": 0.6, "screen": 0.12, "sign": 0.25}[kind]
    tight = 0.6 if compact else 1.0
    look = Look(
        kind=kind,
        face=_rgb(np.add(face, shift)),
        ink=_rgb(np.add(letters, rng.normal(0, 4, 3))),
        font=font,
        weight=BOLD if thin or rng.random() < 0.5 else REGULAR,
        word_cap=round(float(rng.uniform(0.92 if compact else 0.72, 1.0)), 3),
        span=4.0,
        margin=(
            round(float(rng.uniform(0.5, 1.0)) * tight, 3),
            round(float(rng.uniform(0.45, 0.8)) * tight, 3),
        ),
        gap=round(float(rng.uniform(0.42, 0.65)) + 0.35 * band - 0.1 * compact, 3),
        corner=round(float(rng.uniform(0, 1.6)) * rounded, 3),
        border="none" if band else _border(kind, rng),
        band=bool(band),
        screws=int(rng.choice([0, 2, 4])) if kind in ("plate", "sign") and not compact else 0,
        tape=bool(kind == "label" and rng.random() < 0.4),
        age=round(float(rng.beta(1.6, 3.0)), 3),
    )
    extra = 0.35 if look.screws == 2 else 0.0
    return replace(look, margin=(round(look.margin[0] + extra, 3), look.margin[1]))


def toned(look: Look, face: Rgb) -> Look:
    """The look in one colour: no band, and letters that differ from the face only as they must."""
    toward = 0 if _luma(face) > 118 else 255
    share = 255 * _TONED_CONTRAST / max(abs(_luma(face) - toward), 1.0)
    letters = _rgb(np.add(face, np.subtract((toward,) * 3, face) * min(share, 1.0)))
    border = "line" if look.border == "rim" and look.kind != "screen" else look.border
    return replace(look, face=face, ink=letters, band=False, border=border)


def fitted(look: Look, lines: list[tuple[str, str]]) -> Look:
    """The look made as wide as the widest of these (word, code) pairs needs."""
    word = max(ink_width(word, look.font, look.weight) for word, _ in lines) * look.word_cap
    code = max(ink_width(code, look.font, look.weight) for _, code in lines)
    return replace(look, span=round(max(2.2, word, code), 3))


def draw_plate(
    look: Look,
    word: str,
    code: str,
    cap_px: float,
    rng: np.random.Generator,
    *,
    smeared: bool = False,
) -> Plate:
    """A plate whose code has capitals of `cap_px`; `smeared` makes the code unreadable."""
    width, height = (max(4, round(v * cap_px)) for v in look.size)
    face = _face(look, (width, height), cap_px)
    word_cap = look.word_cap * cap_px
    word_ink = ink(word, look.font, word_cap, look.weight)
    code_ink = ink(code, look.font, cap_px, look.weight)
    word_box = _line_box(word_ink, look.word_top, word_cap, width, look.span, cap_px)
    code_box = _line_box(code_ink, look.code_top, cap_px, width, look.span, cap_px)
    _print(face, word_ink, word_box, look.face if look.band else look.ink)
    code_layer = Image.new("L", face.size)
    code_layer.paste(code_ink.resize(_size(code_box)), code_box[:2])
    if smeared:
        code_layer = wear.smeared(code_layer, cap_px, rng)
    if look.kind == "screen":
        _glow(face, code_layer, look, cap_px)
    face.paste(look.ink, (0, 0), code_layer)
    pixels = wear.aged(np.asarray(face, np.float32), look.kind, look.age, cap_px, rng)
    plate = Image.fromarray(pixels)
    plate.putalpha(_outline(look, (width, height), cap_px))
    if look.tape:
        plate = wear.taped(plate, cap_px, rng)
    return Plate(plate, _quad(word_box), _quad(code_box), word_cap, cap_px)


def _border(kind: Kind, rng: np.random.Generator) -> Border:
    shares = {"plate": 0.5, "label": 0.3, "sticker": 0.35, "screen": 0.0, "sign": 0.6}
    if kind == "screen" or (kind == "sticker" and rng.random() < 0.4):
        return "rim"
    return "line" if rng.random() < shares[kind] else "none"


def _face(look: Look, size: tuple[int, int], cap_px: float) -> Image.Image:
    """The plate without its print, RGB."""
    face = Image.new("RGB", size, look.face)
    draw = ImageDraw.Draw(face)
    width, height = size
    radius = look.corner * cap_px
    if look.band:
        bottom = (look.word_top + look.word_cap + look.gap / 2) * cap_px
        draw.rectangle((0, 0, width, bottom), fill=look.ink)
    if look.border == "line":
        inset, thick = 0.3 * min(look.margin) * cap_px, max(1, round(0.07 * cap_px))
        box = (inset, inset, width - 1 - inset, height - 1 - inset)
        draw.rounded_rectangle(box, max(0, radius - inset), outline=look.ink, width=thick)
    if look.border == "rim":
        thick = max(1, round((0.22 if look.kind == "screen" else 0.13) * cap_px))
        color = (40, 40, 42) if look.kind == "screen" else (228, 228, 224)
        draw.rounded_rectangle((0, 0, width - 1, height - 1), radius, outline=color, width=thick)
    for x, y in _screw_places(look, size, cap_px):
        wear.screw(draw, x, y, 0.15 * cap_px, look.face)
    return face


def _screw_places(look: Look, size: tuple[int, int], cap_px: float) -> list[Point]:
    width, height = size
    inset = 0.34 * cap_px
    if look.screws == 2:
        return [(inset, height / 2), (width - inset, height / 2)]
    if look.screws == 4:
        return [(x, y) for x in (inset, width - inset) for y in (inset, height - inset)]
    return []


def _outline(look: Look, size: tuple[int, int], cap_px: float) -> Image.Image:
    mask = Image.new("L", size)
    box = (0, 0, size[0] - 1, size[1] - 1)
    ImageDraw.Draw(mask).rounded_rectangle(box, look.corner * cap_px, fill=255)
    return mask


def _line_box(
    line: Image.Image, top: float, cap: float, width: int, span: float, unit: float
) -> tuple[int, int, int, int]:
    """Where a line stands, centred; condensed to the span where it is wider."""
    wide = max(1, min(line.width, round(span * unit)))
    left, upper = round((width - wide) / 2), round(top * unit + (cap - line.height) / 2)
    return left, upper, left + wide, upper + line.height


def _print(
    face: Image.Image, line: Image.Image, box: tuple[int, int, int, int], color: Rgb
) -> None:
    face.paste(color, box[:2], line.resize(_size(box)))


def _glow(face: Image.Image, layer: Image.Image, look: Look, cap_px: float) -> None:
    """Light that a dark display's letters shed around them."""
    if _luma(look.ink) > _luma(look.face):
        halo = layer.filter(ImageFilter.GaussianBlur(0.22 * cap_px)).point(lambda v: v // 4)
        face.paste(look.ink, (0, 0), halo)


def _size(box: tuple[int, int, int, int]) -> tuple[int, int]:
    return box[2] - box[0], box[3] - box[1]


def _quad(box: tuple[int, int, int, int]) -> tuple[Point, ...]:
    x0, y0, x1, y1 = map(float, box)
    return (x0, y0), (x1, y0), (x1, y1), (x0, y1)


def _rgb(values: np.ndarray) -> Rgb:
    red, green, blue = (int(v) for v in np.clip(np.rint(values), 8, 247))
    return red, green, blue


def _luma(color: Rgb) -> float:
    return 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
