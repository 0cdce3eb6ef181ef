"""Laws of written questions: as many as are wanted, in one order, and what was refused is told."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.agent.chat import Picture as Shown
from pipeline.agent.chat import Reply, Request, Sampling
from pipeline.agent.desk import Desk, Task
from pipeline.agent.encoding import encoded
from pipeline.agent.families import FAMILIES
from pipeline.agent.task_writer import Refused, TaskWriter, Written
from pipeline.agent.vision_tools import Eyes
from pipeline.config import Config, config_from
from pipeline.errors import ModelError
from pipeline.geometry import Box
from pipeline.sources.base import Picture, Region
from pipeline.synthesis.written import MOST_TRIES, regions_of, written, written_about
from pipeline.views import first_view, zoomed
from tests.agent.fakes import Paper

FAMILY = FAMILIES["qwen2.5-vl"]
BUDGETS = (224, 448)
SIZE = (1000, 800)
IMAGE = Image.fromarray(np.random.default_rng(0).integers(60, 190, (800, 1000, 3), np.uint8))
BOXES = [Box(40 + 160 * i, 60 + 90 * i, 110 + 160 * i, 130 + 90 * i) for i in range(6)]
NAMES = [f"{word} sign" for word in ("amber", "beige", "coral", "denim", "ebony", "flint")]
CODES = ("AA1", "BB2", "CC3", "DD4", "EE5", "FF6")


@dataclass
class Author:
    """Asks what is written on each region's sign, unless told to say something else of it.

    Replies come after a while of their own, so that no two runs go in the same order.
    """

    instead: Mapping[int, str] = field(default_factory=dict)
    seed: int = 0
    broken: int | None = None
    """The region at which the model breaks."""
    wrote: list[int] = field(default_factory=list)
    ended: int = 0

    name = "author"

    def __post_init__(self) -> None:
        self._crops = {
            encoded(zoomed(IMAGE, box, max(BUDGETS), 0).pixels, FAMILY).sha256: number
            for number, box in enumerate(BOXES)
        }
        self._pace = random.Random(self.seed)

    async def reply(self, request: Request) -> Reply:
        await asyncio.sleep(self._pace.random() * 0.005)
        said = self._said(request)
        self.ended += 1
        return Reply(said, "stop")

    def _said(self, request: Request) -> str:
        parts = request.messages[-1].parts
        pictures = [part for part in parts if isinstance(part, Shown)]
        if request.role == "writer":
            number = self._crops[pictures[1].sha256]
            self.wrote.append(number)
            if number == self.broken:
                raise ModelError("Gone.")
            return self.instead.get(number, draft(number))
        number = next(n for n, name in enumerate(NAMES) if name in str(parts[-1]))
        if request.role == "locate":
            view = first_view(IMAGE, max(BUDGETS))
            box = Box(*view.to_view(BOXES[number]))
            return str([list(FAMILY.written(box, view.observation.size))])
        lowest = encoded(first_view(IMAGE, min(BUDGETS)).pixels, FAMILY)
        return "unclear" if not pictures or pictures[0] == lowest else CODES[number]

    async def close(self) -> None:
        """Nothing is open."""


def draft(number: int, **changes: Any) -> str:
    told = {
        "question": f"What is written on the {NAMES[number]}?",
        "answer": CODES[number],
        "object": NAMES[number],
        "kind": "text",
    }
    return json.dumps({**told, **changes})


def writer_for(author: Author, ledger: Paper | None = None) -> Callable[[int], TaskWriter]:
    paper = ledger or Paper()
    return lambda number: _writer(author, paper, Task(f"picture#w{number}", 0))


def _writer(author: Author, ledger: Paper, task: Task) -> TaskWriter:
    return TaskWriter(Eyes(Desk(author, ledger, task), FAMILY, Sampling()), BUDGETS)


def about(
    author: Author, wanted: int, boxes: list[Box] | None = None
) -> tuple[list[Written], list[tuple[int, Refused]]]:
    return asyncio.run(written_about(IMAGE, boxes or BOXES, wanted, writer_for(author)))


NOTHING = '{"question": null, "why": "a wall"}'


def test_no_more_questions_are_written_than_are_wanted() -> None:
    author = Author()
    kept, refused = about(author, 2)
    assert [one.answer for one in kept] == ["AA1", "BB2"] and not refused
    assert sorted(author.wrote) == [0, 1]


def test_a_refused_region_is_told_with_its_number_and_the_next_one_is_tried() -> None:
    author = Author({0: NOTHING, 2: draft(2, answer="no")})
    kept, refused = about(author, 3)
    assert [one.box for one in kept] == [BOXES[1], BOXES[3], BOXES[4]]
    assert [(number, why.reason) for number, why in refused] == [
        (0, "nothing_to_ask"),
        (2, "yes_no"),
    ]
    assert about(Author(dict.fromkeys(range(6), NOTHING)), 2)[0] == []


def test_what_comes_of_it_does_not_depend_on_who_replies_first() -> None:
    instead = {1: NOTHING, 2: draft(0, answer="CC3")}
    results = [about(Author(instead, seed), 3) for seed in range(4)]
    assert all(result == results[0] for result in results)
    assert {number for number, _ in results[0][1]} == {1, 2}


def test_a_question_that_is_asked_already_is_not_asked_again() -> None:
    twins = [BOXES[0], BOXES[0], BOXES[1]]
    kept, refused = about(Author(), 2, twins)
    assert [one.answer for one in kept] == ["AA1", "BB2"]
    assert [(number, why.reason) for number, why in refused] == [(1, "asked_already")]


def test_when_the_model_breaks_the_calls_under_way_end_first() -> None:
    author = Author(broken=0)
    with pytest.raises(ModelError):
        about(author, 3)
    assert author.ended == 2 * 6  # six calls for each of the two others


@dataclass(frozen=True)
class Outline:
    mask: np.ndarray
    stability: float = 0.9


@dataclass
class Outlines:
    """A segmenter that outlines what the test says of the whole picture, else nothing."""

    boxes: list[Box]
    shown: list[tuple[int, ...]] = field(default_factory=list)

    def automatic(self, image: np.ndarray, *, limit: int | None = None) -> list[Outline]:
        self.shown.append(image.shape)
        whole = len(self.shown) == 1
        return [Outline(_mask(box, image)) for box in self.boxes] if whole else []


def _mask(box: Box, image: np.ndarray) -> np.ndarray:
    mask = np.zeros(image.shape[:2], dtype=bool)
    mask[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)] = True
    return mask


def settings(per_image: int) -> Config:
    return config_from({"task": {"per_image": per_image, "budgets": list(BUDGETS)}})


def marks(size: tuple[int, int] = SIZE) -> tuple[Region, ...]:
    """The boxes as a source would bring them: as polygons."""
    return tuple(
        Region(size[1], size[0], polygons=((b.x0, b.y0, b.x1, b.y0, b.x1, b.y1, b.x0, b.y1),))
        for b in BOXES
    )


def asked(picture: Picture, author: Author, per_image: int = 2, **more: Any) -> Any:
    ledger, segmenter = Paper(), more.pop("segmenter", Outlines([]))

    def writer(task: Task) -> TaskWriter:
        return _writer(author, ledger, task)

    told = asyncio.run(written(picture, IMAGE, settings(per_image), segmenter, writer, **more))
    return *told, ledger


def test_a_written_question_carries_its_region_and_its_kind() -> None:
    questions, lost, ledger = asked(Picture("p.jpg", masks=marks()), Author())
    assert len(questions) == 2 and not lost
    for one in questions:
        number = CODES.index(one.answer)
        assert one.question == f"What is written on the {NAMES[number]}?"
        assert (one.task, one.options) == ("written_text", ())
        assert one.boxes[0].iou(BOXES[number]) > 0.95
    booked = {call["sample_id"] for call in ledger.calls.values()}
    assert booked == {"p.jpg#w0", "p.jpg#w1"}


def test_a_refusal_is_a_rejection_of_the_stage_task_that_tells_the_question() -> None:
    instead = {n: draft(n, answer="no") for n in range(6)}
    questions, lost, _ = asked(Picture("p.jpg", masks=marks()), Author(instead))
    assert not questions and len(lost) == 6
    assert {(one.stage, one.reason) for one in lost} == {("task", "yes_no")}
    assert all(re.fullmatch(r"p\.jpg#w[0-5]", one.sample_id) for one in lost)
    assert all("What is written on the" in one.detail for one in lost)


def test_half_a_character_in_a_reply_is_no_part_of_a_rejection() -> None:
    broken = {
        0: draft(0, question="What is \ud83d on the sign?"),
        1: NOTHING.replace("wall", "\\ud83d"),
    }
    _, lost, _ = asked(Picture("p.jpg", masks=marks()), Author(broken), 6)
    reasons = {one.reason: one.detail.encode() for one in lost}
    assert b"?" in reasons["malformed"] and b"?" in reasons["nothing_to_ask"]


def test_a_picture_without_a_region_worth_a_question_is_one_rejection() -> None:
    questions, lost, ledger = asked(Picture("p.jpg"), Author())
    assert not questions and not ledger.calls
    assert [(one.sample_id, one.reason) for one in lost] == [("p.jpg#0", "no_task")]


def test_the_sources_masks_spare_the_segmenter_where_they_are_of_this_picture() -> None:
    outlines = Outlines(BOXES)
    known = regions_of(Picture("p", masks=marks()), IMAGE, settings(2), outlines)
    assert known and not outlines.shown
    others = regions_of(Picture("p", masks=marks((500, 400))), IMAGE, settings(2), outlines)
    assert outlines.shown[0] == (800, 1000, 3)
    assert set(others) == set(known) == set(BOXES)


def test_the_quarters_are_outlined_where_the_whole_does_not_give_enough() -> None:
    few, enough = Outlines(BOXES[:2]), Outlines(BOXES)
    regions_of(Picture("p"), IMAGE, settings(2), few)
    regions_of(Picture("p"), IMAGE, settings(2), enough)
    assert len(few.shown) == 5 and len(enough.shown) == 1
    assert few.shown[1:] == [(400, 500, 3)] * 4
    assert len(regions_of(Picture("p"), IMAGE, settings(1), Outlines(BOXES))) == MOST_TRIES


def test_saliency_decides_where_there_is_a_prior() -> None:
    def prior(image: Image.Image) -> np.ndarray:
        return _mask(BOXES[4], np.asarray(image)).astype(np.float32)

    first, *_ = regions_of(Picture("p", masks=marks()), IMAGE, settings(2), Outlines([]), prior)
    assert first == BOXES[4]
