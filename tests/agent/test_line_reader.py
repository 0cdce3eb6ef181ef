"""Laws of the second reader: it reads a tag roughly pointed at, or says nothing."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipeline.agent.line_reader import read_line
from pipeline.geometry import Box
from pipeline.scenes.tags import ALPHABET, COLORS, SHAPES, draw_tag
from pipeline.sources.decode import decode, encode
from pipeline.views import zoomed

CODES = tuple((ALPHABET + ALPHABET[:2])[place : place + 3] for place in range(0, 19, 3))
"""Every letter at least once."""
WIDEST = ("MWM", "WWW", "WMK")
SMALLEST_SIDE = 55
"""Of a tag whose capitals are 11 px high, the smallest that is planted."""


def ground(seed: int) -> Image.Image:
    """A busy picture of 400 × 320."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (16, 20, 3), dtype=np.uint8))
    return coarse.resize((400, 320), Image.Resampling.BICUBIC)


def published(
    shape: str, color: str, code: str, side: int, seed: int = 0
) -> tuple[Image.Image, Box]:
    """A picture with one tag on it after encoding, and the tag's box."""
    image, box = ground(seed), Box(150, 90, 150 + side, 90 + side)
    tag = draw_tag(shape, color, code, side)
    image.paste(tag, (150, 90), tag)
    return decode(encode(image)), box


def reading(image: Image.Image, box: Box, resolution: int = 448) -> str:
    """What is read where a zoom to `box` was asked for."""
    view = zoomed(image, box, resolution, 0)
    return read_line(view.pixels, view.to_view(box))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_letter_is_read_on_every_shape(shape: str) -> None:
    for seed, code in enumerate((*CODES, *WIDEST)):
        image, box = published(shape, list(COLORS)[seed % len(COLORS)], code, SMALLEST_SIDE, seed)
        assert reading(image, box) == code


@pytest.mark.parametrize("color", COLORS)
def test_dark_and_light_writing_is_read_on_every_color(color: str) -> None:
    image, box = published("hexagon", color, "K74", 80)
    assert reading(image, box) == "K74"


@pytest.mark.parametrize("resolution", [112, 224, 1920])
def test_a_crop_is_read_at_any_scale(resolution: int) -> None:
    image, box = published("triangle", "blue", "RX3", 200)
    assert reading(image, box, resolution) == "RX3"


@pytest.mark.parametrize("shape", ["circle", "triangle", "star"])
def test_a_box_that_is_only_roughly_right_is_enough(shape: str) -> None:
    image, box = published(shape, "green", "P4W", 90)
    rng = np.random.default_rng(3)
    for _ in range(5):
        off = rng.choice([-1, 1], 4) * rng.uniform(0.05, 0.18, 4) * box.width
        rough = Box(*(v + o for v, o in zip(box.as_list(), off, strict=True))).rounded()
        assert reading(image, rough) == "P4W"


def test_where_no_tag_is_nothing_is_read() -> None:
    assert {reading(ground(seed), Box(150, 90, 230, 170)) for seed in range(6)} == {""}


def test_a_blank_tag_has_nothing_to_read() -> None:
    image, box = published("circle", "red", "", 80)
    assert reading(image, box) == ""


def test_letters_of_five_pixels_are_read_as_in_a_first_view() -> None:
    side = 26
    image, box = published("hexagon", "orange", "7EK", 100)
    small = image.resize((4 * side, 320 * side // 100), Image.Resampling.LANCZOS)
    place = tuple(v * side / 100 for v in box.as_list())
    assert read_line(np.asarray(small), place) == "7EK"


def test_writing_of_a_few_pixels_is_unclear() -> None:
    image, box = published("square", "cyan", "NHM", 15)
    view = zoomed(image, box, 28, 0)
    assert read_line(view.pixels, view.to_view(box)) == ""


@pytest.mark.parametrize("box", [(500, 10, 600, 110), (-90, -90, 4, 4), (10, 10, 13, 13)])
def test_a_box_without_pixels_reads_as_nothing(box: tuple[float, float, float, float]) -> None:
    assert read_line(np.asarray(ground(0)), box) == ""
