"""Laws of close-up puzzles: the truth is in the picture, and in one place of it only."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from pipeline.geometry import Box
from pipeline.samples import rng_for
from pipeline.scenes import closeups
from pipeline.scenes.likeness import correlation, correlations, shifted_correlation, small
from pipeline.scenes.places import alike_places, field_of
from pipeline.scenes.puzzles import LETTERS, Posed, Puzzle, cut
from pipeline.scenes.strips import strip_for, strip_of
from pipeline.scenes.tags import COLORS
from tests.scenes.pictures import SIZES, photograph

POSERS = {"closeup": closeups.match, "where": closeups.where}
BUDGETS = (224, 448, 1024)


@cache
def posed(kind: str, key: int, size: tuple[int, int] = SIZES[0], count: int = 2) -> Puzzle:
    puzzle = POSERS[kind](photograph(key, size), rng_for(3, kind, key), count, BUDGETS)
    assert puzzle is not None
    return puzzle


def every(kind: str) -> list[tuple[Puzzle, Posed]]:
    puzzles = [posed(kind, key, size) for key in range(3) for size in SIZES]
    return [(puzzle, question) for puzzle in puzzles for question in puzzle.posed]


def place_of(question: Posed) -> Box:
    return Box(*question.recipe["places"][question.recipe["asked"]])


@pytest.mark.parametrize("kind", POSERS)
def test_the_same_key_gives_the_same_bytes_and_another_key_others(kind: str) -> None:
    again = POSERS[kind](photograph(0), rng_for(3, kind, 0), 2, BUDGETS)
    assert again is not None
    assert again.picture.tobytes() == posed(kind, 0).picture.tobytes()
    assert again.posed == posed(kind, 0).posed
    other = POSERS[kind](photograph(0), rng_for(4, kind, 0), 2, BUDGETS)
    assert other is not None and other.picture.tobytes() != again.picture.tobytes()


@pytest.mark.parametrize("kind", POSERS)
def test_recipe_and_photograph_give_picture_and_question_again(kind: str) -> None:
    for key in range(3):
        for question in posed(kind, key).posed:
            recipe = json.loads(json.dumps(question.recipe))
            picture, again = closeups.derive(photograph(key), recipe)
            assert picture.tobytes() == posed(kind, key).picture.tobytes()
            said = (again.text, again.answer, again.options, again.boxes, again.task)
            assert said == (*_said(question), question.task)


def _said(question: Posed) -> tuple[object, ...]:
    return question.text, question.answer, question.options, question.boxes


@pytest.mark.parametrize("kind", POSERS)
def test_the_photograph_keeps_its_pixels_but_for_the_frames(kind: str) -> None:
    for key in range(3):
        before = np.asarray(photograph(key))
        after = np.asarray(posed(kind, key).picture)[: before.shape[0], : before.shape[1]]
        changed = (before != after).any(2)
        for question in posed(kind, key).posed if kind == "closeup" else ():
            box, line = place_of(question), question.recipe["line"]
            x0, y0, x1, y1 = (int(v) for v in box.as_list())
            assert not changed[y0:y1, x0:x1].any()
            changed[y0 - line : y1 + line, x0 - line : x1 + line] = False
        assert not changed.any()


def test_the_close_up_of_the_answer_is_the_framed_place_and_no_other_is_like_it() -> None:
    for puzzle, question in every("closeup"):
        strip = strip_for(tuple(question.recipe["photo"]))
        place = small(np.asarray(puzzle.picture), 16, tuple(place_of(question).as_list()))
        pixels = np.asarray(puzzle.picture)
        panels = [small(pixels, 16, tuple(panel.as_list())) for panel in strip.panels]
        scores = [correlation(place, panel) for panel in panels]
        answer = question.options.index(question.answer)
        assert scores[answer] > 0.93
        assert max(scores[:answer] + scores[answer + 1 :]) < 0.6


def test_nothing_else_in_the_photograph_is_nearly_like_a_place_asked_for() -> None:
    for kind in POSERS:
        for puzzle, question in every(kind):
            width, height = question.recipe["photo"]
            photo = cut(puzzle.picture, Box(0, 0, width, height))
            box = place_of(question)
            scale = 16 / box.width
            reduced = small(np.asarray(photo), (round(width * scale), round(height * scale)))
            x, y = round(box.x0 * scale), round(box.y0 * scale)
            scores = correlations(reduced, reduced[y : y + 16, x : x + 16])
            scores[max(y - 9, 0) : y + 10, max(x - 9, 0) : x + 10] = -1
            assert scores.max() < 0.85


def test_no_two_of_four_close_ups_are_alike_even_where_much_of_the_picture_is() -> None:
    pixels = np.array(photograph(0), np.int16)
    rng = rng_for(5, "stripes")
    stripes = np.resize(rng.integers(40, 215, (1, 40, 3)), (1, 440, 3))
    for top in range(0, 560, 40):  # the same stripes all over, in other tones
        pixels[top : top + 40, 360:] = stripes // 2 + rng.integers(0, 120, 3)
    field = field_of(Image.fromarray(pixels.astype(np.uint8)), 40, 4)
    for key in range(12):
        places = alike_places(field, rng_for(5, "alike", key), 1, 4)
        assert places is not None
        cells = [(round(b.x0 * 16 / 40), round(b.y0 * 16 / 40)) for b in places]
        patches = [field.patch(cell) for cell in cells]
        for one, other in combinations(patches, 2):
            assert shifted_correlation(one, other) < 0.55


def test_close_ups_are_of_places_apart_and_frames_touch_none_of_them() -> None:
    for kind in POSERS:
        for _, question in every(kind):
            line = question.recipe["line"]
            for one, other in combinations(question.recipe["places"], 2):
                x0, y0, x1, y1 = one
                grown = Box(x0 - line, y0 - line, x1 + line, y1 + line)
                assert grown.intersection(Box(*other)) == 0


def test_a_frame_has_the_color_that_the_question_names_and_no_two_have_one() -> None:
    for puzzle, question in every("closeup"):
        frames = question.recipe["frames"]
        assert len({frame["color"] for frame in frames}) == len(frames)
        color = next(f["color"] for f in frames if f["place"] == question.recipe["asked"])
        assert f" the {color} frame" in question.text
        box = place_of(question)
        assert puzzle.picture.getpixel((int(box.x0) - 1, int(box.y0) - 1)) == COLORS[color]


def test_answers_are_spread_over_the_letters() -> None:
    photo, answers = photograph(0, (420, 320)), Counter[str]()
    for key in range(40):
        puzzle = closeups.match(photo, rng_for(8, "letters", key), 1, BUDGETS)
        assert puzzle is not None
        answers[puzzle.posed[0].answer] += 1
    assert len(answers) == 4 and min(answers.values()) >= 4


def test_where_is_answered_with_the_place_s_box() -> None:
    for _, question in every("where"):
        assert question.answer == str(question.recipe["places"][question.recipe["asked"]])
        assert question.boxes == (place_of(question),)
        letter = LETTERS[question.recipe["asked"]]
        assert f"close-up {letter} " in question.text


@pytest.mark.parametrize("kind", POSERS)
@pytest.mark.parametrize("count", [1, 4])
def test_no_more_questions_than_asked_for(kind: str, count: int) -> None:
    questions = posed(kind, 0, count=count).posed
    assert 1 <= len(questions) <= count
    assert len({question.text for question in questions}) == len(questions)


@pytest.mark.parametrize("kind", POSERS)
@pytest.mark.parametrize("size", [(239, 400), (900, 100), (1, 1)])
def test_a_picture_too_small_gives_none(kind: str, size: tuple[int, int]) -> None:
    noise = Image.effect_noise(size, 80).convert("RGB")
    assert POSERS[kind](noise, rng_for(0, "small"), 1, BUDGETS) is None


@pytest.mark.parametrize("kind", POSERS)
def test_a_plain_or_a_regular_picture_gives_none(kind: str) -> None:
    plain = Image.new("RGB", (640, 480), (90, 120, 40))
    tile = Image.effect_noise((32, 32), 120).convert("RGB")
    regular = Image.fromarray(np.tile(np.asarray(tile), (15, 20, 1)))
    for image in (plain, regular):
        assert POSERS[kind](image, rng_for(0, "plain"), 1, BUDGETS) is None


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (777, 777), (4000, 1111)])
def test_the_layout_follows_from_the_composed_size_and_the_strip_s_side(
    size: tuple[int, int],
) -> None:
    strip = strip_for(size)
    assert strip_of(strip.size, strip.side) == strip
    assert strip.photo == Box(0, 0, *size)
    whole = Box(0, 0, *strip.size)
    assert all(
        whole.contains(panel) and not panel.intersection(strip.photo) for panel in strip.panels
    )
