"""Needle tasks: small tags with codes put onto any picture, and questions about them.

One composite carries all its questions. Sizes are drawn from the ratio between a budget's view and
the source, so that over the budgets some codes can be read at once and others only up close.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.geometry import RESOLUTIONS, Box, Size, view_size
from pipeline.scenes.tags import ALPHABET, COLORS, SHAPES, TEXT_HEIGHT, draw_tag

CODE_LENGTH = 3
TAGS = (3, 7)
"""Fewest and most tags on one picture."""
SOURCE_CAP_PX = 11
"""A capital letter is at least this high in the source: every code is legible there."""
VISIBLE_PX = 8
"""A tag is at least this wide in the view of the smallest budget."""
READABLE_CAP_PX = (5.0, 12.0)
"""Range of a capital's height in the view of the budget that a tag's size is drawn for."""
LARGEST_SHARE = 0.24
"""Largest tag, as a share of the picture's shorter side."""
SMALLEST_SIDE_PX = 160
"""A picture with a shorter side has no room for tags."""

_TRIES = 60
_GAP = 0.35
_CLEAR_LEAD = 1.35


@dataclass(frozen=True, slots=True)
class Tag:
    """One tag on a picture, in source pixels."""

    shape: str
    color: str
    code: str
    box: Box

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape}"


@dataclass(frozen=True, slots=True)
class Question:
    """A question about the tags, its answer, and where that can be seen."""

    text: str
    answer: str
    target: Tag
    task: str
    """`read`, `nearest`, or `extreme`."""


def plant(
    image: Image.Image, rng: np.random.Generator, budgets: Sequence[int] = RESOLUTIONS
) -> tuple[Image.Image, list[Tag]]:
    """The picture (RGB) with 3 to 7 tags on it; no two share both shape and colour.

    Fewer tags, down to none, come back when the picture has no room for more.
    """
    canvas = image.convert("RGB")
    if min(canvas.size) < SMALLEST_SIDE_PX:
        return canvas, []
    count = int(rng.integers(TAGS[0], TAGS[1] + 1))
    pairs = [(s, c) for s in SHAPES for c in COLORS]
    tags: list[Tag] = []
    for index in rng.permutation(len(pairs))[:count]:
        shape, color = pairs[int(index)]
        side = _draw_side(canvas.size, rng, budgets)
        box = free_place(canvas, side, color, [tag.box for tag in tags], rng)
        if box is None:
            continue
        code = _code(rng, tags)
        picture = draw_tag(shape, color, code, side)
        canvas.paste(picture, (int(box.x0), int(box.y0)), picture)
        tags.append(Tag(shape, color, code, box))
    return canvas, tags


def questions(tags: Sequence[Tag], rng: np.random.Generator, count: int) -> list[Question]:
    """At most `count` different questions, plain and relational ones mixed."""
    if len(tags) < TAGS[0]:
        return []
    plain = [Question(f"What is written on the {t.name}?", t.code, t, "read") for t in tags]
    mixed = [plain.pop(int(rng.integers(len(plain))))]
    pool = plain + _nearest(tags) + _extremes(tags)
    mixed += [pool[int(i)] for i in rng.permutation(len(pool))]
    return mixed[:count]


def _draw_side(size: Size, rng: np.random.Generator, budgets: Sequence[int]) -> int:
    """A side in pixels: legible in the source, visible in the smallest view."""
    views = {r: view_size(size, r)[0] / size[0] for r in budgets}
    smallest = min(views.values())
    scale = min(views[int(rng.choice(list(budgets)))], 1.0)
    wanted = rng.uniform(*READABLE_CAP_PX) / TEXT_HEIGHT / scale
    least = max(SOURCE_CAP_PX / TEXT_HEIGHT, VISIBLE_PX / smallest)
    most = max(LARGEST_SHARE * min(size), SOURCE_CAP_PX / TEXT_HEIGHT)
    return round(min(max(wanted, least), most))


def free_place(
    canvas: Image.Image, side: int, color: str, taken: Sequence[Box], rng: np.random.Generator
) -> Box | None:
    """A free place, away from those taken, where the colour stands out if there is one."""
    fallback = None
    for _ in range(_TRIES):
        x = int(rng.integers(0, canvas.width - side + 1))
        y = int(rng.integers(0, canvas.height - side + 1))
        box = Box(x, y, x + side, y + side)
        if any(_too_close(box, other) for other in taken):
            continue
        fallback = fallback or box
        if _stands_out(canvas, box, COLORS[color]):
            return box
    return fallback


def _too_close(box: Box, other: Box) -> bool:
    gap = _GAP * max(box.width, other.width)
    grown = Box(other.x0 - gap, other.y0 - gap, other.x1 + gap, other.y1 + gap)
    return box.intersection(grown) > 0


def _stands_out(canvas: Image.Image, box: Box, color: tuple[int, int, int]) -> bool:
    """Whether what surrounds the place differs from the tag's colour on average."""
    around = box.enlarge(1.8, canvas.size)
    patch = canvas.crop((int(around.x0), int(around.y0), int(around.x1), int(around.y1)))
    pixels = np.asarray(patch.resize((8, 8), Image.Resampling.BOX), np.float32)
    distance = np.linalg.norm(pixels - np.array(color, np.float32), axis=-1)
    return bool(np.quantile(distance, 0.15) > 90)


def _code(rng: np.random.Generator, tags: Sequence[Tag]) -> str:
    """A code that no other tag of the picture carries."""
    while True:
        code = "".join(ALPHABET[int(i)] for i in rng.integers(0, len(ALPHABET), CODE_LENGTH))
        if code not in {tag.code for tag in tags}:
            return code


def _nearest(tags: Sequence[Tag]) -> list[Question]:
    """Which tag is nearest to another, where one clearly is."""
    out = []
    for tag in tags:
        others = sorted(
            (math.dist(tag.box.centre, o.box.centre), i) for i, o in enumerate(tags) if o is not tag
        )
        if len(others) > 1 and others[1][0] > _CLEAR_LEAD * others[0][0]:
            near = tags[others[0][1]]
            text = f"What is written on the tag nearest to the {tag.name}?"
            out.append(Question(text, near.code, near, "nearest"))
    return out


def _extremes(tags: Sequence[Tag]) -> list[Question]:
    """The tag furthest to one side, where one clearly is."""
    out = []
    for name, axis, sign in (
        ("leftmost", 0, 1),
        ("rightmost", 0, -1),
        ("topmost", 1, 1),
        ("bottommost", 1, -1),
    ):
        order = sorted(tags, key=lambda t: sign * t.box.centre[axis])
        lead = abs(order[1].box.centre[axis] - order[0].box.centre[axis])
        if lead > 0.5 * max(order[0].box.width, order[1].box.width):
            out.append(
                Question(f"What is written on the {name} tag?", order[0].code, order[0], "extreme")
            )
    return out
