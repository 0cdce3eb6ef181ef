"""What the report shows of a run, read from the SQL views: questions, their paths, their looks.

Knows nothing of HTML, and of files only what `manifests` says about them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import duckdb

from pipeline.geometry import Box, Size


@dataclass(frozen=True, slots=True)
class Look:
    """One box of a step."""

    step: int
    """From 1."""
    thought: str
    box: Box
    """As asked for, in source pixels."""
    label: str = ""
    tool: str = "zoom"
    zoomed: bool = True
    no_gain: bool = False
    view: Size | None = None
    """(width, height) of what came back, where it was zoomed."""
    magnification: float | None = None
    visual_tokens: int | None = None
    confidence: float | None = None
    target_iou: float | None = None


@dataclass(frozen=True, slots=True)
class Path:
    """One question answered at one budget."""

    resolution: int
    rollout: int
    view: Size
    same_view_as: int | None
    looks: tuple[Look, ...]
    final_thought: str
    answer: str
    finish: str
    verified: bool | None
    num_zooms: int
    visual_tokens: int
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one picture, with its path at each budget, smallest first."""

    sample_id: str
    image_id: str
    size: Size
    question: str
    options: tuple[str, ...]
    target: str
    target_boxes: tuple[Box, ...]
    task: str
    source: str
    license: str
    paths: tuple[Path, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Refusal:
    """One rejected row, and where its looks went."""

    sample_id: str
    resolution: int
    rollout: int
    stage: str
    reason: str
    detail: str
    boxes: tuple[Box, ...] = ()


Row = Mapping[str, Any]
Key = tuple[str, int, int]
"""(sample, budget, rollout): what names a path."""


def rows(connection: duckdb.DuckDBPyConnection, name: str, *values: object) -> list[dict[str, Any]]:
    """The answer of `queries/NAME.sql`, a dict a row; `values` fill its `?`."""
    query = files("pipeline.report").joinpath("queries", f"{name}.sql").read_text("utf-8")
    cursor = connection.execute(query, list(values))
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def questions(connection: duckdb.DuckDBPyConnection, limit: int) -> list[Question]:
    """`limit` questions spread over task kinds and numbers of looks; the same ones every time."""
    return named(connection, [row["sample_id"] for row in rows(connection, "chosen", limit)])


def named(connection: duckdb.DuckDBPyConnection, chosen: Sequence[str]) -> list[Question]:
    """The questions with these sample ids, in this order; those that were not kept are left out."""
    paths = rows(connection, "paths", list(chosen))
    looks = _looks(connection, chosen)
    kept = {row["sample_id"] for row in paths}
    return [
        _question([row for row in paths if row["sample_id"] == sample_id], looks)
        for sample_id in chosen
        if sample_id in kept
    ]


def refusals(connection: duckdb.DuckDBPyConnection, limit: int) -> list[Refusal]:
    """Some rejected rows, every reason at least once while there is room."""
    found = rows(connection, "refusals", limit)
    looks = _looks(connection, [row["sample_id"] for row in found])
    return [
        Refusal(**row, boxes=tuple(look.box for look in looks.get(_key(row), []) if look.zoomed))
        for row in found
    ]


def _looks(
    connection: duckdb.DuckDBPyConnection, sample_ids: Sequence[str]
) -> dict[Key, list[Look]]:
    """The looks of these samples, in order, for each of their paths."""
    found: dict[Key, list[Look]] = {}
    for row in rows(connection, "looks", list(sample_ids)):
        found.setdefault(_key(row), []).append(_look(row))
    return found


def _key(row: Row) -> Key:
    return row["sample_id"], row["resolution"], row["rollout"]


def _question(paths: Sequence[Row], looks: Mapping[Key, list[Look]]) -> Question:
    first = paths[0]
    return Question(
        sample_id=first["sample_id"],
        image_id=first["image_id"],
        size=(first["width"], first["height"]),
        question=first["question"],
        options=tuple(first["options"] or ()),
        target=first["target"],
        target_boxes=tuple(Box(*values) for values in first["target_boxes"] or ()),
        task=first["task"] or "",
        source=first["source"] or "",
        license=first["license"] or "",
        paths=tuple(_path(row, looks.get(_key(row), [])) for row in paths),
    )


def _path(row: Row, looks: Sequence[Look]) -> Path:
    return Path(
        resolution=row["resolution"],
        rollout=row["rollout"],
        view=(row["view_w"], row["view_h"]),
        same_view_as=row["same_view_as"],
        looks=tuple(looks),
        final_thought=row["final_thought"] or "",
        answer=row["answer"] or "",
        finish=row["finish"] or "",
        verified=row["verified"],
        num_zooms=row["num_zooms"],
        visual_tokens=row["visual_tokens"],
        seconds=row["seconds"],
    )


def _look(row: Row) -> Look:
    return Look(
        step=row["step"],
        thought=row["thought"] or "",
        box=Box(row["x0"], row["y0"], row["x1"], row["y1"]),
        label=row["label"] or "",
        tool=row["tool"] or "",
        zoomed=bool(row["zoomed"]),
        no_gain=bool(row["no_gain"]),
        view=(row["view_w"], row["view_h"]) if row["view_w"] else None,
        magnification=row["magnification"],
        visual_tokens=row["visual_tokens"],
        confidence=row["confidence"],
        target_iou=row["target_iou"],
    )
