"""Whether a question that a model wrote can stand, as far as its words alone tell.

Pure rules over text, each with the short name that its rejections are counted under. Nothing here
looks at a picture or asks a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline.answers import extract_answer, matches, normalise
from pipeline.errors import GrammarError
from pipeline.grammar import refuse_control

MOST_ANSWER_WORDS = 5
MOST_QUESTION_WORDS = 40

_PLACE = re.compile(
    r"\b(?:(?:left|right|top|bottom|upper|lower)(?:-?most)?|uppermost|lowermost|corner|"
    r"cent(?:er|re)|central|middle|foreground|background|quadrants?|coordinates?|pixels?|"
    r"bounding box|bbox|zoom(?:ed)?|enlarged|magnified|cropped|close-?ups?|"
    r"(?:second|2nd|other) (?:image|picture|photo|view)|(?:image|picture|photo|view) (?:two|2)|"
    r"edges? of the (?:image|picture|photo|scene|frame)|"
    r"(?:in|inside|within) (?:the|this|that) (?:box|frame)|"
    r"(?:the|this|that) (?:crop|region|inset|cut-?out))\b"
    r"|[\[(]\s*\d+(?:\.\d+)?\s*,\s*\d+",
    re.IGNORECASE,
)
_YES_OR_NO = re.compile(
    r"(?:is|are|was|were|am|do|does|did|has|have|had|can|could|will|would|should|may|might)\b",
    re.IGNORECASE,
)
_BY_CHANCE = frozenset({"yes", "no", "true", "false", "both", "neither"})
_UNSURE = re.compile(
    r"\b(?:unclear|unknown|uncertain|unsure|unreadable|illegible|unable|impossible|"
    r"not (?:sure|certain|visible|clear|legible|known|possible|shown|there)|"
    r"can(?:not|['’]t| not)|(?:do|does|did|could)(?:n['’]t| not) (?:know|see|tell|show|read|make)|"
    r"no idea|no such|n/a)(?:\b|$)",
    re.IGNORECASE,
)
_HEDGED = re.compile(r"\b(?:or|maybe|perhaps|probably|possibly|approximately|about)\b", re.I)
_LEAD = re.compile(
    r"^(?:the )?(?:final )?answer(?: is)?\s*[:\s]\s*|^it (?:is|says|reads)\s+", re.IGNORECASE
)
_WRAPPING = " \"'“”‘’`*"
_OUTSIDE = re.compile(r"<think>.*?(?:</think>|$)", re.DOTALL)
_ARTICLE = re.compile(r"^(?:an?|the)\s+(?=\S)", re.IGNORECASE)
_NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve"),
)
_FIGURES = {word: str(number) for number, word in enumerate(_NUMBER_WORDS)}
_SMALL_WORDS = frozenset(
    ["a", "an", "the", "of", "on", "in", "at", "by", "with", "and", "to", "for", "from", "its"]
)


def fault_of(question: str, answer: str, thing: str) -> tuple[str, str] | None:
    """(reason, detail) of the first rule that a question breaks; None where it breaks none.

    `thing`: the noun phrase that says what the question is about.
    """
    if len(question.split()) > MOST_QUESTION_WORDS or not question.endswith("?"):
        return "malformed", "no question, or a long one"
    for text, what in ((question, "question"), (answer, "answer"), (thing, "object")):
        try:
            refuse_control(text, f"The {what}")
        except GrammarError as error:
            return "malformed", str(error)
    if told := unclear(answer):
        return "answer_unclear", told
    if by_chance(question, answer):
        return "yes_no", "answerable by chance"
    if place := leaked_place(f"{question} {thing}"):
        return "leaks_place", place
    if holds(question, answer):
        return "leaks_answer", "the question holds its answer"
    if missing := unnamed(question, thing):
        return "ambiguous", f"the question does not name its object by '{missing}'"
    return None


def unclear(answer: str) -> str:
    """Why an answer cannot be compared with another; empty where it can."""
    words = answer.split()
    if not normalise(answer):
        return "empty"
    if len(words) > MOST_ANSWER_WORDS:
        return f"{len(words)} words"
    if is_unsure(answer) or _HEDGED.search(answer):
        return "not certain"
    return ""


def by_chance(question: str, answer: str) -> bool:
    """Whether a coin answers the question half of the time."""
    return normalise(answer) in _BY_CHANCE or _YES_OR_NO.match(question.lstrip()) is not None


def leaked_place(text: str) -> str:
    """The words that tell where in the picture to look; empty where there are none."""
    found = _PLACE.search(text)
    return found.group() if found else ""


def unnamed(question: str, thing: str) -> str:
    """The first word of an object's name that its question does not use; empty where it has all.

    Without it, the object would be unique and the question would not.
    """
    said = {_stem(word) for word in question.split()}
    named = [word for word in thing.split() if word.casefold() not in _SMALL_WORDS]
    return next((word for word in named if _stem(word) not in said), "")


def same(said: str, answer: str) -> bool:
    """Whether two answers mean the same: as verifiers compare them, figures for words of number."""
    return matches(_plain(said), _plain(answer))


def holds(text: str, answer: str) -> bool:
    """Whether some words in a row are the answer."""
    return any(same(part, answer) for part in _runs(text, len(answer.split()) + 1))


def said_answer(text: str) -> str:
    """The answer that a reply gives, without what is often put around one; empty where unsure."""
    told = _OUTSIDE.sub("", text)
    told = extract_answer(told) or told
    line = next((one.strip() for one in told.splitlines() if one.strip()), "")
    if is_unsure(line):
        return ""
    return _LEAD.sub("", line).strip(_WRAPPING).removesuffix(".").strip(_WRAPPING)


def is_unsure(text: str) -> bool:
    """Whether a reply says that it cannot tell."""
    return not text.strip() or _UNSURE.search(text) is not None


def _plain(answer: str) -> str:
    """An answer without its article, numbers up to twelve in figures."""
    words = _ARTICLE.sub("", answer.strip()).split()
    return " ".join(_FIGURES.get(word.casefold(), word) for word in words)


def _runs(text: str, most: int) -> Iterator[str]:
    """Every run of 1 to `most` words."""
    words = text.split()
    for length in range(1, most + 1):
        for start in range(len(words) - length + 1):
            yield " ".join(words[start : start + length])


def _stem(word: str) -> str:
    """A word without case, punctuation, and the ending of a plural or a possessive."""
    bare = normalise(re.sub(r"['’]s?$", "", word.strip("?.,;:!\"'")))
    return bare[:-1] if len(bare) > 3 and bare.endswith("s") and not bare.endswith("ss") else bare
