"""The truth of a question about signs, looked up in its published picture by its recipe.

What the recipe says of a sign counts only where the stored pixels show it: each line is brought to
the front view and compared with that text's ink, and with the ink of every text that it could be
taken for. No step is shared with the agent's finder or reader.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from pipeline.geometry import Box
from pipeline.scenes.hang import corners, perspective
from pipeline.scenes.imprint import ink
from pipeline.scenes.planes import as_quad, quad_box
from pipeline.scenes.plates import Look
from pipeline.scenes.sign_questions import (
    ABOVE,
    COMPARE,
    LEFT,
    NEAREST,
    NO_SIGN,
    NOT_READABLE,
    READ,
    REFUSALS,
)
from pipeline.scenes.sign_words import WORDS, form_of
from pipeline.scenes.signs import Sign, signs_of

MOST_CAP_PX = 48.0
"""Height of a code's capital in the front view in which lines are compared, at most; smaller ones
are as they were drawn."""
SHOWN = 0.5
"""Least correlation of a line with its text's ink;"""
TIE = 0.005
"""no other text's is more than this above it."""
SMEARED = 0.8
"""A smeared line's correlation with what was written there is less."""
_SOFT_PX = 0.55
"""Blur of a picture that is sharp, source pixels."""
_ROOM = 0.2
"""Ground above and below a line, in heights of a capital."""
_SIGNS = {"9": "0123456789", "A": "ABCDEFHKLMNPRTVX"}


@dataclass(frozen=True, slots=True)
class _Line:
    """One of a sign's two lines in the front view."""

    strip: np.ndarray
    """Brightness, float32 HW, as wide as the plate."""
    look: Look
    cap_px: float
    """Height of its capitals there."""
    top_px: float
    """Where they begin in the strip."""
    span_px: float
    blur_px: float

    def likeness(self, text: str) -> float:
        """How well the line agrees with the text's ink, dark or light, in [0, 1]."""
        drawn = ink(text, self.look.font, self.cap_px, self.look.weight)
        wide = max(1, min(drawn.width, round(self.span_px)))
        drawn = drawn.resize((wide, drawn.height))
        plane = Image.new("L", (self.strip.shape[1], self.strip.shape[0]))
        place = (plane.width - wide) / 2, self.top_px + (self.cap_px - drawn.height) / 2
        plane.paste(drawn, (round(place[0]), round(place[1])))
        return abs(_correlation(self.strip, plane.filter(ImageFilter.GaussianBlur(self.blur_px))))


def sign_answer(image: Image.Image, recipe: Mapping[str, Any], question: str) -> str:
    """The answer that the picture's signs give; "" where they are not as the recipe says."""
    signs = signs_of(recipe)
    if tuple(recipe["photo"]) != image.size or not signs:
        return ""
    for wording, answer in _ANSWERS.items():
        asked = _pattern(wording).fullmatch(question)
        if asked is None:
            continue
        text, about = answer(signs, *asked.groups())
        shown = _are_shown(image, recipe, about or range(len(signs)))
        return text if shown else ""
    return ""


def look_problems(recipe: Mapping[str, Any], targets: Sequence[Box], region: Box) -> list[str]:
    """What is wrong with a look (a region) that should show the signs in these boxes."""
    return [
        f"no look shows the sign {sign.word} {sign.code}."
        for sign in signs_of(recipe)
        if sign.box in targets
        and not all(_shows(region, quad_box(q)) for q in (sign.word_quad, sign.code_quad))
    ]


def _shows(region: Box, line: Box) -> bool:
    """Whether a region shows a line but for a tenth of it."""
    return region.intersection(line) >= 0.9 * line.area


_Answer = tuple[str, list[int]]
"""An answer, and the numbers of the signs that it follows from; none: all of them."""


def _read(signs: Sequence[Sign], word: str) -> _Answer:
    named = _named(signs, word)
    return (NO_SIGN, []) if named is None else _code(signs, [named])


def _above(signs: Sequence[Sign], code: str) -> _Answer:
    found = [n for n, sign in enumerate(signs) if sign.code == code]
    return (signs[found[0]].word, found) if found else (NO_SIGN, [])


def _nearest(signs: Sequence[Sign], word: str) -> _Answer:
    named = _named(signs, word)
    if named is None:
        return NO_SIGN, []
    here = signs[named].box.centre
    others = [n for n in range(len(signs)) if n != named]
    near = min(others, key=lambda n: math.dist(signs[n].box.centre, here))
    return _code(signs, [near, named])


