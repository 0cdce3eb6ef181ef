"""What is left of a picture to know it by: digests, a hash of the whole, codes of its places.

A fingerprint is some tens of kilobytes, whatever the picture's size. Knows nothing of how two are
compared, nor of benchmarks.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from typing import TypeVar

import numpy as np
from PIL import Image

from pipeline.geometry import Size
from pipeline.sources.decode import decode
from pipeline.sources.keypoints import SIDE, keypoints

THUMB = 128
"""Pixels of both sides of the small picture that is kept."""
HASH_BITS = 64
_HASH_SIDE, _LOW = 32, 8


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprint:
    """One picture, for comparison."""

    sha256: str
    """Of the encoded bytes; empty where it was made of pixels alone."""
    pixels: str
    """SHA-256 of the decoded pixels and their size: the same however they are encoded."""
    size: Size
    """(width, height) in pixels."""
    hash: int
    """64 bits: the signs of the whole picture's lowest frequencies."""
    thumb: np.ndarray
    """uint8 (T, T), grey, the whole picture whatever its shape; T is `THUMB` unless reduced."""
    codes: np.ndarray
    """uint64 (N, 2): its places, strongest first (`keypoints`)."""
    places: np.ndarray
    """float16 (N, 3): where they are."""

    def reduced(self, thumb: int, places: int) -> Fingerprint:
        """The same in less memory: a thumb of `thumb` pixels a side, at most so many places."""
        small = Image.fromarray(self.thumb).resize((thumb, thumb), Image.Resampling.BOX)
        codes, at = self.codes[:places].copy(), self.places[:places].copy()
        return replace(self, thumb=np.asarray(small), codes=codes, places=at)


def fingerprint(data: bytes) -> Fingerprint:
    """The fingerprint of encoded bytes; raises `BadImage` as `decode` does."""
    return fingerprint_of(decode(data), hashlib.sha256(data).hexdigest())


def fingerprint_of(image: Image.Image, sha256: str = "") -> Fingerprint:
    """The fingerprint of an RGB picture that came from bytes of this digest."""
    pixels = hashlib.sha256(f"{image.width}x{image.height}:".encode())
    pixels.update(np.asarray(image).tobytes())
    grey = image.convert("L")
    thumb = np.asarray(_shrunk(grey, (THUMB, THUMB)))
    share = SIDE / max(grey.size)
    looked_at = _shrunk(grey, tuple(max(1, round(edge * share)) for edge in grey.size))
    codes, places = keypoints(np.asarray(looked_at))
    return Fingerprint(
        sha256, pixels.hexdigest(), image.size, whole_hash(thumb), thumb, codes, places
    )


def whole_hash(thumb: np.ndarray) -> int:
    """64 bits of a grey thumb (T, T): which of its lowest frequencies lie above their median.

    The discrete cosine transform of 32 x 32 pixels; 8 x 8 of its frequencies from the second on, so
    that neither brightness nor contrast counts.
    """
    small = Image.fromarray(thumb).resize((_HASH_SIDE, _HASH_SIDE), Image.Resampling.BOX)
    waves = _waves()
    found = (waves @ np.asarray(small, dtype=np.float64) @ waves.T).ravel()
    return int(np.packbits(found > np.median(found)).view(">u8")[0])


T = TypeVar("T")
R = TypeVar("R")


def side_by_side(work: Callable[[T], R], given: Iterable[T], threads: int) -> Iterator[R]:
    """What `work` makes of each, in order; no more than twice `threads` are under way or held."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[R]] = deque()
        for one in given:
            waiting.append(pool.submit(work, one))
            if len(waiting) >= 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _shrunk(grey: Image.Image, size: tuple[int, ...]) -> Image.Image:
    """Resized with every source pixel counted."""
    return grey.resize((size[0], size[1]), Image.Resampling.BICUBIC, reducing_gap=3.0)


@cache
def _waves() -> np.ndarray:
    """Cosines 1 to 8 over 32 pixels, float64 (8, 32)."""
    at = (np.arange(_HASH_SIDE) + 0.5) / _HASH_SIDE
    return np.cos(np.pi * np.arange(1, _LOW + 1)[:, None] * at)
