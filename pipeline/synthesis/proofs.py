"""The truth of a puzzle, looked up in its published picture by its recipe.

Takes the stored pixels, the recipe and the question's wording; never the stored answer. A recipe
that does not fit the picture proves nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageChops

from pipeline.errors import InvalidBox
from pipeline.geometry import Box
from pipeline.scenes import changes, counts
from pipeline.scenes.closeups import OPTIONS
from pipeline.scenes.puzzles import LETTERS, Recipe, cut, whole
from pipeline.scenes.retouch import CutOut, outline
from pipeline.scenes.strips import Strip, strip_for
from pipeline.scenes.tags import COLORS, draw_tag
from pipeline.synthesis.sign_proof import look_problems, sign_answer

SAME = 6.0
"""Two copies of one place differ by less than this on average, in levels: what JPEG leaves."""
OTHER = 2.0
"""Anything else differs from it by more than this many times as much, and `SAME` at least."""

_FRAME = 90.0
_BLOCK = 16
_PLAIN = 0.75 * changes.DIFFERENCE
_MOST = 0.9 * changes.CHANGED
_OUTLINED = 1.15
_SAME_LIGHT = 1.35
_MOVED = 0.5
_COLOR = re.compile(r" in the (\w+) frame\?")
_LETTER = re.compile(r" close-up ([A-D]) ")


def is_provable(recipe: str | None) -> bool:
    """Whether a recipe is of a kind whose answer can be looked up here."""
    try:
        return recipe is not None and json.loads(recipe)["kind"] in PROOFS
    except (ValueError, KeyError, TypeError):
        return True  # no recipe at all: nothing follows from it


def proven(image: Image.Image, recipe: str, question: str) -> str:
    """The answer that follows from the picture and the recipe; "" when none does."""
    try:
        read = json.loads(recipe)
        return PROOFS[read["kind"]](image, read, question)
    except (ValueError, KeyError, TypeError, IndexError, InvalidBox):
        return ""  # not a recipe, or one of a picture unlike this


def looked_past(recipe: str, task: str, targets: Sequence[Box], region: Box) -> Sequence[str]:
    """What is wrong with a look (a region), in tasks where one must show the target."""
    if task not in ("sign_read", "sign_word"):
        return ()
    try:
        return look_problems(json.loads(recipe), targets, region)
    except (ValueError, KeyError, TypeError, IndexError):
        return ()  # `proven` has nothing to say of such a recipe, and that counts


def _closeup(image: Image.Image, recipe: Recipe, question: str) -> str:
    """The close-up that equals the place in the frame of the question's colour."""
    strip = _strip(image, recipe)
    named = _COLOR.search(question)
    assert named is not None
    frame = next(f for f in recipe["frames"] if f["color"] == named[1])
    place = Box(*recipe["places"][frame["place"]])
    if not strip.photo.contains(place) or not _is_framed(image, place, recipe["line"], named[1]):
        return ""
    panel = _only_copy(image, place, strip)
    return "" if panel is None else OPTIONS[panel]


def _where(image: Image.Image, recipe: Recipe, question: str) -> str:
    """The place that equals the close-up of the question's letter."""
    strip = _strip(image, recipe)
    named = _LETTER.search(question)
    assert named is not None
    letter = LETTERS.index(named[1])
    place = Box(*recipe["places"][letter])
    if not strip.photo.contains(place) or _only_copy(image, place, strip) != letter:
        return ""
    return str(whole(place))


def _change(image: Image.Image, recipe: Recipe, question: str) -> str:
    """What differs between the pictures where the recipe says, and nothing differs elsewhere."""
    width, height = recipe["photo"]
    panes = changes.panes_for((int(width), int(height)))
    if panes.size != image.size:
        return ""
    first, second = (np.asarray(cut(image, pane)) for pane in (panes.first, panes.second))
    places, object_ = changes.boxes(recipe), changes.mask_of(recipe)
    quarter = changes.quarter_of(places, panes.first)
    if quarter is None or not _differ_only(first, second, places):
        return ""
    way = _way(first, second, object_, recipe.get("shift"))
    if way is None or way != recipe["change"]:
        return ""
    if question.endswith(changes.WHERE.rpartition("}")[2]):
        return changes.QUARTERS[quarter]
    return changes.WAYS[way]


