"""Laws of boxes, frames, budgets and the zoom, and the published numbers.

`goldens/cof_reasoning.json` was recorded from the published code. Where that code is wrong (a bad
box becomes the whole image, a bool counts as a number), the tests say what is right here instead.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import ConfigError, GrammarError, InvalidBox
from pipeline.geometry import (
    FACTOR,
    RESOLUTIONS,
    Box,
    Frame,
    FrameKind,
    Size,
    smart_resize,
    view_size,
    zoom,
)
from pipeline.grammar import parse

LAW = settings(deadline=None, max_examples=40)  # a busy machine breaks no law
CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "goldens" / "cof_reasoning.json").read_text()
)


def golden(*functions: str) -> pytest.MarkDecorator:
    """Parametrises over the recorded cases of these functions."""
    chosen = [c for c in CASES if c["name"].split("/")[0] in functions]
    assert chosen
    return pytest.mark.parametrize("case", chosen, ids=[c["name"] for c in chosen])


def pixel_frame(size: Size) -> Frame:
    """Boxes in pixels of a picture that was not resized, as the recorded cases have them."""
    return Frame("pixels", size, size)


def gradient(size: Size) -> Image.Image:
    """The picture of the recorded pixels: R = x % 256, G = y % 256, B = 128."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    return Image.fromarray(np.stack([x % 256, y % 256, x * 0 + 128], -1).astype(np.uint8))


# The published numbers


@golden("smart_resize")
def test_smart_resize_gives_the_published_sizes(case: dict[str, Any]) -> None:
    if isinstance(case["expected"], dict):
        error = {"ZeroDivisionError": ZeroDivisionError, "ValueError": ValueError}
        with pytest.raises(error[case["expected"]["raises"]]):
            smart_resize(**case["inputs"])
    else:
        assert list(smart_resize(**case["inputs"])) == case["expected"]


@golden("eval_check_bbox", "rl_check_bbox")
def test_a_box_is_valid_where_the_published_check_says_so(case: dict[str, Any]) -> None:
    values, size = case["inputs"]["bbox"], (case["inputs"]["w"], case["inputs"]["h"])
    valid = isinstance(case["expected"], list) and case["expected"][0]
    if case["name"] == "eval_check_bbox/bool_counts_as_int":
        valid = False  # a bool is no coordinate: the published check takes it for 0 or 1
    if valid:
        assert Box.from_frame(values, pixel_frame(size)).as_list() == values
    else:
        with pytest.raises(InvalidBox):
            Box.from_frame(values, pixel_frame(size))


REFUSED_CALLS = {
    "eval_find_bbox/wrong_tool_name_still_used": "There is no tool",  # published: used all the same
    "eval_find_bbox/unclosed_tag": "not closed",  # published: the whole image
    "eval_find_bbox/bad_json": "JSON",  # published: the whole image
    "eval_find_bbox/missing_arguments": "arguments",
    "eval_find_bbox/bbox_string": "list of four numbers",
    "eval_find_bbox/nested_list": "four numbers, not 1",
}


def with_thought(text: str) -> str:
    """The published code finds a call in any text; a turn of ours begins with its thought."""
    return text if text.startswith("<think>") else f"<think> look </think>\n{text}"


@golden("eval_find_bbox")
def test_a_call_names_the_published_region(case: dict[str, Any]) -> None:
    size = tuple(case["inputs"]["image_size_wh"])
    text = with_thought(case["inputs"]["text"])
    if case["name"] in REFUSED_CALLS:
        with pytest.raises(GrammarError, match=REFUSED_CALLS[case["name"]]):
            parse(text, "cof-v2")
        return
    values = parse(text, "cof-v2").calls[0].box
    if case["expected"] is None:  # a bad box: an error here, the whole image there
        with pytest.raises(InvalidBox):
            Box.from_frame(values, pixel_frame(size))
        return
    box = Box.from_frame(values, pixel_frame(size))
    assert box.enlarge(case["inputs"]["enlarge_factor"], size).as_list() == case["expected"]


