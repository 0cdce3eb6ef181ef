"""Two objects in coloured frames, told of by their masks alone: which is larger, which is where.

For masks that nobody has labelled, such as SA-1B's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from pipeline.geometry import Box
from pipeline.scenes.puzzles import Posed, Puzzle, Recipe, whole
from pipeline.scenes.tags import COLORS

PAIRS = (("red", "cyan"), ("yellow", "blue"), ("green", "pink"))
AREA_RATIO = 1.5
"""A mask counts as larger from this many times the other's area on."""
SIDE_SHARE = (0.03, 0.35)
"""Range of a box's longer side, as a share of the picture's longer side."""
_LINE = 0.004
_TRIES = 200

SIZE = "Which object covers more of the picture, the one in the {0} frame or the one in the {1}?"
PLACE = "Is the object in the {0} frame {1} or {2} the one in the {3} frame?"


@dataclass(frozen=True, slots=True)
class Marked:
    """An object: its box in whole pixels, and how many pixels its mask has."""

    box: Box
    area: int


def frame_two(
    image: Image.Image, objects: Sequence[Marked], rng: np.random.Generator, most: int
) -> Puzzle | None:
    """Two objects in frames and at most two questions about them; None where no two suit."""
    photo = image.convert("RGB")
    least, largest = (share * max(photo.size) for share in SIDE_SHARE)
    line = max(2, round(_LINE * max(photo.size)))
    room = Box(line, line, photo.width - line, photo.height - line)
    usable = [
        o
        for o in objects
        if least <= max(o.box.width, o.box.height) <= largest and room.contains(o.box)
    ]
    pairs = list(combinations(usable, 2))
    for n in rng.permutation(len(pairs))[:_TRIES]:
        one, other = pairs[int(n)] if rng.integers(2) else pairs[int(n)][::-1]
        apart = _axis(one.box, other.box, line) is not None
        larger = max(one.area, other.area) >= AREA_RATIO * min(one.area, other.area) > 0
        if not apart or not larger:
            continue
        recipe: dict[str, Any] = {
            "kind": "framed",
            "photo": list(photo.size),
            "boxes": [whole(one.box), whole(other.box)],
            "areas": [one.area, other.area],
            "colors": list(PAIRS[int(rng.integers(len(PAIRS)))]),
            "line": line,
        }
        asks = [("size", "relation")[int(k)] for k in rng.permutation(2)][:most]
        flips = rng.integers(0, 2, len(asks)).tolist()
        recipes = [{**recipe, "asks": a, "flip": f} for a, f in zip(asks, flips, strict=True)]
        return Puzzle(_composed(photo, recipe), tuple(_posed(r) for r in recipes))
    return None


def derive(image: Image.Image, recipe: Recipe) -> tuple[Image.Image, Posed]:
    """The composed picture and the question, from the picture as found and the recipe."""
    return _composed(image.convert("RGB"), recipe), _posed(recipe)


def _composed(photo: Image.Image, recipe: Recipe) -> Image.Image:
    canvas = photo.copy()
    draw, line = ImageDraw.Draw(canvas), int(recipe["line"])
    for (x0, y0, x1, y1), color in zip(recipe["boxes"], recipe["colors"], strict=True):
        outer = (x0 - line, y0 - line, x1 + line - 1, y1 + line - 1)
        draw.rectangle(outer, outline=COLORS[color], width=line)
    return canvas


def _posed(recipe: Recipe) -> Posed:
    one, other = (Box(*box) for box in recipe["boxes"])
    flip = bool(recipe["flip"])
    colors = recipe["colors"]
    if recipe["asks"] == "size":
        words = tuple(f"the one in the {c} frame" for c in (colors[::-1] if flip else colors))
        larger = colors[int(np.argmax(recipe["areas"]))]
        text = SIZE.format(*(colors[::-1] if flip else colors))
        return Posed(text, f"the one in the {larger} frame", words, (one, other), "size", recipe)
    axis = _axis(one, other, 0)
    before, after = (("to the left of", "to the right of"), ("above", "below"))[axis or 0]
    words = (after, before) if flip else (before, after)
    right = before if one.centre[axis or 0] < other.centre[axis or 0] else after
    text = PLACE.format(colors[0], *words, colors[1])
    return Posed(text, right, words, (one, other), "relation", recipe)


def _axis(one: Box, other: Box, line: int) -> int | None:
    """0 where one lies wholly beside the other, 1 where above or below it; None where neither."""
    if one.x1 + line <= other.x0 - line or other.x1 + line <= one.x0 - line:
        return 0
    if one.y1 + line <= other.y0 - line or other.y1 + line <= one.y0 - line:
        return 1
    return None
