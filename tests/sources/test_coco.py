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


def two_files(folder: Path) -> str:
    """People outlined in one file, with joints in another that numbers the pictures otherwise."""
    outlines, joints = record(), record()
    for number, annotation in enumerate(outlines["annotations"]):
        annotation |= {"id": 50 + number, "area": 9.5}
        annotation.pop("keypoints", None)
        if number != 1:
            del annotation["category_id"]
    joints["images"] = [{**one, "id": one["id"] + 100} for one in joints["images"]]
    joints["images"].append({**joints["images"][0], "id": 200, "file_name": "d.jpg"})
    joints["annotations"] = [
        {"id": 52, "image_id": 107, "category_id": 1, "keypoints": [3, 4, 1] * 17, "area": 1},
        {"id": 77, "image_id": 107, "category_id": 1, "bbox": [1, 1, 5, 5]},
        {"id": 50, "image_id": 200, "category_id": 1, "bbox": [7, 7, 5, 5]},
    ]
    (folder / "notes.json").write_text(json.dumps(outlines))
    (folder / "joints.json").write_text(json.dumps(joints))
    (folder / "images/d.jpg").write_bytes(encoded(kind="JPEG"))
    return f"coco:{folder}/images:{folder}/notes.json+{folder}/joints.json"


def test_several_files_tell_of_the_same_objects_by_their_numbers(folder: Path) -> None:
    spec = two_files(folder)
    source = open_source(spec)
    assert source.name == "coco:notes+joints"
    found = {p.image_id: p for entry in source.entries() for p in source.pictures(entry)}
    assert source.skipped == {"doubled_name": 2}
    masks = found["b.jpg"].masks
    assert [one.id for one in masks] == [50, 51, 52, 77]
    assert [len(one.keypoints) for one in masks] == [0, 0, 51, 0]
    assert [one.label for one in masks] == ["", "person", "person", "person"]
    assert [one.area for one in masks] == [9.5, 9.5, 9.5, None]
    assert [one.id for one in found["d.jpg"].masks] == [50]
    assert len(decode_masks(found["b.jpg"])) == 4


def test_a_number_that_is_two_objects_is_an_error_of_the_source(folder: Path) -> None:
    for name, value in (("bbox", [9, 9, 4, 4]), ("category_id", 2)):
        spec = two_files(folder)
        joints = json.loads((folder / "joints.json").read_text())
        joints["categories"].append({"id": 2, "name": "dog"})
        joints["annotations"].append(
            {"id": 51 if name == "category_id" else 50, "image_id": 107, name: value}
        )
        (folder / "joints.json").write_text(json.dumps(joints))
        with pytest.raises(SourceError, match="two objects"):
            list(open_source(spec).entries())


def test_a_plus_in_the_name_of_a_file_is_part_of_it(folder: Path) -> None:
    (folder / "notes.json").rename(folder / "a+b.json")
    source = open_source(f"coco:{folder}/images:{folder}/a+b.json")
    assert source.name == "coco:a+b"
    assert len(list(source.entries())) == 5


def test_either_file_changes_the_stamps_and_none_may_be_missing(folder: Path) -> None:
    spec = two_files(folder)
    source = open_source(spec)
    before = [entry.stamp for entry in source.entries()]
    for name in ("notes.json", "joints.json"):
        os.utime(folder / name, ns=(1, 1))
        after = [entry.stamp for entry in source.entries()]
        assert all(one != other for one, other in zip(before, after, strict=True))
        before = after
    (folder / "joints.json").unlink()
    with pytest.raises(SourceError, match="joints"):
        list(source.entries())
    with pytest.raises(ConfigError, match="joints"):
        open_source(spec)


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
