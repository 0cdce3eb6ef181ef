"""A published path over its picture: boxes in source pixels, views as the model was given them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import BadImage
from pipeline.geometry import Box, Frame, Size, zoom
from pipeline.sources.published import chain_of_focus, deepeyes, mini_o3, visual_cot
from pipeline.sources.published.paths import Crop, Imported, first_size, imported
from pipeline.sources.published.records import ANY, Layout, Look, Path
from pipeline.trajectory import parse, render
from tests.sources.published.datasets import picture, resized

LAW = settings(deadline=None, max_examples=60)


def path(*looks: Look, **fields: object) -> Path:
    return replace(Path("What?", "red", ("a.jpg",), looks), **fields)  # type: ignore[arg-type]


def look(*values: float, of: int = 0, thought: str = "Closer.") -> Look:
    return Look(thought, (values,), (True,), of=of)


def told(
    layout: Layout, asked: Path, image: Image.Image, crops: list[Crop] | None = None
) -> Imported:
    return imported(asked, layout, image, "f.json#0", crops or [])


@st.composite
def focus_paths(draw: st.DrawFn) -> tuple[Size, list[tuple[int, int, int, int]]]:
    """A picture's size, and boxes on it as a model sees it, none too thin to show."""
    size = draw(st.integers(112, 2400)), draw(st.integers(112, 2400))
    width, height = first_size(chain_of_focus.LAYOUT, size)
    boxes = []
    for _ in range(draw(st.integers(0, 3))):
        x0, y0 = draw(st.integers(0, width - 28)), draw(st.integers(0, height - 28))
        x1, y1 = draw(st.integers(x0 + 28, width)), draw(st.integers(y0 + 28, height))
        boxes.append((x0, y0, x1, y1))
    return size, boxes


@LAW
@given(focus_paths())
def test_rendering_an_imported_path_says_what_was_published(
    drawn: tuple[Size, list[tuple[int, int, int, int]]],
) -> None:
    size, boxes = drawn
    looks = [look(*box, thought=f"Look {n}.") for n, box in enumerate(boxes)]
    asked = path(*looks, coordinates="view", final_thought="Seen.")
    it = told(chain_of_focus.LAYOUT, asked, Image.new("RGB", size))
    frame = Frame("pixels", size, first_size(chain_of_focus.LAYOUT, size))
    chat = render(it.sample, it.trajectory, "cof-v2", frame)
    turns = [
        parse("".join(b["text"] for b in m["content"] if b["type"] == "text"), "cof-v2")
        for m in chat
        if m["role"] == "assistant"
    ]
    assert [t.thought for t in turns] == [f"Look {n}." for n in range(len(boxes))] + ["Seen."]
    assert turns[-1].answer == "red"
    for turn, box in zip(turns, boxes, strict=False):
        assert np.abs(np.subtract(turn.calls[0].box, box)).max() <= 1


def test_a_box_of_chain_of_focus_is_on_the_resized_picture() -> None:
    image = picture(1)
    seen = resized(image)
    box = Box(100, 120, 420, 400)
    crop = zoom(seen, box)
    it = told(chain_of_focus.LAYOUT, path(look(*box.as_list()), coordinates="view"), image, [crop])
    (step,) = it.trajectory.steps
    sx, sy = image.width / seen.width, image.height / seen.height
    exact = Box(box.x0 * sx, box.y0 * sy, box.x1 * sx, box.y1 * sy)
    assert step.boxes[0].iou(exact) >= 0.99
    assert it.trajectory.view.size == seen.size
    assert step.observation is not None and step.tool == "enlarge"
    assert step.observation.size == crop.size
    shown = box.enlarge(1.5, seen.size)
    region = Box(shown.x0 * sx, shown.y0 * sy, shown.x1 * sx, shown.y1 * sy)
    assert step.observation.region.iou(region) >= 0.99


def test_without_its_crop_a_view_has_the_size_the_tool_gives_it() -> None:
    image = picture(1)
    crop = zoom(resized(image), Box(100, 120, 420, 400))
    it = told(chain_of_focus.LAYOUT, path(look(100, 120, 420, 400), coordinates="view"), image)
    assert it.trajectory.steps[0].observation is not None
    assert it.trajectory.steps[0].observation.size == crop.size


