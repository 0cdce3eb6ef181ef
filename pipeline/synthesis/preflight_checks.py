"""What can be wrong with one chat before a model's processor has seen it, and after.

Each check gives (reason, what is the matter); a chat without findings trains as it is meant to.
Knows nothing of files and columns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadImage, GrammarError, InvalidBox, ModelError
from pipeline.geometry import Box, Frame, FrameKind, Size
from pipeline.grammar import BOX_END, BOX_START, Profile, parse, refuse_control
from pipeline.sources.decode import decode
from pipeline.synthesis.preflight_rows import Chat
from pipeline.turns import Mark, Turn

if TYPE_CHECKING:
    from pipeline.models.qwen_chat import ChatProcessor, Encoded

REASONS: Mapping[str, str] = {
    "file": "a file is not there or cannot be read",
    "dataset_info": "LLaMA-Factory cannot tell what a file holds",
    "settings": "LLaMA-Factory is told the wrong settings, or none",
    "load": "datasets cannot load a file",
    "family": "boxes are in the numbers of another family than the model's",
    "row": "a row's text is no JSON",
    "columns": "a row lacks what the trainer reads",
    "roles": "turns are not in the order that the trainer demands",
    "empty_turn": "a turn says and shows nothing",
    "no_place": "a picture has no place in the text",
    "no_picture": "a place in the text has no picture",
    "no_view": "a question or a look is not followed by its picture",
    "turn": "an assistant's turn does not parse: tags, tool call, boxes",
    "stray_token": "a text holds a token that acts",
    "picture": "a picture is not there, or its bytes do not decode",
    "changed": "a picture's bytes are not those of the export",
    "caps": "a pixel cap would shrink a picture",
    "numbers": "the text tells of a first picture of another size than the model is shown",
    "box": "a box lies outside the picture that it is about",
    "target": "there is no answer to reward",
    "template": "the chat template fails, or drops pictures",
    "mask": "what is trained is not exactly the assistant's turns",
    "too_long": "a row has more tokens than fit",
    "duplicate": "a row is there twice",
    "leak": "a source picture is in two splits",
}
"""Every reason, and what it means."""

Finding = tuple[str, str]
"""(reason, what is the matter)"""

_TOLD_SIZE = re.compile(r"in pixels of the first picture, which is (\d+) x (\d+)")
_TOLD_SHARE = "of the first picture's width and height"
_SPECIAL = re.compile(r"<\|[^|<>\s]+\|>")
_MARKS = frozenset((BOX_START, BOX_END, Mark.ZOOMIN.value))


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """What the rows are for."""

    trainer: str
    taught: bool
    """Whether rows are finished chats that a loss is taken on; else they are prompts."""
    processor: ChatProcessor
    numbers: FrameKind
    """In which numbers boxes are written."""
    profile: Profile
    most_tokens: int
    most_pixels: int
    """A picture of more is shrunk, by the trainer or by the model's processor."""
    resized: Callable[[Size], Size]
    """What the trainer makes of a picture's size before the model's processor does."""
    encode: Callable[[Sequence[Mapping[str, Any]], Sequence[Size]], Encoded]
    """Messages in tokens as the trainer makes them, for pictures of these sizes."""


def findings(chat: Chat, target: Target) -> tuple[list[Finding], Encoded | None]:
    """What is wrong with a chat, and the chat in tokens where nothing else stood in the way."""
    found = [*_structure(chat, target), *_said(chat, target)]
    sizes: list[Size] = []
    shown = [*zip(chat.names, chat.pictures, strict=True)]
    for name, data in [*shown, *chat.opened]:
        try:
            if data is None:
                raise BadImage("missing", "there are no bytes")
            sizes.append(decode(data).size)
        except BadImage as error:
            found.append(("picture", f"{name}: {error.reason} {error.detail}".strip()))
    if found:
        return found, None
    sizes = sizes[: len(shown)]
    found = [*_capped(chat, target, sizes)]
    try:
        seen = target.processor.seen(target.resized(sizes[0])) if sizes else None
        found += _numbers(chat, target, seen)
        encoded = target.encode(chat.messages, [*map(target.resized, sizes)])
    except ModelError as error:
        return [*found, ("template", error.message)], None
    return [*found, *_encoded(chat, target, encoded)], encoded


def places(message: Mapping[str, Any]) -> int:
    """How many pictures stand in a message."""
    return sum(block["type"] == "image" for block in message["content"])


def text_of(message: Mapping[str, Any]) -> str:
    """The texts of a message, joined."""
    return "".join(block["text"] for block in message["content"] if block["type"] == "text")


