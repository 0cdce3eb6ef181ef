"""Laws of spot-the-change: the copies differ plainly where the recipe says and nowhere else."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache

import numpy as np
import pytest
from PIL import Image

from pipeline.geometry import Box
from pipeline.samples import rng_for
from pipeline.scenes import changes
from pipeline.scenes.changes import QUARTERS, WAYS, boxes, mask_of, panes_for, panes_of, spot
from pipeline.scenes.puzzles import Puzzle, cut
from tests.scenes.pictures import SIZES, with_objects

KEYS = range(8)


@cache
def posed(key: int, size: tuple[int, int] = SIZES[0]) -> Puzzle:
    image, cuts = with_objects(key, size)
    puzzle = spot(image, cuts, rng_for(5, "change", key), 2)
    assert puzzle is not None
    return puzzle


def every() -> list[Puzzle]:
    return [posed(key, SIZES[key % 2]) for key in KEYS]


def panes(puzzle: Puzzle) -> tuple[np.ndarray, np.ndarray]:
    """The two pictures, int HWC."""
    layout = panes_for(tuple(puzzle.posed[0].recipe["photo"]))
    first, second = (cut(puzzle.picture, pane) for pane in (layout.first, layout.second))
    return np.asarray(first, np.int16), np.asarray(second, np.int16)


def test_the_same_key_gives_the_same_bytes_and_another_key_others() -> None:
    image, cuts = with_objects(0)
    again, other = (spot(image, cuts, rng_for(seed, "change", 0), 2) for seed in (5, 6))
    assert again is not None and other is not None
    assert again.picture.tobytes() == posed(0).picture.tobytes()
    assert again.posed == posed(0).posed
    assert other.picture.tobytes() != again.picture.tobytes()


def test_recipe_and_photograph_give_picture_and_question_again() -> None:
    for key in KEYS:
        puzzle = posed(key, SIZES[key % 2])
        for question in puzzle.posed:
            recipe = json.loads(json.dumps(question.recipe))
            picture, again = changes.derive(with_objects(key, SIZES[key % 2])[0], recipe)
            assert picture.tobytes() == puzzle.picture.tobytes()
            assert (again.text, again.answer, again.options, again.boxes) == (
                question.text,
                question.answer,
                question.options,
                question.boxes,
            )


def test_one_copy_is_the_photograph_and_they_differ_where_the_recipe_says_only() -> None:
    for key, puzzle in zip(KEYS, every(), strict=True):
        first, second = panes(puzzle)
        recipe = puzzle.posed[0].recipe
        photo = np.asarray(with_objects(key, SIZES[key % 2])[0])
        original = second if recipe["change"] == "added" else first
        assert (original == photo).all()
        away = np.abs(first - second).max(2)
        assert (mask_of(recipe).pixels(away[..., None]) >= 24).mean() >= 0.6
        for box in boxes(recipe):
            x0, y0, x1, y1 = (int(v) for v in box.as_list())
            away[y0:y1, x0:x1] = 0
        assert not away.any()


def test_all_that_changes_lies_in_the_quarter_that_is_the_answer() -> None:
    for puzzle in every():
        (question,) = (q for q in puzzle.posed if q.recipe["asks"] == "where")
        width, height = question.recipe["photo"]
        quarter = QUARTERS.index(question.answer)
        left, top = quarter % 2 * width / 2, quarter // 2 * height / 2
        room = Box(left, top, left + width / 2, top + height / 2)
        assert all(room.contains(box) for box in boxes(question.recipe))


def test_the_answer_to_what_is_what_was_done_and_every_way_occurs() -> None:
    seen = set()
    for puzzle in every():
        (question,) = (q for q in puzzle.posed if q.recipe["asks"] == "what")
        assert question.answer == WAYS[question.recipe["change"]]
        seen.add(question.recipe["change"])
    assert seen == set(WAYS)


def test_a_moved_object_is_gone_where_it_was_and_is_whole_where_it_is() -> None:
    image, cuts = with_objects(1)
    moved = [p for n in range(12) if (p := spot(image, cuts, rng_for(9, "m", n), 1)) is not None]
    moved = [p for p in moved if p.posed[0].recipe["change"] == "moved"]
    assert moved
    for puzzle in moved:
        first, second = panes(puzzle)
        recipe = puzzle.posed[0].recipe
        object_ = mask_of(recipe)
        was, now = object_.pixels(first), object_.pixels(second, tuple(recipe["shift"]))
        assert np.abs(was - now).mean() < 12 < np.abs(was - object_.pixels(second)).mean()


def test_a_recolored_object_keeps_its_light() -> None:
    image, cuts = with_objects(2)
    puzzles = [p for n in range(12) if (p := spot(image, cuts, rng_for(9, "r", n), 1)) is not None]
    found = [p for p in puzzles if p.posed[0].recipe["change"] == "recolored"]
    assert found
    for puzzle in found:
        first, second = (
            mask_of(puzzle.posed[0].recipe).pixels(one) @ [0.299, 0.587, 0.114]
            for one in panes(puzzle)
        )
        assert abs(first.mean() - second.mean()) < 25


def test_answers_are_spread_over_the_letters() -> None:
    image, cuts = with_objects(3)
    letters = Counter[int]()
    for key in range(40):
        puzzle = spot(image, cuts, rng_for(8, "letters", key), 1)
        assert puzzle is not None
        letters[puzzle.posed[0].options.index(puzzle.posed[0].answer)] += 1
    assert len(letters) == 4 and min(letters.values()) >= 4


def test_there_is_none_without_cut_outs_or_in_a_small_picture() -> None:
    image, cuts = with_objects(0)
    assert spot(image, (), rng_for(0, "none"), 1) is None
    assert spot(image.resize((230, 160)), cuts, rng_for(0, "none"), 1) is None


def test_what_does_not_differ_plainly_from_its_surroundings_is_not_used() -> None:
    _, cuts = with_objects(0)
    flat = Image.new("RGB", SIZES[0], (120, 120, 120))
    for key in range(4):
        puzzle = spot(flat, cuts, rng_for(key, "flat"), 1)
        assert puzzle is None or puzzle.posed[0].recipe["change"] == "recolored"


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (333, 333), (1111, 801)])
def test_the_layout_follows_from_the_composed_size(size: tuple[int, int]) -> None:
    layout = panes_for(size)
    assert panes_of(layout.size, layout.side) == layout
    assert (layout.first.width, layout.first.height) == size
    assert (layout.second.x0 + layout.second.y0) % 16 == 0
    assert layout.first.intersection(layout.second) == 0


def test_a_picture_that_is_not_two_of_one_size_is_refused() -> None:
    taken = {panes_for((300, height)).size[1] for height in range(1, 400)}
    odd = next(height for height in range(500, 700) if height not in taken)
    with pytest.raises(ValueError, match="not two of one size"):
        panes_of((300, odd), "below")
