"""Laws of the colour cue: tags are among what it proposes, and where no colour is, it is silent."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipeline.agent.color_cue import Spot, likelihood, spots
from pipeline.samples import rng_for
from pipeline.scenes.draw import scene
from pipeline.scenes.needles import Tag, plant
from pipeline.scenes.tags import COLORS, SHAPES
from tests.agent.fakes import board, tag

LIMIT = 5
VIEW = (144, 108)
"""Small, for the cue's work grows with the picture."""


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))


def on(spot: Spot, drawn: Tag, scale: float = 1.0) -> bool:
    """Whether a spot is about a tag: its middle well inside, its side of the same order."""
    (x, y), side = drawn.box.centre, drawn.box.width * scale
    near = max(abs(spot.x - x * scale), abs(spot.y - y * scale)) < 0.4 * side
    return near and 0.4 * side < spot.side < 1.8 * side


@pytest.mark.parametrize("shape", SHAPES)
def test_on_a_plain_ground_a_tag_of_any_colour_is_the_best_spot(shape: str) -> None:
    for number, color in enumerate(COLORS):
        drawn = tag(f"{color} {shape}", "A7K", (11 + 9 * number, 62 - 6 * number), 9 + 4 * number)
        found = spots(pixels(board([drawn], VIEW)), (color,), LIMIT)
        assert on(found[0], drawn), f"{color} {shape}"
        assert all(spot.color == color for spot in found)


def test_tags_of_several_colours_are_found_together() -> None:
    drawn = [
        tag(f"{color} {shape}", "HJ3", (10 + 35 * (n % 4), 10 + 48 * (n // 4)), 22)
        for n, (color, shape) in enumerate(zip(COLORS, (*SHAPES, *SHAPES), strict=False))
    ]
    found = spots(pixels(board(drawn, VIEW)), tuple(COLORS), 2)
    for each in drawn:
        assert any(spot.color == each.color and on(spot, each) for spot in found), each.name


def test_a_tag_planted_on_a_busy_picture_is_among_the_spots() -> None:
    missed, planted = [], []
    for number in range(10):
        ground = Image.fromarray(scene(rng_for(4, "busy", number), (320, 240)).image)
        image, tags = plant(ground, rng_for(4, "tags", number))
        view = pixels(image.resize(VIEW, Image.Resampling.LANCZOS))
        for each in tags[:4]:
            found = spots(view, (each.color,), LIMIT)
            planted.append(each)
            if not any(on(spot, each, VIEW[0] / 320) for spot in found):
                missed.append((number, each.name))
    assert {t.color for t in planted} == set(COLORS) and {t.shape for t in planted} == set(SHAPES)
    assert len(missed) <= 0.05 * len(planted), missed


@pytest.mark.parametrize("seed", range(3))
def test_where_nothing_is_saturated_there_is_no_spot(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gray = np.repeat(rng.integers(0, 256, (27, 36, 1), dtype=np.uint8), 3, axis=2)
    view = pixels(Image.fromarray(gray).resize(VIEW, Image.Resampling.NEAREST))
    assert spots(view, tuple(COLORS), LIMIT) == []


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (28, 28), (VIEW[0], 5)])
def test_a_view_of_one_colour_throughout_has_no_surround_and_at_most_one_place(
    size: tuple[int, int],
) -> None:
    view = pixels(Image.new("RGB", size, COLORS["red"]))
    assert len(spots(view, ("red",), 1)) <= 1
    assert spots(view, ("green",), LIMIT) == []


@pytest.mark.parametrize("color", COLORS)
def test_likelihood_is_a_share_for_every_pixel_and_one_for_the_colour_itself(color: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    noise[0, 0] = COLORS[color]
    like = likelihood(noise, color)
    assert like.shape == (60, 80)
    assert like.min() >= 0 and like.max() <= 1
    assert like[0, 0] == 1


def test_a_colour_is_likelier_than_every_other_colour_for_itself() -> None:
    every = np.array([list(COLORS.values())], np.uint8)
    for place, color in enumerate(COLORS):
        like = likelihood(every, color)[0]
        assert (np.delete(like, place) < 0.6).all(), color


def test_no_more_spots_of_a_colour_come_than_were_asked_for_and_the_best_first() -> None:
    drawn = [tag("red circle", "", (8 + 34 * n, 20 + 9 * n), 12 + 2 * n) for n in range(4)]
    view = pixels(board(drawn, VIEW))
    found = spots(view, ("red",), 3)
    assert len(found) == 3
    assert [s.weight for s in found] == sorted((s.weight for s in found), reverse=True)
    assert found == spots(view, ("red",), 9)[:3]


def test_no_two_spots_of_a_colour_are_about_the_same_place() -> None:
    drawn = [tag("blue star", "K74", (10, 10), 40), tag("blue hexagon", "W3T", (80, 50), 30)]
    found = spots(pixels(board(drawn, VIEW)), ("blue",), 9)
    assert not any(a.near(b) for n, a in enumerate(found) for b in found[:n])


def test_the_same_view_gives_the_same_spots() -> None:
    ground = Image.fromarray(scene(rng_for(4, "again"), VIEW).image)
    assert spots(pixels(ground), ("red", "green"), LIMIT) == spots(
        pixels(ground.copy()), ("red", "green"), LIMIT
    )


def test_every_spot_holds_more_of_its_colour_than_its_surround() -> None:
    view = pixels(Image.fromarray(scene(rng_for(4, "contrast"), VIEW).image))
    found = spots(view, tuple(COLORS), 9)
    assert found and all(0 < spot.contrast <= 1 for spot in found)


def test_a_large_view_is_worked_on_in_small_and_answered_in_its_own_pixels() -> None:
    drawn = tag("orange diamond", "P4W", (700, 300), 220)
    (best, *_) = spots(pixels(board([drawn], (1200, 900))), ("orange",), 1)
    assert on(best, drawn)
