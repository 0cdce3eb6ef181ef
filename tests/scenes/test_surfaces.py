"""Laws of surfaces: where a plate may hang, how it lies there, and in what light."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from pipeline.geometry import Box
from pipeline.samples import rng_for
from pipeline.scenes.light import Light, blur_px, jpeg_quality, light_at, measure, noise_level
from pipeline.scenes.planes import MOST_TILT, Plane
from pipeline.scenes.surfaces import Place, find_place, survey

SIZE = (1024, 768)
SKY, WALL_TOP, FLOOR = 0, 200, 620
"""Rows at which each begins."""


def noisy(image: Image.Image, deviation: float = 2.0) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, deviation, (*image.size[::-1], 1))
    return Image.fromarray(np.clip(np.asarray(image, float) + noise, 0, 255).astype(np.uint8))


def street(slope: float = 0.0) -> Image.Image:
    """Sky above a wall with two doors, hedge at its left, a pavement below.

    The wall's level lines fall by `slope` to the right.
    """
    image = Image.new("RGB", SIZE, (150, 190, 235))
    draw = ImageDraw.Draw(image)
    drop = slope * SIZE[0]
    draw.polygon(
        [(0, WALL_TOP - drop / 2), (1024, WALL_TOP + drop / 2), (1024, 768), (0, 768)],
        fill=(172, 150, 130),
    )
    for left in (330, 640):
        top = 330 + slope * (left - 512)
        draw.polygon(
            [(left, top), (left + 90, top + 90 * slope), (left + 90, 600), (left, 600)],
            fill=(80, 70, 66),
        )
    for y in (300, 640):
        draw.line([(0, y - drop / 2), (1024, y + drop / 2)], fill=(120, 100, 90), width=4)
    draw.rectangle((0, FLOOR + 40, 1024, 768), fill=(120, 120, 122))
    hedge = np.asarray(image).copy()
    rng = np.random.default_rng(1)
    leaves = rng.integers(0, 120, (420, 200, 1)) + np.array([20, 50, 20])
    hedge[220:640, :200] = np.clip(leaves, 0, 255)
    return noisy(Image.fromarray(hedge))


def places(image: Image.Image, count: int = 16, size: tuple[int, int] = (70, 44)) -> list[Place]:
    known = survey(image, [])
    found = [find_place(known, size, [], rng_for(2, "place", n)) for n in range(count)]
    return [place for place in found if place is not None]


def test_plates_hang_on_the_wall_and_not_on_sky_hedge_or_pavement() -> None:
    found = places(street())
    assert len(found) == 16
    for place in found:
        assert place.y > WALL_TOP and place.y < FLOOR + 40
        assert place.x > 190 or place.y < 220


def test_sky_and_pavement_are_shut() -> None:
    known = survey(street(), [])
    rows = known.shut.shape[0] / SIZE[1]
    assert known.shut[: int(0.9 * WALL_TOP * rows)].mean() > 0.95
    assert known.shut[int((FLOOR + 60) * rows) :].mean() > 0.95
    assert known.shut[int(350 * rows) : int(550 * rows), known.shut.shape[1] // 2 :].mean() < 0.1


def test_no_plate_hangs_far_from_straight_edges() -> None:
    image = Image.new("RGB", (1600, 600), (150, 140, 130))
    draw = ImageDraw.Draw(image)
    for x in range(20, 240, 44):
        draw.rectangle((x, 60, x + 22, 560), fill=(70, 60, 60))
    known = survey(noisy(image), [])
    for n in range(12):
        place = find_place(known, (60, 40), [], rng_for(2, "far", n))
        assert place is not None and place.x < 700


def test_the_same_key_gives_the_same_place() -> None:
    assert places(street(), 5) == places(street(), 5)


def test_a_place_is_smooth_and_crosses_no_edge() -> None:
    image = street()
    grey = np.asarray(image.convert("L"), float)
    for place in places(image):
        x, y = int(place.x), int(place.y)
        assert grey[y - 18 : y + 18, x - 30 : x + 30].std() < 6


def test_a_place_keeps_off_what_is_taken() -> None:
    known = survey(street(), [])
    taken: list[tuple[float, float, float, float]] = []
    for n in range(12):
        place = find_place(known, (70, 44), taken, rng_for(2, "taken", n))
        if place is None:
            break
        box = (place.x - 35, place.y - 22, place.x + 35, place.y + 22)
        assert all(
            min(box[2], b[2]) <= max(box[0], b[0]) or min(box[3], b[3]) <= max(box[1], b[1])
            for b in taken
        )
        taken.append(box)
    assert len(taken) >= 6


def test_ground_of_another_colour_is_left_out() -> None:
    known = survey(street(), [])
    door = np.array([80.0, 70.0, 66.0])
    for n in range(10):
        place = find_place(known, (50, 34), [], rng_for(2, "like", n), like=door)
        assert place is not None
        assert 330 <= place.x <= 420 or 640 <= place.x <= 730


def test_a_picture_without_straight_edges_has_no_place_but_a_drawn_one_has() -> None:
    coarse = np.random.default_rng(3).uniform(90, 150, (6, 8, 3)).astype(np.uint8)
    meadow = noisy(Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC))
    assert places(meadow, 3) == []
    assert find_place(survey(meadow, [], drawn=True), (70, 44), [], rng_for(0)) is not None


def test_a_plate_larger_than_the_wall_has_no_place() -> None:
    assert places(street(), 3, (1000, 700)) == []


def test_a_mask_told_of_is_named() -> None:
    mask = np.zeros(SIZE[::-1], bool)
    mask[310:600, 440:630] = True
    known = survey(street(), [mask])
    regions = {
        (place.region, bool(mask[int(place.y), int(place.x)]))
        for n in range(30)
        if (place := find_place(known, (50, 34), [], rng_for(2, "mask", n)))
    }
    assert regions <= {(0, True), (-1, False)} and (0, True) in regions


@pytest.mark.parametrize("slope", [-0.2, -0.1, 0.0, 0.1, 0.2])
def test_a_plate_lies_as_the_wall_does(slope: float) -> None:
    found = [p.plane for p in places(street(slope)) if p.plane.known]
    assert len(found) > 6
    assert abs(float(np.median([plane.slope for plane in found])) - slope) < 0.05
    assert max(abs(plane.slope) for plane in found) <= MOST_TILT


def test_a_quad_is_where_its_plane_says_and_narrower_where_that_is_seen_askew() -> None:
    flat = Plane().quad(100, 50, (40, 20))
    assert flat == ((80, 40), (120, 40), (120, 60), (80, 60))
    tilted = Plane(0.25, 0.0, 0.0, True).quad(100, 50, (40, 20))
    (ax, ay), (bx, by), (_, cy), (_, dy) = tilted
    assert (by - ay) / (bx - ax) == pytest.approx(0.25)
    assert bx - ax < 40 and cy - by == pytest.approx(20) and dy - ay == pytest.approx(20)
    turned = Plane(0.0, 0.0, 0.002, True).quad(100, 50, (40, 20))
    assert turned[1][1] < turned[0][1] and turned[2][1] > turned[3][1]


# Light


def lit(left: float, right: float) -> Image.Image:
    """A wall whose light goes from `left` to `right` (shares of white)."""
    ramp = np.linspace(left, right, SIZE[0])[None, :, None] * np.array([180.0, 175.0, 170.0])
    wall = np.broadcast_to(ramp, (SIZE[1], SIZE[0], 3)).astype(np.uint8)
    return noisy(Image.fromarray(wall))


def light(image: Image.Image, x: int) -> Light:
    return light_at(image, measure(image), Box(x - 40, 360, x + 40, 410))


def test_a_plate_in_the_shade_is_darker_and_the_light_falls_as_on_the_wall() -> None:
    image = lit(0.25, 1.0)
    dark, bright = light(image, 150), light(image, 870)
    assert max(dark.white) < 0.75 * max(bright.white)
    assert light(image, 500).slope[0] > 0.05 and light(lit(1.0, 0.25), 500).slope[0] < -0.05
    assert all(b < 0.2 * w for b, w in zip(dark.black, dark.white, strict=True))


def test_the_light_takes_the_pictures_tint() -> None:
    grey = lit(0.5, 0.9)
    warm = Image.fromarray((np.asarray(grey) * np.array([1.0, 0.9, 0.8])).astype(np.uint8))
    red, _, blue = light(warm, 500).white
    assert red > 1.08 * blue


@pytest.mark.parametrize("deviation", [1.0, 3.0, 8.0])
def test_noise_is_told_within_a_third(deviation: float) -> None:
    image = noisy(Image.new("RGB", (256, 256), (128, 128, 128)), deviation)
    assert noise_level(image) == pytest.approx(deviation, rel=0.33)


def test_blur_is_told_within_half_a_pixel() -> None:
    image = Image.new("L", (240, 240), 40)
    draw = ImageDraw.Draw(image)
    for n in range(6):
        draw.rectangle((20 + n * 36, 20, 38 + n * 36, 220), fill=210)
    for sigma in (0.0, 0.8, 1.5, 2.5):
        soft = image.filter(ImageFilter.GaussianBlur(sigma))
        assert abs(blur_px(soft) - max(sigma, 0.3)) < 0.5
    assert blur_px(Image.new("L", (240, 240), 90)) == 0


def test_stronger_compression_looks_like_a_lower_quality() -> None:
    coarse = np.random.default_rng(4).uniform(60, 190, (48, 64, 3)).astype(np.uint8)
    image = Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC)
    seen = []
    for quality in (40, 75, 95):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        seen.append(jpeg_quality(Image.open(file)))
    assert seen == sorted(seen) and seen[0] < seen[1]
    assert jpeg_quality(image) == 95
