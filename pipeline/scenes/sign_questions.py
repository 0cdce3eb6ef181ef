"""Questions about the signs of a picture, one in ten of them without an answer to be read.

Every question allows the same two refusals, in the same words, so the wording gives nothing away.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.geometry import Box
from pipeline.scenes.sign_words import WORDS, draw_code, form_of
from pipeline.scenes.signs import Sign

NO_SIGN = "no such sign"
NOT_READABLE = "not readable"
REFUSALS = (
    f' If there is none, say "{NO_SIGN}"; if it cannot be read even close up, "{NOT_READABLE}".'
)
"""Ends every question."""
ABSENT = 0.05
"""Share of questions about a sign that is not there."""
UNREADABLE = 0.14
"""Share of questions about the smeared sign where there is one; they are two pictures in five."""
LEAST_SIGNS = 2
_CLEAR_LEAD = 1.35

READ = "What is written below the word {}?"
ABOVE = "Which word stands above {}?"
NEAREST = "What is written below the word on the sign nearest to the one that says {}?"
LEFT = "What is written below the word on the next sign to the left of the one that says {}?"
COMPARE = "Which has the higher number, {} or {}?"


@dataclass(frozen=True, slots=True)
class SignQuestion:
    """A question about signs, its answer, and where that can be seen."""

    text: str
    answer: str
    boxes: tuple[Box, ...]
    """Source pixels of the signs that the answer is read from; empty where there are none."""
    task: str
    """`sign_read`, `sign_word`, `sign_nearest`, `sign_compare`, `sign_absent`, or
    `sign_unreadable`."""


def sign_questions(
    signs: Sequence[Sign], rng: np.random.Generator, count: int
) -> list[SignQuestion]:
    """At most `count` different questions; none for fewer than two signs."""
    if len(signs) < LEAST_SIGNS:
        return []
    plain = {task: list(make(signs)) for task, make in _PLAIN.items()}
    asked: dict[str, SignQuestion] = {}
    for _ in range(8 * count):
        question = _drawn(signs, plain, rng)
        asked.setdefault(question.text, question)
        if len(asked) == count:
            break
    return list(asked.values())


def _drawn(
    signs: Sequence[Sign], plain: dict[str, list[SignQuestion]], rng: np.random.Generator
) -> SignQuestion:
    """One question of a kind that the signs allow."""
    chance = float(rng.random())
    if chance < ABSENT:
        return _absent(signs, rng)
    smeared = [sign for sign in signs if not sign.legible]
    if smeared and chance < ABSENT + UNREADABLE:
        return _unreadable(smeared[int(rng.integers(len(smeared)))], signs, rng)
    tasks = [task for task in _SHARES if plain[task]]
    shares = np.array([_SHARES[task] for task in tasks])
    pool = plain[tasks[int(rng.choice(len(tasks), p=shares / shares.sum()))]]
    return pool[int(rng.integers(len(pool)))]


def _read(signs: Sequence[Sign]) -> list[SignQuestion]:
    return [_asked(READ.format(s.word), s.code, [s], "sign_read") for s in signs if s.legible]


def _word(signs: Sequence[Sign]) -> list[SignQuestion]:
    return [_asked(ABOVE.format(s.code), s.word, [s], "sign_word") for s in signs if s.legible]


def _nearest(signs: Sequence[Sign]) -> list[SignQuestion]:
    """The sign nearest to another, and the next one to its left, where one clearly is."""
    out = []
    for sign in signs:
        for text, near in ((NEAREST, _neighbour(sign, signs)), (LEFT, _to_the_left(sign, signs))):
            if near is not None and near.legible:
                out.append(_asked(text.format(sign.word), near.code, [near], "sign_nearest"))
    return out


def _compare(signs: Sequence[Sign]) -> list[SignQuestion]:
    """The higher of two numbers, where all codes are numbers."""
    numbers = [sign for sign in signs if sign.legible and sign.code.isdigit()]
    pairs = ((a, b) for a in numbers for b in numbers if a is not b)
    return [
        _asked(
            COMPARE.format(a.word, b.word),
            max(a, b, key=lambda sign: int(sign.code)).word,
            [a, b],
            "sign_compare",
        )
        for a, b in pairs
    ]


def _absent(signs: Sequence[Sign], rng: np.random.Generator) -> SignQuestion:
    """A question about a word or a code that no sign carries."""
    others = [word for word in WORDS if word not in {sign.word for sign in signs}]
    word = others[int(rng.integers(len(others)))]
    texts = [READ.format(word), READ.format(word), NEAREST.format(word), LEFT.format(word)]
    if all(sign.legible for sign in signs):  # else the smeared sign could be the one
        texts += [ABOVE.format(_other_code(signs, rng))] * 2
    if signs[0].code.isdigit():
        pair = [word, signs[int(rng.integers(len(signs)))].word]
        first = int(rng.integers(2))
        texts.append(COMPARE.format(pair[first], pair[1 - first]))
    return _asked(texts[int(rng.integers(len(texts)))], NO_SIGN, [], "sign_absent")


def _unreadable(sign: Sign, signs: Sequence[Sign], rng: np.random.Generator) -> SignQuestion:
    """A question that only the smeared code would answer."""
    texts = [READ.format(sign.word)]
    for other in signs:
        texts += [NEAREST.format(other.word)] * (_neighbour(other, signs) is sign)
        texts += [LEFT.format(other.word)] * (_to_the_left(other, signs) is sign)
    text = texts[0 if rng.random() < 0.5 else int(rng.integers(len(texts)))]
    return _asked(text, NOT_READABLE, [sign], "sign_unreadable")


def _asked(text: str, answer: str, signs: Sequence[Sign], task: str) -> SignQuestion:
    return SignQuestion(text + REFUSALS, answer, tuple(sign.box for sign in signs), task)


def _neighbour(sign: Sign, signs: Sequence[Sign]) -> Sign | None:
    """The sign clearly nearest to one."""
    others = sorted(
        (math.dist(sign.box.centre, other.box.centre), number)
        for number, other in enumerate(signs)
        if other is not sign
    )
    if len(others) > 1 and others[1][0] < _CLEAR_LEAD * others[0][0]:
        return None
    return signs[others[0][1]]


def _to_the_left(sign: Sign, signs: Sequence[Sign]) -> Sign | None:
    """The next sign to the left, where it is clear which one that is: wholly to the left, at about
    the same height, and well before any other."""
    x, y = sign.box.centre
    lefts = sorted(
        (x - other.box.centre[0], number)
        for number, other in enumerate(signs)
        if other.box.centre[0] < x
    )
    if not lefts or (len(lefts) > 1 and lefts[1][0] < _CLEAR_LEAD * lefts[0][0]):
        return None
    away, near = lefts[0][0], signs[lefts[0][1]]
    beside = near.box.x1 < sign.box.x0 and abs(near.box.centre[1] - y) < 0.7 * away
    return near if beside else None


def _other_code(signs: Sequence[Sign], rng: np.random.Generator) -> str:
    """A code of the signs' form that none of them carries."""
    codes = {sign.code for sign in signs}
    while (code := draw_code(form_of(signs[0].code), rng)) in codes:
        pass
    return code


_PLAIN: dict[str, Callable[[Sequence[Sign]], list[SignQuestion]]] = {
    "sign_read": _read,
    "sign_word": _word,
    "sign_nearest": _nearest,
    "sign_compare": _compare,
}
_SHARES = {"sign_read": 0.4, "sign_word": 0.22, "sign_nearest": 0.23, "sign_compare": 0.15}
