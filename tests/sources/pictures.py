"""Small pictures for the tests, made on the spot."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

SIZE = (48, 32)
"""(width, height)."""


def gradient(size: tuple[int, int] = SIZE) -> Image.Image:
    """A smooth RGB picture in which every corner differs."""
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))


def encoded(image: Image.Image | None = None, kind: str = "PNG", **options: Any) -> bytes:
    """A picture's bytes."""
    buffer = io.BytesIO()
    (gradient() if image is None else image).save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(image: Image.Image) -> np.ndarray:
    """int HWC, for differences."""
    return np.asarray(image).astype(int)
