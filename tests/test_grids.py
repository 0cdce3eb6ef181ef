"""Laws of the cells a box meets, and the published cells with their quirks."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, InvalidBox
from pipeline.grids import Grid, Panel, Rule, UnitBox, apply, grid_mask

GOLDENS = Path(__file__).parents[2] / "shared" / "goldens" / "c2f.json"
LAW = settings(deadline=None, max_examples=60)

units = st.integers(-20, 120).map(lambda n: n / 100)
boxes = st.tuples(units, units, units, units)
grids = st.tuples(st.integers(1, 30), st.integers(1, 30))

# Recorded from the published code: box, grid, expansion, square -> rows, columns (last included).
QUIRKS: list[tuple[UnitBox, Grid, float, bool, list[int], list[int]]] = [
    # An end within a whole side of the border snaps to it.
    ((0.25, 0.25, 0.75, 0.75), (24, 24), 1.0, True, [0, 23], [0, 23]),
    ((0.25, 0.25, 0.75, 0.75), (24, 24), 0.5, True, [8, 14], [8, 14]),
    ((0.45, 0.0, 0.55, 1.0), (24, 24), 1.0, True, [0, 23], [0, 23]),
    ((0.45, 0.0, 0.55, 1.0), (24, 24), 1.3, False, [0, 23], [10, 12]),
    # Cells are counted in 23rds.
    ((0.5, 0.5, 0.5, 0.5), (24, 24), 1.0, True, [11, 11], [11, 11]),
    ((0.0417, 0.0417, 0.0833, 0.0833), (24, 24), 0.5, True, [1, 1], [1, 1]),
    ((0.41, 0.38, 0.58, 0.62), (18, 32), 1.2, False, [6, 10], [12, 18]),
    ((0.41, 0.38, 0.58, 0.62), (2, 3), 1.0, True, [0, 0], [0, 1]),
    # Left of and above the picture, indices count from the other end.
    ((-0.5, -0.5, -0.1, -0.1), (24, 24), 1.0, True, [0, 22], [0, 22]),
    ((0.4, -3.0, 0.6, -0.5), (24, 24), 1.0, True, [0, 13], [0, 23]),
    # Pixels are the whole picture; an inverted side takes the length of the other.
    ((12.0, 40.0, 200.0, 180.0), (24, 24), 1.0, True, [0, 23], [0, 23]),
    ((0.6, 0.1, 0.2, 0.5), (24, 24), 1.0, True, [0, 11], [0, 13]),
    ((0.06, 0.30, 0.82, 0.85), (24, 24), 1.5, False, [0, 23], [0, 23]),
    ((0.202, 0.705, 0.397, 0.887), (24, 24), 1.5, False, [15, 23], [3, 10]),
]
NOTHING: list[tuple[UnitBox, float, bool]] = [
    ((1.2, 1.2, 1.6, 1.6), 1.0, True),
    ((0.6, 0.6, 0.2, 0.2), 1.0, True),
    ((0.6, 0.2, 0.5, 1.0), 0.8, False),
    ((0.958, 0.174, 0.392, 0.178), 2.0, False),
]


def ends(mask: np.ndarray) -> tuple[list[int], list[int]]:
    """First and last row and column of a mask that is one full rectangle."""
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert mask.sum() == (rows[-1] - rows[0] + 1) * (cols[-1] - cols[0] + 1)
    return [rows[0], rows[-1]], [cols[0], cols[-1]]


# The published rule


@pytest.mark.parametrize("case", QUIRKS, ids=str)
def test_the_published_cells_are_reproduced(
    case: tuple[UnitBox, Grid, float, bool, list[int], list[int]],
) -> None:
    box, grid, expansion, square, rows, cols = case
    assert ends(grid_mask(box, grid, expansion, square, compat=True)) == (rows, cols)


@pytest.mark.parametrize("case", NOTHING, ids=str)
def test_the_published_rule_leaves_some_boxes_without_a_cell(
    case: tuple[UnitBox, float, bool],
) -> None:
    assert not grid_mask(case[0], (24, 24), case[1], case[2], compat=True).any()


@pytest.mark.skipif(not GOLDENS.exists(), reason="the goldens beside the project are not here")
def test_every_recorded_mask_is_reproduced_bit_for_bit() -> None:
    cases = [case for case in json.loads(GOLDENS.read_text())["boxes"] if "bbox" in case]
    assert len(cases) == 252
    for case in cases:
        box, grid = case["bbox"], tuple(case["grid"])
        mask = grid_mask(box, grid, case["expansion"], case["square"], compat=True)
        told = case["mask"]["flat_sha256"]
        assert hashlib.sha256(mask.tobytes()).hexdigest().startswith(told), case


# The exact rule


@LAW
@given(boxes, grids)
def test_a_cell_is_marked_when_the_box_shares_area_with_it(box: UnitBox, grid: Grid) -> None:
    (x0, x1), (y0, y1) = sorted(box[::2]), sorted(box[1::2])
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, 1), min(y1, 1)
    mask = grid_mask(box, grid, square=False)
    if x0 > x1 or y0 > y1:
        assert not mask.any()
    elif x0 < x1 and y0 < y1:
        rows, cols = (np.arange(n) for n in grid)
        across = np.minimum(x1, (cols + 1) / grid[1]) - np.maximum(x0, cols / grid[1])
        down = np.minimum(y1, (rows + 1) / grid[0]) - np.maximum(y0, rows / grid[0])
        assert np.array_equal(mask, np.outer(down > 1e-9, across > 1e-9))


@LAW
@given(boxes, grids, st.floats(0.2, 3), st.booleans())
def test_exact_cells_are_a_rectangle_that_no_order_of_corners_changes(
    box: UnitBox, grid: Grid, expansion: float, square: bool
) -> None:
    mask = grid_mask(box, grid, expansion, square)
    assert mask.dtype == bool and mask.shape == grid
    if mask.any():
        ends(mask)
    turned = (box[2], box[1], box[0], box[3])
    assert np.array_equal(mask, grid_mask(turned, grid, expansion, square))
    if expansion >= 1:  # what grows loses no cell
        assert (mask >= grid_mask(box, grid, 1.0, False)).all()


@pytest.mark.parametrize("count", [3, 10, 20, 24, 49])
def test_a_box_along_the_lines_between_cells_has_these_cells_exactly(count: int) -> None:
    for first in range(count):
        for last in range(first + 1, count + 1):
            mask = grid_mask((first / count, 0.0, last / count, 1.0), (1, count), square=False)
            assert np.flatnonzero(mask).tolist() == list(range(first, last))
    assert grid_mask((0.0, 0.0, 0.28, 1.0), (1, 25), square=False).sum() == 7  # 0.28 × 25 > 7


def test_a_point_has_one_cell_and_the_far_corner_the_last() -> None:
    for point, cell in ((0.0, 0), (0.5, 2), (0.99, 3), (1.0, 3)):
        mask = grid_mask((point, point, point, point), (4, 4))
        assert np.argwhere(mask).tolist() == [[cell, cell]]


def test_what_only_touches_the_picture_from_outside_has_no_cell() -> None:
    for box in ((1.0, 0.2, 1.4, 0.4), (-0.3, 0.2, 0.0, 0.4), (0.2, 2.0, 0.4, 3.0)):
        assert not grid_mask(box, (8, 8)).any()


def test_sides_are_expanded_and_squared_about_the_centre_and_then_cut() -> None:
    wide = (0.25, 0.5, 0.5, 0.625)
    assert ends(grid_mask(wide, (16, 16), square=False)) == ([8, 9], [4, 7])
    assert ends(grid_mask(wide, (16, 16))) == ([7, 10], [4, 7])
    assert ends(grid_mask(wide, (16, 16), 2.0, square=False)) == ([7, 10], [2, 9])
    assert ends(grid_mask(wide, (16, 16), 4.0)) == ([1, 15], [0, 13])


def test_a_square_has_equal_sides_in_pixels_where_the_aspect_is_told() -> None:
    box = (0.4, 0.4, 0.6, 0.5)  # of 300 x 100 pixels: 60 x 10
    assert ends(grid_mask(box, (20, 60), aspect=3.0)) == ([3, 14], [24, 35])
    assert ends(grid_mask(box, (20, 60))) == ([7, 10], [24, 35])
    published = grid_mask(box, (20, 60), compat=True, aspect=3.0)
    assert np.array_equal(published, grid_mask(box, (20, 60), compat=True))


def test_several_boxes_mark_what_any_of_them_marks() -> None:
    one, two = (0.0, 0.0, 0.2, 0.2), (0.7, 0.7, 0.9, 0.9)
    rule = Rule(square=False)
    both = rule.mask([one, two], (10, 10))
    assert np.array_equal(both, rule.mask([one], (10, 10)) | rule.mask([two], (10, 10)))
    assert both.sum() == 8 and not rule.mask([], (10, 10)).any()


@pytest.mark.parametrize("compat", [False, True])
def test_what_is_no_box_or_no_setting_is_refused(compat: bool) -> None:
    for box in ((0.1, float("nan"), 0.2, 0.3), (0.1, 0.1, float("inf"), 0.2), (0.1, 0.2, 0.3)):
        with pytest.raises(InvalidBox):
            grid_mask(box, (4, 4), compat=compat)  # type: ignore[arg-type]
    for expansion in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="expansion"):
            grid_mask((0.1, 0.1, 0.2, 0.2), (4, 4), expansion, compat=compat)
    with pytest.raises(ValueError, match="no cells"):
        grid_mask((0.1, 0.1, 0.2, 0.2), (0, 4), compat=compat)


# Panels


def test_a_panel_leaves_out_what_has_no_key_and_adds_what_shows_no_place() -> None:
    panel = Panel((3, 2), kept=(slice(1, 3), slice(0, 2)), before=1, line_end=1)
    assert panel.whole().tolist() == [False, True, True, False, True, True, False]
    cells = np.array([[True, True], [False, True], [True, False]])
    assert panel.keys(cells).tolist() == [False, False, True, False, True, False, False]


def test_a_panel_reads_boxes_in_the_models_frame() -> None:
    panel = Panel((2, 4), at=(0.5, 0.5, 1.0, 0.0))  # the picture is the right half
    met = panel.met([(0.0, 0.0, 0.5, 0.5)], Rule(square=False)).reshape(2, 4)
    assert np.argwhere(met).tolist() == [[0, 2]]
    assert apply(panel.at, (0.0, 0.0, 1.0, 1.0)) == (0.5, 0.0, 1.0, 1.0)
