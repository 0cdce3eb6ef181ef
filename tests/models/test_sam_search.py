"""Laws of the search with fewer points: an even order, and nothing lost that the grid finds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.models.point_grid import ask_order, thinned

if TYPE_CHECKING:
    from pipeline.models.sam import Mask, Segmenter

GRIDS = st.integers(1, 40)


def _prior(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random(rng.integers(1, 90, 2)) ** 4 * 10 ** rng.uniform(-6, 6)


@settings(max_examples=60, deadline=None)
@given(GRIDS, st.integers(0, 10**6), st.floats(0, 9))
def test_every_point_has_its_turn_once(grid: int, seed: int, spread: float) -> None:
    for prior in (None, _prior(seed)):
        order = ask_order(prior, grid, spread=spread)
        assert sorted(order.tolist()) == list(range(grid * grid))
        assert (ask_order(prior, grid, spread=spread) == order).all()


@settings(max_examples=60, deadline=None)
@given(GRIDS, st.integers(0, 10**6), st.floats(-3, 3))
def test_the_scale_of_a_prior_does_not_count_and_a_flat_one_says_nothing(
    grid: int, seed: int, level: float
) -> None:
    prior = _prior(seed)
    assert (ask_order(prior / 1024, grid) == ask_order(prior, grid)).all()
    assert (ask_order(np.full(prior.shape, level), grid) == ask_order(None, grid)).all()


@pytest.mark.parametrize("share", [1 / 16, 1 / 4, 1 / 2])
def test_without_a_prior_any_first_part_is_an_even_lattice(share: float) -> None:
    kept = np.zeros(32 * 32, bool)
    kept[thinned(None, 32, share)] = True
    blocks = kept.reshape(8, 4, 8, 4).sum((1, 3))
    assert (blocks == 16 * share).all()
    lattice = kept.reshape(32, 32)
    assert not (lattice[:, 1:] & lattice[:, :-1]).any() and not (lattice[1:] & lattice[:-1]).any()


def test_a_part_is_dense_where_the_prior_is_high_and_sparse_not_empty_elsewhere() -> None:
    prior = np.zeros((60, 80))
    prior[:30, :40] = 1
    kept = np.zeros((32, 32), bool)
    kept.flat[thinned(prior, 32, 0.5)] = True
    likely, elsewhere = kept[:16, :16], np.concatenate([kept[16:, 16:], kept[:16, 16:]])
    assert likely.mean() > elsewhere.mean() + 0.25 and elsewhere.mean() > 0.3
    kept[:] = False
    kept.flat[thinned(prior, 32, 0.25, spread=0)] = True
    assert kept[:16, :16].all() and kept.sum() == 256


def test_a_share_is_that_many_points_and_at_least_one() -> None:
    for grid, share, count in ((8, 0.5, 32), (8, 1, 64), (3, 0.01, 1), (1, 0.5, 1)):
        points = thinned(None, grid, share)
        assert len(points) == len(set(points.tolist())) == count
        assert points.tolist() == sorted(points.tolist())
    for share in (0, -1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="share"):
            thinned(None, 8, share)


@pytest.mark.parametrize(
    "prior", [np.zeros((2, 2, 3)), np.zeros((0, 4)), np.full((4, 4), np.nan), np.zeros(4)]
)
def test_what_is_no_map_is_no_prior(prior: np.ndarray) -> None:
    with pytest.raises(ValueError, match="map"):
        ask_order(prior, 8)


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    pytest.importorskip("torch")
    from pipeline.models.sam import load

    return load("pocket")


@pytest.mark.torch
def test_it_finds_nearly_all_that_the_whole_grid_finds_for_half_the_points(
    segmenter: Segmenter,
) -> None:
    from pipeline.models.pocket_sam_scenes import HELD_OUT, held_out_scene
    from pipeline.models.sam_search import search

    drawn = held_out_scene(HELD_OUT)
    truth = [thing.mask for thing in drawn.objects]
    found = search(segmenter, drawn.image, grid=16, share=0.5)
    whole = segmenter.automatic(drawn.image, grid=16)
    assert 64 < found.asked <= 128
    assert recalled(found.masks, truth) >= 0.85 * recalled(whole, truth) > 8


@pytest.mark.torch
def test_what_it_finds_is_as_the_automatic_search_promises(segmenter: Segmenter) -> None:
    import torch

    from pipeline.models.sam_masks import pairwise_iou
    from pipeline.models.sam_search import search

    image = planted()[:200]
    prior = image[..., 1].astype(np.float32)
    found, again = (search(segmenter, image, prior, grid=8, share=1) for _ in range(2))
    scores = [one.score for one in found.masks]
    assert scores == sorted(scores, reverse=True) and min(scores) >= 0.6
    assert [one.point for one in found.masks] == [one.point for one in again.masks]
    masks = np.stack([one.mask for one in found.masks])
    assert masks.shape[1:] == image.shape[:2] and masks.dtype == bool
    overlaps = pairwise_iou(torch.from_numpy(masks)).fill_diagonal_(0)
    assert float(overlaps.max()) < 0.75
    grid = {(16.0 + 32 * x, 12.5 + 25 * y) for x in range(8) for y in range(8)}
    assert {one.point for one in found.masks} <= grid
    own = [one.mask[int(one.point[1]), int(one.point[0])] for one in found.masks]
    assert sum(own) >= 0.8 * len(own)
    whole = segmenter.automatic(image, points=sorted(grid))
    assert max(one.score for one in whole) == pytest.approx(max(scores), abs=0.05)


@pytest.mark.torch
def test_a_point_that_a_mask_covers_is_not_asked_again(segmenter: Segmenter) -> None:
    from pipeline.models.sam_search import search

    found = search(segmenter, planted(), grid=16, share=1)
    assert found.asked < 0.8 * 16 * 16
    assert max(one.mask.mean() for one in found.masks) > 0.3


@pytest.mark.torch
def test_one_point_and_one_mask_are_enough(segmenter: Segmenter) -> None:
    from pipeline.models.sam_masks import Limits
    from pipeline.models.sam_search import search

    found = search(segmenter, planted(), grid=1, share=0.5)
    assert found.asked == 1 and found.masks
    best = Limits(min_score=found.masks[0].score)
    assert len(search(segmenter, planted(), grid=1, limits=best).masks) == 1


@pytest.mark.torch
def test_nothing_good_enough_is_no_mask(segmenter: Segmenter) -> None:
    from pipeline.models.sam_masks import Limits
    from pipeline.models.sam_search import search

    image = np.zeros((40, 90, 3), np.uint8)
    found = search(segmenter, image, grid=4, share=1, limits=Limits(min_score=2))
    assert found.masks == [] and found.asked == 16


def planted() -> np.ndarray:
    """A red square on a grey wall with a little grain, uint8 (256, 256, 3)."""
    grain = np.random.default_rng(0).normal(90, 4, (256, 256, 3))
    grain[20:180, 20:180] += (140, -50, -60)
    return grain.clip(0, 255).astype(np.uint8)


def recalled(masks: Sequence[Mask], truth: Sequence[np.ndarray]) -> int:
    """How many true masks one of the found has an IoU of at least one half with."""
    found = [one.mask for one in masks]
    return sum(any((m & t).sum() >= 0.5 * (m | t).sum() for m in found) for t in truth)


@pytest.mark.torch
def test_the_agents_segmenter_searches_by_its_prior_and_does_all_else_as_before(
    segmenter: Segmenter,
) -> None:
    from pipeline.models.sam_search import Searching, search

    asked: list[tuple[int, int]] = []

    def prior(image: Image.Image) -> np.ndarray:
        asked.append(image.size)
        return np.asarray(image.convert("L"), np.float32)

    image = planted()[:120, :160]
    salient = Searching(segmenter, prior)
    found = salient.automatic(image, limit=3)
    best = search(segmenter, image, np.asarray(Image.fromarray(image).convert("L"), np.float32))
    assert [one.point for one in found] == [one.point for one in best.masks[:3]]
    assert asked == [(160, 120)]
    boxes = [[10, 10, 60, 60]]
    one, other = (s.predict(s.embed(image), boxes=boxes).logits for s in (salient, segmenter))
    assert (one == other).all()
