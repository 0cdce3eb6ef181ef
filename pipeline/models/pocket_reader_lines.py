"""The lines of text that the pocket reader is trained and judged on.

A line is drawn large, seen askew, brought to the few pixels it has in a source picture, worn there,
and brought to a view. Lines depend on their generator and the settings only; training lines are
keyed (seed, index), held-out ones have seeds from `HELD_OUT_SEED` on.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import exp, log

import numpy as np
from PIL import Image

from pipeline.models.pocket_reader_looks import (
    neighbour,
    on_plate,
    painted,
    seen,
    strokes,
    worn,
    worn_otherwise,
    worn_unlearnt,
)
from pipeline.models.pocket_reader_texts import random_text
from pipeline.samples import rng_for
from pipeline.scenes import fonts
from pipeline.scenes.fonts import FAMILIES
from pipeline.scenes.lettering import resample

HELD_OUT_SEED = 10**6
"""First seed of held-out lines; training uses smaller seeds."""
CALIBRATION = ("manrope", "roboto-slab", "intuitive")
"""Families whose letters only the confidence learns from: it has to know how unseen ones go."""
LEARNT = tuple(name for name in fonts.TRAINING if name not in CALIBRATION)
BLANKS = 0.08
"""Share of the crops that hold nothing to read."""
HEIGHTS_PX = (2.5, 40.0)
"""Least and greatest height of the capitals."""
LEAST_LEARNT_PX = 4.0
"""Least height that the letters are learnt from: smaller ones teach to say nothing at all."""
EASY = 40_000
"""Training lines to begin with whose letters have pixels enough: from mixed ones, CTC starts late.
"""
ON_PLATES = 0.15
"""Share of the lines that are printed on a plate, above or below another."""


@dataclass(frozen=True, slots=True)
class Line:
    """A crop of a view and what it says."""

    image: np.ndarray
    """uint8 HWC."""
    text: str
    """Empty where there is nothing to read."""
    family: str
    cap_px: float
    """Height of its capitals in the source or in the view, whichever is less; 0 for none."""


def training_line(seed: int, index: int, *, calibration: bool = False) -> Line:
    """The training crop of a key: for the letters, or for the confidence alone."""
    rng = rng_for(seed, "pocket-reader", "calibration" if calibration else "train", index)
    if index < EASY and not calibration:
        return make_line(rng, LEARNT, cap_px=_log_uniform(rng, 10, 32))
    if rng.random() < BLANKS:
        return blank_line(rng)
    if calibration:
        return make_line(rng, CALIBRATION, unlearnt_wear=True)
    return make_line(rng, LEARNT, cap_px=_log_uniform(rng, LEAST_LEARNT_PX, HEIGHTS_PX[1]))


def held_out_line(seed: int, cap_px: float | None = None) -> Line:
    """The frozen crop of a seed ≥ `HELD_OUT_SEED`: families never trained on, and unseen wear."""
    rng = rng_for(seed, "pocket-reader", "held out")
    return make_line(rng, fonts.TEST, cap_px=cap_px, unseen_wear=True)


def generator_digest(lines: int = 50) -> str:
    """BLAKE2b (hex, 16 bytes) of the first held-out lines."""
    digest = hashlib.blake2b(digest_size=16)
    for seed in range(HELD_OUT_SEED, HELD_OUT_SEED + lines):
        drawn = held_out_line(seed)
        digest.update(drawn.image.tobytes() + drawn.text.encode())
    return digest.hexdigest()


def make_line(
    rng: np.random.Generator,
    families: tuple[str, ...],
    *,
    cap_px: float | None = None,
    unlearnt_wear: bool = False,
    unseen_wear: bool = False,
) -> Line:
    """A worn line of one of the families; `cap_px` fixes the height that limits it.

    `unlearnt_wear` adds what only the confidence learns from, `unseen_wear` what nothing does.
    """
    family = families[int(rng.integers(len(families)))]
    text = random_text(rng)
    if FAMILIES[family].caps_only:
        text = text.upper()
    limit = cap_px or _log_uniform(rng, *HEIGHTS_PX)
    scale = _view_scale(rng)
    source_cap = limit / min(scale, 1.0)
    if rng.random() < ON_PLATES:
        image = on_plate(rng, text, family, source_cap)
    else:
        image = painted(rng, seen(rng, text, family, source_cap))
    image = worn(rng, image, source_cap)
    if unlearnt_wear and rng.random() < 0.25:
        image = worn_unlearnt(rng, image, source_cap)
    if unseen_wear:
        image = worn_otherwise(rng, image, source_cap)
    if scale != 1:
        image = resample(image, scale)
    return Line(np.asarray(image), text, family, limit)


def blank_line(rng: np.random.Generator) -> Line:
    """A crop with nothing to read: ground, edges, blobs, the rims of other lines."""
    height = int(_log_uniform(rng, 6, 48))
    size = (int(height * rng.uniform(0.6, 6)), height)
    mask = Image.new("L", size)
    kind = rng.random()
    if kind < 0.35:
        strokes(rng, mask)
    elif kind < 0.5:
        rough = rng.integers(0, 256, (int(rng.integers(2, 9)), int(rng.integers(2, 30))), np.uint8)
        mask = Image.fromarray(rough).resize(size, Image.Resampling.BICUBIC)
    elif kind < 0.65:
        neighbour(rng, mask, LEARNT[int(rng.integers(len(LEARNT)))], height * 0.8, -0.15)
    image = painted(rng, mask)
    return Line(np.asarray(worn(rng, image, height * 0.5)), "", "", 0.0)


def _view_scale(rng: np.random.Generator) -> float:
    """How many pixels of a view one of its source becomes: views are at most twice the source."""
    kind = rng.random()
    if kind < 0.5:
        return 1.0
    return rng.uniform(0.35, 1.0) if kind < 0.75 else rng.uniform(1.0, 2.0)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return exp(rng.uniform(log(low), log(high)))
