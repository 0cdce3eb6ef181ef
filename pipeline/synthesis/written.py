"""Questions that a model writes about a picture: regions are chosen, and each is tried in turn.

What fails a filter is a rejection like any other. Regions are tried side by side, yet which
questions come of it, and in which order, does not depend on who replies first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from pipeline.agent.desk import Task
from pipeline.agent.task_writer import Refused, TaskWriter, Written
from pipeline.answers import normalise
from pipeline.config import Config
from pipeline.geometry import Box, Size
from pipeline.samples import Rejection, rng_for
from pipeline.sources.base import Asked, Picture
from pipeline.sources.masks import decode_masks
from pipeline.synthesis.regions import choose
from pipeline.synthesis.tasks import Segmenter

MOST_TRIES = 3
"""Regions that are tried for each question that is wanted."""
SEGMENTED_PX = 1024
"""Longer side of what the segmenter is shown, where the source brings no masks."""

Prior = Callable[[Image.Image], np.ndarray]
"""Saliency of a picture, float HW."""


async def written(
    picture: Picture,
    image: Image.Image,
    config: Config,
    segmenter: Segmenter,
    writer: Callable[[Task], TaskWriter],
    prior: Prior | None = None,
) -> tuple[list[Asked], list[Rejection]]:
    """At most `task.per_image` questions about a published picture, and what was refused.

    The calls about the n-th region are booked under `image_id#wn`. Raises `ModelError` and
    `BudgetReached`.
    """

    def writer_for(number: int) -> TaskWriter:
        return writer(Task(f"{picture.image_id}#w{number}", 0))

    off_loop = writer_for(0).eyes.off_loop
    boxes = await off_loop(regions_of, picture, image, config, segmenter, prior)
    kept, refused = await written_about(image, boxes, config.task.per_image, writer_for)
    asked = [
        Asked(one.question, one.answer, boxes=(one.box,), task=f"written_{one.kind}")
        for one in kept
    ]
    lost = [_rejection(f"{picture.image_id}#w{number}", why) for number, why in refused]
    if not boxes:
        why = Refused("no_task", "no region worth a question")
        lost.append(_rejection(f"{picture.image_id}#0", why))
    return asked, lost


async def written_about(
    image: Image.Image,
    boxes: Sequence[Box],
    wanted: int,
    writer_for: Callable[[int], TaskWriter],
) -> tuple[list[Written], list[tuple[int, Refused]]]:
    """The first `wanted` questions that stand, and what was refused with its region's number.

    As many regions are tried at a time as questions are still wanted: no question is thrown away.
    """
    kept: list[Written] = []
    refused: list[tuple[int, Refused]] = []
    begun = 0
    while len(kept) < wanted and begun < len(boxes):
        numbers = range(begun, min(begun + wanted - len(kept), len(boxes)))
        begun = numbers.stop
        calls = (writer_for(number).write(image, boxes[number]) for number in numbers)
        told = await asyncio.gather(*calls, return_exceptions=True)
        for number, one in zip(numbers, told, strict=True):
            if isinstance(one, BaseException):  # the others have ended: what they cost is noted
                raise one
            if isinstance(one, Written) and _known(one, kept):
                one = Refused("asked_already", "", one.question, one.answer)
            if isinstance(one, Written):
                kept.append(one)
            else:
                refused.append((number, one))
    return kept, refused


def regions_of(
    picture: Picture,
    image: Image.Image,
    config: Config,
    segmenter: Segmenter,
    prior: Prior | None = None,
) -> list[Box]:
    """The regions to ask about, in the order in which they are tried, in source pixels.

    Of the source's own masks where it brings some of this picture's size, else of what is outlined
    in the whole picture and, where that is not enough, in its quarters.
    """
    wanted, salient = MOST_TRIES * config.task.per_image, None if prior is None else prior(image)

    def chosen(masks: Sequence[np.ndarray], sure: Sequence[float] | None) -> list[Box]:
        rng = rng_for(config.seed, picture.image_id, "regions")
        budgets = config.task.budgets
        found = choose(
            image, masks, count=wanted, rng=rng, budgets=budgets, saliency=salient, stability=sure
        )
        return [region.box for region in found]

    if ours := [r for r in picture.masks if (r.width, r.height) == image.size and not r.crowd]:
        scores = [region.score for region in ours if region.score is not None]
        masks = decode_masks(replace(picture, masks=tuple(ours)))
        return chosen(masks, scores if len(scores) == len(masks) else None)
    masks, sure = _outlined(image, [Box(0, 0, *image.size)], segmenter)
    boxes = chosen(masks, sure)
    if len(boxes) >= wanted:
        return boxes
    more, of_more = _outlined(image, _quarters(image.size), segmenter)
    return chosen([*masks, *more], [*sure, *of_more])


def _outlined(
    image: Image.Image, parts: Sequence[Box], segmenter: Segmenter
) -> tuple[list[np.ndarray], list[float]]:
    """Masks of what is in some parts of a picture, and how stable each is where that is known.

    bool HW of the whole picture, reduced to `SEGMENTED_PX` where it is larger.
    """
    scale = min(SEGMENTED_PX / max(image.size), 1.0)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    masks, sure = list[np.ndarray](), list[float]()
    for part in parts:
        cut = image.crop((int(part.x0), int(part.y0), int(part.x1), int(part.y1))).convert("RGB")
        cut.thumbnail((SEGMENTED_PX, SEGMENTED_PX), Image.Resampling.BOX)
        x0, y0, x1, y1 = (round(edge * scale) for edge in part.as_list())
        for one in segmenter.automatic(np.asarray(cut)):
            small = Image.fromarray(one.mask).resize((max(x1 - x0, 1), max(y1 - y0, 1)))
            mask = np.zeros(size[::-1], dtype=bool)
            mask[y0:y1, x0:x1] = np.asarray(small)[: size[1] - y0, : size[0] - x0]
            masks.append(mask)
            sure.append(float(getattr(one, "stability", 1.0)))
    return masks, sure


def _quarters(size: Size) -> list[Box]:
    """The four quarters of a picture; it is at least two pixels wide and high."""
    x, y = size[0] // 2, size[1] // 2
    return [Box(a, b, c, d) for b, d in ((0, y), (y, size[1])) for a, c in ((0, x), (x, size[0]))]


def _known(one: Written, others: Sequence[Written]) -> bool:
    """Whether a question is asked already."""
    return normalise(one.question) in {normalise(other.question) for other in others}


def _rejection(sample_id: str, why: Refused) -> Rejection:
    about = f"{why.question} ({why.answer}): " if why.question else ""
    detail = (
        (about + why.detail).encode("utf-8", "replace").decode()
    )  # half a character cannot stay
    return Rejection(sample_id, 0, 0, "task", why.reason, detail)
