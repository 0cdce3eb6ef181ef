"""What a family of models sees of a picture, and in which numbers it speaks of boxes.

Owns the table of families and how a model's name tells its own. It knows nothing of servers, of
prompts or of pixels: sizes go in, sizes and frames come out.

    name         boxes                             sees
    qwen2-vl     0..1000 on each axis              sides multiples of 28
    qwen2.5-vl   pixels of the picture it sees     sides multiples of 28
    qwen3-vl     0..1000 on each axis              sides multiples of 32
    internvl     0..1000 on each axis              up to 12 tiles of 448 × 448, and an overview
    llava        0..1 on the picture padded        a square of 336 × 336 (LLaVA-1.5)
                 to a square
    llava-next   not published; 0..1 on each axis  tiles of 336 × 336, 672 × 672 in all
    instructblip none; 0..1 on each axis is read   the picture squeezed to 224 × 224
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import ConfigError, InvalidBox, nearest
from pipeline.geometry import MAX_ASPECT, Box, Frame, FrameKind, Size, four_numbers, smart_resize

Order = Literal["xyxy", "yxyx"]
"""Of the four numbers: left first, or top first."""


@dataclass(frozen=True, slots=True)
class Family:
    """Models that were taught the same boxes and resize pictures by the same rule.

    The rule is `factor` (Qwen: the whole picture, sides multiples of it), else `tile` (a grid of
    squares: InternVL's many, InstructBLIP's one), else the longest side of a padded square (LLaVA).
    """

    name: str
    kind: FrameKind
    min_pixels: int
    """A smaller picture is enlarged by the model, never by us."""
    max_pixels: int
    factor: int | None = None
    """Side in pixels of what one token shows."""
    tile: int | None = None
    """Side of a tile in pixels."""
    order: Order = "xyxy"
    boxes: bool = True
    """Whether its models were taught to say any."""

    def seen(self, size: Size) -> Size:
        """(width, height) at which the model sees a picture of `size`.

        Raises `InvalidBox` for a picture that is too thin for the family's processor, or becomes
        so by being resized.
        """
        width, height = size
        if self.tile:
            cols, rows = _grid(size, self.tile, self.max_pixels // self.tile**2)
            return cols * self.tile, rows * self.tile
        if self.factor:
            return self._resized(size, self.factor)
        scale = math.isqrt(self.max_pixels) / max(size)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def frame(self, size: Size, view: Size | None = None) -> Frame:
        """The convention for boxes on a picture of `size` that is shown as it is, or at `view`.

        Shrinking it to `seen` changes none. Raises `InvalidBox` for a view that is too thin.
        """
        return Frame(self.kind, size, self.seen(view or size) if self.kind == "pixels" else None)

    def read(self, numbers: Sequence[float], size: Size) -> Box:
        """The model's box in whole pixels of a picture of `size`; raises `InvalidBox`."""
        return Box.from_frame(as_xyxy(numbers, self.order), self.frame(size))

    def written(self, box: Box, size: Size) -> tuple[float, float, float, float]:
        """A box of a picture of `size` as the model would write it."""
        return as_xyxy(box.as_written(self.frame(size)), self.order)

    def _resized(self, size: Size, factor: int) -> Size:
        width, height = size
        try:
            rows, cols = smart_resize(height, width, factor, self.min_pixels, self.max_pixels)
        except (ValueError, ZeroDivisionError) as error:
            raise InvalidBox(f"{self.name} cannot see {width} x {height}: {error}") from error
        if max(rows, cols) > MAX_ASPECT * min(rows, cols):
            raise InvalidBox(f"{self.name} cannot see {width} x {height}: it is too thin.")
        return cols, rows


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("qwen2-vl", "thousand", 56 * 56, 3584 * 3584, factor=28),
        Family("qwen2.5-vl", "pixels", 56 * 56, 3584 * 3584, factor=28),
        Family("qwen3-vl", "thousand", 256 * 256, 4096 * 4096, factor=32),
        Family("internvl", "thousand", 448 * 448, 12 * 448 * 448, tile=448),
        Family("llava", "unit-padded", 336 * 336, 336 * 336),
        Family("llava-next", "unit", 336 * 336, 672 * 672),
        Family("instructblip", "unit", 224 * 224, 224 * 224, tile=224, boxes=False),
    )
}

_NAMES = {
    "qwen2-vl": r"qwen-?2-?vl",
    "qwen2.5-vl": r"qwen-?2[.-]?5-?vl",
    "qwen3-vl": r"qwen-?3-?vl",
    "internvl": r"internvl",
    "llava": r"llava-v?1[.-]5",
    "instructblip": r"instruct-?blip",
}
"""What is found in a model's name, in lower case with `_` as `-`. Later LLaVAs are left out: in
which numbers they speak is not published, so `llava-next` is for who tells it."""


def family_of(model_name: str, told: str | None) -> Family:
    """The family that was told, else the one that the model's name says.

    Raises `ConfigError` for a family that does not exist, and for a name that says none.
    """
    if told is not None:
        family = FAMILIES.get(told.strip().lower())
        if family is None:
            raise ConfigError(f"There is no family '{told}'.", nearest(told.lower(), FAMILIES))
        return family
    name = model_name.lower().replace("_", "-")
    found = [key for key, pattern in _NAMES.items() if re.search(pattern, name)]
    if len(found) != 1:
        raise ConfigError(
            f"The name '{model_name}' does not tell which coordinates the model speaks.",
            "Set policy.family; `cofpipe doctor --endpoint URL` finds out which.",
        )
    return FAMILIES[found[0]]


def as_xyxy(numbers: Sequence[float], order: Order) -> tuple[float, float, float, float]:
    """Four numbers in the order x, y, x, y; the same call turns them back. Raises `InvalidBox`."""
    a, b, c, d = four_numbers(numbers)
    return (b, a, d, c) if order == "yxyx" else (a, b, c, d)


def _grid(size: Size, tile: int, most: int) -> Size:
    """(columns, rows) of the tiles that a picture is stretched over.

    The grid nearest in aspect; of equally near ones the finest whose area is under twice that of
    the picture, else the coarsest.
    """
    width, height = size
    grids = [(c, r) for c in range(1, most + 1) for r in range(1, most // c + 1)]
    grids.sort(key=lambda grid: grid[0] * grid[1])
    off = [abs(width / height - cols / rows) for cols, rows in grids]
    near = [grid for grid, far in zip(grids, off, strict=True) if far == min(off)]
    fine = [g for g in near[1:] if g[0] * g[1] * tile * tile < 2 * width * height]
    return fine[-1] if fine else near[0]
