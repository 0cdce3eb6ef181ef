"""From a picture as found to samples with their truth: one published picture, all its questions.

The policy is given `Sample`s and the verifier `Truth`s; they part here and do not meet again
before the answer is in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from pipeline.config import Task
from pipeline.errors import BadImage
from pipeline.samples import Sample, Truth, rng_for
from pipeline.scenes.needles import plant, questions
from pipeline.sources.base import Asked, Picture
from pipeline.sources.decode import decode, encode
from pipeline.sources.gps import strip_gps


@dataclass(frozen=True, slots=True)
class Problem:
    """One question with its answer."""

    sample: Sample
    truth: Truth
    task: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """A published picture and what is asked about it."""

    image: Image.Image
    """RGB, decoded from `data`: the pixels that everyone works on."""
    data: bytes
    """Encoded, as published."""
    image_sha256: str
    """Of `data`."""
    source_sha256: str
    """Of the file as found; of the pixels where the picture was drawn."""
    problems: tuple[Problem, ...]


def prepare(picture: Picture, task: Task, seed: int) -> Prepared:
    """The published picture and its problems; raises `BadImage` when there can be none."""
    if picture.error is not None:
        raise picture.error
    if picture.image is not None:
        found, source = picture.image, picture.image.tobytes()
    else:
        source = picture.data or b""
        found = decode(source)
    if task.kind == "needles":
        data, asked = _planted(picture.image_id, found, task, seed)
    else:
        data, asked = _as_found(picture, found), picture.asked[: task.per_image]
    if not asked:
        raise BadImage("no_task", "no room for tags" if task.kind == "needles" else "no question")
    image = decode(data)
    problems = tuple(_problem(picture, image, n, a) for n, a in enumerate(asked))
    return Prepared(
        image, data, hashlib.sha256(data).hexdigest(), hashlib.sha256(source).hexdigest(), problems
    )


def _planted(
    image_id: str, found: Image.Image, task: Task, seed: int
) -> tuple[bytes, Sequence[Asked]]:
    """The picture with tags on it, encoded once, and questions about them."""
    composite, tags = plant(found, rng_for(seed, image_id, "needles"), task.budgets)
    asked = [
        Asked(q.text, q.answer, boxes=(q.target.box,), task=q.task)
        for q in questions(tags, rng_for(seed, image_id, "questions"), task.per_image)
    ]
    return encode(composite), asked


def _as_found(picture: Picture, found: Image.Image) -> bytes:
    """The file's own bytes without the place it was taken at; drawn pictures are encoded."""
    return strip_gps(picture.data) if picture.data is not None else encode(found)


def _problem(picture: Picture, image: Image.Image, number: int, asked: Asked) -> Problem:
    sample_id = f"{picture.image_id}#{number}"
    sample = Sample(sample_id, picture.image_id, image, image.size, asked.question, asked.options)
    return Problem(sample, Truth(sample_id, asked.answer, asked.boxes), asked.task)
