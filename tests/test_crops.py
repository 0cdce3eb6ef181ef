"""A look's region follows from its tool and its box, whoever made the tool."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.crops import LEAST_SQUARE_PX, RULES, region_shown
from pipeline.errors import InvalidBox
from pipeline.geometry import Box
from pipeline.views import crop_region

SIZE = (640, 480)
LAW = settings(deadline=None, max_examples=60)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    x0, y0 = draw(st.integers(0, SIZE[0] - 1)), draw(st.integers(0, SIZE[1] - 1))
    x1, y1 = draw(st.integers(x0 + 1, SIZE[0])), draw(st.integers(y0 + 1, SIZE[1]))
    return Box(x0, y0, x1, y1)


@LAW
@given(boxes(), st.sampled_from(sorted(RULES)))
def test_a_region_is_whole_pixels_of_the_picture_and_holds_the_boxs_middle(
    box: Box, tool: str
) -> None:
    region = region_shown(tool, box, SIZE)
    assert Box(0, 0, *SIZE).contains(region)
    assert all(float(side).is_integer() for side in region.as_list())
    x, y = box.centre
    assert region.x0 <= x <= region.x1 and region.y0 <= y <= region.y1


@LAW
@given(boxes())
def test_the_square_has_the_published_sides_where_the_picture_has_room(box: Box) -> None:
    region = region_shown("square", box, SIZE)
    side = max(int(box.width) // 2, int(box.height) // 2, LEAST_SQUARE_PX // 2) * 2
    assert (region.width, region.height) == (min(side, SIZE[0]), min(side, SIZE[1]))


def test_goldens_of_the_published_rules() -> None:
    box = Box(100, 100, 200, 180)
    assert region_shown("enlarge", box, SIZE) == Box(75, 80, 225, 200)
    assert region_shown("crop", box, SIZE) == box
    assert region_shown("square", box, SIZE) == Box(38, 28, 262, 252)
    assert region_shown("square", Box(0, 0, 20, 20), SIZE) == Box(0, 0, 224, 224)
    assert region_shown("enlarge", Box(10, 10, 14, 14), SIZE) == Box(9, 9, 15, 15)


def test_a_tool_without_a_rule_shows_what_ours_shows() -> None:
    box = Box(10, 10, 14, 14)
    assert region_shown("zoom", box, SIZE) == region_shown("vlm", box, SIZE)
    assert region_shown("vlm", box, SIZE) == crop_region(box, SIZE)


@pytest.mark.parametrize("tool", sorted(RULES))
def test_a_box_outside_shows_nothing(tool: str) -> None:
    with pytest.raises(InvalidBox):
        region_shown(tool, Box(700, 10, 720, 30), SIZE)
