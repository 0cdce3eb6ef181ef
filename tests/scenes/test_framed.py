"""Laws of framed objects: size and place are those of the masks, frames touch no object."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

from pipeline.geometry import Box
from pipeline.samples import rng_for
from pipeline.scenes.framed import AREA_RATIO, Marked, derive, frame_two
from tests.scenes.pictures import photograph

OBJECTS = (
    Marked(Box(60, 60, 200, 160), 9000),
    Marked(Box(500, 300, 560, 360), 2000),
    Marked(Box(300, 40, 380, 120), 5000),
    Marked(Box(310, 50, 370, 100), 1000),
)


def test_recipe_and_picture_give_it_again_and_questions_are_true() -> None:
    seen = set()
    for key in range(12):
        puzzle = frame_two(photograph(0), OBJECTS, rng_for(1, "framed", key), 2)
        assert puzzle is not None and len(puzzle.posed) == 2
        for question in puzzle.posed:
            recipe = json.loads(json.dumps(question.recipe))
            picture, again = derive(photograph(0), recipe)
            assert picture.tobytes() == puzzle.picture.tobytes()
            assert (again.text, again.answer, again.options) == (
                question.text,
                question.answer,
                question.options,
            )
            one, other = (Box(*box) for box in recipe["boxes"])
            areas = recipe["areas"]
            assert max(areas) >= AREA_RATIO * min(areas)
            if question.task == "size":
                larger = recipe["colors"][areas.index(max(areas))]
                assert question.answer == f"the one in the {larger} frame"
            else:
                right = {
                    "to the left of": one.x1 <= other.x0,
                    "to the right of": one.x0 >= other.x1,
                    "above": one.y1 <= other.y0,
                    "below": one.y0 >= other.y1,
                }
                assert right[question.answer]
            assert question.answer in question.options
            seen.add((question.task, question.options.index(question.answer)))
    assert seen == {("size", 0), ("size", 1), ("relation", 0), ("relation", 1)}


def test_frames_lie_around_the_objects_and_change_nothing_else() -> None:
    puzzle = frame_two(photograph(0), OBJECTS, rng_for(1, "framed", 3), 1)
    assert puzzle is not None
    changed = (np.asarray(puzzle.picture) != np.asarray(photograph(0))).any(2)
    recipe = puzzle.posed[0].recipe
    for x0, y0, x1, y1 in recipe["boxes"]:
        assert not changed[y0:y1, x0:x1].any()
        line = recipe["line"]
        changed[y0 - line : y1 + line, x0 - line : x1 + line] = False
    assert not changed.any()


def test_there_is_none_where_no_two_are_apart_and_differ() -> None:
    rng = rng_for(1, "framed", 0)
    nested = (OBJECTS[2], OBJECTS[3])
    alike = (Marked(Box(60, 60, 120, 120), 3000), Marked(Box(400, 60, 460, 120), 3100))
    for objects in ((), OBJECTS[:1], nested, alike):
        assert frame_two(photograph(0), objects, rng, 1) is None
    assert frame_two(Image.new("RGB", (40, 40)), OBJECTS, rng, 1) is None
