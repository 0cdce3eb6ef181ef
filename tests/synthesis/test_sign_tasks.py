"""Signs as a task: masks from where they are, one published picture, a recipe that replays."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from pipeline.config import Task
from pipeline.errors import BadImage, ConfigError
from pipeline.samples import rng_for
from pipeline.scenes.draw import Scene, scene
from pipeline.scenes.signs import replant, signs_of
from pipeline.sources.base import Picture, Region
from pipeline.sources.decode import decode, encode
from pipeline.synthesis.tasks import prepare
from tests.scenes.test_surfaces import FLOOR, WALL_TOP, street

SIZE = (1024, 768)
SIGNS = Task(kind="signs", per_image=4)


@dataclass(frozen=True)
class Outlined:
    """A mask as a segmenter gives it."""

    mask: np.ndarray


class Outlines:
    """The exact masks of a drawn scene, given as a segmenter's, and counted."""

    def __init__(self, drawn: Scene) -> None:
        self.drawn, self.asked = drawn, 0

    def automatic(self, image: np.ndarray, *, limit: int | None = None) -> list[Outlined]:
        assert image.shape == (SIZE[1], SIZE[0], 3) and image.dtype == np.uint8
        self.asked += 1
        return [Outlined(thing.mask) for thing in self.drawn.objects]


@pytest.fixture(scope="module")
def drawn() -> Scene:
    return scene(rng_for(7, "sign tasks"), SIZE)


def as_region(mask: np.ndarray) -> Region:
    """Run lengths of a mask down its columns, beginning with what is outside."""
    flat = np.concatenate([[False], mask.T.ravel(), [not mask[-1, -1]]])
    ends = np.flatnonzero(np.diff(flat))
    runs = np.diff(np.concatenate([[0], ends]))
    return Region(SIZE[1], SIZE[0], counts=tuple(int(run) for run in runs))


def test_questions_come_with_boxes_in_the_published_picture(drawn: Scene) -> None:
    image = Image.fromarray(drawn.image)
    prepared = prepare(Picture("a", image=image), SIGNS, 3, Outlines(drawn))
    assert 1 <= len(prepared.problems) <= 4
    for problem in prepared.problems:
        assert problem.task.startswith("sign_")
        assert problem.sample.image is prepared.image
        refused = problem.truth.target == "no such sign"
        assert refused == (problem.truth.target_boxes == ())
        assert all(box.clip(SIZE) == box for box in problem.truth.target_boxes)


def test_the_recipe_gives_the_published_bytes_again(drawn: Scene) -> None:
    image = Image.fromarray(drawn.image)
    prepared = prepare(Picture("a", image=image), SIGNS, 3, Outlines(drawn))
    recipe = json.loads(prepared.problems[0].recipe or "")
    assert recipe["kind"] == "signs" and recipe["photo"] == list(SIZE)
    assert encode(replant(image, recipe)) == prepared.data
    told = {sign.box for sign in signs_of(recipe)}
    assert all(box in told for p in prepared.problems for box in p.truth.target_boxes)


def test_a_photo_is_worked_on_as_it_decodes_and_its_wall_carries_the_signs() -> None:
    data = encode(street())
    blank = Region(SIZE[1], SIZE[0], counts=(SIZE[0] * SIZE[1],))
    prepared = prepare(Picture("b", data=data, masks=(blank,)), SIGNS, 3)
    recipe = json.loads(prepared.problems[0].recipe or "")
    assert encode(replant(decode(data), recipe)) == prepared.data
    assert all(sign.box.y0 > WALL_TOP and sign.box.y1 < FLOOR + 60 for sign in signs_of(recipe))


def test_masks_of_the_source_go_before_the_segmenter(drawn: Scene) -> None:
    regions = tuple(as_region(thing.mask) for thing in drawn.objects)
    outlines = Outlines(drawn)
    own = Picture("c", image=Image.fromarray(drawn.image), masks=regions)
    by_source = prepare(own, SIGNS, 3, outlines)
    assert outlines.asked == 0
    by_segmenter = prepare(Picture("c", image=own.image), SIGNS, 3, outlines)
    assert outlines.asked == 1
    assert by_source.data == by_segmenter.data


def test_masks_of_another_size_are_not_used(drawn: Scene) -> None:
    outlines = Outlines(drawn)
    odd = (Region(20, 30, counts=(600,)),)
    prepare(Picture("d", image=Image.fromarray(drawn.image), masks=odd), SIGNS, 3, outlines)
    assert outlines.asked == 1


def test_the_segmenter_is_shown_at_most_1024_pixels() -> None:
    seen = []

    class Watching:
        def automatic(self, image: np.ndarray, *, limit: int | None = None) -> list[Outlined]:
            seen.append(image.shape)
            return []

    prepare(Picture("g", image=street().resize((2048, 1536))), SIGNS, 3, Watching())
    assert seen == [(768, 1024, 3)]


def test_without_masks_and_segmenter_the_setting_is_at_fault(drawn: Scene) -> None:
    with pytest.raises(ConfigError, match="segmenter"):
        prepare(Picture("e", image=Image.fromarray(drawn.image)), SIGNS, 3)


def test_a_picture_without_room_is_rejected() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (768, 1024, 3), dtype=np.uint8)
    blank = Region(768, 1024, counts=(768 * 1024,))
    with pytest.raises(BadImage) as caught:
        prepare(Picture("f", image=Image.fromarray(noise), masks=(blank,)), SIGNS, 3)
    assert caught.value.reason == "no_task" and "signs" in caught.value.detail
