"""Needles: drawn pictures with small codes, one question for each; always at hand.

Held out by their keys: no picture that training or synthesis draws has the same randomness. Sizes
of print are spread so that at each budget some codes can be read at once and others only up close.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from PIL import Image

from pipeline.errors import ConfigError
from pipeline.eval.benchmark import Benchmark, Item, benchmark
from pipeline.eval.scorers import match_words
from pipeline.geometry import RESOLUTIONS, Box, Size, view_size
from pipeline.samples import rng_for
from pipeline.scenes.draw import scene
from pipeline.scenes.needles import (
    CODE_LENGTH,
    LARGEST_SHARE,
    SOURCE_CAP_PX,
    TAGS,
    Question,
    Tag,
    questions,
)
from pipeline.scenes.tags import ALPHABET, COLORS, SHAPES, TEXT_HEIGHT, draw_tag
from pipeline.sources.decode import encode

NAME = "needles"
PROTOCOL = "needles-eval-1"
"""Changes when the same settings come to mean other pictures or questions."""
COUNT = 40
SIZE = "2048x1536"
READABLE_PX = 8.0
"""A code counts as readable in a view in which its capitals are at least so high."""
CLOSING = "It is a code of three characters, capitals and digits. Answer with the code alone."
LEAST_PX, MOST_PX = 512, 8192

_KEY = "needles-eval"
_TRIES = 40
_EVERY = 100
"""More questions than a picture has."""
_GAP = 0.35


def read(
    source: str | None = None, *, seed: int = 0, limit: int | None = None, size: str = SIZE
) -> Benchmark:
    """`limit` drawn pictures (`COUNT` unless told) of `size` pixels, such as "4096x3072".

    The first ones are the same whatever the number. Raises `ConfigError` for a size that cannot be.
    """
    if source is not None:
        raise ConfigError("Needles are drawn and have no source.", "Leave it out.")
    shape = _shape(size)
    posed = [_posed(seed, number, shape) for number in range(limit or COUNT)]
    tags = {_image_id(number): each for number, (each, _) in enumerate(posed)}
    items = [_item(number, question, shape) for number, (_, question) in enumerate(posed)]

    return benchmark(
        NAME,
        items,
        picture=lambda item: encode(_drawn(seed, item.image_id, tags[item.image_id], shape)),
        ask=lambda item: f"{item.question} {CLOSING}",
        score=lambda item, said: match_words(said, item.answer),
        protocol={
            "source": PROTOCOL,
            "seed": seed,
            "size": f"{shape[0]}x{shape[1]}",
            "extractor": "exact",
            "closing": CLOSING,
        },
        sizes={},
    )


def readable_from(box: Box, size: Size) -> int:
    """The smallest published budget at which a tag's code can be read in the whole picture."""
    for resolution in RESOLUTIONS:
        scale = view_size(size, resolution)[1] / size[1]
        if box.height * TEXT_HEIGHT * scale >= READABLE_PX:
            return resolution
    return RESOLUTIONS[-1]


def _posed(seed: int, number: int, size: Size) -> tuple[Sequence[Tag], Question]:
    """The tags of a picture and the question about one of them; nothing of the scene is drawn."""
    levels = [r for r in RESOLUTIONS if r * r < size[0] * size[1]] or [RESOLUTIONS[0]]
    wanted = levels[number % len(levels)]
    for attempt in range(_TRIES):
        rng = rng_for(seed, _KEY, number, attempt)
        tags = _tags(rng, size, levels, wanted)
        asked = questions(tags, rng, _EVERY)
        fitting = [question for question in asked if question.target is tags[0]]
        if fitting:
            return tags, fitting[0]
    raise ConfigError(f"Pictures of {size} have no room for codes.", "Take larger ones.")


def _tags(rng: np.random.Generator, size: Size, levels: Sequence[int], wanted: int) -> list[Tag]:
    """Tags of several sizes, apart from each other, no two alike; the first is of that wanted."""
    pairs = [(shape, color) for shape in SHAPES for color in COLORS]
    count = int(rng.integers(TAGS[0], TAGS[1] + 1))
    tags: list[Tag] = []
    for index in rng.permutation(len(pairs))[:count]:
        level = levels[int(rng.integers(len(levels)))] if tags else wanted
        box = _free(rng, size, _side(rng, size, level), [tag.box for tag in tags])
        code = "".join(ALPHABET[int(i)] for i in rng.integers(0, len(ALPHABET), CODE_LENGTH))
        if box is not None and code not in {tag.code for tag in tags}:
            tags.append(Tag(*pairs[int(index)], code, box))
    return tags


def _side(rng: np.random.Generator, size: Size, level: int) -> int:
    """A side in pixels with which a code is readable from this budget on and from none before."""
    scale = view_size(size, level)[1] / size[1]
    smaller = [r for r in RESOLUTIONS if r < level]
    before = view_size(size, smaller[-1])[1] / size[1] if smaller else scale / 1.4
    most = 0.98 * READABLE_PX / TEXT_HEIGHT / before
    wanted = rng.uniform(min(READABLE_PX / TEXT_HEIGHT / scale, most), most)
    least = SOURCE_CAP_PX / TEXT_HEIGHT
    return round(max(min(wanted, LARGEST_SHARE * min(size)), least))


def _free(rng: np.random.Generator, size: Size, side: int, taken: Sequence[Box]) -> Box | None:
    """A square place away from those taken; None where it is not found soon."""
    for _ in range(_TRIES):
        x, y = (int(rng.integers(0, edge - side + 1)) for edge in size)
        gap = _GAP * side
        wide = Box(x - gap, y - gap, x + side + gap, y + side + gap)
        if not any(wide.intersection(other) > 0 for other in taken):
            return Box(x, y, x + side, y + side)
    return None


def _item(number: int, question: Question, size: Size) -> Item:
    box = question.target.box
    category = f"readable from {readable_from(box, size)}"
    image = _image_id(number)
    return Item(image, image, question.text, question.answer, (), category, (box,))


def _drawn(seed: int, image_id: str, tags: Sequence[Tag], size: Size) -> Image.Image:
    """The scene with its tags on it."""
    canvas = Image.fromarray(scene(rng_for(seed, _KEY, "scene", image_id), size).image)
    for tag in tags:
        picture = draw_tag(tag.shape, tag.color, tag.code, round(tag.box.width))
        canvas.paste(picture, (round(tag.box.x0), round(tag.box.y0)), picture)
    return canvas


def _image_id(number: int) -> str:
    return f"needles/{number:04d}"


def _shape(text: str) -> Size:
    """(width, height) from "2048x1536"."""
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", str(text))
    size = (int(found[1]), int(found[2])) if found else (0, 0)
    if not all(LEAST_PX <= side <= MOST_PX for side in size):
        fix = f"Write width x height, each {LEAST_PX} to {MOST_PX}, such as {SIZE}."
        raise ConfigError(f"Pictures of '{text}' cannot be drawn.", fix)
    return size
