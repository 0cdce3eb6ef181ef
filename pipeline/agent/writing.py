"""Writing in a view: lines put together to what stands on one sign, and what a line says.

Owns which lines belong together and how a raw reading becomes a word or a code that signs carry. It
sees boxes and texts, never pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from pipeline.agent.glyph_reader import Reading
from pipeline.scenes.sign_words import FORMS, WORDS
from pipeline.views import ViewBox

WRITING = ("writing", "sign")
"""Phrases by which `locate` is asked for writing."""

ALIKE, AS_WIDE = 2.0, 4.5
"""Most by which two lines on one sign differ in height, and in width."""
GAP, USUAL_GAP = (-0.45, 1.4), 0.5
"""Range of the ground between them, in heights of the taller line; and what it mostly is."""
SQUARE, LONG = 2.2, 3.5
"""Widths in heights below which writing looks like a whole sign, and from which on like none."""
BLOB_PX, LARGE_PX = 8.0, 20.0
"""Heights in a view below which two lines may look like one, and from which on a line is none of a
sign's, as its sign's other line would have been seen, too."""
ASIDE = 0.25
"""How far their middles may lie apart along the line, as a share of the wider one."""

_DIGITS = dict(zip("OQDUILZSGTBAE", "0000112567843", strict=True))
"""What a digit is taken for."""
_LETTERS = dict(zip("0812457", "DBLXAST", strict=True)) | {"U": "V", "Y": "V", "W": "V", "0": "D"}
_KNOWN_LETTERS = "ABCDEFHKLMNPRTVX"
_DASHES = str.maketrans("–—_~=", "-----")
_MENDED = 0.8
"""What is left of the confidence for each character that is taken for another."""
_NEAR_WORD = 0.6
"""Belief in the only known word that is one letter away; in one that is two away, less."""
_SHORT = 4


class FoundLine(Protocol):
    """Where a line is seen."""

    @property
    def box(self) -> ViewBox: ...
    @property
    def score(self) -> float: ...
    @property
    def slope(self) -> float: ...


class FindsLines(Protocol):
    def find(self, view: np.ndarray) -> Sequence[FoundLine]: ...


class SignReader(Protocol):
    """What finds and reads writing: `pocket_reader.PocketReader` does."""

    @property
    def finder(self) -> FindsLines: ...

    def read(self, view: np.ndarray, box: ViewBox) -> Reading:
        """What stands in a box (XYXY, view pixels) of a view (uint8 HWC), its lines joined."""
        ...

    def read_lines(self, view: np.ndarray, box: ViewBox) -> list[Reading]:
        """One reading for each line in a box, from the upper one to the lower one."""
        ...


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text in a view, level or not."""

    box: ViewBox
    """Bounds of the ink."""
    score: float = 1.0
    """Chance in [0, 1] that there is text."""
    slope: float = 0.0
    """dy/dx."""

    @property
    def tall(self) -> float:
        """Height of the ink, view pixels."""
        high = self.box[3] - self.box[1]
        return max(high - abs(self.slope) * (self.box[2] - self.box[0]), 0.4 * high)

    @property
    def middle(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


@dataclass(frozen=True, slots=True)
class Writing:
    """Lines that stand together, as on one sign, from the upper one to the lower one."""

    lines: tuple[Line, ...]

    @property
    def box(self) -> ViewBox:
        """Bounds of all lines, view pixels."""
        x0, y0, x1, y1 = zip(*(line.box for line in self.lines), strict=True)
        return min(x0), min(y0), max(x1), max(y1)

    @property
    def tall(self) -> float:
        """Height of the smallest line's ink, view pixels."""
        return min(line.tall for line in self.lines)

    @property
    def score(self) -> float:
        return max(line.score for line in self.lines)

    @property
    def is_blob(self) -> bool:
        """Whether it looks like one line but may be two that run into each other."""
        return len(self.lines) == 1 and self.tall < BLOB_PX and self._aspect < SQUARE

    @property
    def chance(self) -> float:
        """How likely it is a sign's, by what it looks like; shares counted on photographs."""
        if len(self.lines) > 1:
            return (0.85 if self._aspect < SQUARE else 0.1) * (1.0 if self.score > 0.95 else 0.4)
        if self._aspect >= LONG or self.tall >= LARGE_PX:
            return 0.03
        small = 0.6 if self.is_blob else 0.3
        return (small if self.tall < BLOB_PX else 0.2) * (1.0 if self.score > 0.8 else 0.4)

    def other_line(self, *, above: bool) -> Writing:
        """Where the line above the lowest one is, or the line below the uppermost one."""
        line = self.lines[-1 if above else 0]
        x0, y0, x1, y1 = line.box
        wide, away = (x1 - x0) / 4, (1 + USUAL_GAP) * line.tall * (-1 if above else 1)
        place = Line((x0 - wide, y0 + away, x1 + wide, y1 + away), line.score, line.slope)
        return Writing((place,))

    @property
    def _aspect(self) -> float:
        """Width over height of all lines."""
        x0, y0, x1, y1 = self.box
        return (x1 - x0) / (y1 - y0)


def grouped(found: Sequence[FoundLine]) -> tuple[Writing, ...]:
    """Lines in pairs of one above another where they stand so, the others alone; pairs first.

    Those most like a sign's go first, and each line is in one of them.
    """
    lines = [Line(line.box, line.score, line.slope) for line in found]
    pairs = sorted(
        (apart, upper, lower)
        for upper, one in enumerate(lines)
        for lower, other in enumerate(lines)
        if upper != lower and (apart := _apart(one, other)) is not None
    )
    taken: set[int] = set()
    out = []
    for _, upper, lower in pairs:
        if not taken & {upper, lower}:
            taken |= {upper, lower}
            out.append(Writing((lines[upper], lines[lower])))
    alone = [Writing((line,)) for n, line in enumerate(lines) if n not in taken]
    return (*out, *alone)


def _apart(upper: Line, lower: Line) -> float | None:
    """How unlike two lines of one sign a pair is, from 0 on; None where they cannot be one."""
    high, low = max(upper.tall, lower.tall), min(upper.tall, lower.tall)
    (ax, ay), (bx, by) = upper.middle, lower.middle
    slope = (upper.slope + lower.slope) / 2
    wide, narrow = (end(n.box[2] - n.box[0] for n in (upper, lower)) for end in (max, min))
    gap = (by - ay - slope * (bx - ax)) / high - (1 + low / high) / 2
    aside = abs(bx - ax + slope * (by - ay))
    if by <= ay or high > ALIKE * low or wide > AS_WIDE * narrow:
        return None
    if not GAP[0] <= gap <= GAP[1] or aside > ASIDE * wide + 0.3 * high:
        return None
    return abs(gap - USUAL_GAP) + 0.5 * math.log(wide / narrow) + aside / wide


@dataclass(frozen=True, slots=True)
class Meant:
    """What a line says, and how far that is believed."""

    text: str
    belief: float
    """In [0, 1]."""


NOTHING = Meant("", 0.0)


def as_word(reading: Reading) -> Meant:
    """The known word that a line says: others are not on signs."""
    text = "".join(c for c in reading.guess.upper() if c.isalpha() or c.isdigit())
    near = sorted((_distance(text, word), word) for word in WORDS)
    (away, word), (next_away, _) = near[0], near[1]
    if away == 0:  # chance seldom makes a known word
        return Meant(word, 1 - (1 - reading.confidence) / 2)
    if away == next_away or away > (1 if len(word) <= _SHORT else 2) or len(text) < 2:
        return NOTHING
    return Meant(word, _NEAR_WORD if away == 1 else 0.8 * _NEAR_WORD)


def as_code(reading: Reading, forms: Sequence[str] = FORMS) -> Meant:
    """The code of a known form that a line says; look-alikes are put right at a price."""
    text = "".join(reading.guess.upper().translate(_DASHES).split())
    mended = [one for form in forms if (one := _mended(text, form)) is not None]
    if not mended:
        return NOTHING
    changes, code = min(mended)
    return Meant(code, reading.confidence * _MENDED**changes)


def _mended(text: str, form: str) -> tuple[int, str] | None:
    """(characters changed, code) of a form; None where a character cannot be one of it."""
    if len(text) != len(form):
        return None
    code = ""
    for char, place in zip(text, form, strict=True):
        if place == "9":
            char = char if char in "0123456789" else _DIGITS.get(char, "")
        elif place == "A":
            char = char if char in _KNOWN_LETTERS else _LETTERS.get(char, "")
        elif char != place:
            return None
        if not char:
            return None
        code += char
    return sum(a != b for a, b in zip(text, code, strict=True)), code


@lru_cache(maxsize=4096)
def _distance(one: str, other: str) -> int:
    """Least number of characters put in, left out or changed."""
    row = list(range(len(other) + 1))
    for place, char in enumerate(one, start=1):
        before, row[0] = row[0], place
        for column, there in enumerate(other, start=1):
            before, row[column] = (
                row[column],
                min(row[column] + 1, row[column - 1] + 1, before + (char != there)),
            )
    return row[-1]
