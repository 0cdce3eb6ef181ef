"""Weights and pictures from a key: reproducible everywhere, in any order, without a file.

Every number is SplitMix64 of (seed, CRC-32 of the key, position), so that a network can be filled
with the very weights its goldens were computed with. All integers are mod 2^64.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping

import numpy as np

Shape = tuple[int, ...]

GOLDEN_RATIO = 0x9E3779B97F4A7C15
KEY_STEP = 0xD1B54A32D192ED03
MIX_1, MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
MASK = (1 << 64) - 1


def uniform(key: str, seed: int, count: int, start: int = 0) -> np.ndarray:
    """`count` float32 in [0, 1) from position `start` on: 24 bits each, so exact."""
    base = (seed * GOLDEN_RATIO + zlib.crc32(key.encode()) * KEY_STEP) & MASK
    position = np.arange(start + 1, start + 1 + count, dtype=np.uint64)
    z = np.uint64(base) + position * np.uint64(GOLDEN_RATIO)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(MIX_1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(MIX_2)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)


def values(key: str, seed: int, shape: Iterable[int]) -> np.ndarray:
    """float32 in [-1, 1) of the given shape, row by row."""
    shape = tuple(shape)
    return (2 * uniform(key, seed, int(np.prod(shape, dtype=np.int64))) - 1).reshape(shape)


def fill(
    shapes: Mapping[str, Iterable[int]],
    seed: int,
    gain: float,
    special: Mapping[str, float] | None = None,
) -> dict[str, np.ndarray]:
    """A value for each state-dict entry: float32, or an int64 zero for a batch counter."""
    special = special or {}
    return {
        key: _entry(key, tuple(shape), seed, gain, special.get(key))
        for key, shape in shapes.items()
    }


def _entry(key: str, shape: Shape, seed: int, gain: float, amplitude: float | None) -> np.ndarray:
    """Spread chosen by what the entry is, so that activations neither die nor explode."""
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    v, one = values(key, seed, shape), np.float32(1)
    if amplitude is not None:
        return np.float32(amplitude) * v
    if key.endswith("running_var"):
        return one + np.float32(0.5) * ((v + one) / 2)
    if key.endswith("running_mean"):
        return np.float32(0.1) * v
    if len(shape) == 1:
        return one + np.float32(0.1) * v if key.endswith("weight") else np.float32(0.1) * v
    return np.float32(np.sqrt(gain / np.prod(shape[1:]))) * v