def test_every_call_of_a_turn_is_kept_where_the_published_code_uses_the_first() -> None:
    case = next(c for c in CASES if c["name"] == "eval_find_bbox/two_calls_first_wins")
    calls = parse(case["inputs"]["text"], "cof-v2").calls
    assert [call.box for call in calls] == [(10, 10, 50, 50), (100, 100, 200, 200)]


@golden("rl_enlarge")
def test_enlarging_gives_the_published_boxes(case: dict[str, Any]) -> None:
    size = tuple(case["inputs"]["image_size_wh"])
    grown = Box(*case["inputs"]["bbox"]).enlarge(case["inputs"]["enlarge_factor"], size)
    assert grown.as_list() == case["expected"]


@golden("eval_do_crop")
def test_a_zoom_has_the_published_size(case: dict[str, Any]) -> None:
    inputs = case["inputs"]
    picture = gradient(tuple(inputs["image_size_wh"]))
    settings = {k: inputs[k] for k in ("min_pixels", "max_pixels") if k in inputs}
    if "{bad}" in inputs["text"]:  # published: the whole image, twice as large
        with pytest.raises(GrammarError):
            parse(with_thought(inputs["text"]), "cof-v2")
        return
    box = Box(*parse(inputs["text"], "cof-v2").calls[0].box)

    def look() -> Image.Image:
        enlarge, scale = inputs["enlarge_factor"], inputs["scaleup_factor"]
        return zoom(picture, box, enlarge=enlarge, scale=scale, **settings)

    if "thin_ratio_over_200" in case["name"]:  # published: the whole image
        with pytest.raises(InvalidBox, match="200"):
            look()
        return
    shown = look()
    if isinstance(case["expected"], list):
        assert list(shown.size) == case["expected"]
        return
    assert list(shown.size) == case["expected"]["size_wh"]
    pixels = np.asarray(shown).astype(int)
    off = np.abs(pixels.sum((0, 1)) - case["expected"]["sum_rgb"])
    assert (off <= pixels[..., 0].size).all(), "±1 a pixel across builds of Pillow"
    assert np.abs(pixels[0, 0] - case["expected"]["px_0_0"]).max() <= 1


@golden("rl_do_crop")
def test_a_zoom_has_the_published_size_in_training(case: dict[str, Any]) -> None:
    inputs = case["inputs"]
    picture, box = gradient(tuple(inputs["image_size_wh"])), Box(*inputs["bbox"])

    def look() -> Image.Image:
        return zoom(
            picture,
            box,
            enlarge=inputs["enlarge_factor"],
            scale=inputs["scaleup_factor"],
            min_pixels=inputs["min_resolution"] ** 2,
            max_pixels=inputs["max_pixels"],
        )

    if isinstance(case["expected"], dict):  # published: ZeroDivisionError
        with pytest.raises(InvalidBox):
            look()
    else:
        assert list(look().size) == case["expected"]


# Boxes

sides = st.integers(28, 4000)
sizes = st.tuples(sides, sides)


@st.composite
def boxes_within(draw: st.DrawFn, size: Size, least: float = 1) -> Box:
    """A box inside a picture of `size`, its sides at least `least` pixels, corners anywhere."""

    def side(whole: int) -> tuple[float, float]:
        start = draw(st.floats(0, whole - least))
        end = draw(st.floats(start + least, whole)) if start + least < whole else float(whole)
        assume(end - start >= least)
        return start, end

    (x0, x1), (y0, y1) = side(size[0]), side(size[1])
    return Box(x0, y0, x1, y1)


@st.composite
def pictured(draw: st.DrawFn, least: float = 1) -> tuple[Size, Box]:
    """The size of a picture and a box in it."""
    size = draw(sizes)
    return size, draw(boxes_within(size, least))


@LAW
@given(sizes.flatmap(lambda size: st.tuples(boxes_within(size), boxes_within(size))))
def test_iou_is_symmetric_and_between_0_and_1(pair: tuple[Box, Box]) -> None:
    one, other = pair
    assert one.iou(other) == other.iou(one)
    assert 0 <= one.iou(other) <= 1
    assert one.iou(one) == 1


