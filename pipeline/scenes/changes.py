"""Spot the change: two copies of a photograph, and in one of them a real object was changed.

The object is a cut-out of the photograph itself: taken away, moved, or given another colour. All
else is equal to the last pixel, so the truth is in the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import numpy as np
from PIL import Image

from pipeline.geometry import Box, Size
from pipeline.scenes import retouch
from pipeline.scenes.puzzles import Posed, Puzzle, Recipe, whole
from pipeline.scenes.retouch import HALO_PX, CutOut

Way = Literal["removed", "added", "moved", "recolored"]
Side = Literal["below", "right"]

WAYS: dict[Way, str] = {
    "removed": "something is missing from it",
    "added": "something was added to it",
    "moved": "something is in another place",
    "recolored": "something has another color",
}
QUARTERS = ("upper left", "upper right", "lower left", "lower right")
NAMES: dict[Side, tuple[str, str]] = {"below": ("upper", "lower"), "right": ("left", "right")}
"""What the two pictures are called."""

WHERE = (
    "The {second} picture is a copy of the {first} one, but one thing was changed. "
    "In which part of the picture?"
)
WHAT = (
    "The {second} picture is a copy of the {first} one, but one thing was changed. "
    "What is different in the {second} picture?"
)

SMALLEST_SIDE_PX = 240
"""A photograph with a shorter side is too small."""
SIDE_SHARE = (0.02, 0.14)
"""Range of a cut-out's longer side, as a share of the photograph's longer side."""
SMALLEST_PX = 14
DIFFERENCE = 24.0
"""A changed pixel differs by at least this much in some channel, in levels of 0..255."""
CHANGED = 0.6
"""Least share of a cut-out's pixels that are changed so."""
OUTLINED = 1.4
"""Edges along its border are this much stronger where an object is than where it is not."""
CHROMA = 55
"""By how much a colour is moved, in levels of Cb and Cr."""

_GRID = 16
_TRIES = 16
_FEW = 3


@dataclass(frozen=True, slots=True)
class Panes:
    """Where the two pictures lie."""

    size: Size
    side: Side
    first: Box
    second: Box


def panes_for(photo: Size) -> Panes:
    """The layout for a photograph: the longer sides together."""
    side: Side = "below" if photo[0] >= photo[1] else "right"
    offset = _offset(photo[1] if side == "below" else photo[0])
    return _panes(photo, side, offset)


