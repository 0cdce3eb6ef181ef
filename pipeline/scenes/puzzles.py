"""What every puzzle made of a picture has: the composed picture, its questions, their recipes.

A recipe is plain JSON and says everything: from the photograph as found it gives the same composed
pixels again, and from the composed picture alone the truth can be looked up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from pipeline.geometry import Box

Recipe = Mapping[str, Any]
"""`kind`, `photo` (width, height), and what the kind needs; boxes are XYXY in composed pixels."""

LETTERS = "ABCD"


@dataclass(frozen=True, slots=True)
class Posed:
    """A question about a composed picture, and its answer."""

    text: str
    answer: str
    """One of the options where there are any."""
    options: tuple[str, ...]
    boxes: tuple[Box, ...]
    """Where the answer can be seen, in composed pixels."""
    task: str
    recipe: Recipe


@dataclass(frozen=True, slots=True, eq=False)
class Puzzle:
    """A composed picture, RGB, and what is asked about it."""

    picture: Image.Image
    posed: tuple[Posed, ...]


def whole(box: Box) -> list[int]:
    """A box of whole pixels as a recipe writes it."""
    return [int(value) for value in box.as_list()]


def cut(image: Image.Image, box: Box) -> Image.Image:
    """The part of an image in a box of whole pixels."""
    return image.crop((int(box.x0), int(box.y0), int(box.x1), int(box.y1)))
