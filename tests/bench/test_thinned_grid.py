"""What a search with fewer points still finds, and what it takes: the curve over shares of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import CofpipeError
from pipeline.models.pocket_sam_eval import SMALLEST_SHARE
from pipeline.models.pocket_sam_scenes import HELD_OUT, held_out_scene
from pipeline.models.point_grid import thinned
from pipeline.models.sam import Mask, Segmenter, grid_points, load
from pipeline.models.sam_search import search
from pipeline.saliency.prior import build_prior
from pipeline.scenes.draw import Scene
from pipeline.sources.decode import decode
from tests.bench.test_row_cost import report

pytestmark = [pytest.mark.bench, pytest.mark.torch, pytest.mark.timeout(3600)]

SCENES = 100
PHOTOS = Path(__file__).parents[3] / "shared" / "photos"
GRID = 32
SHARES = (0.125, 0.25, 0.5)
Prior = Callable[[Scene], np.ndarray | None]
Way = Callable[[Scene], tuple[list[Mask], int]]


def _evenly(_: Scene) -> None:
    """No prior."""


def _truth(drawn: Scene) -> np.ndarray:
    """The best prior there can be: where the objects are."""
    return np.isin(drawn.labels, [thing.label for thing in drawn.objects]).astype(float)


def _saliency() -> Prior | None:
    """U²-NetP's map with the shipped weights, where they are."""
    try:
        from pipeline.saliency.maps import preprocess, to_probability
        from pipeline.saliency.u2net import Saliency
        from pipeline.saliency.u2net import load as load_saliency

        network = Saliency(load_saliency("pocket-u2netp"))
    except (ImportError, CofpipeError):
        return None

    def prior(drawn: Scene) -> np.ndarray:
        fused = network.predict(preprocess(drawn.image)[None])[0]
        return to_probability(fused, (drawn.image.shape[1], drawn.image.shape[0]))

    return prior


def _ways(segmenter: Segmenter) -> dict[str, Way]:
    """Searches by name: the whole grid, a thinned grid asked at once, and the search in turns."""

    def at_once(prior: Prior, share: float) -> Way:
        def way(drawn: Scene) -> tuple[list[Mask], int]:
            points = grid_points((drawn.image.shape[1], drawn.image.shape[0]), GRID)
            points = points[thinned(prior(drawn), GRID, share)]
            return segmenter.automatic(drawn.image, points=points), len(points)

        return way

    def in_turns(prior: Prior, share: float) -> Way:
        def way(drawn: Scene) -> tuple[list[Mask], int]:
            found = search(segmenter, drawn.image, prior(drawn), grid=GRID, share=share)
            return found.masks, found.asked

        return way

    priors: dict[str, Prior] = {"even": _evenly}
    if saliency := _saliency():
        priors["saliency"] = saliency
    ways: dict[str, Way] = {"whole grid": at_once(_evenly, 1.0)}
    ways["in turns, truth, 0.5"] = in_turns(_truth, 0.5)
    for name, prior in priors.items():
        ways[f"at once, {name}, 0.5"] = at_once(prior, 0.5)
        ways |= {f"in turns, {name}, {share}": in_turns(prior, share) for share in SHARES}
    return ways


def _hits(found: list[Mask], truth: np.ndarray) -> np.ndarray:
    """Which true masks (N, H, W) one of the found has an IoU of at least one half with."""
    if not found:
        return np.zeros(len(truth), bool)
    masks = np.stack([one.mask for one in found]).reshape(len(found), -1).astype(np.float32)
    flat = truth.reshape(len(truth), -1).astype(np.float32)
    shared = masks @ flat.T
    either = masks.sum(1)[:, None] + flat.sum(1) - shared
    return (shared >= 0.5 * either).any(0)


def test_recall_by_share_of_points() -> None:
    ways = _ways(load("pocket"))
    tallies: dict[str, dict[str, Any]] = {
        name: {"hits": [], "asked": 0, "seconds": 0.0} for name in ways
    }
    large: list[bool] = []
    for seed in range(HELD_OUT, HELD_OUT + SCENES):
        drawn = held_out_scene(seed)
        truth = np.stack([thing.mask for thing in drawn.objects])
        large += (truth.mean((1, 2)) >= SMALLEST_SHARE).tolist()
        for name, way in ways.items():
            started = time.process_time()
            found, asked = way(drawn)
            tallies[name]["seconds"] += time.process_time() - started
            tallies[name]["asked"] += asked
            tallies[name]["hits"] += _hits(found, truth).tolist()
    whole = np.array(tallies["whole grid"]["hits"])
    shares: dict[str, tuple[float, float]] = {}
    for name, tally in tallies.items():
        hits, big = np.array(tally["hits"]), np.array(large)
        asked = tally["asked"] / (SCENES * GRID**2)
        shares[name] = asked, float(hits.mean() / whole.mean())
        report(
            "thinned_grid",
            way=name,
            asked_share=asked,
            recall=float(hits.mean()),
            recall_of_whole=shares[name][1],
            recall_of_whole_large=float(hits[big].mean() / whole[big].mean()),
            cpu_ms=tally["seconds"] / SCENES * 1e3,
            objects=len(hits),
        )
    best = shares.get("in turns, saliency, 0.5", shares["in turns, even, 0.5"])
    assert best[0] <= 0.5 and best[1] >= 0.93


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs the photographs beside the checkout")
def test_what_the_whole_grid_finds_in_photographs_is_found_again() -> None:
    """Nobody outlined their objects: what the whole grid finds, 24 masks at most, counts as one."""
    segmenter, prior = load("pocket"), build_prior()
    ways: dict[str, Callable[[Image.Image], np.ndarray | None]] = {
        "even": lambda _: None,
        "saliency": prior,
    }
    hits: dict[str, list[bool]] = {name: [] for name in ways}
    asked = dict.fromkeys(ways, 0)
    files = sorted(path for path in PHOTOS.iterdir() if path.suffix in (".jpg", ".webp"))
    for path in files:
        photo = decode(path.read_bytes())
        photo.thumbnail((1024, 1024))
        pixels = np.asarray(photo)
        whole = segmenter.automatic(pixels, grid=GRID, limit=24)
        truth = np.stack([one.mask for one in whole])
        for name, see in ways.items():
            found = search(segmenter, pixels, see(photo), grid=GRID, share=0.5)
            hits[name] += _hits(found.masks, truth).tolist()
            asked[name] += found.asked
    for name in ways:
        report(
            "thinned_grid_photographs",
            way=name,
            asked_share=asked[name] / (len(files) * GRID**2),
            recall_of_whole=float(np.mean(hits[name])),
            objects=len(hits[name]),
        )
    assert asked["saliency"] <= 0.5 * len(files) * GRID**2
