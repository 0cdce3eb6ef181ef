"""Proof that published rows show what they say: crop again, read again, derive again.

Takes nothing but the committed Parquet of `trajectories`. The codes are read with the second
reader, which shares no step with the agent's; the answers of puzzles follow from their recipes and
the stored pixels (`proofs`); sizes and counts follow from the observation law.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isclose, prod, sqrt
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from manifests.tables import KEY
from pipeline.agent.line_reader import read_line
from pipeline.errors import BadImage, InvalidBox
from pipeline.geometry import FACTOR, Box, Size, view_size
from pipeline.runner.rundir import read_run, records
from pipeline.runner.storage import Storage, storage_at
from pipeline.scenes.needles import CODE_LENGTH
from pipeline.scenes.tags import ALPHABET
from pipeline.sources.decode import decode
from pipeline.synthesis import focus_check
from pipeline.synthesis.focus_check import FocusCheck
from pipeline.synthesis.import_check import imported_problems, is_imported
from pipeline.synthesis.proofs import is_provable, looked_past, proven
from pipeline.synthesis.stored import stored_rows
from pipeline.trajectory import Observation
from pipeline.views import MAGNIFY, View, crop_region, first_view, zoomed

KIND = "trajectories"
AGREEMENT = 0.99
"""Least share of the rows looked at whose target must be read again."""
BATCH_ROWS = 32

Row = Mapping[str, Any]
RowKey = tuple[str, int, int]
"""(sample_id, resolution, rollout)."""

_COLUMNS = [
    *KEY,
    *("image_sha256", "width", "height", "view_w", "view_h", "same_view_as", "task"),
    *("question", "target", "target_boxes", "recipe"),
    *("num_zooms", "visual_tokens", "policy", "steps", "image.bytes"),
    *focus_check.COLUMNS,
]
_RESTS_ON_MORE = ("nearest",)
"""Tasks whose last look may be at what the question names, the answer being read before it."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was found."""

    rows: int
    looked_at: int
    """Rows with a zoomed box and a code as target, or with a recipe."""
    agreed: int
    """Of these, rows whose target was read, or derived, again."""
    disagreed: tuple[RowKey, ...]
    """Rows that read otherwise."""
    unclear: tuple[RowKey, ...]
    """Rows where nothing could be read, or derived."""
    problems: tuple[str, ...]
    """Values that do not follow from the row's picture and boxes, one sentence each."""

    @property
    def agreement(self) -> float:
        """Share of the rows looked at that agree, in [0, 1]; 1 when there are none."""
        return self.agreed / self.looked_at if self.looked_at else 1.0

    @property
    def holds(self) -> bool:
        return not self.problems and self.agreement >= AGREEMENT


def recheck(run_dir: str | Path) -> Report:
    """Look at every committed row of `trajectories` again; memory does not grow with the run."""
    storage = storage_at(str(run_dir))
    tally = _Tally(FocusCheck(_segmenter(storage)))
    paths = [f.path for record in records(storage) for f in record.files if f.kind == KIND]
    for path in paths:
        try:
            for row in stored_rows(storage, path, BATCH_ROWS, _COLUMNS):
                tally.add(row)
        except (OSError, pa.ArrowException) as error:
            tally.problems.append(f"{path} cannot be read: {error}.")
    return tally.report()


def _segmenter(storage: Storage) -> Mapping[str, Any] | None:
    """What outlined things in the run; None where it does not say."""
    config: Mapping[str, Any] = read_run(storage).get("config") or {}
    return config.get("segmenter")


@dataclass
class _Tally:
    """Counts so far, and the picture at hand: consecutive rows share one."""

    focus: FocusCheck
    rows: int = 0
    looked_at: int = 0
    agreed: int = 0
    disagreed: list[RowKey] = field(default_factory=list)
    unclear: list[RowKey] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    picture: _Picture | None = None

    def add(self, row: Row) -> None:
        """Look at a row; what is wrong with it is noted, never raised."""
        self.rows += 1
        key: RowKey = (row["sample_id"], row["resolution"], row["rollout"])
        try:
            picture = self._picture((row["image"] or {}).get("bytes") or b"")
            if is_imported(row):
                told = imported_problems(row, picture.sha256, picture.image.size)
                self.problems += [f"{key}: {said}" for said in told]
                return
            looks = _looks(row)
            self.problems += [f"{key}: {said}" for said in _problems(row, looks, picture)]
            views = [look.view(picture.image) for look in looks]
            told = self.focus.problems(row, picture.image, views)
            self.problems += [f"{key}: {said}" for said in told]
            if row.get("recipe") and is_provable(row["recipe"]):
                found = proven(picture.image, row["recipe"], row["question"])
                self._count(key, row["target"], iter([found]))
                self.problems += [f"{key}: {said}" for said in _looked_past(row, looks)]
            elif looks and _is_code(row["target"]):
                self._count(key, row["target"], _readings(row, looks, picture))
        except BadImage as error:
            self.problems.append(f"{key}: the picture cannot be decoded ({error.reason}).")
        except InvalidBox as error:
            self.problems.append(f"{key}: {error}")

    def report(self) -> Report:
        return Report(
            self.rows,
            self.looked_at,
            self.agreed,
            tuple(self.disagreed),
            tuple(self.unclear),
            tuple(self.problems),
        )

    def _picture(self, data: bytes) -> _Picture:
        """The picture of these bytes, decoded unless it is at hand; raises `BadImage`."""
        if self.picture is None or self.picture.data != data:
            self.picture = None
            self.picture = _Picture(data, hashlib.sha256(data).hexdigest(), decode(data))
        return self.picture

    def _count(self, key: RowKey, target: str, readings: Iterator[str]) -> None:
        """Read until the target is; a row without it reads otherwise, or not at all."""
        self.looked_at += 1
        otherwise = False
        for text in readings:
            if text == target:
                self.agreed += 1
                return
            otherwise = otherwise or bool(text)
        (self.disagreed if otherwise else self.unclear).append(key)


