"""The probe finds out which convention a model speaks, and says so when it cannot."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from pipeline.agent import probe
from pipeline.agent.chat import Reply, Request
from pipeline.agent.families import FAMILIES, Family, as_xyxy
from pipeline.agent.probe import CONVENTIONS, PICTURES, Convention, Verdict
from pipeline.errors import ModelError
from pipeline.geometry import Box, Frame, Size
from pipeline.scenes.needles import Tag

Speak = Callable[[random.Random, Tag, Size], str]


@dataclass
class Boxer:
    """Knows where the tags are; says so in its own way."""

    speak: Speak
    name: str = "boxer"
    rng: random.Random = field(default_factory=lambda: random.Random(7))

    async def reply(self, request: Request) -> Reply:
        picture, text = request.messages[0].parts
        assert not isinstance(picture, str)
        assert isinstance(text, str)
        (tag,) = (tag for tag in PICTURES[picture.size] if tag.name in text)
        return Reply(self.speak(self.rng, tag, picture.size), "stop")

    async def close(self) -> None:
        pass


def ask(speak: Speak) -> Verdict:
    return asyncio.run(probe.probe(Boxer(speak)))


def boxes(convention: Convention, noise: float = 0.08, form: str = "{}") -> Speak:
    """The true box with each edge off by up to `noise` of its side, in `form`."""

    def speak(rng: random.Random, tag: Tag, size: Size) -> str:
        frame = Frame(convention.kind, size, size if convention.kind == "pixels" else None)
        off = noise * tag.box.width
        near = Box(*(edge + rng.uniform(-off, off) for edge in tag.box.as_list()))
        written = as_xyxy(near.as_written(frame), convention.order)
        return form.format(list(written))

    return speak


FORMS = [
    "{}",
    '```json\n[{{"bbox_2d": {}, "label": "the red star"}}]\n```',
    "<think>At [1, 2, 3, 4], or 12% in.</think> It is at {}, I am 99% sure.",
]


@pytest.mark.parametrize("convention", CONVENTIONS, ids=str)
def test_every_convention_is_found_through_noise(convention: Convention) -> None:
    for form in FORMS:
        verdict = ask(boxes(convention, form=form))
        assert verdict.best == convention
        assert verdict.confident
        assert verdict.usable == verdict.asked == 6


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
def test_every_family_is_found_by_the_boxes_that_it_writes(family: Family) -> None:
    verdict = ask(lambda rng, tag, size: str(family.written(tag.box, size)))
    assert family.name in verdict.best.families
    assert verdict.iou > 0.95


def test_conventions_lie_far_apart_on_the_pictures() -> None:
    for convention in CONVENTIONS:
        assert ask(boxes(convention, noise=0)).lead > 0.5


def nonsense(rng: random.Random, tag: Tag, size: Size) -> str:
    return str([rng.randint(0, 900) for _ in range(4)])


@pytest.mark.parametrize(
    "speak",
    [
        nonsense,
        lambda rng, tag, size: "I cannot see any picture.",
        lambda rng, tag, size: "[100, 100, 300, 300]",
        lambda rng, tag, size: "[0, 0, 1000, 1000]",
        lambda rng, tag, size: "[nan, inf, 1e999, 99999999999999999999]",
    ],
)
def test_a_model_that_answers_nonsense_convinces_nobody(speak: Speak) -> None:
    assert not ask(speak).confident


def test_two_good_boxes_among_refusals_convince_nobody() -> None:
    good = boxes(CONVENTIONS[0])

    def speak(rng: random.Random, tag: Tag, size: Size) -> str:
        return good(rng, tag, size) if "red" in tag.name or "blue" in tag.name else "I cannot."

    verdict = ask(speak)
    assert verdict.usable == 2
    assert verdict.iou > 0.8
    assert not verdict.confident


def test_one_wrong_tag_among_good_boxes_does_not_matter() -> None:
    good = boxes(CONVENTIONS[2])

    def speak(rng: random.Random, tag: Tag, size: Size) -> str:
        return "[1, 1, 2, 2]" if "red" in tag.name else good(rng, tag, size)

    assert ask(speak).best == CONVENTIONS[2]
    assert ask(speak).confident


def test_a_broken_endpoint_is_no_verdict() -> None:
    class Broken(Boxer):
        async def reply(self, request: Request) -> Reply:
            raise ModelError("The endpoint is gone.")

    with pytest.raises(ModelError):
        asyncio.run(probe.probe(Broken(nonsense)))


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("[10, 20, 30, 40]", (10, 20, 30, 40)),
        ("<box>[[10, 20, 30, 40]]</box>", (10, 20, 30, 40)),
        ("<|box_start|>(10,20),(30,40)<|box_end|>", (10, 20, 30, 40)),
        ('{"x1": 10, "y1": 20, "x2": 30, "y2": 40}', (10, 20, 30, 40)),
        ('{"bbox_2d": [0.1, .2, 0.30, 1.0]}', (0.1, 0.2, 0.3, 1.0)),
        ("The box goes from -3, 0.25 to 0.5, 0.75.", (-3, 0.25, 0.5, 0.75)),
        ("The picture is [0, 0, 644, 448]. The star: [1, 2, 3, 4]", (1, 2, 3, 4)),
        ("[1\n2\n3\n4]", (1, 2, 3, 4)),
        ("[1, 2, 3]", None),
        ("[1, 2, 3, 4, 0.9]", None),
        ("<think>[1, 2, 3, 4] and so on", None),
        ("[12%, 20%, 30%, 40%]", None),
        ("[x1, y1, x2, y2]", None),
        ("1.2.3.4", None),
        ("", None),
    ],
)
def test_four_numbers_are_read_however_they_are_written(
    text: str, numbers: tuple[float, ...] | None
) -> None:
    assert probe.numbers_in(text) == numbers


def test_what_is_asked_is_always_the_same_and_shows_the_tags() -> None:
    first, again = probe.probings(), probe.probings()
    assert [p.request.key("m") for p in first] == [p.request.key("m") for p in again]
    assert len({p.request.key("m") for p in first}) == len(first)
    for size, tags in PICTURES.items():
        assert FAMILIES["qwen2.5-vl"].seen(size) == size
        marked = np.any(np.asarray(probe.drawn(size, tags)) != probe.GROUND, axis=2)
        for tag in tags:
            rows, cols = np.nonzero(marked[: int(tag.box.y1) + 9, : int(tag.box.x1) + 9])
            inside = cols >= tag.box.x0 - 9
            assert abs(cols[inside].max() + 1 - tag.box.x1) <= 1
            inside &= rows >= tag.box.y0 - 9
            assert (cols[inside].min(), rows[inside].min()) == (tag.box.x0, tag.box.y0)
