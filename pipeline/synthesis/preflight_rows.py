"""A trainer's row as the chat that its own reader makes of it.

Owns the columns of each trainer: TRL's blocks, the texts with `<image>` of verl and LLaMA-Factory.
Knows nothing of what makes a chat good; a row without its columns is `Unreadable`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.synthesis.export_llamafactory import PLACE
from pipeline.synthesis.preflight_files import Table

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Chat:
    """A row as the trainer's reader gives it to the chat template."""

    file: str
    row: int
    name: str
    split: str
    messages: list[dict[str, Any]]
    """`role` and `content`; a content is blocks of type `image` and `text`."""
    pictures: tuple[bytes | None, ...]
    """Encoded; None for one that is not there."""
    names: tuple[str, ...]
    """Of the pictures."""
    opened: tuple[tuple[str, bytes | None], ...]
    """(name, bytes) of pictures that only a tool opens."""
    key: tuple[Any, ...]
    """What the row is told from others by; empty where it has nothing."""
    source: str
    """The picture that it is about; empty where the row does not say."""
    answer: str | None
    """What is rewarded; None where the row is a finished chat."""
    boxes: tuple[Any, ...]
    """Where the answer can be seen, as the row writes it."""

    @property
    def digest(self) -> bytes:
        """Of all that is said and shown."""
        told = hashlib.sha256(json.dumps(self.messages, sort_keys=True).encode("utf-8", "replace"))
        for picture in self.pictures:
            told.update(hashlib.sha256(picture or b"").digest())
        return told.digest()


class Unreadable(Exception):
    """A row without the columns that the trainer reads."""


def trl_chat(kind: str) -> Callable[[Table, int, Row], Chat]:
    """How TRL reads rows for `sft` or `rl`: blocks, and the pictures in the order of the blocks."""

    def read(table: Table, number: int, row: Row) -> Chat:
        rewarded = kind == "rl"
        messages = [_message(m) for m in _list(row, "prompt" if rewarded else "messages")]
        pictures, names = _cells(_list(row, "images"), table.path.parent)
        opened = [("source_image", _value(row, "source_image"))] if rewarded else []
        return Chat(
            file=table.file,
            row=number,
            name=_text(row.get("sample_id")),
            split=table.split,
            messages=_with_pictures_first(messages, len(pictures)),
            pictures=pictures,
            names=names,
            opened=tuple((name, (cell or {}).get("bytes")) for name, cell in opened),
            key=_key(row),
            source=_text(row.get("image_id")),
            answer=_text(_value(row, "target")) if rewarded else None,
            boxes=tuple(row.get("target_boxes") or ()),
        )

    return read


def verl_chat(table: Table, number: int, row: Row) -> Chat:
    """How verl's `RLHFDataset` reads rows: `<image>` in a text is the next picture's place."""
    messages = [_placed(_message(m)) for m in _list(row, "prompt")]
    pictures, names = _cells(_list(row, "images"), table.path.parent)
    for column in ("data_source", "agent_name"):
        _value(row, column)
    rewarded, extra = _value(row, "reward_model"), _value(row, "extra_info")
    if not isinstance(rewarded, dict) or not isinstance(extra, dict):
        raise Unreadable("'reward_model' and 'extra_info' are structs.")
    return Chat(
        file=table.file,
        row=number,
        name=_text(extra.get("sample_id")),
        split=table.split,
        messages=messages,
        pictures=pictures,
        names=names,
        opened=_uris(extra.get("tools_kwargs")),
        key=_key(extra),
        source=_text(extra.get("image_id")),
        answer=_text(rewarded.get("ground_truth")),
        boxes=tuple(extra.get("target_boxes") or ()),
    )