def _differ_only(first: np.ndarray, second: np.ndarray, places: Sequence[Box]) -> bool:
    """Whether two pictures are equal but for what JPEG leaves, outside some places."""
    away = np.abs(first.astype(np.int16) - second).max(2).astype(np.float32)
    for place in places:
        x0, y0, x1, y1 = whole(place)
        away[max(y0 - _BLOCK, 0) : y1 + _BLOCK, max(x0 - _BLOCK, 0) : x1 + _BLOCK] = 0
    rows, cols = (side // _BLOCK * _BLOCK for side in away.shape)
    blocks = away[:rows, :cols].reshape(rows // _BLOCK, _BLOCK, cols // _BLOCK, _BLOCK)
    return bool(blocks.mean((1, 3)).max() < SAME)


def _way(
    first: np.ndarray, second: np.ndarray, object_: CutOut, shift: Sequence[int] | None
) -> changes.Way | None:
    """How the second picture differs from the first by an object, told from the pixels."""
    here, there = (object_.pixels(one).astype(np.int16) for one in (first, second))
    if float((np.abs(here - there).max(1) >= _PLAIN).mean()) < _MOST:
        return None
    if shift is not None:
        at = (int(shift[0]), int(shift[1]))
        before, now = (object_.pixels(one, at).astype(np.int16) for one in (first, second))
        moved = float(np.abs(now - here).mean()) < _MOVED * float(np.abs(before - here).mean())
        return "moved" if moved else None
    light, *color = np.abs(_ycc(here) - _ycc(there)).mean(0).tolist()
    was, is_ = (outline(_light(one), object_) for one in (first, second))
    if max(color) > 2 * light and max(was, is_) < _SAME_LIGHT * min(was, is_):
        return "recolored"
    was, is_ = (outline(one, object_) for one in (first, second))
    if max(was, is_) < _OUTLINED * min(was, is_):
        return None
    return "removed" if was > is_ else "added"


def _light(picture: np.ndarray) -> np.ndarray:
    """The brightness of a picture, uint8 (H, W, 1)."""
    return np.asarray(Image.fromarray(picture).convert("L"))[..., None]


def _ycc(pixels: np.ndarray) -> np.ndarray:
    """Y, Cb and Cr of pixels (N, 3)."""
    row = Image.fromarray(pixels.astype(np.uint8)[None]).convert("YCbCr")
    return np.asarray(row, np.float32)[0]


def _count(image: Image.Image, recipe: Recipe, question: str) -> str:
    """How many of the tags that can be seen where the recipe says are of the question's kind."""
    asked = counts.PATTERN.fullmatch(question)
    assert asked is not None
    if not all(_is_drawn(image, *tag) for tag in recipe["tags"]):
        return ""
    found = [t for t in recipe["tags"] if counts.fits(t, asked["color"], asked["shape"])]
    return str(len(found))


def _is_drawn(image: Image.Image, shape: str, color: str, x: int, y: int, side: int) -> bool:
    """Whether the picture shows a tag at a place."""
    tag = draw_tag(shape, color, "", side)
    shown = image.crop((x, y, x + side, y + side))
    inside = np.asarray(tag.getchannel("A")) > 250
    away = np.abs(np.asarray(tag.convert("RGB"), np.int16) - np.asarray(shown, np.int16))
    return bool(away[inside].mean() < 2 * SAME)


PROOFS: Mapping[str, Callable[[Image.Image, Recipe, str], str]] = {
    "closeup": _closeup,
    "where": _where,
    "change": _change,
    "count": _count,
    "signs": sign_answer,
}
"""By the recipe's `kind`."""


def _strip(image: Image.Image, recipe: Mapping[str, Any]) -> Strip:
    """The layout; raises `ValueError` where it is not this picture's."""
    width, height = recipe["photo"]
    strip = strip_for((int(width), int(height)))
    if strip.size != image.size:
        raise ValueError(f"A picture of {image.size} is not composed of one of {width} x {height}.")
    return strip


def _only_copy(image: Image.Image, place: Box, strip: Strip) -> int | None:
    """The one close-up that shows a place; None where none does, or not only one."""
    side = int(strip.panels[0].width)
    wanted = cut(image, place).resize((side, side), Image.Resampling.LANCZOS)
    away = [_difference(wanted, cut(image, panel)) for panel in strip.panels]
    best = int(np.argmin(away))
    others = min(away[:best] + away[best + 1 :])
    return best if away[best] < SAME and others > max(OTHER * away[best], SAME) else None


def _is_framed(image: Image.Image, place: Box, line: int, color: str) -> bool:
    """Whether a line of the colour runs all around a place."""
    pixels = np.asarray(image, np.float32)
    x0, y0, x1, y1 = whole(place)
    sides = (
        pixels[y0 - line : y0, x0:x1],
        pixels[y1 : y1 + line, x0:x1],
        pixels[y0:y1, x0 - line : x0],
        pixels[y0:y1, x1 : x1 + line],
    )
    wanted = np.array(COLORS[color], np.float32)
    return all(
        side.size and float(np.linalg.norm(side - wanted, axis=-1).mean()) < _FRAME
        for side in sides
    )


def _difference(one: Image.Image, other: Image.Image) -> float:
    """Mean absolute difference of two pictures of one size, in levels of 0..255."""
    return float(np.asarray(ImageChops.difference(one, other)).mean())
