"""What a text says that can be compared with another: boxes, and facts as plain words.

A fact is a quotation, a code, a number, a colour, or a name inside a sentence. Case, plurals,
shades and whether a number is spelt out make no difference. It knows nothing of paths or turns.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise

from pipeline.answers import box_of

Numbers = tuple[float, ...]
Fact = tuple[str, ...]
"""The plain words of something that can be seen."""

_BOX = re.compile(r"[\[(]\s*(-?[\d.]+(?:\s*,\s*-?[\d.]+){3})\s*[\])]")
_WORD = re.compile(r"[^\W_]+(?:['’.,:/&-][^\W_]+)*")
_PART = re.compile(r"[^\W_]+")
_QUOTED = re.compile(r"[\"“]([^\"“”]+)[\"”]|(?<!\w)['‘]([^'‘’]+)['’](?!\w)")
_OWNER = re.compile(r"['’]s$")
_BEGINS = ".!?:;—–(\"“‘'\n"
"""What stands before a word that has its capital from beginning a sentence or a quotation."""
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")

_SMALL = _PART.findall(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
_TENS = _PART.findall("twenty thirty forty fifty sixty seventy eighty ninety")
_NUMBERS = {word: str(n) for n, word in enumerate(_SMALL) if word != "one"}
"""Without "one", which mostly counts nothing: the other one, one of them."""
_NUMBERS |= {word: str(n) for n, word in zip(range(20, 100, 10), _TENS, strict=True)}
_NUMBERS |= {"hundred": "100", "thousand": "1000", "dozen": "12"}
_TWENTY_ONE = re.compile(rf"\b({'|'.join(_TENS)})[- ]({'|'.join(_SMALL[1:10])})\b", re.IGNORECASE)
_COLORS = frozenset(
    _PART.findall(
        "red orange yellow green blue purple pink brown black white gray cyan magenta turquoise "
        "beige gold silver"
    )
)
_SHADES: dict[str, str] = dict(
    re.findall(
        r"(\w+)=(\w+)",
        "reddish=red yellowish=yellow greenish=green bluish=blue brownish=brown whitish=white "
        "blackish=black greyish=gray grayish=gray grey=gray golden=gold violet=purple crimson=red "
        "scarlet=red maroon=red navy=blue teal=turquoise tan=beige",
    )
)
_NO_NAMES = frozenset(
    _PART.findall(
        "ok tv suv id led picture image view look step region box option answer question close"
    )
)
_SAYS_NOTHING = frozenset(
    _PART.findall("yes no none left right a an the it is of in on at and or to")
)
_COUNTED = (
    r"(?:look|zoom|time|step|view|crop|picture|image|region|close-up|candidate|reading|place|spot|"
    r"area|part|side|digit|letter|character|word|line|option|hal(?:f|ve)|possibilit(?:y|ie))s?"
)
_POINTING = re.compile(
    rf"\b{_COUNTED} #?\d+\b|\b(?:\d+|{'|'.join(_SMALL)})(?: \w+)? {_COUNTED}\b"
    r"|\b\d+(?:st|nd|rd|th|x|×)(?!\w)"
    r"|\b(?:the|these|those|between|other|all|both|of|my) (?:two|three|four)\b",
    re.IGNORECASE,
)
"""Numbers that count looks, or point at what was named before."""


def boxes_in(text: str) -> Iterator[Numbers]:
    """Every list of four numbers."""
    for match in _BOX.finditer(text):
        try:
            yield tuple(map(float, match.group(1).split(",")))
        except ValueError:
            continue


def is_among(box: Sequence[float], known: Collection[Numbers]) -> bool:
    """Whether a box is one of those known, as far as rounding lets it."""
    slack = 0.011 if max(box) <= 1 else 1.0
    return any(all(abs(a - b) <= slack for a, b in zip(box, other, strict=True)) for other in known)


def facts_in(text: str) -> Iterator[Fact]:
    """What a text claims to be there to see; numbers that only count looks are left out."""
    text = _spelt(_BOX.sub(" ", text))
    for match in _QUOTED.finditer(text):
        yield tuple(w for w in _tokens(match.group(1) or match.group(2)) if w not in _SAYS_NOTHING)
    text = _POINTING.sub(" ", text)
    for match in _WORD.finditer(text):
        word = _OWNER.sub("", match.group())
        before = text[: match.start()].rstrip(" ")
        begins = not before or before[-1] in _BEGINS
        if _is_code(word) or (not begins and _is_name(word)):
            yield tuple(_tokens(word))
        else:
            yield from ((token,) for token in _tokens(word) if token.isdigit() or token in _COLORS)


def is_known(fact: Fact, known: Collection[str]) -> bool:
    """Whether a vocabulary has a fact, in one word or in parts."""
    return "".join(fact) in known or all(part in known for part in fact)


def vocabulary(text: str) -> set[str]:
    """Every plain word of a text, alone and joined to what it is written together with."""
    text = _spelt(text)
    words = _tokens(text)
    joined = {"".join(_tokens(match.group())) for match in _WORD.finditer(text)}
    coded = {a + b for a, b in pairwise(words) if (a + b)[-1:].isdigit()}
    return {*words, *joined, *coded, *(("1",) if "one" in words else ())}


def counts_in(text: str) -> set[str]:
    """How many of each thing a list with boxes names, as plain words."""
    listed = Counter(_tokens(_BOX.sub(" ", text)))
    return {str(n) for n in (*listed.values(), len(list(boxes_in(text)))) if n > 1}


def in_plain_words(answer: str) -> Fact:
    """An answer's words; none where it says nothing by itself: a letter, yes, a box.

    A box may be named before it is looked at: that is what a look is.
    """
    bare = answer.strip(" ().:")
    words = tuple(_tokens(answer))
    letter = len(bare) == 1 and bare.isalpha()
    return () if letter or box_of(answer) or set(words) <= _SAYS_NOTHING else words


def says(text: str, words: Fact) -> bool:
    """Whether a text has these words in a row, or written as one."""
    text = _POINTING.sub(" ", _spelt(_BOX.sub(" ", text)))
    said = tuple(_tokens(text))
    runs = (said[n : n + len(words)] for n in range(len(said) - len(words) + 1))
    return words in runs or "".join(words) in vocabulary(text)


def _is_code(word: str) -> bool:
    mixed = any(c.isdigit() for c in word) or sum(c.isupper() for c in word) > 1
    return mixed and word.casefold() not in _NO_NAMES


def _is_name(word: str) -> bool:
    first = _PART.findall(word)[0]
    return len(first) > 1 and first[0].isupper() and first.casefold() not in _NO_NAMES


def _tokens(text: str) -> list[str]:
    return [_plain(part) for part in _PART.findall(_THOUSANDS.sub("", text))]


def _spelt(text: str) -> str:
    """The text with numbers of two words as digits."""

    def digits(match: re.Match[str]) -> str:
        tens, ones = (part.casefold() for part in match.groups())
        return str(int(_NUMBERS[tens]) + _SMALL.index(ones))

    return _TWENTY_ONE.sub(digits, text)


def _plain(part: str) -> str:
    """A word without case and plural; numbers as digits, shades as their colour."""
    word = unicodedata.normalize("NFKC", part).casefold()
    for known in (word, _singular(word)):
        if known in _NUMBERS or known in _SHADES:
            return _NUMBERS.get(known) or _SHADES[known]
    return _singular(word)


def _singular(word: str) -> str:
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("sses", "xes", "zes", "ches", "shes")) else word[:-1]