@LAW
@given(pictured(), st.floats(1, 5))
def test_enlarging_stays_inside_and_loses_less_than_a_pixel(
    case: tuple[Size, Box], factor: float
) -> None:
    size, box = case
    grown = box.enlarge(factor, size)
    assert Box(0, 0, *size).contains(grown)
    dust = 1e-6
    reach = Box(grown.x0 - dust, grown.y0 - dust, grown.x1 + 1 + dust, grown.y1 + 1 + dust)
    assert reach.contains(box)
    assert all(value == int(value) for value in grown.as_list())


@pytest.mark.parametrize(
    "values",
    [
        (10, 10, 10, 20),
        (10, 10, 20, 5),
        (0, 0, math.nan, 5),
        (0, 0, math.inf, 5),
        (-math.inf, 0, 5, 5),
    ],
)
def test_a_box_without_area_or_end_cannot_be_made(values: tuple[float, ...]) -> None:
    with pytest.raises(InvalidBox):
        Box(*values)


def test_a_box_outside_the_picture_has_no_part_to_clip_to() -> None:
    with pytest.raises(InvalidBox):
        Box(700, 10, 800, 20).clip((640, 480))
    assert Box(600, 400, 800, 500).clip((640, 480)) == Box(600, 400, 640, 480)


# Frames


def frame_of(kind: FrameKind, size: Size, resolution: int = 1024) -> Frame:
    return Frame(kind, size, view_size(size, resolution) if kind == "pixels" else None)


kinds = st.sampled_from(["pixels", "thousand", "unit", "unit-padded"])


@LAW
@given(pictured(), kinds, st.sampled_from(RESOLUTIONS))
def test_a_box_returns_from_every_frame_within_one_pixel(
    case: tuple[Size, Box], kind: FrameKind, resolution: int
) -> None:
    size, box = case
    frame = frame_of(kind, size, resolution)
    back = Box.from_frame(box.to_frame(frame), frame)
    assert max(abs(a - b) for a, b in zip(back.as_list(), box.as_list(), strict=True)) <= 1
    assert Box(0, 0, *size).contains(back)


@LAW
@given(pictured(), kinds, st.sampled_from(RESOLUTIONS))
def test_a_written_box_can_always_be_read_and_is_off_by_at_most_its_last_digit(
    case: tuple[Size, Box], kind: FrameKind, resolution: int
) -> None:
    size, box = case
    frame = frame_of(kind, size, resolution)
    written = box.as_written(frame)
    back = Box.from_frame(written, frame)
    assert Box(0, 0, *size).contains(back)
    assert all(isinstance(value, int) for value in written) == (frame.digits == 0)
    assert all(round(value, frame.digits) == value for value in written)
    scales = frame.axes()[:2] * 2
    for a, b, scale in zip(back.as_list(), box.as_list(), scales, strict=True):
        assert abs(a - b) <= 1.5 * 10**-frame.digits / scale + 1.5


@LAW
@given(sizes, kinds)
def test_the_whole_picture_can_be_written_in_every_frame(size: Size, kind: FrameKind) -> None:
    whole, frame = Box(0, 0, *size), frame_of(kind, size)
    assert Box.from_frame(whole.as_written(frame), frame) == whole


@pytest.mark.parametrize("kind", ["pixels", "thousand", "unit", "unit-padded"])
def test_the_last_pixel_of_a_large_picture_can_be_written(kind: FrameKind) -> None:
    size = (12000, 9000)
    frame = frame_of(kind, size, 224)
    written = Box(11999, 8999, *size).as_written(frame)
    assert written[0] < written[2] and written[1] < written[3]
    back = Box.from_frame(written, frame)
    assert (back.x1, back.y1) == size


@pytest.mark.parametrize(
    "values",
    [
        None,
        "1,2,3,4",
        [1, 2, 3],
        [1, 2, 3, True],
        [1, 2, 3, "4"],
        [[1], 2, 3, 4],
        [0, 0, math.inf, 4],
        [0, 0, math.nan, 4],
        [0, 0, 10**400, 4],
        [0, 0, 641, 4],
        [-1, 0, 4, 4],
        [0.1, 0.1, 0.4, 0.4],
    ],
)
def test_what_is_no_box_of_the_picture_is_refused(values: Any) -> None:
    with pytest.raises(InvalidBox):
        Box.from_frame(values, pixel_frame((640, 480)))


