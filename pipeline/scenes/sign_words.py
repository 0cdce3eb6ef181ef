"""What is printed on signs: short words, and codes of a few forms below them."""

from __future__ import annotations

import numpy as np

WORDS = (
    *("AISLE", "AREA", "BAY", "BED", "BIN", "BLOCK", "BOOTH", "BOX", "CABIN", "COURT", "CRATE"),
    *("DECK", "DESK", "DOCK", "DOOR", "EXIT", "FLOOR", "GATE", "HALL", "HATCH", "HUT", "LANE"),
    *("LEVEL", "LINE", "LOCK", "LOT", "PANEL", "PATH", "PIER", "PLOT", "POST", "PUMP", "RACK"),
    *("RAMP", "ROOM", "ROUTE", "ROW", "SEAT", "SHED", "SHELF", "SHOP", "SITE", "SLOT", "STAND"),
    *("STOP", "SUITE", "TABLE", "TANK", "TRACK", "UNIT", "VALVE", "WARD", "WING", "YARD", "ZONE"),
)
"""Short words that stand over a number in the world."""

FORMS = ("99", "999", "99", "A99", "9-999", "A9", "99A", "9999")
"""Forms of codes: 9 stands for a digit, A for a letter."""
SHORT = 4, 3
"""Most characters of a short word, and of a short code."""
_LETTERS = "ABCDEFHKLMNPRTVX"


def draw_lines(rng: np.random.Generator, count: int, *, short: bool) -> list[tuple[str, str]]:
    """Different words with different codes of one form."""
    fitting = [word for word in WORDS if len(word) <= SHORT[0]] if short else WORDS
    words = [fitting[int(i)] for i in rng.choice(len(fitting), count, replace=False)]
    forms = [form for form in FORMS if len(form) <= SHORT[1]] if short else FORMS
    form = forms[int(rng.integers(len(forms)))]
    codes: list[str] = []
    while len(codes) < count:
        code = draw_code(form, rng)
        if code not in codes:
            codes.append(code)
    return list(zip(words, codes, strict=True))


def draw_code(form: str, rng: np.random.Generator) -> str:
    """A code of a form; the first digit is not 0."""
    code = ""
    for place, sign in enumerate(form):
        if sign == "A":
            code += _LETTERS[int(rng.integers(len(_LETTERS)))]
        elif sign == "9":
            code += str(int(rng.integers(0 if place else 1, 10)))
        else:
            code += sign
    return code


def form_of(code: str) -> str:
    """The form that a code has."""
    return "".join("9" if c.isdigit() else "A" if c.isalpha() else c for c in code)
