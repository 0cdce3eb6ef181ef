"""Laws of the V*Bench form: both layouts on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError, SourceError
from pipeline.geometry import Box
from pipeline.sources.base import Asked, Picture
from pipeline.sources.specs import open_source
from tests.sources.pictures import encoded

JPEG = encoded(kind="JPEG")
OPTIONS = ["The mug is black.", "The mug is red.", "The mug is blue.", "The mug is white."]
PAIR = {"target_object": ["mug"], "bbox": [[3, 4, 5, 6]], "question": "Which?", "options": OPTIONS}
TEXT = (
    "Is the cup left or right of the cat?\n(A) right (B-side)\n(B) left\n"
    "Answer with the option's letter from the given choices directly."
)


def write_pairs(root: Path, count: int = 12) -> None:
    for folder in ("direct_attributes", "relative_position"):
        (root / folder).mkdir(parents=True)
        for number in range(count):
            (root / folder / f"sa_{number}.jpg").write_bytes(JPEG)
            (root / folder / f"sa_{number}.json").write_text(json.dumps(PAIR))


def write_lines(root: Path, lines: list[dict[str, Any]]) -> None:
    root.mkdir(exist_ok=True)
    text = "\n".join(json.dumps(line) for line in lines)
    (root / "test_questions.jsonl").write_text(text + "\n\n")


def pictures(root: Path, seed: int = 0) -> dict[str, Picture]:
    source = open_source(f"vstar:{root}", seed=seed)
    return {p.image_id: p for entry in source.entries() for p in source.pictures(entry)}


def test_pairs_ask_with_shuffled_options(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    found = pictures(tmp_path)
    assert len(found) == 24
    assert list(found) == sorted(found)
    for key, picture in found.items():
        (asked,) = picture.asked
        assert (asked.question, asked.answer) == ("Which?", OPTIONS[0])
        assert sorted(asked.options) == sorted(OPTIONS)
        assert asked.boxes == (Box(3, 4, 8, 10),)
        assert asked.task == key.split("/")[0]
    places = {picture.asked[0].options.index(OPTIONS[0]) for picture in found.values()}
    assert places == {0, 1, 2, 3}


def test_the_shuffle_depends_on_seed_and_picture_only(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    first = pictures(tmp_path)
    (tmp_path / "direct_attributes" / "sa_0.jpg").unlink()
    again = pictures(tmp_path)
    assert all(again[key].asked == first[key].asked for key in again)
    other = pictures(tmp_path, seed=1)
    assert any(other[key].asked != first[key].asked for key in other)


def test_lines_keep_their_order(tmp_path: Path) -> None:
    write_pairs(tmp_path, 1)
    key = "relative_position/sa_0.jpg"
    line = {"image": key, "text": TEXT, "category": "relative_position", "label": "A"}
    write_lines(tmp_path, [{**line, "question_id": 0}, {**line, "label": "B", "question_id": 1}])
    found = pictures(tmp_path)
    assert list(found) == [key]
    boxes = (Box(3, 4, 8, 10),)
    question, options = "Is the cup left or right of the cat?", ("right (B-side)", "left")
    task = "relative_position"
    assert found[key].asked == (
        Asked(question, "right (B-side)", options, boxes, task),
        Asked(question, "left", options, boxes, task),
    )


def test_lines_do_without_pairs(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.jpg").write_bytes(JPEG)
    lines = [{"image": name, "text": TEXT, "label": "B"} for name in ("a/x.jpg", "../y.jpg")]
    write_lines(tmp_path, lines)
    found = pictures(tmp_path)
    assert found["a/x.jpg"].asked[0].boxes == ()
    assert found["y.jpg"].error is not None
    assert found["y.jpg"].error.reason == "outside_source"


@pytest.mark.parametrize(
    "pair", [{}, [], {**PAIR, "options": []}, {**PAIR, "bbox": [[1, 2, 0, 4]]}, {"question": "Q"}]
)
def test_pairs_that_make_no_sense_are_bad_annotations(tmp_path: Path, pair: object) -> None:
    write_pairs(tmp_path, 1)
    (tmp_path / "direct_attributes" / "sa_0.json").write_text(json.dumps(pair))
    error = pictures(tmp_path)["direct_attributes/sa_0.jpg"].error
    assert error is not None
    assert error.reason == "bad_annotation"


def test_a_label_without_its_option_is_a_bad_annotation(tmp_path: Path) -> None:
    write_pairs(tmp_path, 1)
    key = "direct_attributes/sa_0.jpg"
    write_lines(tmp_path, [{"image": key, "text": TEXT, "label": "D"}])
    error = pictures(tmp_path)[key].error
    assert error is not None
    assert error.reason == "bad_annotation"


def test_what_is_no_vstar_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        open_source(f"vstar:{tmp_path}")
    (tmp_path / "test_questions.jsonl").write_text("{}\nnot json")
    with pytest.raises(SourceError, match="Line 1"):
        open_source(f"vstar:{tmp_path}")
