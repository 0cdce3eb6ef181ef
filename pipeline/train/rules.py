"""How one rollout is graded: the rules for its answer, and for its form.

Texts in, numbers in [0, 1] out. What makes two answers the same is `answers`' business; here is
what rewards alone want of them. The published rules are arXiv 2505.15436's, from its code.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from pipeline.answers import (
    ASKS_FOR_BOX,
    box_of,
    extract_answer,
    is_right,
    matches,
    option_index,
)
from pipeline.errors import ConfigError, GrammarError
from pipeline.geometry import Box
from pipeline.grammar import parse
from pipeline.trajectory import Profile

MOST_WORDS, FEW_WORDS = 1000, 10
"""Of an answer, in the published rules of form."""

_MARKS = re.compile(r"[^\w\s]|_")
_FRACTION = re.compile(r"\\[dt]?frac\{([^{}]{1,40})\}\{([^{}]{1,40})\}")
_NUMBER = re.compile(
    r"([-+]?(?:[0-9]{1,3}(?:,[0-9]{3}){1,10}|[0-9]{0,30})(?:\.[0-9]{1,30})?)(?:\s*/\s*([0-9]{1,30}))?"
    r"\s*([^\W\d_]{0,20}|%)"
)
_CLOSE_ENOUGH = Fraction(1, 1_000_000)
_MATCHED = re.compile(r"<think>.+</think>\s*+<answer>.+</answer>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Asked:
    """What an answer is held against."""

    target: str
    options: tuple[str, ...] = ()
    question: str = ""
    boxes: tuple[Box, ...] = ()
    """Where the answer can be seen, in the frame of the target."""


AnswerRule = Callable[[str, Asked], float]
"""How right an answer, which is not empty, is: in [0, 1]."""
FormatRule = Callable[[Sequence[str], Profile], bool]
"""Whether the turns of a rollout, what the model said in each, have the right form."""


def same(answer: str, asked: Asked) -> float:
    """As the verifier has it: the option, the words, or a box that overlaps the target.

    A target is a box where it is one of `boxes`, or the question asks for one. Target and answer
    are in the same frame, whichever it is.
    """
    box = box_of(asked.target) if asked.question.endswith(ASKS_FOR_BOX) else None
    boxes = (*asked.boxes, box) if box else asked.boxes
    return float(is_right(answer, asked.target, asked.options, boxes))


def exact(answer: str, asked: Asked) -> float:
    """The target's words, case, white space and punctuation aside; options are not looked at."""
    return float(matches(answer, asked.target))


def option(answer: str, asked: Asked) -> float:
    """The option that is the target; raises `ConfigError` where none is."""
    right = option_index(asked.target, asked.options)
    if right is None:
        raise ConfigError(
            f"The target {asked.target[:60]!r} is none of its {len(asked.options)} options.",
            "Use the rule 'same' for questions without options.",
        )
    return float(option_index(answer, asked.options) == right)


def numeric(answer: str, asked: Asked) -> float:
    """The target's number, to within 10⁻⁶ of it and with the same unit; else as `same`.

    Reads `1,000`, `0.5`, `1/2`, `50%`, `3 cm`, `$\\frac{1}{2}$`.
    """
    place = option_index(asked.target, asked.options)
    target = asked.target if place is None else asked.options[place]
    given, right = _number(answer), _number(target)
    if given is not None and right is not None and given[1] == right[1]:
        largest = max(abs(given[0]), abs(right[0]))
        if abs(given[0] - right[0]) <= _CLOSE_ENOUGH * largest:
            return 1.0
    return same(answer, asked)


def f1(answer: str, asked: Asked) -> float:
    """F1 of the words, as a multiset; articles count (published in an earlier reward)."""
    given, right = _words(answer), _words(asked.target)
    shared = (Counter(given) & Counter(right)).total()
    return 2 * shared / (len(given) + len(right)) if shared else 0.0


def f1_majority(answer: str, asked: Asked) -> float:
    """1 for more than half of `f1`."""
    return float(f1(answer, asked) > 0.5)


def overlap(answer: str, asked: Asked) -> float:
    """The most lenient published rule: one inside the other, or half of `f1`; easily gamed."""
    given, right = _words(answer), _words(asked.target)
    said, meant = " ".join(given), " ".join(right)
    if not given or not right:
        return 0.0
    if said == meant:
        return 1.0
    within = said in meant or meant in said
    if len(given) == len(right) == 1:
        return float(within and min(len(said), len(meant)) >= 2)
    return float(within or f1(answer, asked) >= 0.5)


def unjudged(answer: str, asked: Asked) -> float:
    """Nothing by rule: a judge decides alone."""
    return 0.0


ANSWER_RULES: Mapping[str, AnswerRule] = {
    "same": same,
    "exact": exact,
    "option": option,
    "numeric": numeric,
    "f1": f1,
    "f1-majority": f1_majority,
    "overlap": overlap,
    "judge": unjudged,
}


def grammatical(turns: Sequence[str], profile: Profile) -> bool:
    """Every turn is one of the profile: all but the last call the tool, the last one answers.

    In `cof-v1` a rollout is one turn, which its views cut into pieces.
    """
    try:
        parsed = [parse(text, profile) for text in (turns if profile == "cof-v2" else _one(turns))]
    except GrammarError:
        return False
    return bool(parsed) and [turn.answer is None for turn in parsed] == [
        *[True] * (len(parsed) - 1),
        False,
    ]


def tags(turns: Sequence[str], profile: Profile) -> bool:
    """Published: `<think>` and `<answer>` are there, all closed; at most 1,000 words of answer."""
    return _balanced(turns, MOST_WORDS)


def few_words(turns: Sequence[str], profile: Profile) -> bool:
    """Published in earlier rewards: as `tags`, with an answer of at most 10 words."""
    return _balanced(turns, FEW_WORDS)


def enclosed(turns: Sequence[str], profile: Profile) -> bool:
    """Published first: from a `<think>` to an `</answer>`, and between the two kinds no text."""
    text = "\n".join(turns).strip()
    return text.endswith("</answer>") and _MATCHED.fullmatch(text) is not None


FORMAT_RULES: Mapping[str, FormatRule] = {
    "grammar": grammatical,
    "tags": tags,
    "few-words": few_words,
    "enclosed": enclosed,
}


def _one(turns: Sequence[str]) -> list[str]:
    return ["".join(turns)]


def _balanced(turns: Sequence[str], most_words: int) -> bool:
    text = "\n".join(turns)
    for tag in ("think", "answer"):
        opened = text.count(f"<{tag}>")
        if not opened or opened != text.count(f"</{tag}>"):
            return False
    return len(extract_answer(text).split()) <= most_words


def _words(text: str) -> list[str]:
    return _MARKS.sub(" ", text.lower()).split()


def _number(text: str) -> tuple[Fraction, str] | None:
    """The number that a text is, and its unit; None for any other text."""
    plain = unicodedata.normalize("NFKC", text).replace("\N{MINUS SIGN}", "-").replace("$", "")
    plain = _FRACTION.sub(r"\1/\2", plain).strip().rstrip(".")
    found = _NUMBER.fullmatch(plain)
    if found is None:
        return None
    above, below, unit = found.groups()
    if above in ("", "-", "+") or (below is not None and not int(below)):
        return None
    return Fraction(above.replace(",", "")) / int(below or 1), unit.casefold()
