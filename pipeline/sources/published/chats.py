"""Chats as datasets publish them: who says what, with how many pictures, and the question in it.

Knows the two spellings of a message (`role`/`content`, `from`/`value`) and the content lists of
the OpenAI protocol. What a turn means is each layout's own business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from pipeline.errors import GrammarError, InvalidBox
from pipeline.sources.published.records import Look, Path, unreadable
from pipeline.turns import Turn

IMAGE = "<image>"
_ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant"} | {
    "gpt": "assistant", "tool": "user", "observation": "user", "function": "user"
}  # fmt: skip
_TAGGED = re.compile(r"</?(?:think|answer|tool_call|grounding)>")
_EMPTY_ANSWER = re.compile(r"<answer>\s*</answer>")
_WRAPPING = re.compile(r"</?tool_response>")
_HEADING = re.compile(r"\A(?:\s*Question:)+\s*", re.IGNORECASE)
_OPTION = re.compile(r"\s*\(?([A-Z])(?:\)[.:]?|[.:])\s+(\S.*?)\s*")


@dataclass(frozen=True, slots=True)
class Said:
    """One message."""

    role: str
    """`system`, `user` or `assistant`; what a tool gives back is the user's."""
    text: str
    """Without the places of its pictures."""
    pictures: int


@dataclass(frozen=True, slots=True)
class Course:
    """The turns after the question: looks, and the answer."""

    looks: tuple[Look, ...]
    final: Turn
    text: str
    """The last turn as published."""


def chat_of(messages: Any) -> list[Said]:
    """The messages of a chat; raises `BadImage` `not_parsed` for what is none."""
    if not isinstance(messages, list | tuple) or not messages:
        raise unreadable("not_parsed", "there is no chat")
    return [_said(message) for message in messages]


def instructions_of(chat: Sequence[Said]) -> str:
    """What the system says."""
    return "\n".join(said.text for said in chat if said.role == "system")


def opening_of(chat: Sequence[Said]) -> tuple[str, tuple[str, ...], list[Said]]:
    """(question, options, the messages after it) of a chat.

    The instruction that datasets put behind a question is left out: it is what a tool's answer
    repeats, or whatever begins with a line that names tags. (The published one, `USER_PROMPT` of
    Chain-of-Focus and `USER_PROMPT_V5` of DeepEyes, is a line of its own with all of them.)
    """
    rest = [said for said in chat if said.role != "system"]
    if not rest or rest[0].role != "user":
        raise unreadable("not_parsed", "the chat does not begin with a question")
    echo = next((said.text.strip() for said in rest[1:] if said.role == "user"), "")
    question, options = _split_options(_without_trailer(rest[0].text, echo))
    if not question:
        raise unreadable("not_parsed", "the question is empty")
    return question, options, rest[1:]


def course_of(messages: Sequence[Said], turn_of: Callable[[str], Turn]) -> Course:
    """Looks and answer of the messages after the question.

    A turn that calls the tool must be given as many pictures as it asks for, or one: the published
    tools carry out the first call only.
    """
    if not any(said.role == "assistant" for said in messages):
        raise unreadable("no_path", "a question without a path to its answer")
    looks: list[Look] = []
    for place, said, given in _exchanges(messages):
        turn = _parsed(said.text, turn_of)
        if turn.answer is not None:
            if given or place < _last(messages):
                raise unreadable("not_parsed", "there are turns after the answer")
            return Course(tuple(looks), turn, said.text)
        if place == _last(messages) and not given:
            raise unreadable("answer_missing", "the last turn looks and does not answer")
        looks.append(_look(turn, said.text, given))
    raise unreadable("answer_missing", "the chat ends with a picture")


def shown(looks: Sequence[Look]) -> int:
    """How many crops a model was given."""
    return sum(sum(look.zoomed) for look in looks)


def check_pictures(path: Path) -> Path:
    """The path, when it comes with its picture and a crop for each look, or with no crop at all."""
    if not path.pictures:
        raise unreadable("missing_image", "the record names no picture")
    asked = 1 + shown(path.looks)
    if len(path.pictures) not in (1, asked):
        detail = f"{len(path.pictures)} pictures for {asked - 1} looks"
        raise unreadable("wrong_images", detail)
    return path


def _said(message: Any) -> Said:
    if not isinstance(message, dict):
        raise unreadable("not_parsed", f"a message is {type(message).__name__}")
    role = _ROLES.get(str(message.get("role", message.get("from"))))
    content = message.get("content", message.get("value"))
    if role is None or not isinstance(content, str | list):
        raise unreadable("not_parsed", "a message without a known role or content")
    if isinstance(content, str):
        return _spoken(role, content, content.count(IMAGE))
    kinds = [part.get("type") for part in content if isinstance(part, dict)]
    words = [part.get("text") for part in content if isinstance(part, dict)]
    text = "\n".join(word for word in words if isinstance(word, str))
    return _spoken(role, text, sum(kind in ("image", "image_url") for kind in kinds))


def _spoken(role: str, text: str, pictures: int) -> Said:
    if role == "user":
        text = _WRAPPING.sub("", text.replace(IMAGE, ""))
    return Said(role, text, pictures)


def _exchanges(messages: Sequence[Said]) -> Iterator[tuple[int, Said, int]]:
    """Each turn of the assistant, its place, and how many pictures it is given after it."""
    for place, said in enumerate(messages):
        if said.role == "assistant":
            after = takewhile(lambda other: other.role == "user", messages[place + 1 :])
            yield place, said, sum(other.pictures for other in after)


def _last(messages: Sequence[Said]) -> int:
    return max(place for place, said in enumerate(messages) if said.role == "assistant")


def _parsed(text: str, turn_of: Callable[[str], Turn]) -> Turn:
    try:
        return turn_of(text)
    except GrammarError as error:
        reason = "answer_missing" if _EMPTY_ANSWER.search(text) else "not_parsed"
        if isinstance(error.__cause__, InvalidBox):
            reason = "bad_box"
        raise unreadable(reason, str(error)) from error


def _look(turn: Turn, text: str, given: int) -> Look:
    boxes = tuple(call.box for call in turn.calls)
    if given not in (1, len(boxes)):
        reason = "no_view" if given == 0 else "wrong_images"
        raise unreadable(reason, f"{len(boxes)} looks were asked for and {given} given")
    zoomed = tuple(place < given for place in range(len(boxes)))
    labels = tuple(call.label for call in turn.calls)
    return Look(turn.thought, boxes, zoomed, labels, text=text)


def _without_trailer(text: str, echo: str) -> str:
    bare = text.rstrip()
    if echo and bare.endswith(echo):
        return bare[: -len(echo)]
    return "\n".join(takewhile(lambda line: not _TAGGED.search(line), text.splitlines()))


def _split_options(text: str) -> tuple[str, tuple[str, ...]]:
    """The question, and the options where its last lines are lettered from A on."""
    lines = [line for line in _HEADING.sub("", text.strip()).splitlines() if line.strip()]
    for start in range(len(lines) - 1):
        found = [_OPTION.fullmatch(line) for line in lines[start:]]
        letters = "".join(match[1] for match in found if match)
        if len(letters) == len(found) and letters == "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(found)]:
            asked = lines[:start]
            if asked and asked[-1].strip().lower() in ("options:", "choices:"):
                asked = asked[:-1]
            return "\n".join(asked).strip(), tuple(match[2] for match in found if match)
    return "\n".join(lines).strip(), ()
