"""Laws of drawn pictures: keyed, exact masks, interior points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.samples import rng_for
from pipeline.scenes.draw import SURFACE_LABELS, scene
from pipeline.scenes.regions import interior_point, largest_share, mask_box
from pipeline.scenes.tags import COLORS


def test_a_picture_depends_on_its_key_alone() -> None:
    first = scene(rng_for(3, "picture", 7), (320, 200), tags=True, worn=True)
    scene(rng_for(3, "picture", 8), (320, 200))
    again = scene(rng_for(3, "picture", 7), (320, 200), tags=True, worn=True)
    assert (first.image == again.image).all() and (first.labels == again.labels).all()
    assert first.objects == again.objects
    other = scene(rng_for(3, "picture", 8), (320, 200), tags=True, worn=True)
    assert (first.image != other.image).any()


@pytest.mark.parametrize("size", [(256, 256), (200, 131), (640, 480)])
def test_every_pixel_belongs_to_one_thing_and_boxes_are_tight(size: tuple[int, int]) -> None:
    drawn = scene(rng_for(0, "tight", *size), size, tags=True)
    assert drawn.image.shape == (size[1], size[0], 3) and drawn.image.dtype == np.uint8
    assert drawn.labels.shape == (size[1], size[0])
    assert drawn.labels.min() > 0
    for thing in drawn.objects:
        assert thing.label < SURFACE_LABELS[0]
        assert mask_box(thing.mask) == thing.box
        x, y = thing.point
        assert thing.mask[int(y), int(x)]


def test_listed_objects_are_in_one_piece_by_and_large() -> None:
    for seed in range(4):
        for thing in scene(rng_for(seed, "pieces"), (256, 256)).objects:
            assert _largest_piece(thing.mask) > 0.8, (seed, thing)


def test_pictures_are_varied() -> None:
    drawn = [scene(rng_for(seed, "varied"), (256, 256)) for seed in range(16)]
    counts = [len(one.objects) for one in drawn]
    assert min(counts) >= 3 and max(counts) >= 18
    assert len({thing.category for one in drawn for thing in one.objects}) >= 18
    spread = np.std([one.image.mean() for one in drawn])
    assert spread > 15


def test_pictures_are_less_saturated_than_tags() -> None:
    def saturation(rgb: np.ndarray) -> float:
        rgb = rgb.reshape(-1, 3).astype(float)
        return float(((rgb.max(1) - rgb.min(1)) / np.maximum(rgb.max(1), 1)).mean())

    pictures = [saturation(scene(rng_for(s, "colour"), (256, 192)).image) for s in range(12)]
    assert np.mean(pictures) < 0.6 * saturation(np.array(list(COLORS.values())))


def test_the_interior_point_of_simple_masks_is_their_middle() -> None:
    mask = np.zeros((50, 80), bool)
    mask[10:31, 20:61] = True
    x, y = interior_point(mask)
    assert abs(y - 20) <= 1 and 29 <= x <= 51
    assert interior_point(np.ones((1, 1), bool)) == (0, 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 200), st.integers(3, 200))
def test_the_interior_point_is_inside_whatever_the_mask(seed: int, height: int, width: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.3
    if mask.any():
        x, y = interior_point(mask)
        assert mask[y, x]


def test_the_largest_share_counts_pieces() -> None:
    mask = np.zeros((20, 20), bool)
    mask[:, :6] = True
    assert largest_share(mask) == 1.0
    mask[:, 14:20] = True
    assert largest_share(mask) == pytest.approx(0.5)
    mask[10, :] = True
    assert largest_share(mask) == 1.0


def _largest_piece(mask: np.ndarray) -> float:
    """The share of the mask that is joined to its most interior pixel, 4-connected."""
    x, y = interior_point(mask)
    filled = np.zeros_like(mask)
    filled[y, x] = True
    count = 0
    while count != (count := int(filled.sum())):
        grown = filled.copy()
        grown[1:] |= filled[:-1]
        grown[:-1] |= filled[1:]
        grown[:, 1:] |= filled[:, :-1]
        grown[:, :-1] |= filled[:, 1:]
        filled = grown & mask
    return count / int(mask.sum())
