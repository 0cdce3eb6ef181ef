"""Masks agree with pycocotools where it is right, and refuse what it would read past."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from pipeline.errors import BadImage
from pipeline.geometry import Box
from pipeline.sources.annotations import region_from_coco
from pipeline.sources.base import Picture, Region
from pipeline.sources.masks import decode_masks, decode_region


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_both_forms_of_run_lengths_give_the_mask_back(mask: np.ndarray) -> None:
    text = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flat]).astype(int))).tolist()
    runs = np.diff([0, *edges, flat.size]).tolist()
    for counts in (text, runs):
        segmentation = {"size": list(mask.shape), "counts": counts}
        region = region_from_coco({"segmentation": segmentation}, *mask.shape)
        assert (decode_region(region) == mask).all()


def test_polygons_are_drawn_as_coco_draws_them() -> None:
    polygons = [[2, 2, 30, 2, 30, 20, 2, 20], [25.5, 10, 38, 12, 33, 28.7]]
    region = region_from_coco({"segmentation": polygons, "bbox": [2, 2, 36, 26.7]}, 32, 40)
    expected = coco.decode(coco.merge(coco.frPyObjects(polygons, 32, 40))).astype(bool)
    (mask,) = decode_masks(Picture("x", masks=(region,)))
    assert mask.shape == (32, 40)
    assert (mask == expected).all()
    assert region.box == Box(2, 2, 38, 28.7)


def test_a_region_without_outline_is_empty() -> None:
    assert not decode_region(Region(4, 5)).any()


@pytest.mark.parametrize(
    "region",
    [
        Region(4, 5, counts=(5, 5)),
        Region(4, 5, counts=(25, -5)),
        Region(4, 5, counts=()),
        Region(4, 5, counts=""),
        Region(4, 5, counts="zzzzzz"),
        Region(4, 5, counts="o" * 1000),
        Region(4, 5, counts="é"),
        Region(10**6, 10**6, counts=(10**12,)),
        Region(4, 5, polygons=((0, 0, 1e9, 0, 1e9, 1e9),)),
        Region(4, 5, polygons=((0, 0, float("nan"), 0, 4, 4),)),
    ],
)
def test_outlines_that_lie_are_bad_masks(region: Region) -> None:
    with pytest.raises(BadImage) as caught:
        decode_region(region)
    assert caught.value.reason == "bad_mask"


@pytest.mark.parametrize(
    "annotation",
    [
        {"segmentation": {"size": [4]}, "bbox": [0, 0, 1, 1]},
        {"segmentation": {"size": ["4", 5], "counts": ""}},
        {"segmentation": {"size": [4, 5], "counts": [1, "x"]}},
        {"segmentation": [["a", 1, 2, 3, 4, 5]]},
        {"segmentation": 7},
        {"bbox": [1, 2, 3]},
        {"bbox": [1, 2, float("inf"), 4]},
        {"predicted_iou": "high"},
        {"keypoints": 3},
    ],
)
def test_annotations_that_are_none_are_bad_annotations(annotation: dict[str, object]) -> None:
    with pytest.raises(BadImage) as caught:
        region_from_coco(annotation, 4, 5)
    assert caught.value.reason == "bad_annotation"
