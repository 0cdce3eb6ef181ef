"""Pictures that ask how small, how faint, how crowded and how tilted a print can be and be read.

One label with one short code on each, at a known height of its capitals in the picture as it is
sent. One thing is changed at a time, from a base at which everybody with eyes can read. A picture
depends on the seed and its own key and on nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from pipeline.errors import ConfigError, nearest
from pipeline.geometry import Box, Size, view_size
from pipeline.samples import rng_for
from pipeline.scenes.draw import scene
from pipeline.scenes.tags import (
    ALPHABET,
    COLORS,
    SHAPES,
    TEXT_HEIGHT,
    draw_tag,
    embedded_font,
)

Clutter = Literal["none", "textured", "crowded"]
Level = float | int | str
Rgb = tuple[int, int, int]

FACTORS: Mapping[str, tuple[Level, ...]] = {
    "height_px": (3, 4, 5, 6, 8, 10, 12, 16, 24, 32),
    "contrast": (0.02, 0.05, 0.1, 0.2, 0.4, 0.8),
    "clutter": ("none", "textured", "crowded"),
    "tilt_deg": (0, 15, 30, 45),
}
"""What is changed, and to what."""

CODE_LENGTH = 3
SOURCE_SCALE = 4
"""The source has so many times the pixels of the first view on each side: what a look can gain."""
ASPECT = (4000, 3000)
SHAPE = "circle"
"""Of the label: the one that stays what it is when it is turned."""
FILLS = ("yellow", "orange", "cyan", "pink")
"""Of the label: light ones, so that a contrast is about as many grey levels on each."""
CROWD, LETTERS = 24, 60
"""Other labels and loose letters on a crowded picture, at most."""
PAPER = (205, 240)
"""Range of the grey of plain ground."""

_TRIES = 40
_GAP = 0.15
_CAP_OF_FONT = 0.7


@dataclass(frozen=True, slots=True)
class Condition:
    """How a code is printed; the defaults are the base that the factors start from."""

    height_px: float = 16
    """Of a capital letter, pixels of the picture as it is sent."""
    contrast: float = 0.8
    """(light − dark) / (light + dark) of the grey values of label and ink."""
    clutter: Clutter = "none"
    tilt_deg: float = 0
    """Of the line of print, to one side or the other."""


@dataclass(frozen=True, slots=True)
class Item:
    """One picture of the sweep."""

    factor: str
    level: Level
    number: int

    @property
    def category(self) -> str:
        """As in the view `scores`."""
        return f"{self.factor}={self.level}"

    @property
    def key(self) -> str:
        """The picture's id."""
        return f"{self.factor}/{self.level}/{self.number:03d}"

    @property
    def condition(self) -> Condition:
        return replace(Condition(), **{self.factor: self.level})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Canvas:
    """The source's size, and the size at which the whole of it is sent."""

    source: Size
    sent: Size

    @property
    def scale(self) -> float:
        """Pixels as sent for each pixel of the source."""
        return self.sent[1] / self.source[1]


@dataclass(frozen=True, slots=True, eq=False)
class Stimulus:
    """A picture, what is asked about it, and the answer."""

    image: Image.Image
    """RGB, the source."""
    question: str
    code: str
    box: Box
    """The label, source pixels."""
    others: tuple[str, ...] = ()
    """Names of the labels around it."""


def base() -> str:
    """What is printed where nothing is changed, in a sentence."""
    how = Condition()
    return (
        f"The base is a code of {CODE_LENGTH} on plain ground, its capitals {how.height_px:g} "
        f"pixels high, at a contrast of {how.contrast:g}, level; one factor is changed at a time."
    )


def items(factors: tuple[str, ...], count: int) -> list[Item]:
    """`count` pictures for each level of the factors; raises `ConfigError` for an unknown one."""
    for factor in factors:
        if factor not in FACTORS:
            raise ConfigError(f"There is no factor '{factor}'.", nearest(factor, FACTORS))
    return [Item(f, level, n) for f in factors for level in FACTORS[f] for n in range(count)]


