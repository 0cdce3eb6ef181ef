"""Pixels to JPEG, once, at no more than the size a model sees.

Owns how a picture is compressed on its way to a model. It knows nothing of boxes or of servers.
The same pixels always give the same bytes, so a reply that was paid for can be found again.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from pipeline.agent.chat import Picture
from pipeline.agent.families import Family
from pipeline.sources.decode import encode

QUALITY = 90


def encoded(pixels: np.ndarray, family: Family, quality: int = QUALITY) -> Picture:
    """uint8 HWC pixels (RGB) as the family is sent them: shrunk to what it sees, never enlarged."""
    image = Image.fromarray(pixels)
    seen = family.seen(image.size)
    size = min(image.width, seen[0]), min(image.height, seen[1])
    if size != image.size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    return picture_of(image, quality)


def picture_of(image: Image.Image, quality: int = QUALITY) -> Picture:
    """An RGB picture as JPEG at its own size, its colours at full resolution."""
    return Picture(encode(image, quality), image.size)