def llamafactory_chat(table: Table, number: int, row: Row) -> Chat:
    """How LLaMA-Factory's ShareGPT converter reads rows, by the tags of `dataset_info.json`."""
    tags = table.columns
    roles = {
        tags["user_tag"]: "user",
        tags["assistant_tag"]: "assistant",
        tags["observation_tag"]: "tool",
        tags["system_tag"]: "system",
    }
    messages = []
    for turn in _list(row, tags["messages"]):
        role, text = _value(turn, tags["role_tag"]), _value(turn, tags["content_tag"])
        messages.append({"role": roles.get(role, _text(role)), "content": text})
    if tags.get("system") and (system := row.get(tags["system"])):
        messages.insert(0, {"role": "system", "content": system})
    names = tuple(map(_text, _list(row, tags["images"])))
    return Chat(
        file=table.file,
        row=number,
        name=names[0] if names else "",
        split=table.split,
        messages=[_placed(_message(m)) for m in messages],
        pictures=tuple(_file(table, name) for name in names),
        names=names,
        opened=(),
        key=names,
        source="",
        answer=None,
        boxes=(),
    )


def _with_pictures_first(messages: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Texts as blocks; TRL puts all pictures before the first user's, where that is no blocks."""
    told, waiting = [], True
    for message in messages:
        content = message["content"]
        if isinstance(content, str):
            first = waiting and message["role"] == "user"
            waiting = waiting and not first
            before = [{"type": "image"}] * count if first else []
            content = [*before, {"type": "text", "text": content}]
        told.append({**message, "content": content})
    return told


def _placed(message: dict[str, Any]) -> dict[str, Any]:
    """A text as blocks, cut where pictures stand."""
    content = message["content"]
    if not isinstance(content, str):
        raise Unreadable("A message's content is a text.")
    pieces = re.split(f"({PLACE})", content)
    blocks = [
        {"type": "image"} if piece == PLACE else {"type": "text", "text": piece}
        for piece in pieces
        if piece
    ]
    return {**message, "content": blocks}


def _message(message: Any) -> dict[str, Any]:
    """A message whose blocks are what they should be; raises `Unreadable`."""
    role, content = _value(message, "role"), _value(message, "content")
    if not isinstance(role, str) or not isinstance(content, str | list):
        raise Unreadable("A message has a role and a content.")
    for block in content if isinstance(content, list) else ():
        kind = _value(block, "type")
        if kind not in ("image", "text"):
            raise Unreadable(f"A block of type {kind!r} is neither image nor text.")
        if kind == "text" and not isinstance(block.get("text"), str):
            raise Unreadable("A block of type text has no text.")
    return dict(message)


def _cells(cells: Sequence[Any], folder: Path) -> tuple[tuple[bytes | None, ...], tuple[str, ...]]:
    """(bytes, names) of pictures as `datasets` stores them."""
    pictures = []
    for cell in cells:
        data, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (None, "")
        pictures.append(data or (_bytes(folder / path) if path else None))
    return tuple(pictures), tuple(_text((cell or {}).get("path")) for cell in cells)


def _uris(tools: Any) -> tuple[tuple[str, bytes | None], ...]:
    """Pictures that verl's tools are opened with, as data URIs."""
    found: list[tuple[str, bytes | None]] = []
    for tool, kwargs in (tools or {}).items():
        for name, uri in ((kwargs or {}).get("create_kwargs") or {}).items():
            try:
                data = base64.b64decode(str(uri).partition("base64,")[2], validate=True)
            except ValueError:
                data = None
            found.append((f"{tool}.{name}", data))
    return tuple(found)


def _file(table: Table, name: str) -> bytes | None:
    """A picture that is named: below the media folder, else as the name says."""
    found = _bytes(table.pictures / name)
    return _bytes(table.path.parent / name) if found is None else found


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (OSError, ValueError):  # a name may hold what no path can
        return None


def _key(row: Row) -> tuple[Any, ...]:
    """What tells rows of an export apart."""
    key = tuple(row.get(name) for name in ("sample_id", "resolution", "rollout"))
    return key if any(part is not None for part in key) else ()


def _list(row: Any, column: str) -> Sequence[Any]:
    value = _value(row, column)
    if not isinstance(value, list):
        raise Unreadable(f"'{column}' is no list.")
    return value


def _value(row: Any, column: str) -> Any:
    if not isinstance(row, dict) or column not in row:
        raise Unreadable(f"There is no '{column}'.")
    return row[column]


def _text(value: Any) -> str:
    return "" if value is None else str(value)
