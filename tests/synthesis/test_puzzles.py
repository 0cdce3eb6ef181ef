"""Puzzles from picture to row: prepared, proven from the published picture, and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.agent.scripts.differences import _pieces
from pipeline.config import Task
from pipeline.errors import BadImage, ConfigError
from pipeline.sources.base import Picture, Region
from pipeline.synthesis.proofs import is_provable, proven
from pipeline.synthesis.tasks import Prepared, Problem, prepare
from tests.scenes.pictures import photograph, with_objects

BUDGETS = (224, 448, 1024)
KINDS = ("closeup", "where", "change", "count")


class Blind:
    """A segmenter that finds nothing."""

    def automatic(self, image: np.ndarray, *, limit: int | None = None) -> list[Any]:
        return []


def regions(key: int) -> tuple[Region, ...]:
    """The discs of a picture as its source's masks."""
    image, cuts = with_objects(key)
    found = []
    for cut in cuts:
        mask = np.zeros((image.height, image.width), bool)
        mask[cut.part()] = cut.mask
        edges = np.flatnonzero(np.diff(mask.ravel(order="F").astype(np.int8))) + 1
        runs = np.diff([0, *edges.tolist(), mask.size]).tolist()
        found.append(Region(image.height, image.width, tuple(runs), box=cut.box))
    return tuple(found)


@cache
def ready(kind: str, key: int = 0) -> Prepared:
    image = with_objects(key)[0] if kind == "change" else photograph(key)
    masks = regions(key) if kind == "change" else ()
    picture = Picture(f"p{key}", image=image, masks=masks)
    return prepare(picture, Task(kind=kind, per_image=2, budgets=BUDGETS), 3)


def every() -> list[tuple[str, Prepared, Problem]]:
    return [
        (kind, ready(kind, key), problem)
        for kind in KINDS
        for key in range(3)
        for problem in ready(kind, key).problems
    ]


def test_every_question_carries_its_recipe_and_its_kind() -> None:
    for kind, _, problem in every():
        assert problem.task == kind and problem.recipe is not None
        assert json.loads(problem.recipe)["kind"] == kind
        assert is_provable(problem.recipe)


def test_tasks_whose_truth_is_not_made_have_no_recipe() -> None:
    task = Task(kind="needles", budgets=BUDGETS)
    for problem in prepare(Picture("p", image=photograph(0)), task, 3).problems:
        assert problem.recipe is None


def test_the_truth_follows_from_the_published_picture_and_the_recipe() -> None:
    for _, prepared, problem in every():
        found = proven(prepared.image, problem.recipe or "", problem.sample.question)
        assert found == problem.truth.target


def test_nothing_follows_for_another_picture() -> None:
    for kind, _, problem in every():
        other = ready(kind, 2 if problem.sample.image_id != "p2" else 0).image
        assert proven(other, problem.recipe or "", problem.sample.question) == ""


def moved_place(recipe: dict[str, Any]) -> None:
    asked = recipe["asked"]
    x0, y0, x1, y1 = recipe["places"][asked]
    step = (x1 - x0) // 2 if x0 < 300 else -(x1 - x0) // 2
    recipe["places"][asked] = [x0 + step, y0, x1 + step, y1]


def other_size(recipe: dict[str, Any]) -> None:
    recipe["photo"][1] -= 1


def swapped_frames(recipe: dict[str, Any]) -> None:
    one, other = recipe["frames"]
    one["color"], other["color"] = other["color"], one["color"]


def moved_cut(recipe: dict[str, Any]) -> None:
    box = recipe["cut"]["box"]
    step = 90 if box[0] < 400 else -90
    recipe["cut"]["box"] = [box[0] + step, box[1], box[2] + step, box[3]]


def other_change(recipe: dict[str, Any]) -> None:
    recipe["change"] = {"removed": "added", "added": "removed"}.get(recipe["change"], "removed")


def one_more_tag(recipe: dict[str, Any]) -> None:
    shape, color, x, _, side = recipe["tags"][0]
    recipe["tags"].append([shape, color, 800 - side - x if x < 370 else 5, 5, side])


def other_color(recipe: dict[str, Any]) -> None:
    recipe["tags"][0][1] = "red" if recipe["tags"][0][1] != "red" else "cyan"


@pytest.mark.parametrize(
    ("kind", "tamper"),
    [
        ("closeup", moved_place),
        ("closeup", other_size),
        ("closeup", swapped_frames),
        ("where", moved_place),
        ("where", other_size),
        ("change", moved_cut),
        ("change", other_change),
        ("change", other_size),
        ("count", one_more_tag),
        ("count", other_color),
    ],
)
def test_a_tampered_recipe_proves_nothing(
    kind: str, tamper: Callable[[dict[str, Any]], None]
) -> None:
    for key in range(3):
        prepared = ready(kind, key)
        problem = prepared.problems[0]
        recipe = json.loads(problem.recipe or "")
        tamper(recipe)
        assert proven(prepared.image, json.dumps(recipe), problem.sample.question) == ""


