"""What goes in and what comes out of every stage: samples, their truth, rejections, scores.

Knows nothing of files, models or runs. Identity is a key, never a position.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from pipeline.geometry import Box, Size


@dataclass(frozen=True, slots=True)
class Sample:
    """What a policy may see: one picture and a question about it."""

    sample_id: str
    """`image_id + "#" + task index`."""
    image_id: str
    """The source key: a relative path, a tar member, a row id."""
    image: Image.Image
    """RGB, upright, the pixels that are published."""
    size: Size
    """(width, height) of `image`."""
    question: str
    options: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    """What may be told of the picture (source, license, task kind); never anything of `Truth`."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What only verifiers and scorers see."""

    sample_id: str
    target: str
    """The right answer."""
    target_boxes: tuple[Box, ...] = ()
    """Where it can be seen, in source pixels."""
    masks: tuple[np.ndarray, ...] = ()
    """bool HW, one for each target box, where the source has them."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A sample that stopped, and why: a row like any other."""

    sample_id: str
    resolution: int
    """The budget R in pixels of a square's side; 0 when the picture itself was rejected."""
    rollout: int
    stage: str
    """`decode`, `task`, `agent`, `verify`, `worker`."""
    reason: str
    """A short name that can be counted."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """One scorer's verdict; `value is None` means unscored, which is not zero."""

    sample_id: str
    scorer: str
    value: float | None
    explanation: str = ""


def rng_for(seed: int, *keys: str | int) -> np.random.Generator:
    """A generator that depends on the seed and the keys and on nothing else."""
    text = "\x1f".join([str(seed), *map(str, keys)])
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))
