"""From a picture as found to samples with their truth: one published picture, all its questions.

The policy is given `Sample`s and the verifier `Truth`s; they part here and do not meet again
before the answer is in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import numpy as np
from PIL import Image

from pipeline.config import Task, TaskKind
from pipeline.errors import BadImage, ConfigError
from pipeline.samples import Sample, Truth, rng_for
from pipeline.scenes import changes, closeups, counts
from pipeline.scenes.framed import Marked, frame_two
from pipeline.scenes.needles import plant, questions
from pipeline.scenes.puzzles import Puzzle
from pipeline.scenes.regions import mask_box
from pipeline.scenes.sign_questions import sign_questions
from pipeline.scenes.signs import plant_signs
from pipeline.sources.annotated import asked_about
from pipeline.sources.base import Asked, Picture
from pipeline.sources.decode import decode, encode
from pipeline.sources.gps import strip_gps
from pipeline.sources.masks import decode_masks, decode_region
from pipeline.synthesis.cutouts import cutouts


class Masked(Protocol):
    """Something with a mask, bool HW of the whole picture."""

    @property
    def mask(self) -> np.ndarray: ...


class Segmenter(Protocol):
    """What outlines things where the source brings no outlines."""

    def automatic(self, image: np.ndarray, *, limit: int | None = None) -> Sequence[Masked]:
        """Masks of everything in an image, uint8 HWC."""
        ...


@dataclass(frozen=True, slots=True)
class Problem:
    """One question with its answer."""

    sample: Sample
    truth: Truth
    task: str
    recipe: str | None = None
    """JSON from which the truth can be derived again, for tasks that are made that way."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A published picture and what is asked about it."""

    image: Image.Image
    """RGB, decoded from `data`: the pixels that everyone works on."""
    data: bytes = field(repr=False)
    """Encoded, as published."""
    image_sha256: str
    """Of `data`."""
    source_sha256: str
    """Of the file as found; of the pixels where the picture was drawn."""
    problems: tuple[Problem, ...]
    kind: str
    """Of the task, as in `task.kind`; `imported` where others made it."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a task is made from."""

    picture: Picture
    image: Image.Image
    """RGB, as found."""
    task: Task
    seed: int
    segmenter: Segmenter | None = None

    def rng(self, *keys: str) -> np.random.Generator:
        """Randomness that depends on the seed, the picture and the keys."""
        return rng_for(self.seed, self.picture.image_id, *keys)


Made = tuple[bytes, Sequence[Asked]]
"""The picture as published, and what is asked about it."""


def prepare(
    picture: Picture,
    task: Task,
    seed: int,
    segmenter: Segmenter | None = None,
    turn: int = 0,
) -> Prepared:
    """The published picture and its problems; raises `BadImage` when there can be none.

    Of several kinds of task, the one whose `turn` it is, or the next that the picture has room for.
    Problems of kind `written` are none yet: a model writes them.

    Only `signs` and `change` on a picture without masks of its own need the segmenter, and say so
    (`ConfigError`) where there is none.
    """
    if picture.error is not None:
        raise picture.error
    if picture.image is not None:
        found, source = picture.image, picture.image.tobytes()
    else:
        source = picture.data or b""
        found = decode(source)
    kind, data, asked = _first_made(Found(picture, found, task, seed, segmenter), turn)
    image = decode(data)
    problems = problems_of(picture.image_id, image, asked)
    digests = hashlib.sha256(data).hexdigest(), hashlib.sha256(source).hexdigest()
    return Prepared(image, data, *digests, problems, kind)


def problems_of(image_id: str, image: Image.Image, asked: Sequence[Asked]) -> tuple[Problem, ...]:
    """What is asked about a published picture, as problems numbered from 0."""
    return tuple(_problem(image_id, image, n, a) for n, a in enumerate(asked))


def _first_made(found: Found, turn: int) -> tuple[TaskKind, bytes, Sequence[Asked]]:
    """The first kind of task, from the `turn`-th on, that can be made; raises `BadImage`."""
    first = turn % len(found.task.kind)
    lacking = []
    for kind in (*found.task.kind[first:], *found.task.kind[:first]):
        data, asked = KINDS[kind](found)
        if asked or kind == "written":
            return kind, data, asked
        lacking.append(_LACKING.get(kind, "no question"))
    raise BadImage("no_task", "; ".join(lacking))


def _planted(found: Found) -> Made:
    """The picture with tags on it, encoded once, and questions about them."""
    composite, tags = plant(found.image, found.rng("needles"), found.task.budgets)
    asked = [
        Asked(q.text, q.answer, boxes=(q.target.box,), task=q.task)
        for q in questions(tags, found.rng("questions"), found.task.per_image)
    ]
    return encode(composite), asked