def panes_of(size: Size, side: Side) -> Panes:
    """The layout of a composed picture; raises `ValueError` where it is not composed so."""
    length = size[1] if side == "below" else size[0]
    for depth in range(length // 2, 0, -1):
        if _offset(depth) + depth == length:
            photo = (size[0], depth) if side == "below" else (depth, size[1])
            return _panes(photo, side, _offset(depth))
        if _offset(depth) + depth < length - 2 * _GRID:
            break
    raise ValueError(f"A picture of {size[0]} x {size[1]} is not two of one size.")


def spot(
    image: Image.Image,
    cuts: Sequence[CutOut],
    rng: np.random.Generator,
    count: int,
) -> Puzzle | None:
    """Two copies that differ in one of the cut-outs, and up to two questions about that.

    None where the photograph is too small or none of the cut-outs makes a plain difference.
    """
    photo = image.convert("RGB")
    if min(photo.size) < SMALLEST_SIDE_PX:
        return None
    pixels = np.asarray(photo)
    usable = [cut for cut in cuts if _fits(cut, photo.size)]
    usable.sort(key=lambda cut: -retouch.contrast(pixels, cut))
    best = usable[: max(_FEW, len(usable) // 2)]
    tries = [best[int(n)] for n in rng.permutation(len(best))] + usable[len(best) : _TRIES]
    ways: list[Way] = [list(WAYS)[int(n)] for n in rng.permutation(len(WAYS))]
    for number, cut in enumerate(tries):
        way = ways[number % len(ways)]
        recipe = _recipe(pixels, cut, way, rng)
        if recipe is not None and _is_plain(pixels, cut, recipe):
            asks = [("where", "what")[int(n)] for n in rng.permutation(2)][:count]
            return _puzzle(photo, recipe, asks, rng)
    return None


def derive(image: Image.Image, recipe: Recipe) -> tuple[Image.Image, Posed]:
    """The composed picture and the question, from the photograph as found and the recipe."""
    return _composed(image.convert("RGB"), recipe), posed(recipe)


def boxes(recipe: Recipe) -> list[Box]:
    """Where the photograph is changed, in its own pixels: one place, or two of what was moved."""
    halo = 0 if recipe["change"] == "recolored" else HALO_PX
    x0, y0, x1, y1 = recipe["cut"]["box"]
    first = Box(x0 - halo, y0 - halo, x1 + halo, y1 + halo)
    if recipe["change"] != "moved":
        return [first]
    dx, dy = recipe["shift"]
    return [first, Box(x0 + dx, y0 + dy, x1 + dx, y1 + dy)]


def posed(recipe: Recipe) -> Posed:
    """The question of a recipe."""
    panes = panes_for((int(recipe["photo"][0]), int(recipe["photo"][1])))
    names = dict(zip(("first", "second"), NAMES[panes.side], strict=True))
    places = boxes(recipe)
    if recipe["asks"] == "where":
        words, text = list(QUARTERS), WHERE
        answer = QUARTERS[quarter_of(places, panes.first) or 0]
    else:
        words, text = list(WAYS.values()), WHAT
        answer = WAYS[recipe["change"]]
    options = tuple(words[n] for n in recipe["order"])
    seen = tuple(
        Box(b.x0 + p.x0, b.y0 + p.y0, b.x1 + p.x0, b.y1 + p.y0)
        for p in (panes.second, panes.first)
        for b in places
    )
    return Posed(text.format(**names), answer, options, seen, "change", recipe)


def quarter_of(places: Sequence[Box], photo: Box) -> int | None:
    """The quarter of the photograph that all places lie in, clear of its middle lines."""
    x, y = photo.centre
    clear_x, clear_y = 0.01 * photo.width, 0.01 * photo.height

    def half(low: float, high: float, middle: float, clear: float) -> int | None:
        return 0 if high <= middle - clear else 1 if low >= middle + clear else None

    halves = {(half(b.x0, b.x1, x, clear_x), half(b.y0, b.y1, y, clear_y)) for b in places}
    ((column, row),) = halves if len(halves) == 1 else {(None, None)}
    return None if column is None or row is None else 2 * row + column


def mask_of(recipe: Recipe) -> CutOut:
    """The cut-out of a recipe."""
    box = Box(*recipe["cut"]["box"])
    runs = recipe["cut"]["runs"]
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return CutOut(box, flat.reshape(int(box.height), int(box.width)))


def _puzzle(
    photo: Image.Image, recipe: dict[str, Any], asks: Sequence[str], rng: np.random.Generator
) -> Puzzle:
    recipes = [{**recipe, "asks": ask, "order": rng.permutation(4).tolist()} for ask in asks]
    return Puzzle(_composed(photo, recipe), tuple(posed(one) for one in recipes))


def _composed(photo: Image.Image, recipe: Recipe) -> Image.Image:
    changed = Image.fromarray(_changed(np.asarray(photo), mask_of(recipe), recipe))
    panes = panes_for(photo.size)
    canvas = Image.new("RGB", panes.size, (250, 250, 250))
    pair = (changed, photo) if recipe["change"] == "added" else (photo, changed)
    for pane, picture in zip((panes.first, panes.second), pair, strict=True):
        canvas.paste(picture, (int(pane.x0), int(pane.y0)))
    return canvas


def _changed(pixels: np.ndarray, cut: CutOut, recipe: Recipe) -> np.ndarray:
    """The photograph as the recipe changes it."""
    if recipe["change"] == "recolored":
        return retouch.recolored(pixels, cut, tuple(recipe["chroma"]))
    shift = None if recipe["fill"] is None else tuple(recipe["fill"])
    out = retouch.filled(pixels, cut, shift)
    if recipe["change"] == "moved":
        retouch.pasted(out, pixels, cut, tuple(recipe["shift"]))
    return out


def _recipe(
    pixels: np.ndarray, cut: CutOut, way: Way, rng: np.random.Generator
) -> dict[str, Any] | None:
    """How a cut-out is changed; None where this way there is no room for it."""
    height, width = pixels.shape[:2]
    runs = [len(list(group)) for _, group in groupby(cut.mask.ravel().tolist())]
    recipe: dict[str, Any] = {
        "kind": "change",
        "photo": [width, height],
        "change": way,
        "cut": {"box": whole(cut.box), "runs": [0, *runs] if cut.mask.flat[0] else runs},
    }
    if way == "recolored":
        recipe["chroma"] = _chroma(pixels, cut, rng)
    else:
        found = retouch.fill_shift(pixels, cut)
        recipe["fill"] = None if found is None else list(found)
    if way == "moved":
        recipe["shift"] = _shift(cut, (width, height), rng)
        if recipe["shift"] is None:
            return None
    whole_photo = Box(0, 0, width, height)
    return None if quarter_of(boxes(recipe), whole_photo) is None else recipe


def _is_plain(pixels: np.ndarray, cut: CutOut, recipe: Recipe) -> bool:
    """Whether most of the cut-out's pixels differ plainly, where it was and where it is now.

    What is gone had an outline, and what has moved has one: it is seen which copy lacks something.
    """
    changed = _changed(pixels, cut, recipe)
    places = [((0, 0), pixels, changed)]
    if recipe["change"] == "moved":
        places.append((tuple(recipe["shift"]), changed, pixels))
    for shift, there, gone in places:
        now, before = (cut.pixels(one, shift).astype(np.int16) for one in (changed, pixels))
        if float((np.abs(now - before).max(1) >= DIFFERENCE).mean()) < CHANGED:
            return False
        if recipe["change"] != "recolored" and (
            retouch.outline(there, cut, shift) < OUTLINED * retouch.outline(gone, cut, shift)
        ):
            return False
    return True


def _chroma(pixels: np.ndarray, cut: CutOut, rng: np.random.Generator) -> list[int]:
    """Which way the colour goes: across the wheel from where it is, or anywhere from grey."""
    mean = Image.fromarray(cut.pixels(pixels).mean(0, keepdims=True).round().astype(np.uint8)[None])
    _, cb, cr = np.asarray(mean.convert("YCbCr"), np.float32)[0, 0] - 128
    turn = np.arctan2(-cr, -cb) if np.hypot(cb, cr) > 12 else rng.uniform(0, 2 * np.pi)
    length = CHROMA + float(np.hypot(cb, cr))
    return [round(float(length * np.cos(turn))), round(float(length * np.sin(turn)))]


def _shift(cut: CutOut, size: Size, rng: np.random.Generator) -> list[int] | None:
    """To where a cut-out moves, off its old place and inside its quarter of the photograph."""
    width, height = int(cut.box.width), int(cut.box.height)
    quarter = quarter_of([cut.box], Box(0, 0, *size))
    if quarter is None:
        return None
    left, top = (quarter % 2) * size[0] // 2, (quarter // 2) * size[1] // 2
    far = HALO_PX + 1
    for _ in range(_TRIES):
        dx = int(rng.integers(-3 * width, 3 * width + 1))
        dy = int(rng.integers(-3 * height, 3 * height + 1))
        if abs(dx) < width + 2 * far and abs(dy) < height + 2 * far:
            continue
        x0, y0 = cut.box.x0 + dx, cut.box.y0 + dy
        room = Box(left, top, left + size[0] // 2, top + size[1] // 2)
        if room.contains(Box(x0 - far, y0 - far, x0 + width + far, y0 + height + far)):
            return [dx, dy]
    return None


def _fits(cut: CutOut, size: Size) -> bool:
    """Whether a cut-out is small, solid, and clear of the photograph's edges."""
    longest = max(cut.box.width, cut.box.height)
    least, most = (share * max(size) for share in SIDE_SHARE)
    edge = HALO_PX + 1
    room = Box(edge, edge, size[0] - edge, size[1] - edge)
    solid = float(cut.mask.mean()) >= 0.35
    small = least <= longest <= most and min(cut.box.width, cut.box.height) >= SMALLEST_PX
    return small and solid and room.contains(cut.box)


def _panes(photo: Size, side: Side, offset: int) -> Panes:
    first = Box(0, 0, *photo)
    x, y = (0, offset) if side == "below" else (offset, 0)
    second = Box(x, y, x + photo[0], y + photo[1])
    return Panes((int(second.x1), int(second.y1)), side, first, second)


def _offset(depth: int) -> int:
    """From one picture to the next: a multiple of `_GRID`, so that a JPEG treats both alike."""
    gap = max(8, depth // 40)
    return -(-(depth + gap) // _GRID) * _GRID
