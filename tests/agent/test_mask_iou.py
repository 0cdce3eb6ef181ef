"""Laws of a box's fit: what a look was asked for is compared with what it holds, as it was seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.agent.mask_iou import mask_ious
from pipeline.agent.tools import Tools
from pipeline.geometry import Box
from pipeline.trajectory import FocusStep, Trajectory
from pipeline.views import first_view, zoomed
from tests.agent.fakes import Flat, GroundSegmenter, board, tag

STAR, CIRCLE = tag("red square", "A7K", (60, 60), 90), tag("blue square", "XR3", (500, 340), 80)
PICTURE = board((STAR, CIRCLE))
WIDE = STAR.box.enlarge(2, PICTURE.size)
BUDGET = 448


def looked(parent: int, box: Box, budget: int = BUDGET) -> FocusStep:
    """A look at a box from the view with this number."""
    seen = zoomed(PICTURE, box, budget, parent).observation
    return FocusStep("I look.", (box,), (True,), observation=seen)


def fits(*steps: FocusStep, regions: Sequence[Box] = ()) -> tuple[float | None, ...]:
    view = first_view(PICTURE, BUDGET).observation
    path = Trajectory("p#0", BUDGET, 0, view, steps, "", "", "answered", "list")
    return mask_ious(Tools(PICTURE, GroundSegmenter(), regions), path)


def test_a_box_that_fits_has_a_high_iou_and_one_that_does_not_a_low_one() -> None:
    half = Box(60, 60, 105, 150)
    tight, loose, cut = fits(looked(0, STAR.box), looked(0, WIDE), looked(0, half))
    assert tight is not None and tight > 0.85
    assert loose == pytest.approx(0.25, abs=0.05) and cut == pytest.approx(0.5, abs=0.06)


def test_a_look_from_a_look_is_outlined_in_the_view_that_it_was_asked_for_in() -> None:
    (near,) = fits(looked(0, STAR.box))
    (_, nearer) = fits(looked(0, WIDE), looked(1, STAR.box))
    assert near is not None and nearer is not None
    assert nearer > 0.9 and nearer != near


def test_the_mask_that_the_source_brings_goes_before_the_segmenters() -> None:
    known = STAR.box.enlarge(1.2, PICTURE.size)
    assert fits(looked(0, STAR.box), regions=[known]) == (STAR.box.iou(known),)
    assert fits(looked(0, STAR.box), regions=[STAR.box]) == (1.0,)


def test_where_nothing_is_outlined_there_is_no_fit() -> None:
    assert fits(looked(0, Box(300, 100, 380, 160))) == (None,)


def test_things_are_outlined_in_the_views_as_they_were_seen() -> None:
    class Watching(GroundSegmenter):
        def embed(self, image: np.ndarray) -> Flat:
            sizes.append(image.shape[1::-1])
            return super().embed(image)

    sizes: list[tuple[int, ...]] = []
    steps = (looked(0, WIDE, 112), looked(1, STAR.box, 56), looked(2, STAR.box, 84))
    view = first_view(PICTURE, BUDGET).observation
    path = Trajectory("p#0", BUDGET, 0, view, steps, "", "", "answered", "list")
    mask_ious(Tools(PICTURE, Watching()), path)
    seen = [view, *(step.observation for step in steps[:2])]
    assert sizes == [one.size for one in seen if one is not None]


def test_a_step_that_is_no_look_or_whose_box_was_not_in_view_has_no_fit() -> None:
    named = FocusStep("", (STAR.box,), (False,))
    astray = looked(2, STAR.box)  # its parent shows the other tag
    assert fits(named, looked(0, CIRCLE.box), astray)[::2] == (None, None)
