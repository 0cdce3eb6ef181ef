"""Laws of needle tasks: tags that can be seen and read, questions that have one answer."""

from __future__ import annotations

import math
import re
from functools import cache
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from pipeline.geometry import RESOLUTIONS, view_size
from pipeline.samples import rng_for
from pipeline.scenes.needles import (
    CODE_LENGTH,
    LARGEST_SHARE,
    SMALLEST_SIDE_PX,
    SOURCE_CAP_PX,
    TAGS,
    VISIBLE_PX,
    Question,
    Tag,
    plant,
    questions,
)
from pipeline.scenes.tags import ALPHABET, COLORS, SHAPES, TEXT_HEIGHT

SIZES = ((640, 480), (480, 854), (2048, 1536))
KEYS = range(6)
READABLE_CAP_PX = 5.6
"""About the smallest capital that the agent's reader reads."""


def ground(size: tuple[int, int]) -> Image.Image:
    """A soft gradient through several colours."""
    corners = np.array([[[30, 60, 90], [200, 60, 60]], [[60, 180, 60], [220, 220, 230]]], np.uint8)
    return Image.fromarray(corners).resize(size, Image.Resampling.BILINEAR)


@cache
def planted(size: tuple[int, int], key: int) -> tuple[Image.Image, list[Tag]]:
    return plant(ground(size), rng_for(9, "needle", *size, key))


def every_plant() -> list[tuple[tuple[int, int], list[Tag]]]:
    return [(size, planted(size, key)[1]) for size in SIZES for key in KEYS]


def asked(tags: list[Tag], key: int, count: int = 99) -> list[Question]:
    return questions(tags, rng_for(9, "question", key), count)


def cap_px(tag: Tag, size: tuple[int, int], budget: int) -> float:
    """Height of a capital in the first view of a budget, pixels."""
    view = view_size(size, budget)
    scale = min(view[0] / size[0], view[1] / size[1])
    return TEXT_HEIGHT * tag.box.width * scale


def test_the_same_key_gives_the_same_bytes_and_questions() -> None:
    image, tags = planted((640, 480), 0)
    again, same = plant(ground((640, 480)), rng_for(9, "needle", 640, 480, 0))
    assert again.tobytes() == image.tobytes() and same == tags
    assert asked(tags, 0) == asked(tags, 0)


def test_other_keys_give_other_pictures() -> None:
    assert len({planted((640, 480), key)[0].tobytes() for key in KEYS}) == len(KEYS)


def test_the_picture_given_is_left_as_it_was() -> None:
    image = ground((640, 480))
    before = image.tobytes()
    plant(image, rng_for(9, "untouched"))
    assert image.tobytes() == before


def test_nothing_changes_outside_the_tags_and_every_tag_changes_its_place() -> None:
    image, tags = planted((640, 480), 1)
    changed = (np.asarray(image) != np.asarray(ground((640, 480)))).any(axis=2)
    for tag in tags:
        x0, y0, x1, y1 = (int(v) for v in tag.box.as_list())
        assert changed[y0:y1, x0:x1].mean() > 0.3
        changed[y0:y1, x0:x1] = False
    assert not changed.any()


def test_a_picture_has_three_to_seven_tags_and_all_counts_occur() -> None:
    counts = {len(plant(ground((400, 400)), rng_for(9, "count", n))[1]) for n in range(16)}
    assert counts == set(range(TAGS[0], TAGS[1] + 1))


def test_no_two_tags_of_a_picture_share_shape_and_colour_or_code() -> None:
    for _, tags in every_plant():
        assert len({(tag.shape, tag.color) for tag in tags}) == len(tags)
        assert len({tag.code for tag in tags}) == len(tags)


def test_codes_are_of_the_alphabet_and_names_of_the_tables() -> None:
    for _, tags in every_plant():
        for tag in tags:
            assert len(tag.code) == CODE_LENGTH and set(tag.code) <= set(ALPHABET)
            assert tag.shape in SHAPES and tag.color in COLORS


def test_no_two_tags_overlap() -> None:
    for _, tags in every_plant():
        assert all(a.box.intersection(b.box) == 0 for a, b in combinations(tags, 2))


def test_every_tag_is_a_whole_pixel_square_inside_the_picture() -> None:
    for size, tags in every_plant():
        for tag in tags:
            box = tag.box
            assert box == box.rounded() and box.width == box.height
            assert box.clip(size) == box


def test_every_code_is_legible_in_the_source() -> None:
    for _, tags in every_plant():
        assert all(TEXT_HEIGHT * tag.box.width >= SOURCE_CAP_PX - 1e-9 for tag in tags)


