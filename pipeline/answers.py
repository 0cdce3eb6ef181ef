"""What an answer says and whether it is the right one: for verifiers, rewards and scorers alike.

Pure text and boxes written as text. Knows nothing of models, prompts or who asks.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Literal

from pipeline.geometry import Box, Frame

ASKS_FOR_BOX = "Answer with its box."
"""How a question ends that wants a place: `[x0, y0, x1, y1]`, pixels of the whole picture."""
BOX_IOU = 0.5
"""A box that is answered with is right from this overlap with the target on."""

_OPEN, _CLOSE = "<answer>", "</answer>"
_LETTER = re.compile(r"\(?([A-Za-z])(?:\)[.:]?|[.:])")
"""A letter that is marked as one: `(A)`, `A)`, `A.`, `A:`, `(A).`"""
_BETWEEN_DIGITS = re.compile(r"(?<=\d)[.,:/-](?=\d)")
_SIGN = re.compile(r"-?\.?(?=\d)")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_NUMBER = r"\s*(\d{1,9}(?:\.\d+)?)\s*"
_BOX = re.compile(rf"[\[(]{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}[\])]")
_MEANINGFUL = frozenset("%#+")
"""Punctuation that tells answers apart wherever it stands."""


def extract_answer(
    text: str, *, which: Literal["first", "last"] = "last", dotall: bool = True
) -> str:
    """What stands inside `<answer>`, stripped; empty where there is no such tag.

    The published reward reads the last one, over several lines; the published judge reads the
    first (`which="first", dotall=False`) and passes over answers of several lines.
    """
    found = ""
    for answer in _answers(text, dotall=dotall):
        if which == "first":
            return answer
        found = answer
    return found


def normalise(text: str) -> str:
    """The text without case, white space and punctuation; what makes a number stays.

    A point, comma, colon, slash or dash between digits is kept, and so is a minus or a point that
    begins the text before a digit; commas between thousands are not.
    """
    folded = unicodedata.normalize("NFKC", text).casefold().replace("\N{MINUS SIGN}", "-")
    solid = "".join(folded.split())
    kept = {match.start() for match in _BETWEEN_DIGITS.finditer(solid)}
    sign = _SIGN.match(solid)
    kept |= set(range(sign.end() if sign else 0))
    bare = "".join(c for place, c in enumerate(solid) if place in kept or _tells(c))
    return _THOUSANDS.sub("", unicodedata.normalize("NFKC", bare))


def matches(answer: str, target: str, options: Sequence[str] = ()) -> bool:
    """Whether an answer is the target, given in words or, among options, by letter.

    An empty answer matches nothing.
    """
    if not answer.strip():
        return False
    given, right = option_index(answer, options), option_index(target, options)
    if given is not None or right is not None:
        return given == right
    said, meant = normalise(answer), normalise(target)
    return said == meant if said or meant else answer.strip() == target.strip()


def is_right(
    answer: str, target: str, options: Sequence[str] = (), boxes: Sequence[Box] = ()
) -> bool:
    """Whether an answer is the target; where the target is one of `boxes`, a box that overlaps it.

    `boxes` is where the answer can be seen: a list of four numbers that is none of them is text.
    """
    wanted = box_of(target)
    if options or wanted is None or wanted not in boxes:
        return matches(answer, target, options)
    given = box_of(answer)
    return given is not None and given.iou(wanted) >= BOX_IOU


def box_of(text: str) -> Box | None:
    """The box that a text is, `[x0, y0, x1, y1]`; None for any other text."""
    found = _BOX.fullmatch(text.strip())
    if found is None:
        return None
    x0, y0, x1, y1 = map(float, found.groups())
    return Box(x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def written_in(frame: Frame, question: str, answer: str) -> str:
    """The answer to a question for a box in a model's own numbers; any other answer as it is."""
    box = box_of(answer) if question.endswith(ASKS_FOR_BOX) else None
    return answer if box is None else json.dumps(box.as_written(frame))


def option_index(text: str, options: Sequence[str]) -> int | None:
    """Which option a text names, or None.

    It may be the option's own words, its letter (`B`, `(B)`, `B.`), or both when they agree. A bare
    letter that is itself the words of an option means that option.
    """
    text = text.strip()
    marked = _LETTER.match(text)
    if marked:
        place, words = _place(marked.group(1), options), text[marked.end() :].strip()
        if place is not None and (not words or _worded(words, options) == place):
            return place
    worded = _worded(text, options)
    return worded if worded is not None else _place(text, options)


def _answers(text: str, *, dotall: bool) -> Iterator[str]:
    """The insides of `<answer>` tags in order, as the expression `<answer>(.*?)</answer>` finds."""
    start = text.find(_OPEN)
    while start >= 0:
        end = text.find(_CLOSE, start)
        if end < 0:
            return
        answer = text[start + len(_OPEN) : end].strip()
        whole = dotall or "\n" not in answer
        if whole:
            yield answer
        start = text.find(_OPEN, end if whole else start + 1)


def _tells(character: str) -> bool:
    """Whether a character is part of what an answer says."""
    if character in _MEANINGFUL:
        return True
    category = unicodedata.category(character)
    return category[0] not in "PZC" and category != "Sk"


def _place(letter: str, options: Sequence[str]) -> int | None:
    """The place of the option with this letter."""
    if len(letter) != 1:
        return None
    place = ord(letter.upper()) - ord("A") if letter.isascii() else -1
    return place if 0 <= place < len(options) else None


def _worded(text: str, options: Sequence[str]) -> int | None:
    """The place of the one option that reads like this text: exactly, else normalised."""
    for read in (str.strip, normalise):
        wanted = read(text)
        found = [place for place, option in enumerate(options) if read(option) == wanted]
        if wanted and len(found) == 1:
            return found[0]
    return None
