"""Mini-o3: the cold-start data, as Parquet or as the JSON that its own script makes of it.

Facts: Mini-o3/Mini-o3 (read in its copies dddraxxx/Mini-o3 and youthHan/Mini-o3)
`scripts/preprocess_coldstart.py`: columns `images, image_names, conversations, data_source,
sample_index, rollout_index`; `conversations` is a list of `from`/`value`, written as text. A turn
is `<think>…</think>` and `<grounding>{"bbox_2d": […], "source": …}</grounding>` or `<answer>`.
Boxes are fractions of the picture that `source` names: `original_image`, or `observation_k`, the
k-th crop. A crop is cut plain from the source's pixels, its box cut to the picture; training and
evaluation smart-resize every picture to 40 000 … 2 000 000 pixels. A row may end with a look: those
are rejected as `answer_missing`. There is no ground truth in this file.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pipeline.errors import GrammarError
from pipeline.sources.published.chats import (
    chat_of,
    check_pictures,
    course_of,
    instructions_of,
    opening_of,
)
from pipeline.sources.published.records import ANY, Layout, Look, Path, Record, unreadable
from pipeline.turns import Turn, ZoomCall

_BLOCK = re.compile(r"\s*<(think|grounding|answer)>(.*?)</\1>", re.DOTALL)
_SOURCE = re.compile(r"observation_(\d{1,4})")
_MOST_ROLLOUTS = 2**31


def read(record: Record) -> Path:
    """The path of one record; raises `BadImage`."""
    chat = chat_of(_listed(record.get("conversations")))
    question, options, rest = opening_of(chat)
    course = course_of(rest, _turn)
    return check_pictures(
        Path(
            question=question,
            options=options,
            answer=course.final.answer or "",
            pictures=tuple(record.get("images") or ()),
            looks=tuple(single for look in course.looks for single in _apart(look)),
            final_thought=course.final.thought,
            final_text=course.text,
            instructions=instructions_of(chat),
            coordinates="unit",
            slack=ANY,
            task=str(record.get("data_source") or ""),
            rollout=_rollout(record.get("rollout_index")),
        )
    )


def _recognises(record: Record) -> bool:
    return "conversations" in record and isinstance(record.get("images"), list)


def _listed(conversations: Any) -> Any:
    """The list of messages, from JSON where it is text."""
    if not isinstance(conversations, str):
        return conversations
    try:
        return json.loads(conversations)
    except (ValueError, RecursionError) as error:
        raise unreadable("not_parsed", f"conversations are not JSON: {error}") from error


def _turn(text: str) -> Turn:
    """A turn; a call's label is what its box lies on, until `_apart` takes it off."""
    blocks = _blocks(text)
    thoughts = [body.strip() for tag, body in blocks if tag == "think"]
    calls = tuple(_call(body) for tag, body in blocks if tag == "grounding")
    answers = [body.strip() for tag, body in blocks if tag == "answer"]
    if len(thoughts) > 1 or len(answers) + bool(calls) != 1:
        raise GrammarError("A turn thinks once, and then either looks or answers.")
    if answers == [""]:
        raise GrammarError("The answer is empty.")
    return Turn("".join(thoughts), calls, answers[0] if answers else None)


def _blocks(text: str) -> list[tuple[str, str]]:
    """(tag, what stands inside) for a text that is nothing but closed tags."""
    blocks, end = [], 0
    while match := _BLOCK.match(text, end):
        blocks.append((match[1], match[2]))
        end = match.end()
    if text[end:].strip():
        raise GrammarError(f"There is text outside the tags: {text[end:].strip()[:60]!r}.")
    return blocks


def _call(body: str) -> ZoomCall:
    try:
        call = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise GrammarError(f"A grounding is JSON, and this is not: {error}.") from error
    if not isinstance(call, dict):
        raise GrammarError("A grounding is a JSON object.")
    return ZoomCall(call.get("bbox_2d", ()), str(call.get("source") or "original_image"))


def _apart(look: Look) -> list[Look]:
    """A look for each box of a turn: every crop is a view that later boxes may lie on."""
    return [
        Look(look.thought if not n else "", (box,), (was,), of=_view(source), text=look.text)
        for n, (box, was, source) in enumerate(
            zip(look.boxes, look.zoomed, look.labels, strict=True)
        )
    ]


def _view(source: str) -> int:
    """Which view a box lies on."""
    if source == "original_image":
        return 0
    match = _SOURCE.fullmatch(source)
    if match is None or match[1] == "0":
        raise unreadable("bad_box", f"a box on {source[:60]!r}")
    return int(match[1])


def _rollout(value: Any) -> int:
    known = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST_ROLLOUTS
    return int(value) if known else 0


LAYOUT = Layout(
    name="mini-o3",
    about="records of `conversations` (text or a list) and `images`",
    recognises=_recognises,
    read=read,
    tools=("crop",),
    least_pixels=40_000,
    most_pixels=2_000_000,
)
