"""Laws of views: the budget, the frames, and that pixels come from the source and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import InvalidBox
from pipeline.geometry import FACTOR, Box, Size
from pipeline.views import ENLARGE, View, crop_region, first_view, zoomed

LAW = settings(deadline=None, max_examples=25)  # a busy machine breaks no law
RESOLUTION = st.integers(FACTOR, 700)
SIDE = st.integers(FACTOR, 420)
SIZE = st.tuples(SIDE, SIDE)


def plain(size: Size) -> Image.Image:
    return Image.new("RGB", size, (90, 120, 150))


def noise(size: Size, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@st.composite
def pictured(draw: st.DrawFn) -> tuple[Size, Box]:
    """A picture's size and a box of whole pixels inside it."""
    width, height = draw(SIZE)
    x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    x1, y1 = draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))
    return (width, height), Box(x0, y0, x1, y1)


def check_law(view: View, source: Size, resolution: int) -> None:
    """The observation law, for a view of a picture."""
    (width, height), region = view.observation.size, view.observation.region
    assert view.pixels.shape == (height, width, 3) and view.pixels.dtype == np.uint8
    assert width * height <= resolution**2
    assert width % FACTOR == height % FACTOR == 0
    assert width <= 2 * region.width and height <= 2 * region.height
    assert region.clip(source) == region == region.rounded()


@LAW
@given(size=SIZE, resolution=RESOLUTION)
def test_a_first_view_keeps_the_observation_law_and_shows_the_whole(
    size: Size, resolution: int
) -> None:
    view = first_view(plain(size), resolution)
    check_law(view, size, resolution)
    assert view.observation.region == Box(0, 0, *size)
    assert view.observation.parent is None


@LAW
@given(case=pictured(), resolution=RESOLUTION)
def test_a_crop_keeps_the_observation_law_and_shows_its_box(
    case: tuple[Size, Box], resolution: int
) -> None:
    size, box = case
    view = zoomed(plain(size), box, resolution, parent=3)
    check_law(view, size, resolution)
    assert view.observation.region.contains(box)
    assert view.observation.parent == 3


@LAW
@given(case=pictured())
def test_a_crop_is_the_box_enlarged_or_the_smallest_that_can_be_shown(
    case: tuple[Size, Box],
) -> None:
    size, box = case
    region = crop_region(box, size)
    assert min(region.width, region.height) >= FACTOR
    assert region.width <= max(ENLARGE * box.width + 1, FACTOR)
    assert region.height <= max(ENLARGE * box.height + 1, FACTOR)


def test_a_crop_shows_twice_the_source_where_the_budget_allows() -> None:
    view = zoomed(plain((900, 900)), Box(400, 400, 512, 456), 1000, 0)
    assert view.observation.region == Box(372, 386, 540, 470)
    assert view.observation.size == (336, 168)


@LAW
@given(case=pictured(), resolution=RESOLUTION)
def test_a_source_box_comes_back_from_a_view_unchanged(
    case: tuple[Size, Box], resolution: int
) -> None:
    size, box = case
    for view in (first_view(plain(size), resolution), zoomed(plain(size), box, resolution, 0)):
        assert view.to_source(view.to_view(box)) == box


@LAW
@given(case=pictured(), resolution=RESOLUTION, shift=st.floats(-0.49, 0.49))
def test_a_view_box_comes_back_from_the_source_within_a_pixel_s_worth(
    case: tuple[Size, Box], resolution: int, shift: float
) -> None:
    size, box = case
    view = zoomed(plain(size), box, resolution, 0)
    shifted = Box(box.x0 + shift, box.y0 + shift, box.x1 + shift, box.y1 + shift)
    asked = view.to_view(shifted)
    again = view.to_view(view.to_source(asked))
    region, (width, height) = view.observation.region, view.observation.size
    pixel = (width / region.width, height / region.height) * 2
    assert all(abs(a - b) <= p for a, b, p in zip(asked, again, pixel, strict=True))


def test_a_box_of_a_view_is_never_less_than_a_source_pixel() -> None:
    view = first_view(plain((1000, 500)), 112)
    assert view.to_source((10.0, 10.0, 10.01, 10.01)).area == 1


@LAW
@given(
    case=pictured(),
    side=st.sampled_from(["left", "right", "above", "below"]),
    gap=st.integers(0, 50),
)
def test_a_box_outside_the_picture_is_refused_and_never_the_whole(
    case: tuple[Size, Box], side: str, gap: int
) -> None:
    (width, height), box = case
    dx = {"left": -box.x1 - gap, "right": width - box.x0 + gap}.get(side, 0)
    dy = {"above": -box.y1 - gap, "below": height - box.y0 + gap}.get(side, 0)
    outside = Box(box.x0 + dx, box.y0 + dy, box.x1 + dx, box.y1 + dy)
    with pytest.raises(InvalidBox):
        zoomed(plain((width, height)), outside, 448, 0)


def test_a_box_that_reaches_outside_shows_its_part_of_the_picture() -> None:
    view = zoomed(plain((400, 300)), Box(350, 250, 500, 400), 448, 0)
    assert view.observation.region == crop_region(Box(350, 250, 400, 300), (400, 300))


def test_a_region_too_thin_to_show_is_refused() -> None:
    with pytest.raises(InvalidBox, match="too thin"):
        zoomed(plain((8000, 40)), Box(0, 10, 8000, 30), 448, 0)


def test_crops_are_cut_from_the_source_and_not_from_the_first_view() -> None:
    pixels = np.full((900, 1200, 3), 128, np.uint8)
    rows, cols = np.indices((64, 64))
    pixels[400:464, 600:664] = (((rows + cols) % 2) * 255)[..., None]
    image, box = Image.fromarray(pixels), Box(600, 400, 664, 464)
    first, crop = first_view(image, 224), zoomed(image, box, 224, 0)
    assert _spread(first, box) < 12
    assert _spread(crop, box) > 40


def _spread(view: View, box: Box) -> float:
    """Standard deviation of the view's pixels well inside a source box."""
    x0, y0, x1, y1 = (round(v) for v in view.to_view(box.enlarge(0.6, (1200, 900))))
    return float(view.pixels[y0:y1, x0:x1].std())


@LAW
@given(case=pictured(), resolution=RESOLUTION)
def test_a_crop_depends_on_no_pixel_outside_its_region(
    case: tuple[Size, Box], resolution: int
) -> None:
    size, box = case
    one, other = noise(size, seed=1), noise(size, seed=2)
    region = tuple(int(v) for v in crop_region(box, size).as_list())
    other.paste(one.crop(region), region[:2])
    views = [zoomed(image, box, resolution, 0).pixels for image in (one, other)]
    assert (views[0] == views[1]).all()
