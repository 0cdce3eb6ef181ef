"""How fast pictures become the saliency network's input, beside scikit-image; and what a scaled
JPEG costs in the objects' order.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ModelError
from pipeline.saliency import maps
from tests.bench.test_row_cost import report

pytestmark = pytest.mark.bench

PHOTOS = Path(__file__).parents[3] / "shared" / "photos"
REPEATS = 5
CELLS = 6
"""A photograph's stand-in objects: so many tiles each way."""

needs_photos = pytest.mark.skipif(not PHOTOS.is_dir(), reason="no photographs beside the project")


def photos(*suffixes: str) -> list[Path]:
    return [path for path in sorted(PHOTOS.iterdir()) if path.suffix in suffixes]


def quickest(*jobs: Callable[[], Any]) -> list[float]:
    """Processor time of each job in ms, the least of several turns side by side."""
    times = []
    for _ in range(REPEATS):
        for job in jobs:
            started = time.process_time()
            job()
            times.append((time.process_time() - started) * 1000)
    return [min(times[number :: len(jobs)]) for number in range(len(jobs))]


@needs_photos
def test_the_squash_beside_scikit_image() -> None:
    transform = pytest.importorskip("skimage.transform", reason="scikit-image is not installed")
    ratios = []
    for path in photos(".jpg", ".webp"):
        image = Image.open(path).convert("RGB")
        pixels = np.asarray(image)
        theirs = transform.resize(pixels, (maps.SIDE, maps.SIDE), mode="constant")
        theirs = (theirs / theirs.max() - maps.MEAN) / maps.STD
        worst = np.abs(maps.preprocess(image) - theirs.transpose(2, 0, 1)).max()
        assert worst < 1e-6
        ours_ms, theirs_ms = quickest(
            lambda image=image: maps.preprocess(image),
            lambda pixels=pixels: transform.resize(pixels, (maps.SIDE, maps.SIDE), mode="constant"),
        )
        ratios.append(theirs_ms / ours_ms)
        report(
            f"preprocess {image.width}x{image.height}",
            ours_ms=ours_ms,
            scikit_image_ms=theirs_ms,
            ratio=ratios[-1],
            worst_difference=float(worst),
        )
    report("preprocess", least_ratio=min(ratios), median_ratio=float(np.median(ratios)))
    assert np.median(ratios) >= 5


@needs_photos
@pytest.mark.torch
def test_what_a_scaled_decode_saves_and_costs() -> None:
    import torch

    from pipeline.saliency.u2net import load

    try:
        network = load("pocket-u2netp")
    except ModelError as error:
        pytest.skip(str(error))
    agreements, differences, exact_ms, fast_ms = [], [], 0.0, 0.0
    for path in photos(".jpg"):
        data = path.read_bytes()
        size = maps.read_scaled(data).size
        inputs = [maps.preprocess(maps.read_scaled(data, how)) for how in ("exact", "fast")]
        with torch.inference_mode():
            fused = [network(torch.from_numpy(made)[None])[0][0, 0].numpy() for made in inputs]
        found = [maps.scores(maps.to_probability(d1, size), tiles(size)) for d1 in fused]
        agreements.append((spearman(*found), kendall(*found)))
        differences.append(np.abs(fused[0] - fused[1]).mean())
        times = quickest(
            lambda data=data: maps.preprocess(maps.read_scaled(data)),
            lambda data=data: maps.preprocess(maps.read_scaled(data, "fast")),
        )
        exact_ms, fast_ms = exact_ms + times[0], fast_ms + times[1]
    rho, tau = np.array(agreements).T
    report(
        "scaled_decode",
        photographs=len(agreements),
        spearman_mean=float(rho.mean()),
        spearman_least=float(rho.min()),
        kendall_mean=float(tau.mean()),
        kendall_least=float(tau.min()),
        map_difference=float(np.mean(differences)),
        exact_ms=exact_ms / len(agreements),
        fast_ms=fast_ms / len(agreements),
    )


def tiles(size: tuple[int, int]) -> list[np.ndarray]:
    """Masks of the cells of a grid over a picture of (width, height), bool HW."""
    x = np.arange(size[0]) * CELLS // size[0]
    y = np.arange(size[1]) * CELLS // size[1]
    cell = y[:, None] * CELLS + x
    return [cell == number for number in range(CELLS**2)]


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of ranks, in [-1, 1]."""
    ranks = [np.argsort(np.argsort(values)) for values in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def kendall(a: np.ndarray, b: np.ndarray) -> float:
    """Share of pairs in the same order less that of pairs in the opposite one, in [-1, 1]."""
    pairs = np.array(list(combinations(range(len(a)), 2))).T
    return float(np.mean(np.sign(a[pairs[0]] - a[pairs[1]]) * np.sign(b[pairs[0]] - b[pairs[1]])))
