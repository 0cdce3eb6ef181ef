"""Laws of the way into the saliency network and of the way from its map to objects in order."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import BadImage
from pipeline.saliency import maps
from tests.saliency import hashfill

GOLDENS = Path(__file__).parent / "goldens"
SHARED = Path(__file__).parents[3] / "shared"
SIZES = [(97, 131), (400, 500), (640, 300), (320, 320)]
"""(height, width)."""


def drawn(height: int, width: int) -> np.ndarray:
    """The checker and noise that the goldens were made with, uint8 HWC."""
    y, x = np.mgrid[:height, :width]
    noise = hashfill.uniform(f"pre_{height}x{width}_noise", 311, height * width * 3)
    checker = ((x // 16 + y // 16) % 2)[..., None]
    return (200 * (0.5 * checker + 0.5 * noise.reshape(height, width, 3))).astype(np.uint8)


def fused_map(key: str) -> np.ndarray:
    """The synthetic network output of the goldens, float32 (320, 320)."""
    y, x = np.mgrid[:320, :320] / 320
    bump = 0.15 + 0.6 * np.exp(-((y - 0.45) ** 2 + (x - 0.6) ** 2) / 0.05)
    noise = hashfill.values(f"post_{key}", 311, (320, 320))
    return bump.astype(np.float32) + np.float32(0.05) * noise


def check_input(golden: np.lib.npyio.NpzFile, key: str, image: np.ndarray, most: float) -> None:
    for kind, antialias in (("aa", True), ("noaa", False)):
        made = maps.preprocess(Image.fromarray(image), antialias)
        assert (made.dtype, made.shape) == (np.float32, (3, 320, 320))
        parts = {
            "tl8": made[:, :8, :8],
            "br8": made[:, -8:, -8:],
            "grid16": made[:, 10::20, 10::20],
        }
        for name, part in parts.items():
            np.testing.assert_allclose(part, golden[f"{key}_{kind}_{name}"], rtol=0, atol=most)


@pytest.mark.parametrize("shape", SIZES)
def test_the_input_is_the_published_one(shape: tuple[int, int]) -> None:
    key = f"synth_{shape[0]}x{shape[1]}"
    check_input(np.load(GOLDENS / "preprocess.npz"), key, drawn(*shape), 1e-6)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no photographs beside the project")
@pytest.mark.parametrize("name", ["coco_mini/images/000000000785", "photos/coco_000000001584"])
def test_the_input_of_photographs_is_the_published_one(name: str) -> None:
    key = "coco_" + name[-12:]
    image = np.asarray(Image.open(SHARED / f"{name}.jpg").convert("RGB"))
    golden = np.load(SHARED / "goldens" / "prompting" / "preprocess.npz")
    check_input(golden, key, image, 2e-2)


def test_pixels_and_pictures_of_any_mode_give_the_same_input() -> None:
    grey = Image.fromarray(drawn(64, 48)[..., 0])
    made = maps.preprocess(grey)
    assert (maps.preprocess(np.asarray(grey.convert("RGB"))) == made).all()
    assert (maps.preprocess(grey.convert("RGBA")) == made).all()


def test_a_black_picture_stays_finite() -> None:
    made = maps.preprocess(Image.new("RGB", (40, 60)))
    np.testing.assert_allclose(made[:, 0, 0], -np.array(maps.MEAN) / maps.STD, rtol=1e-6)
    assert (made == made[:, :1, :1]).all()


def test_a_plain_picture_becomes_white_wherever_its_zero_border_is_lifted() -> None:
    made = maps.preprocess(Image.new("RGB", (100, 100), (90, 90, 90)))
    np.testing.assert_allclose(made[:, 0, 0], (1 - np.array(maps.MEAN)) / maps.STD, rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(28, 700), st.integers(28, 700), st.booleans())
def test_the_banded_operator_is_the_dense_one(height: int, width: int, antialias: bool) -> None:
    image = drawn(height, width)
    down, across = dense(height, antialias), dense(width, antialias)
    small = np.stack([down @ (plane / 255) @ across.T for plane in image.transpose(2, 0, 1)])
    small = small.clip(image.min() / 255, image.max() / 255)
    mean, std = (np.array(values)[:, None, None] for values in (maps.MEAN, maps.STD))
    expected = (small / small.max() - mean) / std
    np.testing.assert_allclose(maps.preprocess(image, antialias), expected, rtol=0, atol=1e-6)


def dense(length: int, antialias: bool) -> np.ndarray:
    """Interpolation after filtering, each as a matrix written from its definition: (320, n)."""
    place = (np.arange(320)[:, None] + 0.5) * length / 320 - 0.5
    sample = np.arange(length)[None]
    between = (1 - np.abs(place - sample)).clip(0)
    sigma = max(0, (length / 320 - 1) / 2)
    reach = int(4 * sigma + 0.5)
    if not antialias or reach == 0:
        return between
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    distance = sample.T - sample
    near = np.exp(-0.5 * (distance / sigma) ** 2) * (np.abs(distance) <= reach)
    return between @ (near / bell.sum())


@pytest.mark.parametrize("shape", SIZES)
def test_the_probability_is_the_published_one(shape: tuple[int, int]) -> None:
    height, width = shape
    key = f"synth_{height}x{width}"
    golden = np.load(GOLDENS / "preprocess.npz")
    made = maps.to_probability(fused_map(key), (width, height))
    assert (made.dtype, made.shape) == (np.float32, shape)
    grid = made[height // 32 :: height // 16, width // 32 :: width // 16][:16, :16]
    for name, part in (("tl8", made[:8, :8]), ("grid16", grid)):
        np.testing.assert_allclose(part, golden[f"{key}_post_map_{name}"], rtol=1e-4, atol=1e-10)
    assert made.sum() == pytest.approx(height * width / 320**2, rel=1e-3)


@pytest.mark.parametrize("value", [0.0, 0.3, np.nan, np.inf])
def test_a_map_without_preference_makes_scores_areas(value: float) -> None:
    d1 = np.full((1, 1, 320, 320), value, dtype=np.float32)
    masks = np.zeros((2, 30, 40), dtype=bool)
    masks[0, :10, :10], masks[1, :, :20] = True, True
    assert maps.is_flat(d1)
    found = maps.scores(maps.to_probability(d1, (40, 30)), masks)
    np.testing.assert_allclose(found, np.array([100, 600]) / 320**2, rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_number_that_is_none_makes_a_map_flat(value: float) -> None:
    d1 = fused_map("x")
    assert not maps.is_flat(d1)
    d1[5, 5] = value
    assert maps.is_flat(d1)
    assert np.isfinite(maps.to_probability(d1, (50, 50))).all()


def test_groups_are_the_published_ones() -> None:
    golden = json.loads((GOLDENS / "grouping.json").read_text())
    arrays = np.load(GOLDENS / "grouping.npz")
    masks = np.unpackbits(arrays["masks"], axis=-1)[..., :64].astype(bool)
    for case in golden["cases"].values():
        ids = case["area_order_ids"]
        found = maps.scores(arrays["prob"], masks[np.array(ids) - 1000])
        np.testing.assert_allclose(found, case["scores"], rtol=1e-5)
        ranked = [ids[index] for index in maps.order(found)]
        for levels, expected in case["steps"].items():
            sizes = maps.level_sizes(len(ids), int(levels))
            assert np.diff([0, *sizes]).tolist() == expected["counts"]
            assert [sorted(ranked[:size]) for size in sizes] == expected["ids"]


def test_lists_are_cut_as_published() -> None:
    for case in json.loads((GOLDENS / "grouping.json").read_text())["lists"]:
        ranked = maps.order(case["scores"])
        for levels, expected in case["by_n"].items():
            sizes = maps.level_sizes(len(ranked), int(levels))
            assert sizes == expected["cumulative"]
            shown = [sorted(ranked[:size]) for size in sizes]
            assert shown == [sorted(indices) for indices in expected["index_lists"]]


def test_equal_scores_keep_their_order_and_nan_comes_last() -> None:
    assert maps.order([0.2, np.nan, 0.5, 0.2, 0.5]) == [2, 4, 0, 3, 1]
    assert maps.order([]) == []


@given(st.integers(0, 200), st.integers(1, 12))
def test_levels_grow_by_even_steps_to_all_objects(count: int, levels: int) -> None:
    sizes = maps.level_sizes(count, levels)
    steps = np.diff([0, *sizes])
    assert (len(sizes), sizes[-1]) == (levels, count)
    assert (np.diff(steps) <= 0).all()
    assert steps.max() - steps.min() <= 1


def test_no_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="0 levels"):
        maps.level_sizes(3, 0)


def test_nothing_to_score_scores_nothing() -> None:
    assert maps.scores(np.ones((4, 5)), []).shape == (0,)


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(IndexError):
        maps.scores(np.ones((4, 5)), [np.ones((5, 4), dtype=bool)])


def jpeg(image: Image.Image, orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90, exif=exif)
    return file.getvalue()


def test_a_scaled_picture_is_upright_and_large_enough() -> None:
    wide = Image.linear_gradient("L").resize((2800, 1400)).convert("RGB")
    turned = jpeg(wide, orientation=6)
    assert maps.read_scaled(turned).size == (1400, 2800)
    assert maps.read_scaled(turned, "fast").size == (700, 1400)
    small = jpeg(wide.resize((900, 500)))
    assert maps.read_scaled(small, "fast").size == (900, 500)


def test_a_scaled_picture_gives_nearly_the_same_input() -> None:
    smooth = Image.fromarray(drawn(40, 60)).resize((2400, 1600), Image.Resampling.BICUBIC)
    data = jpeg(smooth)
    exact, fast = (maps.preprocess(maps.read_scaled(data, how)) for how in ("exact", "fast"))
    assert np.abs(exact - fast).mean() < 0.02


@pytest.mark.parametrize("decode", ["exact", "fast"])
def test_a_broken_picture_is_refused_either_way(decode: str) -> None:
    data = jpeg(Image.fromarray(drawn(1400, 1400)))
    for broken in (b"", data[: len(data) // 2], data[:4] + b"\0" * 400, b"GIF89a"):
        with pytest.raises(BadImage):
            maps.read_scaled(broken, decode)  # type: ignore[arg-type]


@pytest.mark.parametrize("decode", ["exact", "fast"])
def test_caps_on_a_picture_hold_either_way(decode: str) -> None:
    with pytest.raises(BadImage, match="too_thin"):
        maps.read_scaled(jpeg(Image.new("RGB", (9000, 40))), decode)  # type: ignore[arg-type]
