"""What every published layout is read into: a question, looks, an answer, and how to see with them.

Boxes stay in the numbers they were published in; `paths` turns them into source pixels once the
picture is there. Nothing here opens a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.errors import BadImage
from pipeline.geometry import Size

Record = Mapping[str, Any]
"""One published record, as JSON or a Parquet row gives it."""

Coordinates = Literal["view", "source", "unit", "unit-padded"]
"""`view`: pixels of the picture as its layout resizes it · `source`: pixels of the picture as
published · `unit`: 0..1 on each axis of the picture looked at · `unit-padded`: 0..1 of the picture
padded to a square about its centre."""

ANY = float("inf")
"""Slack of a layout whose tool cuts every box to its picture."""


@dataclass(frozen=True, slots=True)
class Look:
    """One published look: what was thought, and the boxes that were named."""

    thought: str
    boxes: tuple[Sequence[float], ...]
    """Four numbers each, as published."""
    zoomed: tuple[bool, ...]
    labels: tuple[str, ...] = ()
    """One for each box, or none at all."""
    of: int = 0
    """The view that the boxes are on: 0 the picture, k the k-th crop."""
    text: str = ""
    """The turn as published."""


@dataclass(frozen=True, slots=True)
class Path:
    """What a record says, whatever its layout."""

    question: str
    answer: str
    pictures: tuple[Any, ...]
    """The picture, then the crops where they are published: encoded bytes, a struct that has them,
    or the names that a file may go by."""
    looks: tuple[Look, ...] = ()
    options: tuple[str, ...] = ()
    final_thought: str = ""
    final_text: str = ""
    """The last turn as published."""
    instructions: str = ""
    """What the model was told first."""
    target: str | None = None
    target_boxes: tuple[Sequence[float], ...] = ()
    coordinates: Coordinates = "source"
    size: Size | None = None
    """(width, height) of the picture that `source` boxes speak of, where the record says it."""
    slack: float = 0.0
    """How far a box may pass the edge and is cut there, in the boxes' own numbers."""
    task: str = ""
    rollout: int = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """A published form of records, and what its model was shown."""

    name: str
    about: str
    """What tells it, for people."""
    recognises: Callable[[Record], bool]
    read: Callable[[Record], Path]
    """Raises `BadImage` with the reason why a record is no path."""
    tools: tuple[str, ...]
    """Names in `pipeline.crops.RULES`, the likeliest first."""
    least_pixels: int = 0
    most_pixels: int = 0
    """Limits within which a picture is smart-resized."""
    view: Size | None = field(default=None)
    """(width, height) of every view, where all have the same one."""

    @property
    def resolution(self) -> int:
        """The budget R: no view has more than R² pixels."""
        most = self.view[0] * self.view[1] if self.view else self.most_pixels
        return int(-(-(most**0.5) // 1))


def unreadable(reason: str, detail: str) -> BadImage:
    """Why a record is not imported: a short reason that is counted, and a sentence."""
    return BadImage(reason, detail[:200])
