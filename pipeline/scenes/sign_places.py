"""Where the plates of one picture hang, how large they are, and whether they can be read there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from pipeline.geometry import Box, Size, view_size
from pipeline.scenes.light import Exposure, Light, levels, light_at, linear
from pipeline.scenes.planes import Plane, Quad, quad_box, rounded
from pipeline.scenes.plates import Look, toned
from pipeline.scenes.surfaces import Survey, find_place
from pipeline.scenes.textures import Rgb

SIGNS = (3, 6)
"""Fewest and most signs on one picture."""
SOURCE_CAP_PX = 11.0
"""A capital is at least this high in the source: every line is legible there, but smeared ones."""
READABLE_CAP_PX = (5.0, 12.0)
"""Range of a capital's height in the view of the budget that a size is drawn for."""
LARGEST_SHARE = 0.2
"""Widest plate, as a share of the picture's shorter side."""
LEAST_STEP = 54.0
"""Levels between letters and plate in the picture, at least."""
BLUR_SHARE = 0.14
"""Most blur that leaves letters legible, as a share of a capital's height."""
TONED = 0.5
"""Share of pictures whose plates have the colour of what they hang on."""

_GAP = 0.35
_TRIES = 4
_TILTED = 1.07
"""How much larger print is drawn so that a tilted plate's is still legible."""


@dataclass(frozen=True, slots=True)
class Hanging:
    """Where a plate is going to hang."""

    line: tuple[str, str]
    """Word and code."""
    cap_px: float
    """Height of the code's capitals."""
    quad: Quad
    light: Light


@dataclass(frozen=True, slots=True)
class Wall:
    """What plates are hung on: a picture and all that is known of it."""

    picture: Image.Image
    known: Survey
    exposure: Exposure
    budgets: tuple[int, ...]


def hang_all(
    wall: Wall, look: Look, lines: Sequence[tuple[str, str]], rng: np.random.Generator
) -> tuple[Look, list[Hanging]]:
    """Where each of the lines' plates hangs, fewer where there is no room; and their look, which
    may take the colour of the first place. The others then hang on ground like that."""
    found: list[Hanging] = []
    toned_down, like = rng.random() < TONED, None
    for number, line in enumerate(lines):
        if len(found) + len(lines) - number < SIGNS[0]:
            break
        cap = _draw_cap(wall.picture.size, look, rng, wall.budgets)
        spot = _spot(wall, look, cap, [quad_box(f.quad) for f in found], rng, like)
        if spot is None and like is not None:
            spot = _spot(wall, look, cap, [quad_box(f.quad) for f in found], rng, None)
        if spot is None:
            continue
        found.append(Hanging(line, *spot))
        if toned_down and like is None:
            ground = _ground(wall.picture, found[0])
            face = _own_color(ground, found[0].light, rng)
            if _can_be_read(toned(look, face), spot[0], spot[2]):
                look, like = toned(look, face), ground
    return look, found


def _draw_cap(size: Size, look: Look, rng: np.random.Generator, budgets: Sequence[int]) -> float:
    """Height of a code's capitals in source pixels, drawn for one of the budgets."""
    least = _least_cap(look)
    most = max(least, LARGEST_SHARE * min(size) / max(look.size))
    view = view_size(size, int(rng.choice(list(budgets))))
    scale = min(1.0, view[0] / size[0])
    wanted = float(rng.uniform(*READABLE_CAP_PX)) / scale
    return min(max(wanted, least * float(rng.uniform(1, 1.15))), most)


def _least_cap(look: Look) -> float:
    """Height of a code's capitals with which both lines are legible in the source."""
    return _TILTED * SOURCE_CAP_PX / min(1.0, look.word_cap)


def _spot(
    wall: Wall,
    look: Look,
    cap: float,
    taken: Sequence[Box],
    rng: np.random.Generator,
    like: np.ndarray | None,
) -> tuple[float, Quad, Light] | None:
    """Where a plate hangs, with the height of its capitals and the light there; a smaller one
    where there is no room, None where not even the smallest is legible."""
    kept_off = [_grown(box) for box in taken]
    least = _least_cap(look)
    for _ in range(_TRIES):
        size = (look.size[0] * cap, look.size[1] * cap)
        wanted = (round(size[0]), round(size[1]))
        place = find_place(wall.known, wanted, kept_off, rng, like=like)
        if place is not None:
            quad = rounded(_hand_hung(place.plane, rng).quad(place.x, place.y, size))
            box = quad_box(quad)
            light = light_at(wall.picture, wall.exposure, box)
            inside = box.clip(wall.picture.size) == box and not _meets(box, kept_off)
            if inside and _can_be_read(look, cap, light):
                return cap, quad, light
        elif cap == least:
            return None
        cap = max(least, 0.7 * cap)
    return None


def _hand_hung(plane: Plane, rng: np.random.Generator) -> Plane:
    """The plane with the small error of whoever hung the plate."""
    off = float(rng.normal(0, 0.006 if plane.known else 0.014))
    return replace(plane, slope=plane.slope + off, lean=plane.lean - off)


def _can_be_read(look: Look, cap: float, light: Light) -> bool:
    """Whether print of this size can be read in this light."""
    white, black = np.array(light.white), np.array(light.black)
    face, letters = (
        levels(black + (white - black) * linear(np.array(color, float))).mean()
        for color in (look.face, look.ink)
    )
    step = abs(float(face) - float(letters))
    small = cap * min(1.0, look.word_cap)
    return step >= LEAST_STEP and step >= 6 * light.noise and light.blur_px <= BLUR_SHARE * small


def _ground(picture: Image.Image, place: Hanging) -> np.ndarray:
    """Mean colour of what a plate hangs on, levels, (3,)."""
    box = quad_box(place.quad)
    patch = picture.crop((int(box.x0), int(box.y0), int(box.x1), int(box.y1)))
    return np.asarray(patch, np.float64).reshape(-1, 3).mean(0)


def _own_color(ground: np.ndarray, light: Light, rng: np.random.Generator) -> Rgb:
    """The colour that looks like `ground` in a light, or nearly so."""
    white, black = np.array(light.white), np.array(light.black)
    own = np.clip((linear(ground) - black) / (white - black), 0.01, 0.9)
    red, green, blue = np.clip(levels(own) + rng.normal(0, 5) + rng.normal(0, 2, 3), 12, 244)
    return round(float(red)), round(float(green)), round(float(blue))


def _grown(box: Box) -> tuple[float, float, float, float]:
    gap = _GAP * box.height
    return box.x0 - gap, box.y0 - gap, box.x1 + gap, box.y1 + gap


def _meets(box: Box, others: Sequence[tuple[float, float, float, float]]) -> bool:
    return any(
        box.x0 < x1 and x0 < box.x1 and box.y0 < y1 and y0 < box.y1 for x0, y0, x1, y1 in others
    )
