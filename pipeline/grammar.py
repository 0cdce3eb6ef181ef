"""How one assistant turn reads as text, in both published profiles, and back again.

Owns the tags and the special tokens. Knows nothing of trajectories, and of a box only that it is
four numbers in some frame.

`cof-v2`: `<think> … </think>`, then one or more `<tool_call>`s or one `<answer>`.
`cof-v1`: one turn; boxes stand inside the thought, and `<|image_zoomin|>` zooms into all boxes
named since the last one; then the `<answer>`.
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal, get_args

from pipeline.errors import ConfigError, GrammarError, nearest
from pipeline.turns import Mark, Segment, Turn, ZoomCall, tidy

Profile = Literal["cof-v2", "cof-v1"]
PROFILES: tuple[Profile, ...] = get_args(Profile)

TOOL_NAME = "image_zoom_in_tool"
BOX_START, BOX_END = "<|box_start|>", "<|box_end|>"

_TAG = re.compile(r"(</?(?:think|tool_call|answer)>)")
_CONTROL = re.compile(
    r"</?(?:think|tool_call|tool_response|answer)>|<(?:image|video|audio)>|<\|[^|<>\s]+\|>"
)
"""What no free text may hold: our tags, the placeholders of media, any special token."""
_INLINE = re.compile(r"<\|box_start\|>([^<]*)<\|box_end\|>|<\|image_zoomin\|>")


def render_turn(turn: Turn, profile: Profile) -> str:
    """The text of a turn; raises `GrammarError` when the profile cannot say it unambiguously."""
    write = {"cof-v2": _write_v2, "cof-v1": _write_v1}[known_profile(profile)]
    _check_texts(turn)
    return write(turn)


def parse(text: str, profile: Profile) -> Turn:
    """The turn a text says; raises `GrammarError` with what is wrong.

    Strict about structure, indifferent to white space. Boxes are four finite numbers, whether or
    not they make sense in a picture: that is `Box.from_frame`'s question.
    """
    read = {"cof-v2": _read_v2, "cof-v1": _read_v1}[known_profile(profile)]
    turn = read(_blocks(text))
    _check_texts(turn)
    return turn


def read_segments(text: str) -> tuple[Segment, ...]:
    """The segments of a `cof-v1` thought, finished or cut off after `<|image_zoomin|>`."""
    segments: list[Segment] = []
    end = 0
    for match in _INLINE.finditer(text):
        segments.append(text[end : match.start()])
        inside = match.group(1)
        segments.append(Mark.ZOOMIN if inside is None else ZoomCall(_json(inside, "A box")).box)
        end = match.end()
    segments.append(text[end:])
    if any(isinstance(s, str) and (BOX_START in s or BOX_END in s) for s in segments):
        raise GrammarError(f"A box is {BOX_START}[x1, y1, x2, y2]{BOX_END}; a mark is missing.")
    return tidy(segments)


def known_profile(profile: str) -> Profile:
    """The profile of that name; raises `ConfigError` naming the nearest one."""
    for known in PROFILES:
        if profile == known:
            return known
    raise ConfigError(f"There is no profile {profile!r}.", nearest(profile, PROFILES))


def refuse_control(text: str, what: str) -> None:
    """Raise `GrammarError` for text that a chat template or `parse` would take for a mark."""
    found = _CONTROL.search(text)
    if found:
        raise GrammarError(f"{what} holds {_short(found.group())}, a mark of the grammar.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise GrammarError(f"{what} holds half a character ({error.reason}).") from error


def _write_v2(turn: Turn) -> str:
    if turn.segments:
        raise GrammarError("A cof-v2 turn has no boxes inside its thought.")
    if (turn.answer is None) != bool(turn.calls):
        raise GrammarError("A cof-v2 turn calls the tool or answers: one of the two.")
    thought = f"<think> {turn.thought} </think>"
    if turn.answer is not None:
        return f"{thought}\n<answer> {turn.answer} </answer>"
    return "\n".join([thought, *map(_write_call, turn.calls)])


def _write_call(call: ZoomCall) -> str:
    arguments: dict[str, Any] = {"bbox_2d": list(call.box)}
    if call.label:
        arguments["label"] = call.label
    text = json.dumps({"name": TOOL_NAME, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{text}\n</tool_call>"


def _write_v1(turn: Turn) -> str:
    if turn.answer is None:
        raise GrammarError("A cof-v1 turn ends with an answer.")
    if turn.calls and not turn.segments:
        raise GrammarError("A cof-v1 turn says with segments where in its thought a box stands.")
    thought = "".join(map(_write_segment, turn.segments)) or turn.thought
    return f"<think> {thought} </think>\n<answer> {turn.answer} </answer>"


def _write_segment(segment: Segment) -> str:
    if isinstance(segment, Mark):
        return segment.value
    if isinstance(segment, str):
        return segment
    return f"{BOX_START}{json.dumps(segment)}{BOX_END}"


def _blocks(text: str) -> list[tuple[str, str]]:
    """(tag, what stands inside) for each tag of a text that is nothing but closed tags."""
    pieces = _TAG.split(text)
    blocks = []
    for place in range(1, len(pieces), 4):
        opening, closing = pieces[place], pieces[place + 2 : place + 3]
        if opening.startswith("</"):
            raise GrammarError(f"{opening} closes a tag that is not open.")
        if closing != [f"</{opening[1:]}"]:
            instead = f", {closing[0]} comes first" if closing else ""
            raise GrammarError(f"{opening} is not closed{instead}.")
        blocks.append((opening[1:-1], pieces[place + 1]))
    outside = "".join(pieces[::4]).strip()
    if outside:
        raise GrammarError(f"There is text outside the tags: {_short(outside)}.")
    return blocks


def _read_v2(blocks: list[tuple[str, str]]) -> Turn:
    thought = _read_thought(blocks)
    calls = tuple(_read_call(body) for tag, body in blocks if tag == "tool_call")
    answer = _read_answer(blocks)
    if calls and answer is not None:
        raise GrammarError("A turn calls the tool or answers, never both.")
    if not calls and answer is None:
        raise GrammarError("After its thought a turn calls the tool or answers; this does neither.")
    return Turn(thought, calls, answer)


def _read_v1(blocks: list[tuple[str, str]]) -> Turn:
    thought, answer = _read_thought(blocks), _read_answer(blocks)
    if any(tag == "tool_call" for tag, _ in blocks):
        raise GrammarError(f"cof-v1 has no <tool_call>: it zooms with {Mark.ZOOMIN.value}.")
    if answer is None:
        raise GrammarError("A cof-v1 turn ends with an <answer>; this has none.")
    return Turn(answer=answer, segments=read_segments(thought))


def _read_thought(blocks: list[tuple[str, str]]) -> str:
    if not blocks or blocks[0][0] != "think":
        raise GrammarError("A turn begins with <think>.")
    if any(tag == "think" for tag, _ in blocks[1:]):
        raise GrammarError("A turn has one <think>, not several.")
    return blocks[0][1]


def _read_answer(blocks: list[tuple[str, str]]) -> str | None:
    answers = [body for tag, body in blocks if tag == "answer"]
    if len(answers) > 1:
        raise GrammarError("A turn has one <answer>, not several.")
    return answers[0] if answers else None


def _read_call(body: str) -> ZoomCall:
    call = _json(body, "A tool call")
    if not isinstance(call, dict) or set(call) != {"name", "arguments"}:
        raise GrammarError('A tool call is a JSON object of "name" and "arguments".')
    name, arguments = call["name"], call["arguments"]
    if name != TOOL_NAME:
        wrong = f"no tool {_short(name)}" if isinstance(name, str) else "no such tool"
        raise GrammarError(f"There is {wrong}; the tool is called {TOOL_NAME}.")
    if not isinstance(arguments, dict) or "bbox_2d" not in arguments:
        raise GrammarError(f"{TOOL_NAME} needs the argument bbox_2d.")
    unknown = sorted(set(arguments) - {"bbox_2d", "label"})
    if unknown:
        raise GrammarError(f"{TOOL_NAME} has no argument {_short(unknown[0])}.")
    label = arguments.get("label", "")
    if not isinstance(label, str):
        raise GrammarError("The label of a tool call is a string.")
    return ZoomCall(arguments["bbox_2d"], label)


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise GrammarError(f"{what} is JSON, and this is not: {_short(str(error))}.") from error


def _check_texts(turn: Turn) -> None:
    """Raise `GrammarError` unless every free text of a turn survives being written and read."""
    for segment in turn.segments or (turn.thought,):
        if isinstance(segment, str):
            refuse_control(segment, "The thought")
    for call in turn.calls:
        refuse_control(call.label, "The label")
    if turn.answer is not None:
        refuse_control(turn.answer, "The answer")
        if not turn.answer:
            raise GrammarError("The answer is empty.")


def _short(text: str, limit: int = 60) -> str:
    """A quotation that keeps an error message to one line."""
    quoted = repr(text[:limit])
    return quoted if len(text) <= limit and len(quoted) <= limit + 2 else f"{quoted[:limit]}…'"
