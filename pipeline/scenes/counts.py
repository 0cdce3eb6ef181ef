"""Count the small ones: many blank tags on a picture, some of the kind that is asked for.

Tags are of the size that needs a closer look at some budgets, as codes are in `needles`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from pipeline.geometry import RESOLUTIONS, Box, Size, view_size
from pipeline.scenes.needles import LARGEST_SHARE, SMALLEST_SIDE_PX, VISIBLE_PX, free_place
from pipeline.scenes.puzzles import Posed, Puzzle, Recipe
from pipeline.scenes.tags import COLORS, SHAPES, draw_tag

ASKED = (2, 6)
"""Fewest and most tags of the kind that is asked for."""
OTHERS = (3, 7)
"""Fewest and most tags beside them."""
OF_A_COLOR = 7
"""Tags of one colour, at most."""
SMALLEST_PX = 24
"""A tag is at least this wide in the source: every shape can be told there."""
SEEN_PX = (9.0, 24.0)
"""Range of a tag's side in the view of the budget that its size is drawn for."""

PATTERN = re.compile(
    rf"How many (?:(?P<color>{'|'.join(COLORS)}) )?(?:(?P<shape>{'|'.join(SHAPES)}) )?"
    r"tags are in the picture\?"
)

TagLine = Sequence[Any]
"""shape, color, x, y, side: a tag as a recipe writes it, composed pixels."""


def count(
    image: Image.Image,
    rng: np.random.Generator,
    most: int,
    budgets: Sequence[int] = RESOLUTIONS,
) -> Puzzle | None:
    """The picture with 5 to 13 blank tags, and up to `most` (at most 3) questions how many.

    None where there is no room for two of the kind asked for.
    """
    photo = image.convert("RGB")
    if min(photo.size) < SMALLEST_SIDE_PX:
        return None
    shape, color = str(rng.choice(SHAPES)), str(rng.choice(list(COLORS)))
    tags: list[list[Any]] = []
    canvas = photo.copy()
    for kind in _kinds(shape, color, rng):
        side = _draw_side(photo.size, rng, budgets)
        taken = [box_of(tag) for tag in tags]
        place = free_place(canvas, side, kind[1], taken, rng)
        if place is not None:
            tags.append([*kind, int(place.x0), int(place.y0), side])
    if sum(fits(tag, color, shape) for tag in tags) < ASKED[0]:
        return None
    recipe = {"kind": "count", "photo": list(photo.size), "tags": tags}
    asks = [[color, shape], [color, None], [None, shape]][:most]
    posed = tuple(_posed(recipe | {"asked": ask}) for ask in asks)
    return Puzzle(_composed(photo, recipe), posed)


def derive(image: Image.Image, recipe: Recipe) -> tuple[Image.Image, Posed]:
    """The composed picture and the question, from the picture as found and the recipe."""
    return _composed(image.convert("RGB"), recipe), _posed(recipe)


def fits(tag: TagLine, color: str | None, shape: str | None) -> bool:
    """Whether a tag is of the kind that a question names; None is any."""
    return (shape is None or tag[0] == shape) and (color is None or tag[1] == color)


def box_of(tag: TagLine) -> Box:
    x, y, side = tag[2:]
    return Box(x, y, x + side, y + side)


def _kinds(shape: str, color: str, rng: np.random.Generator) -> list[tuple[str, str]]:
    """(shape, colour) of every tag in random order: those asked for, near ones, any others."""
    wanted = int(rng.integers(ASKED[0], ASKED[1] + 1))
    kinds = [(shape, color)] * wanted
    for _ in range(int(rng.integers(OTHERS[0], OTHERS[1] + 1))):
        other = (str(rng.choice(SHAPES)), str(rng.choice(list(COLORS))))
        turn = int(rng.integers(3))
        near = [(other[0], color), (shape, other[1]), other][turn]
        same = sum(kind[1] == near[1] for kind in kinds)
        if near != (shape, color) and same < OF_A_COLOR:
            kinds.append(near)
    return [kinds[int(n)] for n in rng.permutation(len(kinds))]


def _draw_side(size: Size, rng: np.random.Generator, budgets: Sequence[int]) -> int:
    """A side in pixels: seen in the smallest view, told apart in the source."""
    scales = {r: view_size(size, r)[0] / size[0] for r in budgets}
    scale = min(scales[int(rng.choice(list(budgets)))], 1.0)
    least = max(SMALLEST_PX, VISIBLE_PX / min(scales.values()))
    most = max(LARGEST_SHARE * min(size) / 2, SMALLEST_PX)
    return round(min(max(rng.uniform(*SEEN_PX) / scale, least), most))


def _composed(photo: Image.Image, recipe: Recipe) -> Image.Image:
    canvas = photo.copy()
    for shape, color, x, y, side in recipe["tags"]:
        picture = draw_tag(shape, color, "", side)
        canvas.paste(picture, (x, y), picture)
    return canvas


def _posed(recipe: Recipe) -> Posed:
    color, shape = recipe["asked"]
    kind = " ".join(word for word in (color, shape, "tags") if word)
    found = [tag for tag in recipe["tags"] if fits(tag, color, shape)]
    text = f"How many {kind} are in the picture?"
    return Posed(text, str(len(found)), (), tuple(map(box_of, found)), "count", recipe)
