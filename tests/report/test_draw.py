"""A trajectory as a picture: boxes where the looks were, the crop beside them."""

from __future__ import annotations

import numpy as np
from PIL import Image

from pipeline.geometry import Box
from pipeline.report.draw import LOOK, TARGET, trajectory_picture
from pipeline.trajectory import FocusStep, Observation

BOX = Box(200, 100, 300, 160)


def steps(*, zoomed: bool = True) -> list[FocusStep]:
    seen = Observation(BOX.enlarge(1.5, (800, 600)), (280, 168))
    return [FocusStep("Too small here.", (BOX,), (zoomed,), observation=seen)]


def drawn(image: Image.Image, ink: tuple[int, int, int]) -> int:
    """How many pixels have exactly that colour."""
    return int((np.asarray(image) == np.array(ink)).all(axis=-1).sum())


def test_the_width_is_kept_and_the_text_makes_it_as_tall_as_needed() -> None:
    image = Image.new("RGB", (800, 600), (90, 90, 90))
    short = trajectory_picture(image, [], question="What?", answer="K7", width=900)
    long = trajectory_picture(
        image, steps() * 5, question="What is it? " * 20, answer="K7", width=900
    )
    assert short.width == long.width == 900
    assert long.height > short.height


def test_a_box_is_drawn_only_when_it_was_zoomed() -> None:
    image = Image.new("RGB", (800, 600), (90, 90, 90))
    marked = trajectory_picture(image, steps(), question="What?", answer="")
    named = trajectory_picture(image, steps(zoomed=False), question="What?", answer="")
    assert drawn(marked, LOOK) > 2 * drawn(named, LOOK)


def test_the_target_is_drawn_where_it_is() -> None:
    image = Image.new("RGB", (800, 600), (90, 90, 90))
    picture = trajectory_picture(image, [], question="", answer="", target_boxes=[BOX], width=1600)
    ys, xs = np.nonzero((np.asarray(picture) == np.array(TARGET)).all(axis=-1))
    scale = (1600 - 2 * 40 - 28) * 0.6 / 800
    assert abs(xs.min() - (40 + 200 * scale)) <= 4
    assert abs(ys.max() - (40 + 160 * scale)) <= 4


def test_a_view_of_another_shape_keeps_things_where_they_are() -> None:
    image = Image.new("RGB", (800, 600), (90, 90, 90))
    image.paste((20, 20, 220), (200, 100, 300, 160))

    def blue(view: tuple[int, int] | None) -> list[int]:
        drawn_ = np.asarray(trajectory_picture(image, [], question="", answer="", view=view))
        ys, xs = np.nonzero(drawn_[..., 2].astype(int) - drawn_[..., 0] > 100)
        return [xs.min(), ys.min(), xs.max(), ys.max()]

    assert np.abs(np.subtract(blue(None), blue((252, 140)))).max() <= 6


def test_the_source_picture_is_left_as_it_was() -> None:
    image = Image.new("RGB", (800, 600), (90, 90, 90))
    trajectory_picture(image, steps(), question="What?", answer="K7", target_boxes=[BOX])
    assert image.getcolors() == [(800 * 600, (90, 90, 90))]
