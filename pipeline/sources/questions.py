"""Rows of other people's datasets to questions, by a map of roles to columns."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pipeline.errors import ConfigError, nearest
from pipeline.sources.annotations import bad_annotation, boxes_from
from pipeline.sources.base import Asked

GUESSES: dict[str, tuple[str, ...]] = {
    "image": ("image", "images", "img", "picture", "jpg", "png"),
    "question": ("question", "query", "problem", "prompt", "instruction"),
    "answer": ("answer", "label", "solution", "response", "target"),
    "options": ("options", "choices", "candidates"),
    "bbox": ("bbox", "bboxes", "boxes", "target_boxes"),
    "bbox_xywh": (),
    "task": ("task", "category", "question_type"),
    "license": ("license",),
    "id": (),
}
"""Column names tried for each role when the map does not name one; `bbox` is XYXY pixels."""


def check_roles(columns: Mapping[str, str]) -> None:
    """Raise `ConfigError` for a role that does not exist."""
    for role in columns:
        if role not in GUESSES:
            message = f"A column map has no role '{role}'."
            raise ConfigError(message, nearest(role, GUESSES))


def column_for(role: str, columns: Mapping[str, str], present: Collection[str]) -> str | None:
    """The column that plays a role: the mapped one, else the first guess that is present."""
    if role in columns:
        return columns[role]
    return next((name for name in GUESSES[role] if name in present), None)


def asked_from(row: Mapping[str, Any], columns: Mapping[str, str]) -> tuple[Asked, ...]:
    """The question of a row; none without both a question and an answer."""
    parts = {role: _part(row, role, columns) for role in GUESSES if role != "image"}
    question, answer = parts["question"], parts["answer"]
    if not isinstance(question, str) or not question.strip() or answer in (None, ""):
        return ()
    options = _options(parts["options"])
    boxes = boxes_from(parts["bbox"]) + boxes_from(parts["bbox_xywh"], xywh=True)
    task = str(parts["task"] or "")
    return (Asked(question.strip(), _answer(answer, options), options, boxes, task),)


def text_of(row: Mapping[str, Any], role: str, columns: Mapping[str, str]) -> str:
    """A role's value as text, "" where the row has none."""
    value = _part(row, role, columns)
    return "" if value is None else str(value)


def _part(row: Mapping[str, Any], role: str, columns: Mapping[str, str]) -> Any:
    """A role's value, None where the row has none."""
    column = column_for(role, columns, row.keys())
    return None if column is None else row.get(column)


def _options(value: Any) -> tuple[str, ...]:
    """Options from a list, or from text that holds a JSON list."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else None
        except (ValueError, RecursionError) as error:
            raise bad_annotation(f"options {value!r}") from error
    if value is None:
        return ()
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        raise bad_annotation(f"options {value!r}")
    return tuple(str(option) for option in value)


def _answer(value: Any, options: tuple[str, ...]) -> str:
    """The answer's text: of an index from 0 or a letter, the option it stands for."""
    if not options:
        return str(value).strip()
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(options):
        return options[value]
    text = str(value).strip()
    if text in options:
        return text
    letter = text.strip("().: ").upper()
    if len(letter) == 1 and 0 <= ord(letter) - ord("A") < len(options):
        return options[ord(letter) - ord("A")]
    raise bad_annotation(f"the answer {text!r} is none of the options")
