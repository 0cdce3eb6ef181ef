"""Laws of counting: as many tags of the kind are on the picture as the answer says."""

from __future__ import annotations

import json
import re
from functools import cache
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from pipeline.geometry import view_size
from pipeline.samples import rng_for
from pipeline.scenes.counts import ASKED, OF_A_COLOR, SMALLEST_PX, box_of, count, derive, fits
from pipeline.scenes.puzzles import Puzzle
from tests.scenes.pictures import SIZES, photograph

BUDGETS = (224, 448, 1024)
KEYS = range(8)


@cache
def posed(key: int) -> Puzzle:
    puzzle = count(photograph(key % 2, SIZES[key % 2]), rng_for(4, "count", key), 3, BUDGETS)
    assert puzzle is not None
    return puzzle


def test_the_same_key_gives_the_same_bytes_and_the_recipe_gives_them_again() -> None:
    for key in KEYS:
        for question in posed(key).posed:
            recipe = json.loads(json.dumps(question.recipe))
            picture, again = derive(photograph(key % 2, SIZES[key % 2]), recipe)
            assert picture.tobytes() == posed(key).picture.tobytes()
            assert (again.text, again.answer, again.boxes) == (
                question.text,
                question.answer,
                question.boxes,
            )


def test_the_answer_is_the_number_of_tags_of_the_words_in_the_question() -> None:
    answers = set()
    for key in KEYS:
        for question in posed(key).posed:
            words = re.findall(r"\w+", question.text)
            found = [t for t in question.recipe["tags"] if _named(t, words)]
            assert question.answer == str(len(found)) and len(question.boxes) == len(found)
            assert len(found) >= ASKED[0]
            answers.add(question.answer)
    assert len(answers) >= 4


def _named(tag: list[object], words: list[str]) -> bool:
    """Whether no word of the question names another shape or colour than the tag's."""
    color = next((w for w in words if w in _COLORS), None)
    shape = next((w for w in words if w in _SHAPES), None)
    return color in (None, tag[1]) and shape in (None, tag[0])


_COLORS = {"red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink"}
_SHAPES = {"circle", "square", "triangle", "diamond", "hexagon", "star"}


def test_nothing_changes_outside_the_tags_and_no_two_overlap() -> None:
    for key in KEYS:
        picture, before = posed(key).picture, photograph(key % 2, SIZES[key % 2])
        changed = (np.asarray(picture) != np.asarray(before)).any(2)
        tags = posed(key).posed[0].recipe["tags"]
        for tag in tags:
            x0, y0, x1, y1 = (int(v) for v in box_of(tag).as_list())
            assert changed[y0:y1, x0:x1].mean() > 0.3
            changed[y0:y1, x0:x1] = False
        assert not changed.any()
        assert not any(box_of(a).intersection(box_of(b)) for a, b in combinations(tags, 2))


def test_tags_are_small_but_seen_and_few_are_of_one_color() -> None:
    for key in KEYS:
        size = SIZES[key % 2]
        scale = view_size(size, min(BUDGETS))[0] / size[0]
        tags = posed(key).posed[0].recipe["tags"]
        assert all(tag[4] >= max(SMALLEST_PX, 7 / scale) for tag in tags)
        for color in {tag[1] for tag in tags}:
            assert sum(fits(tag, color, None) for tag in tags) <= OF_A_COLOR


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_more_questions_than_asked_for(most: int) -> None:
    puzzle = count(photograph(0), rng_for(4, "most"), most, BUDGETS)
    assert puzzle is not None and len(puzzle.posed) == most


def test_a_picture_too_small_gives_none() -> None:
    assert count(Image.new("RGB", (150, 900)), rng_for(0, "small"), 1, BUDGETS) is None