def test_a_published_crop_tells_which_rule_cut_it() -> None:
    image = picture(1)
    asked = path(look(100, 120, 420, 400), coordinates="view")
    plain = zoom(resized(image), Box(100, 120, 420, 400), enlarge=1.0)
    (step,) = told(chain_of_focus.LAYOUT, asked, image, [plain]).trajectory.steps
    assert step.tool == "crop" and step.observation is not None
    assert step.observation.region == step.boxes[0]
    other = Image.fromarray(255 - np.asarray(plain))
    with pytest.raises(BadImage) as caught:
        told(chain_of_focus.LAYOUT, asked, image, [other])
    assert caught.value.reason == "crop_mismatch"


def test_deepeyes_cuts_a_box_to_the_picture_and_chain_of_focus_refuses_it() -> None:
    image = picture(3)
    asked = path(look(640, 200, 1004, 500), slack=ANY)
    (step,) = told(deepeyes.LAYOUT, asked, image).trajectory.steps
    assert step.boxes == (Box(640, 200, 1000, 500),)
    assert step.observation is not None and step.observation.region == step.boxes[0]
    assert step.observation.size == (364, 308)
    with pytest.raises(BadImage) as caught:
        told(chain_of_focus.LAYOUT, path(look(640, 200, 1010, 500), coordinates="view"), image)
    assert caught.value.reason == "bad_box"


@pytest.mark.parametrize(
    "values", [(1100, 10, 1200, 90), (9, 9, 9, 40), (50, 9, 20, 40), (0, 0, math.nan, 1)]
)
def test_a_box_that_shows_nothing_is_bad(values: tuple[float, ...]) -> None:
    with pytest.raises(BadImage) as caught:
        told(deepeyes.LAYOUT, path(look(*values), slack=ANY), picture(3))
    assert caught.value.reason == "bad_box"


def test_a_box_of_mini_o3_lies_on_the_view_it_names() -> None:
    image = picture(4)
    asked = path(
        look(0.25, 0.2, 0.85, 0.8), look(0.5, 0.25, 0.9, 0.75, of=1), coordinates="unit", slack=ANY
    )
    first, second = told(mini_o3.LAYOUT, asked, image).trajectory.steps
    assert first.boxes == (Box(250, 140, 850, 560),)
    assert second.boxes == (Box(550, 245, 790, 455),)
    assert second.observation is not None and second.observation.parent == 1
    assert second.observation.region == second.boxes[0]
    with pytest.raises(BadImage) as caught:
        told(mini_o3.LAYOUT, path(look(0, 0, 1, 1, of=1), coordinates="unit"), image)
    assert caught.value.reason == "bad_box"


def test_views_of_mini_o3_keep_its_limits_of_pixels() -> None:
    image = Image.new("RGB", (3000, 2000))
    asked = path(look(0.1, 0.1, 0.12, 0.12), coordinates="unit", slack=ANY)
    it = told(mini_o3.LAYOUT, asked, image)
    seen = it.trajectory.steps[0].observation
    assert it.trajectory.view.size == (1708, 1148) and seen is not None
    assert seen.size[0] * seen.size[1] >= 40_000
    assert it.trajectory.view.size[0] * it.trajectory.view.size[1] <= it.trajectory.resolution**2


def test_a_fraction_of_the_padded_square_may_pass_a_round_edge_by_its_last_decimal() -> None:
    image = Image.new("RGB", (400, 640))
    asked = path(coordinates="unit-padded", slack=0.001)
    whole = replace(asked, looks=(look(0.187, 0.0, 0.813, 1.0),))
    (step,) = told(visual_cot.LAYOUT, whole, image).trajectory.steps
    assert step.boxes == (Box(0, 0, 400, 640),)
    with pytest.raises(BadImage):
        told(visual_cot.LAYOUT, replace(asked, looks=(look(0.18, 0.0, 0.8, 1.0),)), image)


def test_texts_that_no_chat_can_hold_are_told() -> None:
    image = picture(0)
    for asked in (path(final_thought="<answer> no"), path(question="<|im_end|>")):
        with pytest.raises(BadImage) as caught:
            told(deepeyes.LAYOUT, asked, image)
        assert caught.value.reason == "not_parsed"


def test_a_second_look_at_the_same_place_gains_nothing() -> None:
    asked = path(look(300, 200, 500, 400), look(300, 200, 500, 400), slack=ANY)
    first, second = told(deepeyes.LAYOUT, asked, Image.new("RGB", (6000, 4000))).trajectory.steps
    assert (first.checks["no_gain"], second.checks["no_gain"]) == (False, True)
