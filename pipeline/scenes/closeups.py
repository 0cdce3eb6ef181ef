"""Close-up puzzles: which of four close-ups is the framed place, and where a close-up is from.

The photograph keeps its pixels; close-ups lie beside it. Every close-up is of the same photograph,
so the truth is in the picture: a close-up equals the place that it was cut from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from pipeline.answers import ASKS_FOR_BOX
from pipeline.geometry import RESOLUTIONS, Box, Size, view_size
from pipeline.scenes.places import alike_places, any_place, draw_side, field_of, lone_place
from pipeline.scenes.puzzles import LETTERS, Posed, Puzzle, Recipe, whole
from pipeline.scenes.strips import Side, compose, panel_side, strip_for
from pipeline.scenes.tags import COLORS

FRAMES = ("red", "yellow", "green", "cyan", "blue", "pink")
"""Colours of frames, named in `COLORS`."""
SMALLEST_SIDE_PX = 240
"""A photograph with a shorter side is too small for close-ups."""
OPTIONS = tuple(f"close-up {letter}" for letter in LETTERS)
BESIDE: dict[Side, str] = {"below": "below", "right": "to the right of"}

MATCH = "Which of the four close-ups {beside} the photograph shows the place in the {color} frame?"
WHERE = "Where in the photograph is what close-up {letter} {beside} it shows? " + ASKS_FOR_BOX

_LINE_PX = 1.2
"""Width of a frame in the view of the smallest budget."""
_THICKEST = 6
"""A frame's line is at most this part of its place."""
_RESEMBLES = 110.0


def match(
    image: Image.Image,
    rng: np.random.Generator,
    count: int,
    budgets: Sequence[int] = RESOLUTIONS,
) -> Puzzle | None:
    """Up to `count` (at most 4) framed places, each to be found among four close-ups.

    None where the photograph is too small, or too plain or too regular to have such places.
    """
    photo = image.convert("RGB")
    if min(photo.size) < SMALLEST_SIDE_PX:
        return None
    composed = strip_for(photo.size).size
    side = draw_side(panel_side(photo.size), composed, rng, budgets)
    line = _line_px(composed, side, budgets)
    field = field_of(photo, side, line + 1)
    for asked in range(min(count, len(LETTERS)), 0, -1):
        places = alike_places(field, rng, asked, len(LETTERS))
        if places is not None:
            break
    else:
        return None
    order = rng.permutation(len(LETTERS)).tolist()
    frames = _framed(photo, [order.index(n) for n in range(asked)], rng)
    recipe = {
        "kind": "closeup",
        "photo": list(photo.size),
        "places": [whole(places[n]) for n in order],
        "line": line,
        "frames": frames,
    }
    return _puzzle(photo, recipe, [frame["place"] for frame in frames])


def where(
    image: Image.Image,
    rng: np.random.Generator,
    count: int,
    budgets: Sequence[int] = RESOLUTIONS,
) -> Puzzle | None:
    """Four close-ups, up to `count` (at most 4) of which are to be found in the photograph."""
    photo = image.convert("RGB")
    if min(photo.size) < SMALLEST_SIDE_PX:
        return None
    composed, places = strip_for(photo.size).size, list[Box]()
    asked = 0
    for n in range(len(LETTERS)):
        side = draw_side(panel_side(photo.size), composed, rng, budgets)
        field = field_of(photo, side, 1)
        alone = lone_place(field, rng, places) if n < count else None
        place = alone or any_place(field, rng, places)
        if place is None:
            return None
        asked += alone is not None
        places.insert(0 if alone else len(places), place)
    order = rng.permutation(len(LETTERS)).tolist()
    recipe = {
        "kind": "where",
        "photo": list(photo.size),
        "places": [whole(places[n]) for n in order],
        "line": 0,
        "frames": [],
    }
    return _puzzle(photo, recipe, [order.index(n) for n in range(asked)]) if asked else None


def derive(image: Image.Image, recipe: Recipe) -> tuple[Image.Image, Posed]:
    """The composed picture and the question, from the photograph as found and the recipe."""
    return _composed(image.convert("RGB"), recipe), _posed(recipe)


def _puzzle(photo: Image.Image, recipe: dict[str, Any], asked: Sequence[int]) -> Puzzle:
    posed = tuple(_posed(recipe | {"asked": place}) for place in asked)
    return Puzzle(_composed(photo, recipe), posed)


def _composed(photo: Image.Image, recipe: Recipe) -> Image.Image:
    places = [Box(*place) for place in recipe["places"]]
    picture = compose(photo, places)
    draw, line = ImageDraw.Draw(picture), int(recipe["line"])
    for frame in recipe["frames"]:
        box = places[frame["place"]]
        outer = (box.x0 - line, box.y0 - line, box.x1 + line - 1, box.y1 + line - 1)
        draw.rectangle(outer, outline=COLORS[frame["color"]], width=line)
    return picture


def _posed(recipe: Recipe) -> Posed:
    asked = int(recipe["asked"])
    strip = strip_for((int(recipe["photo"][0]), int(recipe["photo"][1])))
    beside = BESIDE[strip.side]
    place = Box(*recipe["places"][asked])
    if recipe["kind"] == "where":
        text = WHERE.format(letter=LETTERS[asked], beside=beside)
        return Posed(text, str(whole(place)), (), (place,), "where", recipe)
    color = next(f["color"] for f in recipe["frames"] if f["place"] == asked)
    text = MATCH.format(beside=beside, color=color)
    boxes = (place, strip.panels[asked])
    return Posed(text, OPTIONS[asked], OPTIONS, boxes, "closeup", recipe)


def _line_px(composed: Size, side: int, budgets: Sequence[int]) -> int:
    """Width of a frame's line: visible in the smallest view, thin beside its place."""
    scale = view_size(composed, min(budgets))[0] / composed[0]
    return max(2, min(math.ceil(_LINE_PX / scale), side // _THICKEST))


def _framed(
    photo: Image.Image, places: Sequence[int], rng: np.random.Generator
) -> list[dict[str, Any]]:
    """A frame of its own colour for each place, in the colours that the photograph has least of."""
    pixels = np.asarray(photo.resize((64, 64), Image.Resampling.BILINEAR), np.float32)

    def presence(color: str) -> float:
        away = np.linalg.norm(pixels - np.array(COLORS[color], np.float32), axis=-1)
        return round(float((away < _RESEMBLES).mean()), 2)

    shuffled = [FRAMES[n] for n in rng.permutation(len(FRAMES))]
    colors = sorted(shuffled, key=presence)
    return [{"place": n, "color": c} for n, c in zip(places, colors, strict=False)]
