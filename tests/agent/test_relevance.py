"""A look costs no more tokens than its target is worth, and never more than the budget."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipeline.agent.relevance import (
    LEAST_RESOLUTION,
    TARGET_PIXELS,
    pixels_on_target,
    relevance_map,
    zoom_resolution,
)
from pipeline.geometry import Box
from pipeline.views import View, first_view, zoomed

SIZE = (4000, 3000)
PICTURE = Image.new("RGB", SIZE)
BIG, SMALL = Box(500, 500, 2900, 2100), Box(1000, 1000, 1120, 1090)


@pytest.fixture(scope="module")
def view() -> View:
    return first_view(PICTURE, 672)


def test_a_map_holds_each_box_at_its_rank_and_nothing_elsewhere(view: View) -> None:
    found = relevance_map([SMALL, BIG], view)
    assert found.dtype == np.float32 and found.shape == (48, 64)
    assert found.max() == 1.0 and found.min() == 0.0
    outside = relevance_map([Box(0, 0, 400, 400)], view)
    assert pixels_on_target(BIG, view, outside) == 0


@pytest.mark.parametrize("box", [BIG, SMALL])
def test_the_pixels_on_a_target_are_those_of_its_box(view: View, box: Box) -> None:
    counted = pixels_on_target(box.enlarge(1.5, SIZE), view, relevance_map([box], view))
    assert counted == pytest.approx(box.area, rel=0.15)


def test_a_large_target_is_shown_smaller_and_a_small_one_as_large_as_the_budget_allows() -> None:
    for budget in (224, 672, 1920, 3840):
        large = zoom_resolution(BIG, SIZE, BIG.area, budget)
        small = zoom_resolution(BIG, SIZE, SMALL.area, budget)
        assert LEAST_RESOLUTION <= large <= small == budget
    look = zoomed(PICTURE, BIG, zoom_resolution(BIG, SIZE, BIG.area, 3840), 0)
    scale = look.observation.size[0] / look.observation.region.width
    assert BIG.area * scale**2 == pytest.approx(TARGET_PIXELS, rel=0.15)
    whole = zoomed(PICTURE, BIG, 3840, 0)
    assert look.observation.visual_tokens < 0.1 * whole.observation.visual_tokens