def _structure(chat: Chat, target: Target) -> Iterator[Finding]:
    """Turns, and pictures in number."""
    roles = [message["role"] for message in chat.messages]
    body = roles[1:] if roles[:1] == ["system"] else roles
    if why := _disorder(body, target):
        yield "roles", f"{why}: {' '.join(roles)}"
    for place, message in enumerate(chat.messages):
        if not (text_of(message).strip() or places(message)):
            yield "empty_turn", f"turn {place} of {message['role']}"
    counted = [m for m in chat.messages if (target.trainer, m["role"]) != ("trl", "tool")]
    stand, there = sum(map(places, counted)), len(chat.pictures)  # TRL counts none of a tool's
    if stand != there:
        reason = "no_place" if stand < there else "no_picture"
        yield reason, f"{stand} places for {there} pictures"
    if chat.answer is not None and not chat.answer.strip():
        yield "target", "the answer is empty"


def _disorder(body: Sequence[str], target: Target) -> str:
    """What is wrong with the order of roles behind the system's; empty where nothing is."""
    known = {"user", "tool", "assistant"} if target.taught else {"user"}
    if unknown := [role for role in body if role not in known]:
        return f"'{unknown[0]}' has no place there"
    if body[:1] != ["user"]:
        return "the user does not begin"
    if target.taught and body[-1] != "assistant":
        return "the assistant does not end it"
    asks = [role != "assistant" for role in body]
    strict = target.trainer == "llamafactory"
    for one, other in pairwise(asks):
        if one == other and (strict or not one):
            return "turns do not alternate"
    return ""


def _said(chat: Chat, target: Target) -> Iterator[Finding]:
    """Texts, and a picture behind each look."""
    waiting, asked, last = 1, "the question", -1
    for place, message in enumerate(chat.messages):
        text = text_of(message)
        if message["role"] != "assistant":
            yield from _free(text, message["role"])
            waiting -= places(message)
            continue
        if waiting > 0:
            yield "no_view", f"{asked} of turn {max(last, 0)} lacks {waiting}"
        try:
            turn = parse(text, target.profile)
        except GrammarError as error:
            yield "turn", f"turn {place}: {error.message}"
            waiting, last = 0, place
            continue
        inside = places(message) if target.profile == "cof-v1" else 0
        waiting, asked, last = len(turn.calls) - inside, "a look", place
    if waiting > 0:
        yield "no_view", f"{asked} lacks {waiting}"


def _free(text: str, role: str) -> Iterator[Finding]:
    """Tokens that act, in what is not the assistant's."""
    if role == "system":
        acting = [mark for mark in _SPECIAL.findall(text) if mark not in _MARKS]
        if acting or text != text.encode("utf-8", "ignore").decode():
            yield "stray_token", f"the system's text holds {[*acting, 'half a character'][0]}"
        return
    try:
        refuse_control(text, f"The {role}'s text")
    except GrammarError as error:
        yield "stray_token", error.message


def _capped(chat: Chat, target: Target, sizes: Sequence[Size]) -> Iterator[Finding]:
    """Pictures that a pixel cap makes smaller."""
    for name, (width, height) in zip(chat.names, sizes, strict=True):
        if width * height > target.most_pixels:
            yield "caps", f"{name}: {width} x {height} is shrunk to {target.most_pixels} pixels"


def _encoded(chat: Chat, target: Target, encoded: Encoded) -> Iterator[Finding]:
    """Places that are left, the length, and what is taught."""
    if encoded.places != len(chat.pictures):
        yield "template", f"it has {encoded.places} places for {len(chat.pictures)} pictures"
        return
    if encoded.tokens > target.most_tokens:
        yield "too_long", f"{encoded.tokens} tokens, at most {target.most_tokens}"
    said = [text_of(m) for m in chat.messages if m["role"] == "assistant"]
    if target.taught and not encoded.teaches(said):
        yield "mask", f"{len(encoded.taught)} stretches for {len(said)} turns, or other words"


def _numbers(chat: Chat, target: Target, seen: Size | None) -> Iterator[Finding]:
    """Boxes, against the first picture at the size that the model is shown."""
    system = "".join(text_of(m) for m in chat.messages if m["role"] == "system")
    told = _TOLD_SIZE.search(system)
    if target.numbers == "pixels":
        if seen is None:
            return
        if told and (int(told[1]), int(told[2])) != seen:
            yield "numbers", f"{told[1]} x {told[2]} in the text, {seen[0]} x {seen[1]} shown"
        elif _TOLD_SHARE in system:
            yield "numbers", "the text tells of shares, boxes are in pixels"
        frame = Frame("pixels", seen, seen)
    else:
        if told:
            yield "numbers", "the text tells of pixels, boxes are in thousandths"
        frame = Frame(target.numbers, (1000, 1000))
    for values in [*_boxes(chat, target.profile), *chat.boxes]:
        try:
            Box.from_frame(values, frame)
        except InvalidBox as error:
            yield "box", error.message


def _boxes(chat: Chat, profile: Profile) -> Iterator[Any]:
    """All boxes that the assistant names by a mark; its turns have been parsed before."""
    for message in chat.messages:
        if message["role"] == "assistant":
            turn: Turn = parse(text_of(message), profile)
            inside = [segment for segment in turn.segments if isinstance(segment, tuple)]
            yield from inside or [call.box for call in turn.calls]