def _with_signs(found: Found) -> Made:
    """The picture with signs on its surfaces, encoded once, and questions about them."""
    planted = plant_signs(
        found.image,
        _masks(found),
        found.rng("signs"),
        found.task.budgets,
        drawn=found.picture.image is not None,
    )
    recipe = {"kind": "signs", "photo": list(found.image.size), **planted.recipe}
    asked = [
        Asked(q.text, q.answer, boxes=q.boxes, task=q.task, recipe=recipe)
        for q in sign_questions(planted.signs, found.rng("questions"), found.task.per_image)
    ]
    return encode(planted.image), asked


def _masks(found: Found) -> list[np.ndarray]:
    """The source's masks where it has some of this picture's size, else the segmenter's.

    The segmenter sees a reduced picture: surfaces are looked for on a coarse grid, and its masks
    need be no finer.
    """
    size = found.image.size
    regions = [r for r in found.picture.masks if (r.width, r.height) == size]
    if regions:
        return decode_masks(replace(found.picture, masks=tuple(regions)))
    if found.segmenter is None:
        raise ConfigError("Task kind 'signs' needs a segmenter for pictures without masks.")
    small = found.image.convert("RGB")
    small.thumbnail((_SEGMENTED_PX, _SEGMENTED_PX), Image.Resampling.BOX)
    return [one.mask for one in found.segmenter.automatic(np.asarray(small))]


_SEGMENTED_PX = 1024
"""Longer side of what the segmenter is shown where only rough masks are needed."""


Posing = Callable[[Image.Image, np.random.Generator, int, Sequence[int]], Puzzle | None]


def _puzzle(kind: str, pose: Posing, found: Found) -> Made:
    """A puzzle made of the picture, if one can be."""
    task = found.task
    puzzle = pose(found.image, found.rng(kind), task.per_image, task.budgets)
    return (b"", ()) if puzzle is None else _made(puzzle)


def _changed(found: Found) -> Made:
    """Two copies of the picture, in one of which an object is changed."""
    rng = found.rng("change")
    cuts = cutouts(found.picture, found.image, found.segmenter, rng)
    puzzle = changes.spot(found.image, cuts, rng, found.task.per_image)
    return (b"", ()) if puzzle is None else _made(puzzle)


def _made(puzzle: Puzzle) -> Made:
    asked = [Asked(p.text, p.answer, p.options, p.boxes, p.task, p.recipe) for p in puzzle.posed]
    return encode(puzzle.picture), asked


def _as_found(found: Found) -> Made:
    """The file's own bytes without the place it was taken at; drawn pictures are encoded."""
    picture = found.picture
    data = strip_gps(picture.data) if picture.data is not None else encode(found.image)
    return data, picture.asked[: found.task.per_image]


def _annotated(found: Found) -> Made:
    """Questions from the source's marks; objects without labels are put into frames."""
    picture, image, rng = found.picture, found.image, found.rng("annotated")
    most = found.task.per_image
    asked = asked_about(picture.masks, image.size, rng, most)
    if asked:
        return _as_found(found)[0], asked
    ours = [r for r in picture.masks if (r.width, r.height) == image.size and not r.crowd]
    masks = [mask for mask in map(decode_region, ours) if mask.any()]
    puzzle = frame_two(image, [Marked(mask_box(m), int(m.sum())) for m in masks], rng, most)
    return (b"", ()) if puzzle is None else _made(puzzle)


def _unasked(found: Found) -> Made:
    """The file's own bytes; what is asked is written later."""
    return _as_found(found)[0], ()


KINDS: Mapping[TaskKind, Callable[[Found], Made]] = {
    "needles": _planted,
    "signs": _with_signs,
    "source": _as_found,
    "annotated": _annotated,
    "written": _unasked,
    "closeup": partial(_puzzle, "closeup", closeups.match),
    "where": partial(_puzzle, "where", closeups.where),
    "change": _changed,
    "count": partial(_puzzle, "count", counts.count),
}
"""How each `task.kind` makes its picture and questions; none where there is nothing to ask."""

_LACKING: Mapping[TaskKind, str] = {
    "needles": "no room for tags",
    "signs": "no surface for three signs",
    "closeup": "no four places that are alike and yet told apart",
    "where": "no place that is like nothing else in it",
    "annotated": "no marks that leave no doubt",
    "change": "no object that can be changed plainly",
    "count": "no room for tags",
}


def _problem(image_id: str, image: Image.Image, number: int, asked: Asked) -> Problem:
    sample_id = f"{image_id}#{number}"
    sample = Sample(sample_id, image_id, image, image.size, asked.question, asked.options)
    truth = Truth(sample_id, asked.answer, asked.boxes)
    recipe = None if asked.recipe is None else json.dumps(asked.recipe, separators=(",", ":"))
    return Problem(sample, truth, asked.task, recipe)