def canvas(resolution: int, sent: Size | None = None) -> Canvas:
    """The canvas whose first view at budget R is `SOURCE_SCALE` times smaller.

    `sent` is what becomes of that view on its way to a model, where it is shrunk once more. Raises
    `ConfigError` for a budget at which the largest print has no room.
    """
    view = first_size(resolution)
    made = Canvas((SOURCE_SCALE * view[0], SOURCE_SCALE * view[1]), sent or view)
    tallest = max(float(level) for level in FACTORS["height_px"])
    if side_of(tallest, made) > 0.75 * min(made.source):
        least = f"{made.sent[0]} x {made.sent[1]}"
        raise ConfigError(
            f"A picture of {least} pixels has no room for capitals of {tallest:g}.",
            "Take a larger --resolution.",
        )
    return made


def first_size(resolution: int) -> Size:
    """(width, height) of the first view at budget R."""
    return view_size(ASPECT, resolution)


def side_of(height_px: float, on: Canvas) -> int:
    """Side in source pixels of a label whose capitals are so high in the picture as sent."""
    return round(height_px / on.scale / TEXT_HEIGHT)


def stimulus(item: Item, on: Canvas, seed: int) -> Stimulus:
    """The picture of an item; the same arguments give the same pixels."""
    rng = rng_for(seed, "eval-needles", item.factor, str(item.level), item.number)
    how = item.condition
    color = str(rng.choice(FILLS))
    side = side_of(how.height_px, on)
    x, y = (int(rng.integers(0, edge - side + 1)) for edge in on.source)
    box = Box(x, y, x + side, y + side)
    code = _code(rng)
    turn = how.tilt_deg * (1 if rng.random() < 0.5 else -1)
    image = _ground(how.clutter, on.source, rng)
    others = _crowd(image, box, color, rng) if how.clutter == "crowded" else ()
    label = draw_tag(
        SHAPE, color, code, side, rotation_deg=turn, ink=ink_for(COLORS[color], how.contrast)
    )
    image.paste(label, (x, y), label)
    return Stimulus(image, f"What is written on the {color} {SHAPE}?", code, box, others)


def ink_for(fill: Rgb, contrast: float) -> Rgb:
    """The darker shade of `fill` that has this contrast with it, in [0, 1]."""
    if not 0 <= contrast <= 1:
        raise ValueError(f"A contrast lies between 0 and 1, not at {contrast}.")
    red, green, blue = (round(c * (1 - contrast) / (1 + contrast)) for c in fill)
    return red, green, blue


def _code(rng: np.random.Generator) -> str:
    return "".join(ALPHABET[int(i)] for i in rng.integers(0, len(ALPHABET), CODE_LENGTH))


def _ground(clutter: Clutter, size: Size, rng: np.random.Generator) -> Image.Image:
    if clutter == "textured":
        return Image.fromarray(scene(rng, size).image)
    grey = int(rng.integers(*PAPER))
    return Image.new("RGB", size, (grey, grey, grey))


def _crowd(
    image: Image.Image, target: Box, color: str, rng: np.random.Generator
) -> tuple[str, ...]:
    """Letters, then other labels, about the target's place: none covers it, none could be meant.

    Returns the labels' names.
    """
    side = int(target.width)
    taken = [target]
    cap = side * TEXT_HEIGHT
    font, pen = embedded_font(cap / _CAP_OF_FONT), ImageDraw.Draw(image)
    for _ in range(LETTERS):
        place = _free(image.size, round(1.5 * cap), taken, rng)
        if place is not None:
            taken.append(place)
            grey = int(rng.integers(20, 120))
            letter = ALPHABET[int(rng.integers(len(ALPHABET)))]
            pen.text((place.x0, place.y0), letter, fill=(grey, grey, grey), font=font)
    taken, names = [target], []
    others = [(s, c) for s in SHAPES for c in COLORS if (s, c) != (SHAPE, color)]
    for index in rng.permutation(len(others))[:CROWD]:
        place = _free(image.size, side, taken, rng)
        if place is not None:
            taken.append(place)
            shape, other = others[int(index)]
            label = draw_tag(shape, other, _code(rng), side)
            image.paste(label, (int(place.x0), int(place.y0)), label)
            names.append(f"{other} {shape}")
    return tuple(names)


def _free(size: Size, side: int, taken: list[Box], rng: np.random.Generator) -> Box | None:
    """A square place away from those taken; None when it is not found soon."""
    for _ in range(_TRIES):
        x, y = (int(rng.integers(0, edge - side + 1)) for edge in size)
        place = Box(x, y, x + side, y + side)
        gap = _GAP * side
        wide = Box(x - gap, y - gap, x + side + gap, y + side + gap)
        if not any(wide.intersection(other) > 0 for other in taken):
            return place
    return None