@pytest.mark.parametrize("recipe", ["", "no JSON", "[]", "{}", '{"kind": "change"}', "null"])
def test_what_is_no_recipe_proves_nothing(recipe: str) -> None:
    prepared = ready("closeup")
    assert proven(prepared.image, recipe, prepared.problems[0].sample.question) == ""


def test_a_pixel_changed_in_the_published_picture_s_answer_is_noticed() -> None:
    for kind in ("closeup", "where", "count"):
        prepared = ready(kind)
        problem = prepared.problems[0]
        image = prepared.image.copy()
        box = problem.truth.target_boxes[0]
        ImageDraw.Draw(image).rectangle(tuple(box.as_list()), fill=(1, 254, 1))
        assert proven(image, problem.recipe or "", problem.sample.question) != problem.truth.target


def test_a_second_change_elsewhere_is_noticed() -> None:
    prepared = ready("change")
    problem = prepared.problems[0]
    image = prepared.image.copy()
    box = problem.truth.target_boxes[0]
    x = 20 if box.x0 > 400 else 740
    ImageDraw.Draw(image).rectangle((x, 20, x + 30, 50), fill=(255, 0, 255))
    assert proven(image, problem.recipe or "", problem.sample.question) == ""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(120, 100), (700, 90)])
def test_a_picture_too_small_is_a_counted_rejection(kind: str, size: tuple[int, int]) -> None:
    image = Image.effect_noise(size, 90).convert("RGB")
    with pytest.raises(BadImage) as caught:
        prepare(Picture("small", image=image), Task(kind=kind), 0, Blind())
    assert caught.value.reason == "no_task"


@pytest.mark.parametrize("kind", ["closeup", "where", "change"])
def test_a_plain_picture_is_a_counted_rejection(kind: str) -> None:
    image = Image.new("RGB", (800, 600), (30, 90, 160))
    with pytest.raises(BadImage) as caught:
        prepare(Picture("plain", image=image), Task(kind=kind), 0, Blind())
    assert caught.value.reason == "no_task"


def test_a_change_without_masks_and_without_a_segmenter_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match="segmenter"):
        prepare(Picture("p", image=photograph(0)), Task(kind="change"), 0)


def test_the_segmenter_s_masks_are_used_where_the_source_has_none() -> None:
    asked: list[tuple[int, ...]] = []

    class Found:
        def __init__(self, mask: np.ndarray) -> None:
            self.mask = mask

    class Vivid:
        """Finds what has more extreme colours than the ground of `with_objects`."""

        def automatic(self, image: np.ndarray, *, limit: int | None = None) -> list[Found]:
            asked.append(image.shape)
            extreme = ((image < 45) | (image > 210)).any(2)
            masks = []
            for ys, xs in _pieces(100.0 * extreme):
                mask = np.zeros(extreme.shape, bool)
                mask[ys, xs] = True
                masks.append(Found(mask))
            return masks

    picture = Picture("q", image=with_objects(1)[0])
    task = Task(kind="change", per_image=1, budgets=BUDGETS)
    problem = prepare(picture, task, 0, Vivid()).problems[0]
    assert asked and problem.task == "change"
    assert prepare(picture, task, 0, Vivid()).problems[0].recipe == problem.recipe


def test_labelled_marks_are_asked_about_as_found_and_others_in_frames() -> None:
    image, task = with_objects(4)[0], Task(kind="annotated", per_image=2)
    plain = Picture("p", image=image, masks=regions(4))
    framed = prepare(plain, task, 0).problems
    assert [json.loads(p.recipe or "")["kind"] for p in framed] == ["framed"] * len(framed)
    assert framed and {p.task for p in framed} <= {"size", "relation"}
    named = tuple(replace(r, label=str(n)) for n, r in enumerate(plain.masks))
    found = prepare(replace(plain, masks=named), task, 0)
    assert len(found.problems) == 2 and not any(p.recipe for p in found.problems)
    assert np.abs(np.asarray(found.image, float) - np.asarray(image)).mean() < 3


def test_a_picture_without_marks_is_a_counted_rejection() -> None:
    with pytest.raises(BadImage) as caught:
        prepare(Picture("p", image=photograph(0)), Task(kind="annotated"), 0)
    assert caught.value.reason == "no_task"
