"""Laws of prompt objects: annotations as COCO means them, and proposals that are distinct."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from pipeline.errors import BadImage
from pipeline.geometry import Box
from pipeline.saliency.objects import (
    Instance,
    SamProposer,
    annotated,
    distinct,
    objects_of,
    proposed,
)
from pipeline.sources.annotations import region_from_coco
from pipeline.sources.base import Picture, Region
from pipeline.sources.sa1b import regions_of
from pipeline.sources.specs import open_source

SHARED = Path(__file__).parents[3] / "shared"
GROUPING = SHARED / "goldens" / "prompting" / "grouping.json"
COCO = SHARED / "coco_mini"

SIZE = (64, 48)
IMAGE = np.zeros((48, 64, 3), np.uint8)


def region(x: int, y: int, side: int, **more: object) -> Region:
    """A square object."""
    outline = (x, y, x + side, y, x + side, y + side, x, y + side)
    square = Region(SIZE[1], SIZE[0], polygons=(tuple(map(float, outline)),), label="box")
    return replace(square, **more)  # type: ignore[arg-type]


def square(x: int, y: int, side: int) -> np.ndarray:
    mask = np.zeros((SIZE[1], SIZE[0]), bool)
    mask[y : y + side, x : x + side] = True
    return mask


class Fixed:
    """A proposer that finds what it is given."""

    def __init__(self, *masks: np.ndarray) -> None:
        self.masks = masks

    def propose(self, image: np.ndarray) -> list[np.ndarray]:
        return list(self.masks)


def test_the_largest_comes_first_and_equals_stay_as_annotated() -> None:
    regions = [region(0, 0, 5, id=4, area=25.0), region(9, 9, 8, id=2, area=64.5)]
    regions += [region(20, 5, 5, id=9, area=25.0), region(30, 5, 6, id=1, area=25.0)]
    assert [one.id for one in annotated(regions, SIZE)] == [2, 4, 9, 1]
    assert [one.area for one in annotated(regions, SIZE)] == [64.5, 25, 25, 25]
    untold = [replace(one, area=None) for one in regions]
    assert [(one.id, one.area) for one in annotated(untold, SIZE)] == [
        (2, 64), (1, 36), (4, 25), (9, 25),
    ]  # fmt: skip


def test_an_object_is_what_the_source_marks() -> None:
    (one,) = annotated([region(3, 4, 5, id=7, crowd=True)], SIZE)
    assert (one.id, one.category, one.iscrowd, one.keypoints) == (7, "box", True, None)
    assert (one.mask == square(3, 4, 5)).all() and one.mask.dtype == bool
    assert one.box == Box(3, 4, 8, 9)


def test_groups_are_left_out_on_request_and_what_has_no_pixel_always() -> None:
    regions = [region(0, 0, 5, id=1, crowd=True), region(9, 9, 3, id=2), Region(48, 64, id=3)]
    assert [one.id for one in annotated(regions, SIZE)] == [1, 2]
    assert [one.id for one in annotated(regions, SIZE, crowds=False)] == [2]


def test_objects_without_numbers_of_their_own_are_numbered_as_they_come() -> None:
    for ids in ((None, None, None), (7, None, 8), (7, 7, 8)):
        regions = [region(9 * n, 0, n + 3, id=number) for n, number in enumerate(ids)]
        assert [one.id for one in annotated(regions, SIZE)] == [2, 1, 0]


def test_all_three_forms_of_outlines_give_the_same_mask() -> None:
    runs = [2 * 48 + 3, *([4, 44] * 4)[:-1], 48 * 64 - (2 * 48 + 3) - 3 * 48 - 4]
    from pycocotools import mask as coco

    text = coco.encode(np.asfortranarray(square(2, 3, 4).astype(np.uint8)))["counts"].decode()
    polygon = [[2, 3, 6, 3, 6, 7, 2, 7]]
    forms = [{"size": [48, 64], "counts": counts} for counts in (runs, text)]
    for segmentation in (polygon, *forms):
        marked = region_from_coco({"segmentation": segmentation}, 48, 64)
        (one,) = annotated([marked], SIZE)
        assert (one.mask == square(2, 3, 4)).all()


def test_joints_are_kept_where_any_is_marked() -> None:
    marked = [5.0, 6.0, 2.0] + [0.0] * 48
    (one,) = annotated([region(0, 0, 5, keypoints=tuple(marked))], SIZE)
    assert one.keypoints is not None and one.keypoints.shape == (17, 3)
    assert one.keypoints[0].tolist() == [5, 6, 2]
    (none,) = annotated([region(0, 0, 5, keypoints=(0.0,) * 51)], SIZE)
    assert none.keypoints is None


@pytest.mark.parametrize(
    "odd",
    [
        replace(region(0, 0, 5), width=63),
        region(0, 0, 5, keypoints=(1.0, 2.0, 2.0)),
        region(0, 0, 5, keypoints=(1.0, 2.0, 3.0) * 17),
        region(0, 0, 5, keypoints=(1.0, 2.0, 0.5) * 17),
        region(0, 0, 5, keypoints=(float("nan"), 2.0, 1.0) * 17),
        Region(48, 64, counts=(3, 4)),
    ],
)
def test_marks_that_do_not_fit_are_an_error_of_the_picture(odd: Region) -> None:
    with pytest.raises(BadImage) as caught:
        annotated([region(9, 9, 3), odd], SIZE)
    assert caught.value.reason in ("bad_annotation", "bad_mask")


def test_the_masks_of_sa1b_are_objects() -> None:
    runs = [10, 5, 48 * 64 - 15]
    record = {
        "image": {"height": 48, "width": 64},
        "annotations": [
            {"id": 5, "segmentation": {"size": [48, 64], "counts": runs}, "area": 5},
            {"id": 6, "segmentation": {"size": [48, 64], "counts": [0, 48 * 64]}, "area": 3072},
        ],
    }
    found = annotated(regions_of(record), SIZE)
    assert [(one.id, one.area, one.category) for one in found] == [(6, 3072, ""), (5, 5, "")]


def test_proposals_stand_in_only_where_there_are_no_annotations() -> None:
    finds = Fixed(square(0, 0, 9))
    assert [one.id for one in objects_of(Picture("a"), IMAGE, finds)] == [0]
    assert objects_of(Picture("a"), IMAGE) == []
    picture = Picture("a", masks=(region(3, 3, 4, id=12), region(9, 3, 4, id=13, crowd=True)))
    assert [one.id for one in objects_of(picture, IMAGE, finds)] == [12, 13]
    assert [one.id for one in objects_of(picture, IMAGE, finds, crowds=False)] == [12]


def test_proposals_are_neither_tiny_nor_the_picture_nor_found_twice() -> None:
    everything, nearly = np.ones((48, 64), bool), square(10, 10, 20)
    nearly[10, 10] = False
    masks = [everything, square(0, 0, 4), square(10, 10, 20), nearly, square(2, 2, 1)]
    empty = np.zeros((48, 64), bool)
    found = proposed(IMAGE, Fixed(*masks, empty, square(14, 14, 8)))
    assert [(one.id, one.area) for one in found] == [(2, 400), (6, 64), (1, 16)]
    assert proposed(IMAGE, Fixed()) == []
    loose = proposed(IMAGE, Fixed(*masks), smallest_share=0, largest_share=1, most_overlap=1)
    assert [one.id for one in loose] == [0, 2, 3, 1, 4]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1))
def test_distinct_masks_are_those_of_the_plain_rule(seed: int, most: float) -> None:
    rng = np.random.default_rng(seed)
    masks = [square(*rng.integers(0, 12, 2), rng.integers(1, 14)) for _ in range(12)]
    masks = [mask & (rng.random(mask.shape) < 0.9) | square(3, 3, 1) for mask in masks]
    kept: list[int] = []
    for n, mask in enumerate(masks):
        overlaps = [(mask & masks[k]).sum() / (mask | masks[k]).sum() for k in kept]
        if all(overlap <= most for overlap in overlaps):
            kept.append(n)
    assert distinct(masks, most) == kept


def test_just_as_much_overlap_as_is_allowed_is_allowed() -> None:
    one, other = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    one[[0, 1, 3], [0, 3, 3]] = other[[0, 2, 3], [0, 0, 3]] = True
    assert distinct([one, other], 0.5) == [0, 1]
    assert distinct([one, other], 0.49) == [0]


@pytest.mark.skipif(not GROUPING.exists(), reason="the goldens beside the project are not here")
def test_the_golden_annotations_come_in_the_original_order_with_its_masks() -> None:
    golden = json.loads(GROUPING.read_text())
    arrays = np.load(GROUPING.with_suffix(".npz"))
    height, width = golden["height"], golden["width"]
    masks = np.unpackbits(arrays["masks"], axis=-1)[..., :width].astype(bool)
    truth = dict(zip((one["id"] for one in golden["annotations"]), masks, strict=True))
    assert golden["mask_pixel_counts"] == [int(mask.sum()) for mask in masks]
    regions = [region_from_coco(one, height, width) for one in golden["annotations"]]
    starts = {"full": regions, "single": regions[:1], "three": regions[1:4]}
    for name, chosen in {**starts, "five_with_ties": regions[-3:] + regions[:2]}.items():
        found = annotated(chosen, (width, height))
        assert [one.id for one in found] == golden["cases"][name]["area_order_ids"]
        assert all((one.mask == truth[one.id]).all() for one in found)


@pytest.mark.skipif(not COCO.exists(), reason="the photographs beside the project are not here")
def test_real_people_come_with_their_joints(tmp_path: Path) -> None:
    people: list[Instance] = []
    for entry in (
        source := open_source(f"coco:{COCO}/images:{COCO}/person_keypoints.json")
    ).entries():
        (picture,) = source.pictures(entry)
        assert picture.data is not None
        size = (picture.masks[0].width, picture.masks[0].height)
        found = annotated(picture.masks, size)
        assert [one.area for one in found] == sorted((one.area for one in found), reverse=True)
        people += found
    assert len(people) == 14 and {one.category for one in people} == {"person"}
    assert sum(one.keypoints is None for one in people) == 2
    assert all(abs(one.area / one.mask.sum() - 1) < 0.1 for one in people)


@pytest.mark.torch
def test_a_segmenter_proposes_what_was_planted_wherever_the_prior_points() -> None:
    pytest.importorskip("torch")
    from pipeline.models.sam import load

    planted = [(20, 30, 80, 90), (110, 40, 190, 100), (60, 130, 130, 210), (160, 140, 230, 200)]
    grain = np.random.default_rng(0).normal(0, 4, (240, 256, 3))
    picture = Image.fromarray(np.clip(150 + grain, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for color, (x0, y0, x1, y1) in zip(("red", "green", "blue", "yellow"), planted, strict=True):
        pen.rectangle((x0, y0, x1 - 1, y1 - 1), fill=color)
    image = np.asarray(picture)
    segmenter = load("pocket")
    for prior in (None, lambda image: image[..., 0].astype(float)):
        found = proposed(image, SamProposer(segmenter, prior, grid=8))
        assert {one.category for one in found} == {""}
        for x0, y0, x1, y1 in planted:
            assert max(one.box.iou(Box(x0, y0, x1, y1)) for one in found) > 0.8
