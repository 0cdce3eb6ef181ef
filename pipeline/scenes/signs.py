"""Signs that belong: plates of one look hung on the surfaces of any picture.

Three to six plates share kind, colours and letters, so that only reading tells them apart. Sizes
are drawn as for tags: over the budgets some can be read at once and others only up close. The
recipe holds all that was decided; the same recipe on the same picture gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from pipeline.geometry import RESOLUTIONS, Box
from pipeline.scenes.hang import Hung, corners, hang, perspective, sent
from pipeline.scenes.light import Light, measure
from pipeline.scenes.palettes import Kind
from pipeline.scenes.planes import Quad, as_quad, quad_box
from pipeline.scenes.plates import Look, Plate, draw_look, draw_plate, fitted
from pipeline.scenes.sign_places import SIGNS, Hanging, Wall, hang_all
from pipeline.scenes.sign_words import draw_lines
from pipeline.scenes.surfaces import survey

SMALLEST_SIDE_PX = 320
"""A picture with a shorter side has no room for signs."""
COMPACT_SIDE_PX = 900
"""Where the shorter side is less, words are short and plates have narrow margins."""
SMEARED = 0.4
"""Share of pictures with a sign whose code cannot be read."""
VERSION = 1
"""Of recipes; it changes when the same recipe draws another picture."""

_DRAWN = (1.5, 3.0)
"""Pixels drawn for each pixel of the picture: fewer where letters are large anyway."""
_DRAWN_CAP_PX = 90.0
_LOOKS = 6
_LIFT: dict[Kind, float] = {
    "plate": 0.045, "label": 0.012, "sticker": 0.006, "screen": 0.07, "sign": 0.06,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sign:
    """One sign on a picture, in source pixels."""

    word: str
    code: str
    kind: Kind
    quad: Quad
    """Its corners, clockwise from the upper left."""
    word_quad: Quad
    code_quad: Quad
    """Where the two lines stand."""
    legible: bool
    """Whether the code can be read close up; the word always can."""

    @property
    def box(self) -> Box:
        """The whole-pixel box around its corners."""
        return quad_box(self.quad)

    @property
    def cap_px(self) -> tuple[float, float]:
        """Height of the word's and of the code's line in the middle, source pixels."""
        return _height(self.word_quad), _height(self.code_quad)


@dataclass(frozen=True, slots=True)
class Planted:
    """A picture with signs on it."""

    image: Image.Image
    signs: tuple[Sign, ...]
    recipe: dict[str, Any]
    """Plain values for JSON; `replant` makes the same picture from them."""


def plant_signs(
    image: Image.Image,
    masks: Sequence[np.ndarray],
    rng: np.random.Generator,
    budgets: Sequence[int] = RESOLUTIONS,
    *,
    drawn: bool = False,
) -> Planted:
    """The picture (RGB) with 3 to 6 signs of one look; none where it has no room for three.

    `masks` are bool HW of the whole picture at any scale: regions that surfaces are looked for in.
    In a `drawn` picture there is no sky or sea to keep off.
    """
    picture = image.convert("RGB")
    if min(picture.size) < SMALLEST_SIDE_PX:
        return Planted(picture, (), {})
    known = survey(picture, masks, drawn=drawn)
    if known.shut.all():
        return Planted(picture, (), {})
    wall = Wall(picture, known, measure(picture), tuple(budgets))
    small = min(picture.size) < COMPACT_SIDE_PX
    for _ in range(_LOOKS):
        lines = draw_lines(rng, int(rng.integers(SIGNS[0], SIGNS[1] + 1)), short=small)
        look = fitted(draw_look(rng, compact=small), lines)
        look, found = hang_all(wall, look, lines, rng)
        if len(found) >= SIGNS[0]:
            return _planted(picture, look, found, rng)
    return Planted(picture, (), {})


def _planted(
    picture: Image.Image, look: Look, found: Sequence[Hanging], rng: np.random.Generator
) -> Planted:
    """The picture with the plates where they were found to hang."""
    smeared = int(rng.integers(len(found))) if rng.random() < SMEARED else -1
    plates = [
        {
            "word": one.line[0],
            "code": one.line[1],
            "cap_px": round(
                one.cap_px * min(_DRAWN[1], max(_DRAWN[0], _DRAWN_CAP_PX / one.cap_px)), 2
            ),
            "quad": [list(point) for point in one.quad],
            "light": one.light.describe(),
            "smeared": number == smeared,
            "seed": int(rng.integers(2**31)),
        }
        for number, one in enumerate(found)
    ]
    recipe = {"version": VERSION, "look": look.describe(), "plates": plates}
    return Planted(replant(picture, recipe), signs_of(recipe), recipe)


def replant(image: Image.Image, recipe: Mapping[str, Any]) -> Image.Image:
    """The picture with the signs of a recipe on it: the same bytes each time."""
    picture = image.convert("RGB")
    look = Look.of(recipe["look"]) if recipe else None
    for entry in recipe.get("plates", ()):
        assert look is not None
        hung = Hung(
            as_quad(entry["quad"]), Light.of(entry["light"]), _LIFT[look.kind],
            look.kind == "screen", entry["seed"],
        )  # fmt: skip
        hang(picture, _drawn(look, entry).image, hung)
    return picture


def signs_of(recipe: Mapping[str, Any]) -> tuple[Sign, ...]:
    """The signs that a recipe puts on its picture."""
    if not recipe:
        return ()
    look = Look.of(recipe["look"])
    signs = []
    for entry in recipe["plates"]:
        plate, quad = _drawn(look, entry), as_quad(entry["quad"])
        numbers = perspective(corners(plate.image.size), quad)
        word, code = (
            as_quad([sent(p, numbers) for p in line]) for line in (plate.word_quad, plate.code_quad)
        )
        legible = not entry["smeared"]
        signs.append(Sign(entry["word"], entry["code"], look.kind, quad, word, code, legible))
    return tuple(signs)


def _drawn(look: Look, entry: Mapping[str, Any]) -> Plate:
    """The flat plate of a recipe's entry."""
    rng = np.random.default_rng(entry["seed"])
    return draw_plate(
        look, entry["word"], entry["code"], entry["cap_px"], rng, smeared=entry["smeared"]
    )


def _height(quad: Quad) -> float:
    """From the middle of the upper edge to that of the lower one."""
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = quad
    return float(np.hypot((cx + dx - ax - bx) / 2, (cy + dy - ay - by) / 2))