@dataclass(frozen=True, slots=True, eq=False)
class _Picture:
    """A published picture; what was read in it is kept, as many rows look at the same place."""

    data: bytes
    sha256: str
    image: Image.Image
    read: dict[tuple[Box, Size, Box], str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Look:
    """A view that a row tells of, derived from its box and budget."""

    box: Box | None
    """As asked for; None for the first view."""
    resolution: int
    observation: Observation
    said: float | None = None
    """The magnification that the row gives."""

    def view(self, image: Image.Image) -> View:
        """The look with its pixels."""
        if self.box is None:
            return first_view(image, self.resolution)
        return zoomed(image, self.box, self.resolution, 0)


def _looks(row: Row) -> list[_Look]:
    """The last zoomed box of each step that has one; raises `InvalidBox` for what is no box."""
    size, resolution = (row["width"], row["height"]), solved_at(row)
    looks = []
    for step in row["steps"] or ():
        asked = [box for box, was in zip(step["boxes"], step["zoomed"], strict=False) if was]
        if not asked:
            continue
        box = _box(asked[-1])
        looks.append(look_at_budget(box, size, resolution, step["magnification"]))
    return looks


def look_at_budget(box: Box, size: Size, budget: int, said: float | None) -> _Look:
    """A look at its budget, or at the smaller view that its magnification tells of."""
    region = crop_region(box, size)
    edges = int(region.width), int(region.height)

    def pixels(resolution: int) -> int:
        return prod(view_size(edges, resolution, magnify=MAGNIFY))

    resolution = budget
    if said is not None and 0 < said * sqrt(region.area) < budget:
        told = said**2 * region.area - 1
        resolution = FACTOR + bisect_left(range(FACTOR, budget), told, key=pixels)
    shown = view_size(edges, resolution, magnify=MAGNIFY)
    return _Look(box, resolution, Observation(region, shown), said)


def _first(row: Row) -> _Look:
    """The view of the whole picture that a row began with."""
    size = (row["width"], row["height"])
    whole = Observation(Box(0, 0, *size), view_size(size, solved_at(row)))
    return _Look(None, solved_at(row), whole)


def solved_at(row: Row) -> int:
    """The budget at which the row's path was made."""
    return int(row["same_view_as"] or row["resolution"])


def _box(values: Sequence[int]) -> Box:
    if len(values) != 4:
        raise InvalidBox(f"A box has four numbers, not {len(values)}.")
    return Box(*values)


def _problems(row: Row, looks: Sequence[_Look], picture: _Picture) -> Iterator[str]:
    """What a row says that does not follow from its picture and its boxes."""
    size = (row["width"], row["height"])
    zooms = sum(sum(map(bool, step["zoomed"])) for step in row["steps"] or ())
    first = _first(row).observation
    tokens = first.visual_tokens + sum(look.observation.visual_tokens for look in looks)
    derived = {
        "image_sha256": (row["image_sha256"], picture.sha256),
        "size": (size, picture.image.size),
        "view": ((row["view_w"], row["view_h"]), view_size(size, row["resolution"])),
        "view at same_view_as": ((row["view_w"], row["view_h"]), first.size),
        "num_zooms": (row["num_zooms"], zooms),
        "visual_tokens": (row["visual_tokens"], tokens),
    }
    for name, (said, found) in derived.items():
        if said != found:
            yield f"{name} is {said}; it should be {found}."
    for number, look in enumerate(looks, start=1):
        found = look.observation.magnification
        if look.said is not None and not isclose(look.said, found, rel_tol=1e-9):
            yield f"look {number} is magnified {look.said:.4f} times; it should be {found:.4f}."


def _looked_past(row: Row, looks: Sequence[_Look]) -> Sequence[str]:
    """That no look of a row that has any shows what the answer is read from."""
    targets = [_box(values) for values in row["target_boxes"] or ()]
    told = [
        looked_past(row["recipe"], row["task"], targets, look.observation.region) for look in looks
    ]
    return told[-1] if told and all(told) else ()


def _readings(row: Row, looks: Sequence[_Look], picture: _Picture) -> Iterator[str]:
    """What the last look shows where it was asked for, and where it shows the target.

    In a task of `_RESTS_ON_MORE`, what the looks before it and the first view show, too.
    """
    targets = [_box(values) for values in row["target_boxes"] or ()]
    last = looks[-1]
    assert last.box is not None
    yield _read(picture, last, last.box)
    earlier = [*reversed(looks[:-1]), _first(row)] if row["task"] in _RESTS_ON_MORE else []
    for look in (last, *earlier):
        for target in targets:
            if look.observation.region.contains(target):
                yield _read(picture, look, target)


def _read(picture: _Picture, look: _Look, place: Box) -> str:
    """What is written at a place of a look; "" when that is unclear."""
    key = (look.observation.region, look.observation.size, place)
    if key not in picture.read:
        view = look.view(picture.image)
        picture.read[key] = read_line(view.pixels, view.to_view(place))
    return picture.read[key]


def _is_code(target: str | None) -> bool:
    """Whether the target is something that the second reader can read at all."""
    return target is not None and len(target) == CODE_LENGTH and set(target) <= set(ALPHABET)
