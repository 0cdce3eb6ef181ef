"""What a model is to attend to more: regions of a picture and by how much (arXiv 2412.16869).

Knows nothing of networks: `models.vision_attention` does it, `grids` says which cells are meant.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal, get_args

from pipeline.errors import ConfigError
from pipeline.grids import UnitBox

FrameName = Literal["model", "image"]


@dataclass(frozen=True, slots=True)
class Highlight:
    """Regions of a conversation's first picture whose visual tokens weigh more."""

    boxes: tuple[UnitBox, ...]
    weight: float
    """By which unnormalised attention to them is multiplied; 1 changes nothing."""
    expansion: float = 1.0
    """Each side of a box, about its centre."""
    square: bool = True
    """Boxes are grown to their longer side: in pixels; with `compat`, in fractions."""
    compat: bool = False
    """Cells as the published code finds them, its quirks included."""
    frame: FrameName = "model"
    """Whose width and height are meant: what the network sees (padded or cropped), or the picture's
    own."""
    whole: bool = False
    """All visual tokens of the picture: what was published for a reply without a box."""

    def __post_init__(self) -> None:
        if not (isfinite(self.weight) and self.weight > 0):
            raise ConfigError(f"A highlight's weight is above 0, not {self.weight}.")
        if not (isfinite(self.expansion) and self.expansion > 0):
            raise ConfigError(f"A box is expanded by a factor above 0, not {self.expansion}.")
        if self.frame not in get_args(FrameName):
            raise ConfigError(f"Boxes are in the frame of {' or '.join(get_args(FrameName))}.")
