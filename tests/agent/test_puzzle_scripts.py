"""The scripts for puzzles: most are solved, from views alone, and more as the budget grows."""

from __future__ import annotations

import asyncio
import json
from functools import cache

import numpy as np
import pytest

from pipeline.agent.critic import verify
from pipeline.agent.episode import Limits, run_episode
from pipeline.agent.scripted import ScriptedPolicy
from pipeline.agent.scripts.differences import spots
from pipeline.agent.scripts.frames import find_frame
from pipeline.agent.sight import UNKNOWN
from pipeline.agent.tools import Tools
from pipeline.answers import box_of
from pipeline.samples import Sample, Truth, rng_for
from pipeline.scenes import changes, closeups
from pipeline.scenes.puzzles import Posed, Puzzle
from pipeline.sources.decode import decode, encode
from pipeline.trajectory import Trajectory
from tests.agent.fakes import GroundSegmenter
from tests.scenes.pictures import photograph, with_objects

BUDGETS = (112, 224, 672)
KEYS = range(6)
KINDS = ("closeup", "where", "change")


@cache
def puzzle(kind: str, key: int) -> Puzzle:
    rng = rng_for(6, kind, key)
    if kind == "change":
        made = changes.spot(*with_objects(key), rng, 2)
    else:
        pose = closeups.match if kind == "closeup" else closeups.where
        made = pose(photograph(key), rng, 2, BUDGETS)
    assert made is not None
    return made


@cache
def toolbox(kind: str, key: int) -> Tools:
    return Tools(decode(encode(puzzle(kind, key).picture)), GroundSegmenter())


def solved(kind: str, key: int, question: Posed, budget: int, looks: int = 5) -> Trajectory:
    """The path, with the verifier's verdict."""
    image = toolbox(kind, key)._image
    sample = Sample(f"{kind}{key}#0", kind, image, image.size, question.text, question.options)
    limits = Limits(budget, looks)
    episode = asyncio.run(run_episode(sample, ScriptedPolicy(), toolbox(kind, key), limits))
    truth = Truth(sample.sample_id, question.answer, question.boxes)
    return verify(episode.trajectory, truth, question.options)


@cache
def every(kind: str, budget: int) -> tuple[Trajectory, ...]:
    return tuple(
        solved(kind, key, question, budget) for key in KEYS for question in puzzle(kind, key).posed
    )


def share(kind: str, budget: int) -> float:
    return float(np.mean([path.verified for path in every(kind, budget)]))


@pytest.mark.parametrize("kind", KINDS)
def test_most_are_solved_at_a_large_budget_and_fewer_at_a_tiny_one(kind: str) -> None:
    assert share(kind, 672) >= 0.85
    assert share(kind, 112) < share(kind, 672)
    assert share(kind, 224) >= share(kind, 112)


@pytest.mark.parametrize("kind", KINDS)
def test_looks_fall_as_the_budget_grows(kind: str) -> None:
    looks = [np.mean([path.num_zooms for path in every(kind, budget)]) for budget in (224, 672)]
    assert looks[0] > looks[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_path_is_made_again_the_same(kind: str) -> None:
    question = puzzle(kind, 0).posed[0]
    assert solved(kind, 0, question, 224) == every(kind, 224)[0]


def test_with_no_look_allowed_the_answer_is_what_was_seen_at_a_glance_or_unknown() -> None:
    for kind in KINDS:
        for key in KEYS:
            path = solved(kind, key, puzzle(kind, key).posed[0], 224, looks=0)
            assert path.num_zooms == 0 and path.answer
    said = [solved("closeup", k, puzzle("closeup", k).posed[0], 112, looks=0) for k in KEYS]
    assert UNKNOWN in {path.answer for path in said}


def test_where_is_answered_with_a_box_in_source_pixels() -> None:
    for path in every("where", 672):
        assert path.answer == UNKNOWN or box_of(path.answer) is not None


def test_every_box_that_is_looked_at_lies_in_the_picture() -> None:
    for kind in KINDS:
        for budget in BUDGETS:
            for path in every(kind, budget):
                boxes = [box for step in path.steps for box in step.boxes]
                assert all(path.view.region.contains(box) for box in boxes)


def test_a_question_in_other_words_is_not_answered_by_these_scripts() -> None:
    from pipeline.agent.actions import NotUnderstood

    for kind in KINDS:
        text = puzzle(kind, 0).posed[0].text
        for other in (
            text + " Say A.",
            text.replace("picture", "canvas").replace("close-up", "tile"),
        ):
            with pytest.raises(NotUnderstood):
                ScriptedPolicy().begin("p#0", other, ())


def test_swapping_two_close_ups_changes_the_answer_with_them() -> None:
    question = puzzle("closeup", 1).posed[0]
    recipe = json.loads(json.dumps(question.recipe))
    places, answer = recipe["places"], recipe["asked"]
    other = (answer + 1) % 4
    places[answer], places[other] = places[other], places[answer]
    recipe["asked"] = other
    for frame in recipe["frames"]:
        frame["place"] = {answer: other, other: answer}.get(frame["place"], frame["place"])
    picture, swapped = closeups.derive(photograph(1), recipe)
    assert swapped.answer == question.options[other] and swapped.text == question.text
    tools = Tools(decode(encode(picture)), GroundSegmenter())
    sample = Sample("swap#0", "swap", picture, picture.size, swapped.text, swapped.options)
    path = asyncio.run(run_episode(sample, ScriptedPolicy(), tools, Limits(672))).trajectory
    assert path.answer == swapped.answer


@pytest.mark.parametrize("line", [4, 9])
@pytest.mark.parametrize("color", ["pink", "cyan"])
def test_a_frame_is_found_where_it_is_drawn(line: int, color: str) -> None:
    from PIL import ImageDraw

    from pipeline.scenes.tags import COLORS

    picture = photograph(2).copy()
    box = (300 - line, 200 - line, 360 + line - 1, 260 + line - 1)
    ImageDraw.Draw(picture).rectangle(box, outline=COLORS[color], width=line)
    found = find_frame(np.asarray(picture), color, (0, 0, *picture.size))
    assert found is not None
    assert np.abs(np.array(found.inside) - (300, 200, 360, 260)).max() <= 3


def test_a_difference_is_found_and_a_shift_by_half_a_pixel_is_none() -> None:
    image = photograph(3).resize((400, 280))
    one = np.asarray(image, np.float32)
    half = np.asarray(
        image.transform(image.size, 0, (1, 0, 0.5, 0, 1, 0.5), resample=2), np.float32
    )[1:-1, 1:-1]
    assert not spots(one, one)
    other = half.copy()
    other[100:130, 200:240] = (255, 0, 255)
    best = spots(one[1:-1, 1:-1], other)[0]
    assert 200 <= best.x <= 240 and 100 <= best.y <= 130
    quiet = spots(one[1:-1, 1:-1], half)
    assert not quiet or quiet[0].weight < 0.02 * best.weight