def test_a_frame_has_a_view_when_and_only_when_it_counts_pixels() -> None:
    with pytest.raises(ConfigError):
        Frame("pixels", (640, 480))
    with pytest.raises(ConfigError):
        Frame("unit", (640, 480), (640, 480))
    with pytest.raises(ConfigError):
        Frame("pixels", (640, 480), (0, 480))


# Budgets

regions = st.tuples(st.integers(14, 8000), st.integers(14, 8000)).filter(
    lambda r: max(r) <= 200 * min(r)
)
thin_regions = st.integers(14, 40).flatmap(lambda s: st.tuples(st.just(s), st.integers(s, 200 * s)))


@LAW
@given(
    regions | thin_regions, st.sampled_from(RESOLUTIONS) | st.integers(28, 4000), st.floats(0.5, 3)
)
def test_the_observation_law_holds_for_every_region(
    region: Size, resolution: int, magnify: float
) -> None:
    width, height = view_size(region, resolution, magnify=magnify)
    assert width * height <= resolution**2
    assert width % FACTOR == height % FACTOR == 0 < min(width, height)
    assert width <= 2 * region[0] and height <= 2 * region[1]


@LAW
@given(st.integers(200, 6000), st.floats(0.5, 2), st.sampled_from(RESOLUTIONS))
def test_a_view_is_the_published_size_where_the_published_rule_keeps_the_law(
    width: int, aspect: float, resolution: int
) -> None:
    height = max(200, int(width * aspect))
    assume(height < 3 * width)
    rows, cols = smart_resize(height, width, max_pixels=resolution**2)
    assert view_size((width, height), resolution) == (cols, rows)


def test_a_region_too_small_or_too_thin_is_no_view_and_a_budget_below_one_token_no_budget() -> None:
    for region in [(13, 100), (100, 13), (14, 2801)]:
        with pytest.raises(InvalidBox):
            view_size(region, 448)
    with pytest.raises(ConfigError):
        view_size((100, 100), 27)


# The zoom


@pytest.mark.parametrize(
    "values",
    [(-1, 0, 50, 50), (0, 0, 201, 50), (150, 10, 250, 40), (300, 300, 400, 400), (0, -5, 200, 100)],
)
def test_a_box_outside_the_picture_is_refused_and_never_the_whole_image(
    values: tuple[float, ...],
) -> None:
    with pytest.raises(InvalidBox):
        zoom(gradient((200, 100)), Box(*values))


def test_a_region_too_thin_for_its_budget_is_refused() -> None:
    with pytest.raises(InvalidBox, match="too thin"):
        zoom(
            gradient((2000, 10)),
            Box(0, 0, 2000, 10),
            enlarge=1,
            scale=1,
            min_pixels=784,
            max_pixels=3136,
        )


@LAW
@given(
    st.tuples(*[st.floats(-20, 120)] * 4),
    st.sampled_from([1.0, 1.5, 3.0]),
    st.sampled_from([0.3, 1.0, 2.0]),
)
def test_a_zoom_shows_its_box_or_refuses(
    values: tuple[float, ...], enlarge: float, scale: float
) -> None:
    picture = gradient((100, 60))
    try:
        box = Box(*values)
        shown = zoom(picture, box, enlarge=enlarge, scale=scale, min_pixels=784, max_pixels=50176)
    except InvalidBox:
        return
    assert Box(0, 0, 100, 60).contains(box)
    region = box.enlarge(enlarge, picture.size)
    rows, cols = smart_resize(int(region.height * scale), int(region.width * scale), 28, 784, 50176)
    assert shown.size == (cols, rows)
    red = np.asarray(shown)[..., 0]
    assert region.x0 - 1 <= red.min() and red.max() <= region.x1 + 1


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "LA"])
def test_a_zoom_into_any_kind_of_picture_is_rgb(mode: str) -> None:
    shown = zoom(gradient((80, 60)).convert("L").convert(mode), Box(10, 10, 40, 40))
    assert shown.mode == "RGB"
