"""Laws of drawn tags: their box, their text, their colours."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageFont

from pipeline.scenes.tags import (
    ALPHABET,
    COLORS,
    SHAPES,
    TEXT_HEIGHT,
    draw_mask,
    draw_tag,
    text_color,
)


def _alpha(tag: Image.Image) -> np.ndarray:
    return np.asarray(tag.getchannel("A")) > 127


def _ink(shape: str, code: str, side: int, rotation: float = 0.0) -> np.ndarray:
    """Where the code's ink is: where the tag differs from a blank one."""
    written = np.asarray(draw_tag(shape, "blue", code, side, rotation_deg=rotation).convert("RGB"))
    blank = np.asarray(draw_tag(shape, "blue", "", side, rotation_deg=rotation).convert("RGB"))
    return np.abs(written.astype(int) - blank).sum(2) > 120


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rotation", [0.0, 12.0, -80.0])
@pytest.mark.parametrize("side", [8, 33, 100, 300])
def test_a_tag_fills_its_picture_to_within_a_pixel(shape: str, rotation: float, side: int) -> None:
    inside = _alpha(draw_tag(shape, "red", "A7K", side, rotation_deg=rotation))
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    assert rows[0] <= 1 and columns[0] <= 1
    assert rows[-1] >= side - 2 and columns[-1] >= side - 2


@pytest.mark.parametrize("shape", SHAPES)
def test_the_mask_is_the_tag_s_alpha(shape: str) -> None:
    tag = draw_tag(shape, "green", "XY", 41, rotation_deg=20)
    assert (draw_mask(shape, 41, rotation_deg=20) == _alpha(tag)).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rotation", [-10.0, 0.0, 10.0])
def test_the_widest_code_stays_inside_every_shape(shape: str, rotation: float) -> None:
    ink = _ink(shape, "MWMW", 200, rotation)
    assert ink.any()
    assert not (ink & ~draw_mask(shape, 200, rotation_deg=rotation)).any()


@pytest.mark.parametrize("shape", SHAPES)
def test_capitals_have_the_same_height_on_every_shape(shape: str) -> None:
    rows = np.flatnonzero(_ink(shape, "HE", 300).any(1))
    assert (rows[-1] + 1 - rows[0]) / 300 == pytest.approx(TEXT_HEIGHT, abs=0.012)


def test_another_font_changes_the_letters_and_not_their_height() -> None:
    small = ImageFont.load_default(14)
    rows = np.flatnonzero(
        (
            np.asarray(draw_tag("square", "blue", "H", 300, font=small).convert("L")).astype(int)
            - np.asarray(draw_tag("square", "blue", "", 300).convert("L"))
            > 80
        ).any(1)
    )
    assert (rows[-1] + 1 - rows[0]) / 300 == pytest.approx(TEXT_HEIGHT, abs=0.02)


def test_colours_are_far_apart_and_their_text_stands_out() -> None:
    for one, other in combinations(COLORS.values(), 2):
        assert np.linalg.norm(np.subtract(one, other)) > 90
    for color, rgb in COLORS.items():
        assert np.linalg.norm(np.subtract(rgb, text_color(color))) > 180


def test_no_two_characters_of_the_alphabet_are_a_known_confusion() -> None:
    for pair in ("0O", "1I", "1L", "8B", "5S", "2Z", "6G", "UV", "0Q", "0D"):
        assert not set(pair) <= set(ALPHABET)
    assert len(set(ALPHABET)) == len(ALPHABET)


def test_a_tag_without_size_is_refused() -> None:
    with pytest.raises(ValueError, match="side_px"):
        draw_tag("circle", "red", "A", 0)