def _left(signs: Sequence[Sign], word: str) -> _Answer:
    named = _named(signs, word)
    if named is None:
        return NO_SIGN, []
    x = signs[named].box.centre[0]
    lefts = [n for n in range(len(signs)) if signs[n].box.centre[0] < x]
    near = max(lefts, key=lambda n: signs[n].box.centre[0])
    return _code(signs, [near, named])


def _compare(signs: Sequence[Sign], word: str, other: str) -> _Answer:
    pair = [_named(signs, word), _named(signs, other)]
    known = [n for n in pair if n is not None]
    if len(known) < 2:
        return NO_SIGN, []
    return max((signs[n] for n in known), key=lambda sign: int(sign.code)).word, known


_ANSWERS: Mapping[str, Any] = {
    READ: _read,
    ABOVE: _above,
    NEAREST: _nearest,
    LEFT: _left,
    COMPARE: _compare,
}


def _pattern(wording: str) -> re.Pattern[str]:
    return re.compile(re.escape(wording + REFUSALS).replace(r"\{\}", "([A-Z0-9-]+)"))


def _named(signs: Sequence[Sign], word: str) -> int | None:
    return next((n for n, sign in enumerate(signs) if sign.word == word), None)


def _code(signs: Sequence[Sign], about: list[int]) -> _Answer:
    """The code of the first of some signs, if it can be read."""
    sign = signs[about[0]]
    return sign.code if sign.legible else NOT_READABLE, about


def _are_shown(image: Image.Image, recipe: Mapping[str, Any], numbers: Sequence[int]) -> bool:
    """Whether the picture shows these signs' texts, and of smeared ones the word alone."""
    look = Look.of(recipe["look"])
    for number in numbers:
        entry = recipe["plates"][number]
        word, code = _lines(image, look, entry)
        if not _says(word, entry["word"], WORDS):
            return False
        others = list(_like(entry["code"]))
        if entry["smeared"]:
            if not _is_smeared(code, entry["code"], others):
                return False
        elif not _says(code, entry["code"], others):
            return False
    return True


def _says(line: _Line, text: str, others: Sequence[str]) -> bool:
    """Whether a line agrees with a text, and no better with any other."""
    least = line.likeness(text) + TIE
    return least > SHOWN and all(line.likeness(o) < least for o in others if o != text)


def _is_smeared(line: _Line, text: str, others: Sequence[str]) -> bool:
    """Whether a line shows a text no more than it shows some other."""
    likeness = line.likeness(text)
    return likeness < SMEARED and any(line.likeness(other) >= likeness for other in others)


def _like(code: str) -> Iterator[str]:
    """The codes that differ from one in one character."""
    for place, sign in enumerate(form_of(code)):
        for other in _SIGNS.get(sign, ""):
            if other != code[place]:
                yield code[:place] + other + code[place + 1 :]


def _lines(image: Image.Image, look: Look, entry: Mapping[str, Any]) -> tuple[_Line, _Line]:
    """A plate's two lines, brought to the front view."""
    cap, quad = min(entry["cap_px"], MOST_CAP_PX), as_quad(entry["quad"])
    size = round(look.size[0] * cap), round(look.size[1] * cap)
    way, fine = Image.Transform.PERSPECTIVE, Image.Resampling.BICUBIC
    front = image.convert("L").transform(size, way, perspective(corners(size), quad), fine)
    scale = size[1] / max(math.dist(quad[0], quad[3]), 1.0)
    blur = scale * math.hypot(_SOFT_PX, entry["light"]["blur_px"])
    pixels = np.asarray(front, np.float32)
    word = _line(pixels, look, cap, (look.word_top, look.word_cap), blur)
    return word, _line(pixels, look, cap, (look.code_top, 1.0), blur)


def _line(
    front: np.ndarray, look: Look, unit: float, place: tuple[float, float], blur: float
) -> _Line:
    """The strip of a front view with a line of this (top, height), in units of a code's capital."""
    top, cap = place
    first = max(0, round((top - _ROOM) * unit))
    margin = round(look.margin[0] * unit / 2)  # neither the border nor screws
    strip = front[first : round((top + cap + _ROOM) * unit), margin : front.shape[1] - margin]
    return _Line(strip, look, cap * unit, top * unit - first, look.span * unit, blur)


def _correlation(one: np.ndarray, other: Image.Image) -> float:
    a, b = one - one.mean(), np.asarray(other, np.float32)
    b = b - b.mean()
    energy = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / energy if energy > 0 else 0.0
