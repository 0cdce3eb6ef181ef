"""Laws of drawn lines and of what wears them down."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from pipeline.samples import rng_for
from pipeline.scenes import lettering
from pipeline.scenes.fonts import FAMILIES
from pipeline.scenes.lettering import Margins, colors, draw_line, ink_mask

BLACK, WHITE = (0, 0, 0), (255, 255, 255)
Wear = Callable[[Image.Image, np.random.Generator], Image.Image]
WEARS: dict[str, Wear] = {
    "warp": lambda image, rng: lettering.warp(image, tilt_rad=0.1, shear=0.1, fore=(0.1, 0.05)),
    "bend": lambda image, rng: lettering.bend(image, 0.2),
    "defocus": lambda image, rng: lettering.defocus(image, 1.5),
    "motion": lambda image, rng: lettering.motion(image, 4, 0.3),
    "noise": lambda image, rng: lettering.noise(image, rng, 12),
    "jpeg": lambda image, rng: lettering.jpeg(image, 40),
    "shade": lambda image, rng: lettering.shade(image, rng, 0.6),
    "clutter": lambda image, rng: lettering.clutter(image, rng, 3),
    "specks": lambda image, rng: lettering.specks(image, rng, 0.02),
    "ghost": lambda image, rng: lettering.ghost(image, (3, 1), 0.4),
    "posterise": lambda image, rng: lettering.posterise(lettering.defocus(image, 1), 3),
    "cast_shadow": lambda image, rng: lettering.cast_shadow(image, rng, 0.5),
}


@pytest.fixture(scope="module")
def line() -> Image.Image:
    return draw_line("AB-123", "open-sans", 24, (30, 40, 60), (220, 210, 190))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cap_px", [10, 25])
def test_capitals_are_as_high_as_asked(family: str, cap_px: int) -> None:
    font = lettering.lettering(family, cap_px)
    box = ink_mask("HEN", font, cap_px, Margins(1, 1, 1, 1)).getbbox()
    assert box is not None
    assert abs(box[3] - box[1] - cap_px) <= 2 + 0.06 * cap_px  # hand-written letters dance
    assert abs(box[3] - 2 * cap_px) <= 1 + 0.1 * cap_px


def test_margins_are_ground_and_negative_ones_cut() -> None:
    font = lettering.lettering("open-sans", 30)
    wide = ink_mask("HH", font, 30, Margins(1, 1, 1, 1))
    assert abs(wide.height - 90) <= 1
    box = wide.getbbox()
    assert box is not None and min(box[0], wide.width - box[2], box[1]) >= 29
    cut = ink_mask("HH", font, 30, Margins(0, -0.2, 0, 0))
    assert np.asarray(cut)[0].any()


def test_tracking_spreads_and_a_stroke_thickens() -> None:
    font = lettering.lettering("lora", 30)
    plain = ink_mask("MILK", font, 30)
    assert ink_mask("MILK", font, 30, tracking_px=6).width == plain.width + 18
    bold = ink_mask("MILK", font, 30, stroke_px=1.5)
    assert np.asarray(bold).sum() > 1.2 * np.asarray(plain).sum()


def test_a_small_line_keeps_the_mean_of_a_large_one() -> None:
    large = draw_line("KEEP LEFT", "open-sans", 32, BLACK, WHITE)
    small = draw_line("KEEP LEFT", "open-sans", 4, BLACK, WHITE)
    assert abs(small.width - large.width / 8) <= 1
    assert abs(np.asarray(small).mean() - np.asarray(large).mean()) < 8


@pytest.mark.parametrize("contrast", [0.15, 0.5, 1.0])
def test_ink_and_ground_differ_by_the_contrast(contrast: float) -> None:
    for index in range(50):
        ink, ground = colors(rng_for(index, "colors"), contrast)
        luminance = [float(np.dot(color, (0.299, 0.587, 0.114))) for color in (ink, ground)]
        assert abs(luminance[0] - luminance[1]) <= 255 * contrast + 40
        if contrast >= 0.5:
            assert abs(luminance[0] - luminance[1]) >= 255 * contrast - 90


@pytest.mark.parametrize("name", WEARS)
def test_a_wear_is_pure_keyed_and_changes_the_line(name: str, line: Image.Image) -> None:
    before = line.tobytes()
    one = WEARS[name](line, rng_for(1, name))
    assert line.tobytes() == before
    assert one.size == line.size and one.mode == "RGB"
    assert one.tobytes() == WEARS[name](line, rng_for(1, name)).tobytes()
    assert one.tobytes() != before
    if name in ("noise", "shade", "clutter", "specks", "cast_shadow"):
        assert one.tobytes() != WEARS[name](line, rng_for(2, name)).tobytes()


def test_doing_nothing_changes_nothing(line: Image.Image) -> None:
    inner = (slice(2, -2), slice(2, -2))
    for same in (lettering.warp(line), lettering.bend(line, 0.0)):
        assert np.abs(np.asarray(same, int) - np.asarray(line, int))[inner].max() <= 1
    assert lettering.ghost(line, (2, 2), 0.0).tobytes() == line.tobytes()


def test_a_turned_line_falls_by_its_slope() -> None:
    bar = Image.new("L", (200, 100))
    bar.paste(255, (20, 45, 180, 55))
    rows = np.arange(100)[:, None]
    turned = np.asarray(lettering.warp(bar, tilt_rad=0.1), float)
    centre = [(rows * turned[:, c : c + 1]).sum() / turned[:, c].sum() for c in (50, 150)]
    assert centre[1] - centre[0] == pytest.approx(10, abs=1)


def test_blur_takes_contrast_away_step_by_step(line: Image.Image) -> None:
    spread = [np.asarray(lettering.defocus(line, s)).std() for s in (0.5, 1.0, 2.0, 4.0)]
    assert spread == sorted(spread, reverse=True)
    assert np.asarray(lettering.motion(line, 5, 0.0)).std() < np.asarray(line).std()


def test_views_are_brought_to_size_both_ways(line: Image.Image) -> None:
    assert lettering.resample(line, 0.5).size == (round(line.width / 2), round(line.height / 2))
    assert lettering.resample(line, 2).size == (line.width * 2, line.height * 2)
    tiny = lettering.resample(Image.new("RGB", (1, 1)), 0.1)
    assert tiny.size == (1, 1)


def test_noise_has_the_level_asked_for() -> None:
    grey = Image.new("RGB", (200, 200), (128, 128, 128))
    assert np.asarray(lettering.noise(grey, rng_for(0), 10)).std() == pytest.approx(10, rel=0.1)


def test_posterise_leaves_so_many_levels() -> None:
    ramp = Image.merge("RGB", [Image.linear_gradient("L")] * 3)
    assert len(np.unique(np.asarray(lettering.posterise(ramp, 4)))) == 4