@pytest.mark.parametrize("budgets", [RESOLUTIONS, (112, 336)])
def test_every_tag_is_visible_at_the_smallest_budget_or_as_large_as_it_may_be(
    budgets: tuple[int, ...],
) -> None:
    for size in SIZES:
        _, tags = plant(ground(size), rng_for(9, "visible", *size), budgets)
        scale = view_size(size, min(budgets))[0] / size[0]
        for tag in tags:
            half_px = 0.5 * scale  # a side is rounded to a whole source pixel
            seen = tag.box.width * scale >= VISIBLE_PX - half_px
            assert seen or tag.box.width == round(LARGEST_SHARE * min(size))


@pytest.mark.parametrize("size", [(SMALLEST_SIDE_PX - 1, 900), (900, 40), (1, 1)])
def test_a_picture_too_small_for_tags_gets_none_and_no_question(size: tuple[int, int]) -> None:
    image, tags = plant(ground(size), rng_for(9, "small"))
    assert tags == [] and image.tobytes() == ground(size).tobytes()
    assert asked(tags, 0) == []


def test_a_picture_just_large_enough_gets_tags() -> None:
    size = (SMALLEST_SIDE_PX, SMALLEST_SIDE_PX)
    assert any(plant(ground(size), rng_for(9, "just", n))[1] for n in range(4))


def test_some_codes_can_be_read_at_once_and_some_only_up_close() -> None:
    size = (2048, 1536)
    tags = [tag for key in KEYS for tag in planted(size, key)[1]]
    for budget in RESOLUTIONS:
        caps = [cap_px(tag, size, budget) for tag in tags]
        readable = np.mean([cap >= READABLE_CAP_PX for cap in caps])
        assert readable > 0.05
        assert readable < 0.95 or budget > 672
    shares = [
        np.mean([cap_px(t, size, budget) >= READABLE_CAP_PX for t in tags])
        for budget in RESOLUTIONS
    ]
    assert shares == sorted(shares)


# Questions


def solutions(question: str, tags: list[Tag]) -> list[Tag]:
    """Every tag that the question may mean, derived from the tags alone."""
    if found := re.fullmatch(r"What is written on the (\w+)most tag\?", question):
        return _furthest(found[1], tags)
    found = re.fullmatch(r"What is written on the (tag nearest to the )?(\w+) (\w+)\?", question)
    assert found, question
    named = [t for t in tags if (t.color, t.shape) == (found[2], found[3])]
    if not found[1]:
        return named
    (anchor,) = named
    away = {t: math.hypot(*_between(anchor, t)) for t in tags if t is not anchor}
    return [t for t, distance in away.items() if distance <= 1.2 * min(away.values())]


def _furthest(side: str, tags: list[Tag]) -> list[Tag]:
    """The tags that may be taken for the furthest to a side: within a fifth of a tag of it."""
    toward = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}[side]
    reach = {t: t.box.centre[0] * toward[0] + t.box.centre[1] * toward[1] for t in tags}
    most = max(reach.values())
    return [t for t in tags if most - reach[t] <= 0.2 * t.box.width]


def _between(one: Tag, other: Tag) -> tuple[float, float]:
    (ax, ay), (bx, by) = one.box.centre, other.box.centre
    return ax - bx, ay - by


def test_every_question_means_one_tag_and_asks_for_its_code() -> None:
    seen = set()
    for key, (_, tags) in enumerate(every_plant()):
        for question in asked(tags, key):
            assert solutions(question.text, tags) == [question.target], question.text
            assert question.answer == question.target.code
            assert [t.code for t in tags].count(question.answer) == 1
            seen.add(question.task)
    assert seen == {"read", "nearest", "extreme"}


def test_no_two_questions_of_a_picture_are_equal() -> None:
    for key, (_, tags) in enumerate(every_plant()):
        texts = [question.text for question in asked(tags, key)]
        assert len(set(texts)) == len(texts)


def test_every_tag_of_a_picture_can_be_asked_for() -> None:
    for key, (_, tags) in enumerate(every_plant()):
        plain = [q.target for q in asked(tags, key) if q.task == "read"]
        assert sorted(t.code for t in plain) == sorted(t.code for t in tags)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_no_more_questions_come_than_were_asked_for_and_fewer_are_a_beginning(count: int) -> None:
    for key, (_, tags) in enumerate(every_plant()):
        assert asked(tags, key, count) == asked(tags, key)[:count]
        assert len(asked(tags, key, count)) == min(count, len(asked(tags, key)))


def test_other_keys_ask_other_questions() -> None:
    _, tags = planted((640, 480), 2)
    assert len({asked(tags, key)[0].text for key in range(30)}) > 1
