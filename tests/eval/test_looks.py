"""Laws of where each method looks."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.eval.looks import Method, finer, observations, tiles
from pipeline.geometry import Box, visual_tokens
from pipeline.salient import most_salient
from pipeline.trajectory import Observation

SIZES = st.tuples(st.integers(120, 4000), st.integers(120, 4000)).filter(
    lambda size: max(size) < 8 * min(size)
)
BUDGETS = st.sampled_from((112, 224, 448, 1024, 3840))


def shown(method: Method, size: tuple[int, int], resolution: int) -> list[Observation]:
    width, height = size
    boxes = [Box(width // 3, height // 3, width // 3 + 20, height // 3 + 15)]
    return observations(
        method,
        size,
        resolution,
        boxes=boxes,
        salient=Box(0, 0, width // 2, height // 2),
        rng=np.random.default_rng(3),
    )


@settings(max_examples=60, deadline=None)
@given(SIZES, BUDGETS, st.sampled_from(get_args(Method)))
def test_no_view_is_above_its_budget_or_outside_the_picture_and_the_first_is_the_whole(
    size: tuple[int, int], resolution: int, method: Method
) -> None:
    views = shown(method, size, resolution)
    whole = Box(0, 0, *size)
    assert views[0].region == whole
    for view in views:
        assert view.size[0] * view.size[1] <= resolution**2
        assert whole.contains(view.region) and view.magnification <= 2.001


@settings(max_examples=40, deadline=None)
@given(SIZES, st.integers(1, 6))
def test_tiles_cover_the_picture(size: tuple[int, int], cells: int) -> None:
    seen = np.zeros((size[1], size[0]), bool)
    for cell in tiles(size, cells):
        x0, y0, x1, y1 = cell.as_list()
        seen[y0:y1, x0:x1] = True
    assert seen.all() and len(tiles(size, cells)) == cells**2


def test_uniform_costs_as_much_as_a_view_and_a_look() -> None:
    (once,) = shown("direct", (4000, 3000), 448)
    (more,) = shown("direct", (4000, 3000), finer(448))
    assert visual_tokens(more.size) == pytest.approx(2 * visual_tokens(once.size), rel=0.1)


def test_the_controls_show_as_much_of_the_picture_one_where_the_answer_is() -> None:
    size = (2048, 1536)
    box = Box(1000, 700, 1060, 730)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        _, told = observations("oracle-crop", size, 448, boxes=[box])
        _, drawn = observations("random-crop", size, 448, boxes=[box], rng=rng)
        assert told.region.contains(box)
        assert drawn.size == told.size and drawn.region.area == told.region.area


def test_the_most_salient_window_holds_what_stands_out() -> None:
    saliency = np.full((90, 120), 0.01, np.float32)
    saliency[60:70, 100:110] = 1
    box = most_salient(saliency)
    assert box.contains(Box(100, 60, 110, 70)) and (box.width, box.height) == (40, 30)
