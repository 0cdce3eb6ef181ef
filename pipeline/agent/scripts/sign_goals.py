"""What a question about signs still wants to know, given what is known of them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.agent.scripts.sign_board import SURE, Board, Plate, Sighting
from pipeline.agent.sight import Named
from pipeline.scenes.sign_questions import ABOVE, COMPARE, LEFT, NEAREST, READ, REFUSALS
from pipeline.scenes.sign_words import form_of

GUESS = 0.25
"""Belief from which on an answer is given when no look makes it clearer."""
PLAIN = 0.7
"""Belief from which on an answer stands although a closer look could be had."""


@dataclass(frozen=True, slots=True)
class Told:
    """The answer, and what it was read from."""

    text: str
    plate: Plate
    read: Sighting
    others: tuple[Sighting, ...] = ()
    """Further readings that it follows from."""


@dataclass(frozen=True, slots=True)
class Unclear:
    """A line of this sign must be read better."""

    plate: Plate
    guess: Told | None = None
    """What it seems to say."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """This may be a sign that the answer depends on."""

    plate: Plate


@dataclass(frozen=True, slots=True)
class Missing:
    """A sign that the question is about is not found."""

    near: Plate | None = None
    """What it is near to,"""
    left: bool = False
    """or to the left of."""


Wanted = Told | Unclear | Unknown | Missing
Goal = Callable[[Board, Named], Wanted]


def code_below(board: Board, named: Named) -> Wanted:
    """What is written below the word GATE?"""
    plate = board.named(named["word"])
    return Missing() if plate is None else _code(board, plate, plate.word)


def word_above(board: Board, named: Named) -> Wanted:
    """Which word stands above 47?"""
    found = [p for p in board.plates if p.code.meant.text == named["code"]]
    plate = max(found, key=lambda p: p.code.meant.belief, default=None)
    if plate is None:
        return Missing()
    word, code = plate.word, plate.code
    told = Told(word.meant.text, plate, word, (code,))
    if word.meant.belief < SURE:
        return Unclear(plate)
    return told if _stands(board, plate, code) else Unclear(plate, told)


def nearest(board: Board, named: Named) -> Wanted:
    """What is written below the word on the sign nearest to the one that says GATE?"""

    def away(here: Plate, there: Plate) -> float:
        return math.dist(here.box.centre, there.box.centre)

    return _related(board, named, away)


def to_the_left(board: Board, named: Named) -> Wanted:
    """What is written below the word on the next sign to the left of the one that says GATE?"""

    def away(here: Plate, there: Plate) -> float:
        ahead = here.box.x0 - there.box.x1
        return here.box.centre[0] - there.box.centre[0] if ahead > 0 else math.inf

    return _related(board, named, away, left=True)


def higher(board: Board, named: Named) -> Wanted:
    """Which has the higher number, GATE or EXIT?"""
    first, second = (board.named(named[name]) for name in ("word", "other"))
    if first is None or second is None:
        return Missing()
    for plate in (first, second):
        code = _code(board, plate, plate.word)
        if isinstance(code, Unclear) or not plate.code.meant.text.isdigit():
            return Unclear(plate, _higher(first, second))
    told = _higher(first, second)
    assert told is not None
    return told


def _higher(first: Plate, second: Plate) -> Told | None:
    """The comparison of what was read, None where that is no number."""
    codes = [plate.code.meant for plate in (first, second)]
    if not all(code.text.isdigit() and code.belief >= GUESS for code in codes):
        return None
    more, less = (first, second) if int(codes[0].text) > int(codes[1].text) else (second, first)
    return Told(more.word.meant.text, more, more.word, (more.code, less.word, less.code))


def _related(
    board: Board, named: Named, away: Callable[[Plate, Plate], float], *, left: bool = False
) -> Wanted:
    """The code on the sign that is least away from the named one."""
    anchor = board.named(named["word"])
    if anchor is None:
        return Missing()
    order = sorted((away(anchor, p), n) for n, p in enumerate(board.plates) if p is not anchor)
    for distance, number in order:
        plate = board.plates[number]
        if math.isinf(distance):
            break
        if plate.is_sign:
            return _code(board, plate, anchor.word)
        if not plate.is_settled or (plate.lines > 1 and board.can_be_finer(plate)):
            return Unknown(plate)
    return Missing(anchor, left)


def _code(board: Board, plate: Plate, word: Sighting) -> Told | Unclear:
    """The code of a sign."""
    code = plate.code
    if code.meant.belief < GUESS:
        return Unclear(plate)
    told = Told(code.meant.text, plate, code, (word,))
    return told if _stands(board, plate, code) else Unclear(plate, told)


def _stands(board: Board, plate: Plate, code: Sighting) -> bool:
    """Whether a code is believed without a closer look: as sure as that, and like the others."""
    odd = board.form not in (None, form_of(code.meant.text))
    return code.meant.belief >= PLAIN and not odd


def _pattern(wording: str, *names: str) -> re.Pattern[str]:
    """The question with these names in its gaps, and the refusals that end it."""
    parts = (re.escape(part) for part in wording.split("{}"))
    gaps = [rf"(?P<{name}>[A-Z0-9-]+)" for name in names]
    first, *rest = parts
    return re.compile(
        first + "".join(g + p for g, p in zip(gaps, rest, strict=True)) + re.escape(REFUSALS)
    )


GOALS: tuple[tuple[re.Pattern[str], Goal], ...] = (
    (_pattern(READ, "word"), code_below),
    (_pattern(ABOVE, "code"), word_above),
    (_pattern(NEAREST, "word"), nearest),
    (_pattern(LEFT, "word"), to_the_left),
    (_pattern(COMPARE, "word", "other"), higher),
)
"""A question's wording, and what must be known to answer it."""
