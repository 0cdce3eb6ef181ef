"""How well a saliency network finds what stands out in held-out pictures.

Measured as in the field (U²-Net, section 4.3): the mean absolute error, and the largest F measure
with β² = 0.3 over thresholds of 0 to 255, from precisions and recalls averaged over pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.saliency.pocket_u2netp_scenes import (
    HELD_OUT_SEED,
    Sighting,
    held_out_sighting,
    on_ground,
)
from pipeline.saliency.u2net import SIDE, Saliency, prepared
from pipeline.samples import rng_for

BETA_SQUARED = 0.3
"""Weight of recall: precision counts more."""
_SPREAD = 0.25
"""Deviation of the centre prior, as a share of the side."""

Predict = Callable[[np.ndarray], np.ndarray]
"""A picture (uint8 HWC) -> its saliency, float HW in [0, 1]."""


def evaluate(
    saliency: Saliency, pictures: int = 200, side: int = SIDE, photos: Path | None = None
) -> dict[str, float]:
    """`mae` and `max_f` on held-out pictures, beside those of a Gaussian at the centre.

    With a folder of `photos` also on as many drawn things put before parts of photographs, where
    what the photographs themselves show counts as ground.
    """
    sets = {"": list(held_out(pictures, side))}
    if photos is not None:
        sets["photo_"] = list(before_photos(photos, pictures, side))
    figures = {}
    for name, seen in sets.items():
        for whose, predict in (("", _predict_with(saliency)), ("centre_", centre_prior)):
            maps = [predict(one.image) for one in seen]
            truths = [one.mask for one in seen]
            figures[f"{name}{whose}mae"] = mean_error(maps, truths)
            figures[f"{name}{whose}max_f"] = max_f(maps, truths)
    return figures


def held_out(pictures: int, side: int = SIDE) -> Iterator[Sighting]:
    """The first held-out pictures."""
    return (held_out_sighting(HELD_OUT_SEED + number, side) for number in range(pictures))


def before_photos(folder: Path, pictures: int, side: int = SIDE) -> Iterator[Sighting]:
    """Drawn things before square parts of the photographs in a folder, frozen by the number."""
    photos = [
        path for path in sorted(folder.iterdir()) if path.suffix in Image.registered_extensions()
    ]
    for number in range(pictures):
        rng = rng_for(HELD_OUT_SEED + number, "pocket-u2netp", "photo")
        with Image.open(photos[number % len(photos)]) as photo:
            whole = photo.convert("RGB")
        part = int(min(whole.size) * rng.uniform(0.4, 1))
        x, y = (int(rng.integers(0, length - part + 1)) for length in whole.size)
        yield on_ground(rng, whole.resize((side, side), box=(x, y, x + part, y + part)))


def mean_error(maps: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> float:
    """Mean over pictures of the mean difference, in [0, 1]; truths are uint8 HW."""
    return float(np.mean([np.abs(m - t / 255).mean() for m, t in zip(maps, truths, strict=True)]))


def max_f(maps: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> float:
    """The largest F measure over 256 thresholds, in [0, 1]; truths are uint8 HW."""
    curves = [_curve(m, t > 127) for m, t in zip(maps, truths, strict=True) if (t > 127).any()]
    precision, recall = np.mean(curves, axis=0)
    shared = BETA_SQUARED * precision + recall
    return float(np.max((1 + BETA_SQUARED) * precision * recall / np.maximum(shared, 1e-9)))


def centre_prior(picture: np.ndarray) -> np.ndarray:
    """A Gaussian at the middle of a picture (uint8 HWC), float HW in [0, 1]."""
    height, width = picture.shape[:2]
    x = (np.arange(width) + 0.5) / width - 0.5
    y = (np.arange(height) + 0.5) / height - 0.5
    return np.exp(-(x**2 + y[:, None] ** 2) / (2 * _SPREAD**2))


def _predict_with(saliency: Saliency) -> Predict:
    def predict(picture: np.ndarray) -> np.ndarray:
        found = saliency.predict(prepared(picture)[None])[0]
        span = float(np.ptp(found))
        return (found - found.min()) / span if span else np.zeros_like(found)

    return predict


def _curve(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Precision and recall (2, 256) of what is at or above each threshold."""
    levels = np.clip(np.rint(found * 255), 0, 255).astype(np.uint8)
    every = np.bincount(levels.ravel(), minlength=256)[::-1].cumsum()[::-1]
    right = np.bincount(levels[truth], minlength=256)[::-1].cumsum()[::-1]
    return np.stack([right / np.maximum(every, 1), right / truth.sum()])
