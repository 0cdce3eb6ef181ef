"""What the lines say that the pocket reader is trained and judged on: words, codes, numbers.

Words are mostly made up of syllables, so that letters are read and words are not guessed.
"""

from __future__ import annotations

import numpy as np

from pipeline.scenes.lettering import CHARACTERS, LONGEST
from pipeline.scenes.tags import ALPHABET

_CAPITALS, _SMALL, _DIGITS = CHARACTERS[:26], CHARACTERS[26:52], CHARACTERS[52:62]
_SYLLABLES = (
    "b c d f g h j k l m n p qu r s t v w x y z br ch cl cr dr fl gr pl pr sh sl st th tr",
    "a e i o u a e i o u y ai ea ee ie oo ou",
    "b d g k l m n p r s t x ck ff ll ng nt rd ss st",
)
"""How a syllable begins, its vowels, and how it may end."""
_COMMON = """
exit open shut stop slow taxi cafe bakery books bank hotel museum park east west north south gate
platform room floor level lift stairs office post police school market station harbour bridge garden
sale price fresh milk bread apples coffee tea water wine push pull enter private danger keep left
right street road lane avenue king queen mill hill river lake dock yard works store parts tools keys
"""
_BEGINNINGS, _VOWELS, _ENDS = (tuple(kinds.split()) for kinds in _SYLLABLES)
_WORDS = tuple(_COMMON.split())


def random_text(rng: np.random.Generator) -> str:
    """A line of 1 to `LONGEST` of the known characters."""
    kinds = (_word, _word, _word, _two_words, _code, _code, _digits, _figures, _plate, _anything)
    text = kinds[int(rng.integers(len(kinds)))](rng)
    return text[:LONGEST].strip() or "A"


def _word(rng: np.random.Generator) -> str:
    if rng.random() < 0.2:
        word = str(rng.choice(_WORDS))
    else:
        parts = []
        for _ in range(int(rng.integers(1, 5))):
            end = str(rng.choice(_ENDS)) if rng.random() < 0.6 else ""
            parts.append(str(rng.choice(_BEGINNINGS)) + str(rng.choice(_VOWELS)) + end)
        word = "".join(parts)[: int(rng.integers(2, LONGEST + 1))]
    return _cased(rng, word)


def _cased(rng: np.random.Generator, word: str) -> str:
    case = rng.random()
    if case < 0.45:
        return word.upper()
    return word.capitalize() if case < 0.75 else word


def _two_words(rng: np.random.Generator) -> str:
    first, second = _word(rng)[:5], _word(rng)[:6]
    return first + str(rng.choice([" ", " ", "-", "'", "&", ". "])) + second


def _code(rng: np.random.Generator) -> str:
    letters = ALPHABET if rng.random() < 0.5 else _CAPITALS + _DIGITS
    code = _picked(rng, letters, int(rng.integers(2, 9)))
    if len(code) > 3 and rng.random() < 0.3:
        cut = int(rng.integers(1, len(code)))
        code = code[:cut] + str(rng.choice(list("- ./"))) + code[cut:]
    return code


def _digits(rng: np.random.Generator) -> str:
    return _picked(rng, _DIGITS, int(rng.integers(1, 8)))


def _figures(rng: np.random.Generator) -> str:
    """A time, a price, a date, a number with its word."""
    one, two, three = (int(n) for n in rng.integers(0, 100, 3))
    forms = (
        f"{one % 24}:{two % 60:02}",
        f"{one}.{two:02}",
        f"{one % 31 + 1}/{two % 12 + 1}/{three:02}",
        f"{one:02}-{two:02}-{three:02}",
        f"No. {one}",
        f"{_cased(rng, str(rng.choice(_WORDS)))[:8]} {one}",
        f"{one}{_picked(rng, _CAPITALS + _SMALL, 1)}",
        f"{one * 100 + two} {three}",
    )
    return forms[int(rng.integers(len(forms)))]


def _plate(rng: np.random.Generator) -> str:
    """As on a vehicle, a door or a locker."""
    front = _picked(rng, _CAPITALS, int(rng.integers(1, 4)))
    back = _picked(rng, _DIGITS, int(rng.integers(1, 5)))
    between = str(rng.choice(["", " ", "-", "-", "."]))
    if rng.random() < 0.3:
        front, back = back, front
    tail = _picked(rng, _CAPITALS, int(rng.integers(1, 3))) if rng.random() < 0.3 else ""
    return front + between + back + tail


def _anything(rng: np.random.Generator) -> str:
    return _picked(rng, CHARACTERS, int(rng.integers(1, LONGEST + 1)))


def _picked(rng: np.random.Generator, letters: str, count: int) -> str:
    return "".join(letters[int(i)] for i in rng.integers(0, len(letters), count))
