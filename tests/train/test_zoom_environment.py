"""A rollout is shown what the data shows, and told and counted where nothing can be shown."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.agent.families import FAMILIES
from pipeline.errors import ConfigError
from pipeline.geometry import Box, Frame
from pipeline.samples import rng_for
from pipeline.sources.decode import decode, encode
from pipeline.train.agar import zoomed_rollouts
from pipeline.train.zoom_environment import ZoomEnvironment
from pipeline.views import first_view, zoomed

SIZE, BUDGET = (701, 503), 224
BOXES = (Box(100, 60, 340, 301), Box(611, 402, 650, 447), Box(1, 2, 30, 31))


@pytest.fixture(scope="module")
def row() -> dict[str, Any]:
    """A row of an RL export: the published picture, encoded, and its first view."""
    coarse = rng_for(1, "environment").integers(0, 256, (12, 16, 3), dtype=np.uint8)
    data = encode(Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC))
    view = Image.fromarray(first_view(decode(data), BUDGET).pixels)
    return {
        "source_image": {"bytes": data, "path": "1"},
        "images": [view],
        "resolution": BUDGET,
        "target": "blue",
    }


def opened(row: dict[str, Any], family: str = "qwen2.5-vl") -> ZoomEnvironment:
    environment = ZoomEnvironment(FAMILIES[family])
    assert environment.reset(**row) is None  # TRL would put a text into the prompt
    return environment


def frame_of(row: dict[str, Any], family: str) -> Frame:
    """The numbers in which the export writes boxes for the family."""
    kind = FAMILIES[family].kind
    view = FAMILIES[family].seen(row["images"][0].size) if kind == "pixels" else None
    return Frame(kind, SIZE, view)


def written(box: Box, row: dict[str, Any], family: str) -> list[float]:
    return list(box.as_written(frame_of(row, family)))


@pytest.mark.parametrize("family", ["qwen2.5-vl", "qwen3-vl"])
@pytest.mark.parametrize("box", BOXES)
def test_a_look_shows_the_pixels_that_the_data_shows(
    box: Box, family: str, row: dict[str, Any]
) -> None:
    environment, numbers = opened(row, family), written(box, row, family)
    (block,) = environment.image_zoom_in_tool(numbers, label="a sign")
    asked = Box.from_frame(numbers, frame_of(row, family))
    meant = zoomed(decode(row["source_image"]["bytes"]), asked, BUDGET, 0)
    assert block["type"] == "image"
    assert np.array_equal(np.asarray(block["image"]), meant.pixels)
    assert block["image"].width * block["image"].height <= BUDGET**2
    assert environment.looks == [{"zoomed": True, "no_gain": False}]


def test_a_look_has_source_pixels_that_the_first_view_lacks(row: dict[str, Any]) -> None:
    box = BOXES[1]
    (block,) = opened(row).image_zoom_in_tool(written(box, row, "qwen2.5-vl"))
    assert block["image"].width > row["images"][0].width * box.width * 1.5 / SIZE[0]


@pytest.mark.parametrize(
    "numbers", [[0, 0, 2000, 2000], [50, 50, 20, 20], [-5, 0, 20, 20], [10, 10, 10, 40]]
)
def test_a_box_that_names_no_pixels_is_told_and_no_look(
    numbers: list[float], row: dict[str, Any]
) -> None:
    environment = opened(row)
    (block,) = environment.image_zoom_in_tool(numbers)
    assert block["type"] == "text"
    assert block["text"].startswith("That turn could not be used: Box ")
    assert environment.looks == [{"zoomed": False, "no_gain": True}]
    assert zoomed_rollouts({"environments": [environment]}, 1) == [False]


def test_the_whole_picture_and_a_view_seen_before_bring_nothing_new(row: dict[str, Any]) -> None:
    environment = opened(row)
    whole = [0, 0, *row["images"][0].size]
    for numbers in (whole, written(BOXES[0], row, "qwen2.5-vl")) * 2:
        environment.image_zoom_in_tool(numbers)
    assert [look["no_gain"] for look in environment.looks] == [True, False, True, True]


def test_a_call_that_could_not_be_read_is_told_and_counted(row: dict[str, Any]) -> None:
    environment = opened(row)
    (block,) = environment.misread("A tool call is JSON.")
    assert block["text"].startswith("That turn could not be used: A tool call is JSON.")
    assert (environment.malformed, environment.looks) == (1, [])


def test_a_rollout_begins_with_nothing_of_the_one_before(row: dict[str, Any]) -> None:
    environment, numbers = opened(row), written(BOXES[0], row, "qwen2.5-vl")
    environment.image_zoom_in_tool(numbers)
    environment.misread("?")
    environment.reset(**row)
    assert (environment.looks, environment.malformed) == ([], 0)
    environment.image_zoom_in_tool(numbers)
    assert environment.looks == [{"zoomed": True, "no_gain": False}]


def test_a_rollout_that_answers_at_once_opens_no_picture(row: dict[str, Any]) -> None:
    opened(row | {"source_image": {"bytes": b"no picture", "path": None}})


@pytest.mark.parametrize("name", ["source_image", "resolution", "images"])
def test_a_row_without_what_a_zoom_needs_is_refused(name: str, row: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"no '{name}'"):
        opened({key: value for key, value in row.items() if key != name})


def test_a_view_of_another_budget_is_refused(row: dict[str, Any]) -> None:
    environment = opened(row | {"resolution": 448})
    with pytest.raises(ConfigError, match="at 448 it would be"):
        environment.image_zoom_in_tool([0, 0, 10, 10])


def test_nothing_but_the_two_answers_to_a_call_is_a_tool() -> None:
    public = [n for n, _ in inspect.getmembers(ZoomEnvironment, inspect.isfunction) if n[0] != "_"]
    assert public == ["image_zoom_in_tool", "misread", "reset"]
