"""Laws of the COCO form."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError, SourceError
from pipeline.sources.base import Picture
from pipeline.sources.decode import decode
from pipeline.sources.masks import decode_masks
from pipeline.sources.specs import open_source
from tests.sources.pictures import SIZE, encoded

WIDTH, HEIGHT = SIZE
SHARED = Path(__file__).parents[3] / "shared" / "coco_mini"


def record() -> dict[str, Any]:
    sized = {"width": WIDTH, "height": HEIGHT}
    square = [[4, 4, 20, 4, 20, 20, 4, 20]]
    crowd = {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH]}
    return {
        "licenses": [{"id": 4, "name": "CC BY", "url": "http://x"}],
        "categories": [{"id": 1, "name": "person"}],
        "images": [
            {"id": 7, "file_name": "b.jpg", "license": 4, **sized},
            {"id": 8, "file_name": "sub/a.jpg", **sized},
            {"id": 9, "file_name": "b.jpg", **sized},
            {"id": 10, "file_name": "../out.jpg", **sized},
            {"id": 12, "file_name": "sub/../b.jpg", **sized},
            {"id": 11, "file_name": "gone.jpg", **sized},
        ],
        "annotations": [
            {
                "image_id": 7,
                "category_id": 1,
                "segmentation": square,
                "bbox": [4, 4, 16, 16],
                "keypoints": [1, 2, 2] * 17,
            },
            {"image_id": 7, "category_id": 1, "segmentation": crowd, "iscrowd": 1},
            {"image_id": 7, "category_id": 1, "bbox": [4, 4, 0, 16]},
        ],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images" / "sub").mkdir(parents=True)
    for name in ("images/b.jpg", "images/sub/a.jpg", "out.jpg"):
        (tmp_path / name).write_bytes(encoded(kind="JPEG"))
    (tmp_path / "notes.json").write_text(json.dumps(record()))
    return tmp_path


def spec(folder: Path) -> str:
    return f"coco:{folder}/images:{folder}/notes.json"


def pictures(folder: Path) -> dict[str, Picture]:
    source = open_source(spec(folder))
    entries = list(source.entries())
    assert source.skipped == {"doubled_name": 1}
    return {p.image_id: p for entry in entries for p in source.pictures(entry)}


def test_regions_keypoints_and_licenses_are_brought(folder: Path) -> None:
    found = pictures(folder)
    picture = found["b.jpg"]
    square, crowd, thin = picture.masks
    assert (picture.license, found["sub/a.jpg"].license) == ("CC BY", "")
    assert (square.label, square.crowd, crowd.crowd) == ("person", False, True)
    assert len(square.keypoints) == 51
    assert thin.box is None
    masks = decode_masks(picture)
    assert [int(mask.sum()) for mask in masks] == [256, HEIGHT * WIDTH, 0]
    assert {mask.shape for mask in masks} == {(HEIGHT, WIDTH)}
    assert found["sub/a.jpg"].masks == ()


def test_names_that_lead_out_or_nowhere_are_errors(folder: Path) -> None:
    found = {key: p.error.reason for key, p in pictures(folder).items() if p.error}
    assert found == {
        "out.jpg": "outside_source",
        "sub/b.jpg": "outside_source",
        "gone.jpg": "source_missing",
    }


def test_changed_annotations_change_every_stamp(folder: Path) -> None:
    source = open_source(spec(folder))
    entries = list(source.entries())
    os.utime(folder / "notes.json", ns=(1, 1))
    assert [e.stamp for e in source.entries()] != [e.stamp for e in entries]
    (picture,) = (p for e in entries if e.key == "b.jpg" for p in source.pictures(e))
    assert picture.error is not None
    assert picture.error.reason == "source_changed"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"images": [{"id": 1}]}', '{"images": 3}'])
def test_what_is_no_coco_file_is_an_error_of_the_source(folder: Path, text: str) -> None:
    (folder / "notes.json").write_text(text)
    with pytest.raises(SourceError):
        list(open_source(spec(folder)).entries())


def test_missing_parts_are_refused_at_once(folder: Path) -> None:
    for bad in (f"coco:{folder}", f"coco:{folder}/images:{folder}/no.json", "coco:x:y.json"):
        with pytest.raises(ConfigError):
            open_source(bad)


@pytest.mark.skipif(not SHARED.exists(), reason="the photographs beside the project are not here")
def test_real_annotations_fit_their_photographs() -> None:
    source = open_source(f"coco:{SHARED}/images:{SHARED}/person_keypoints.json")
    people = 0
    for entry in source.entries():
        (picture,) = source.pictures(entry)
        assert picture.data is not None
        width, height = decode(picture.data).size
        for region, mask in zip(picture.masks, decode_masks(picture), strict=True):
            people += 1
            assert mask.shape == (height, width)
            assert region.box is not None
            ys, xs = mask.nonzero()
            assert abs(xs.min() - region.box.x0) <= 2
            assert abs(ys.max() + 1 - region.box.y1) <= 2
    assert people == 14
