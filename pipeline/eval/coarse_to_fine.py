"""Coarse-to-fine: ask where the answer is, read the box, ask again with that region highlighted.

Training-free (CoF, ICASSP 2025, arXiv 2412.16869). Owns what is asked first, how the reply is read
and which settings make up a run. Knows nothing of endpoints, and loads no network: the attention
itself is in `pipeline.models.vision_attention`, the way from boxes to keys in `vision_grid`.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from pipeline.errors import ConfigError
from pipeline.geometry import LARGEST, Size
from pipeline.grids import Grid, Rule, Space, UnitBox
from pipeline.grids import grid_mask as grid_mask

Select = Literal["first", "union", "largest"]
"""Of several boxes: the first (the published code), all (the paper's figure), the largest."""
OnMiss = Literal["all_image", "none"]
"""Without a box: every visual token is highlighted (published), or none."""
Outcome = Literal["box", "fallback_all", "empty", "none"]
"""What stage 1 came to, stored beside each score: a region; no box, so the whole picture; a box
that meets no cell, so no highlight; no box and no highlight."""

_FIND = """
Find the region of the image that holds the answer to this question.
Reply with its bounding box as JSON and nothing else: """
LOCATE_PROMPTS: dict[Space, str] = {
    "unit": _FIND + "[x0, y0, x1, y1], as fractions of the width and the height, 0.0 to 1.0.",
    "pixel": _FIND + '{"bbox_2d": [x0, y0, x1, y1]}, in pixels of the image.',
    "permille": _FIND + '{"bbox_2d": [x0, y0, x1, y1]}, each 0 to 1000 across and down.',
}
"""What stage 1 adds to a question, by how the model's family speaks of boxes: our own words."""
PUBLISHED_WORDING = "a84f3248000390e60f4bd0b6d08114efd1069824d87a83751a74b5e77cebc79f"
"""sha256 of the published addition, which is not ours to print."""

_FAR = 1.0
"""A number further than one picture outside of it is of another space."""
_PUBLISHED_BOX = re.compile(r"\[" + ", ".join([r"(-?\d+\.\d+)"] * 4) + r"\]")
_NUMBER = r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
_GAP = r"(?:\s*[,;]\s*|\s+)"
_COMMA = r"\s*(?:,\s*)?"
_PAIR = rf"[\[(]\s*{_NUMBER}{_GAP}{_NUMBER}\s*[\])]"
_NAMES = (
    (r"x_?(?:0|1|min)|left", r"y_?(?:0|1|min)|top"),
    (r"x_?(?:1|2|max)|right", r"y_?(?:1|2|max)|bottom"),
)
_NAMED = r"[\s,;\"']*".join(
    rf"\b(?:{name})[\"']?\s*[:=]\s*{_NUMBER}" for corner in _NAMES for name in corner
)
_BOX = re.compile(
    rf"[\[(]\s*{_GAP.join([_NUMBER] * 4)}{_COMMA}(?:[\])]|\Z)|{_PAIR}{_COMMA}{_PAIR}|{_NAMED}",
    re.IGNORECASE,
)
"""Four numbers in brackets, closed or cut off by a stop word; two points; four named numbers."""
_BARE = re.compile(_GAP.join([_NUMBER] * 4))
"""The whole of a reply, without brackets."""


@dataclass(frozen=True, slots=True)
class Preset:
    """The settings of a coarse-to-fine run; impossible ones raise `ConfigError`."""

    weight: float = 4.5
    """What the highlighted keys' attention is multiplied by, before it sums to 1: ln of it is added
    to their scores. 1 changes nothing."""
    expansion: float = 1.0
    square: bool = True
    select: Select = "union"
    on_miss: OnMiss = "none"
    compat: bool = False
    """Boxes are read and become cells as in the published code, quirks included."""
    locate_tokens: int = 128
    """Most tokens of stage 1's reply."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ConfigError(f"A highlight's weight is above 0, not {self.weight}.")
        if self.select not in get_args(Select) or self.on_miss not in get_args(OnMiss):
            raise ConfigError(
                f"No rule selects '{self.select}' and does '{self.on_miss}' on a miss.",
                f"Select {', '.join(get_args(Select))}; on a miss {', '.join(get_args(OnMiss))}.",
            )
        if self.compat and self.select != "first":
            raise ConfigError("The published code reads the first box only: select 'first'.")
        if self.locate_tokens < 1:
            raise ConfigError(f"A reply of {self.locate_tokens} tokens holds no box.")
        Rule(self.expansion, self.square)

    @property
    def rule(self) -> Rule:
        """How its boxes become cells."""
        return Rule(self.expansion, self.square, self.compat)


PRESETS: dict[str, Preset] = {
    "exact": Preset(),
    "mme-hl": Preset(select="first", on_miss="all_image", compat=True),
}
"""`mme-hl` is the published MME run (LLaVA-1.5-13B, greedy, fp16); `exact` reads every box, keeps
to its true cells and highlights nothing where no box was said."""


@dataclass(frozen=True, slots=True)
class Region:
    """Where stage 1 saw the answer."""

    boxes: tuple[UnitBox, ...]
    whole: bool = False
    """No box, so all of the picture's tokens: the published fallback."""


def locate_text(question: str, suffix: str) -> str:
    """What stage 1 asks: the question's first line, then the suffix (`LOCATE_PROMPTS`).

    Options and closing instructions are left out, as published.
    """
    return question.split("\n")[0] + suffix


def check_published_wording(suffix: str) -> bool:
    """Whether this is the published addition to a question, to the letter."""
    return hashlib.sha256(suffix.encode()).hexdigest() == PUBLISHED_WORDING


def parse_boxes(
    text: str, compat: bool = False, *, space: Space = "unit", size: Size | None = None
) -> list[UnitBox]:
    """The boxes of a reply, in its order, as fractions (x0, y0, x1, y1).

    The tolerant reading takes whole numbers, any spacing, JSON, code fences, parentheses, pairs of
    points and named corners; corners are sorted, boxes cut at 0..1, and what lies outside or in
    another space is left out. `space` is what the model's family speaks: with `pixel`, `size` is
    (width, height) of the picture as the model saw it. `compat` reads the first box of decimals as
    the published code does, in 0..1 or not. Raises `ConfigError` for pixels without a size.
    """
    if compat:
        found = _PUBLISHED_BOX.search(text.strip())
        first = found and _four(found)
        return [first] if first and max(map(abs, first)) <= LARGEST else []
    if space == "pixel" and (size is None or min(size) < 1):
        raise ConfigError("A box in pixels needs the size of the picture that the model saw.")
    wide, high = size if space == "pixel" and size else (1, 1)
    if space == "permille":
        wide = high = 1000
    bare = _BARE.fullmatch(text.strip().strip("`").strip())
    read = [_four(bare)] if bare else [_four(found) for found in _BOX.finditer(text)]
    units = [(x0 / wide, y0 / high, x1 / wide, y1 / high) for x0, y0, x1, y1 in read]
    return [cut for unit in units if (cut := _cut(unit)) is not None]


def choose(boxes: Sequence[UnitBox], select: Select = "first") -> tuple[UnitBox, ...]:
    """The boxes that are highlighted together; none of none."""
    if select == "union":
        return tuple(boxes)
    if select == "largest":
        return tuple(sorted(boxes, key=_area)[-1:])
    return tuple(boxes[:1])


def read_region(
    text: str, preset: Preset, *, space: Space = "unit", size: Size | None = None
) -> Region:
    """What a reply of stage 1 says to highlight; `space` and `size` as for `parse_boxes`.

    A box without area, as models write for "nowhere", is none, but for the published reading.
    """
    boxes = parse_boxes(text, preset.compat, space=space, size=size)
    if not preset.compat:
        boxes = [box for box in boxes if _area(box) > 0]
    chosen = choose(boxes, preset.select)
    return Region(chosen, whole=not chosen and preset.on_miss == "all_image")


def region_mask(found: Region, grid: Grid, preset: Preset) -> np.ndarray:
    """The cells of a region on a plain grid (rows, cols) over the model's input, bool HW."""
    return np.ones(grid, bool) if found.whole else preset.rule.mask(found.boxes, grid)


def outcome_of(found: Region, flags: np.ndarray) -> Outcome:
    """What a region came to as flags of cells or keys, bool."""
    if found.whole:
        return "fallback_all"
    if not found.boxes:
        return "none"
    return "box" if flags.any() else "empty"


def highlight(model: Any, flags: Any, weight: Any, **options: Any) -> AbstractContextManager[None]:
    """Within it the flagged keys draw `weight` times the attention (arXiv 2412.16869).

    `flags` is (B, L), bool or a share of 0..1, over the prompt's keys with their padding. The law
    and the options are those of `pipeline.models.vision_attention.highlight`.
    """
    from pipeline.models import vision_attention

    context: AbstractContextManager[None] = vision_attention.highlight(
        model, flags, weight, **options
    )
    return context


def _four(found: re.Match[str]) -> UnitBox:
    x0, y0, x1, y1 = (float(value) for value in found.groups() if value is not None)
    return x0, y0, x1, y1


def _cut(box: UnitBox) -> UnitBox | None:
    """The part of a box within 0..1, corners in order; None when there is none, or where a number
    is of another space."""
    if not all(-_FAR <= value <= 1 + _FAR for value in box):
        return None
    x0, x1 = sorted((box[0], box[2]))
    y0, y1 = sorted((box[1], box[3]))
    if min(x1, y1) < 0 or max(x0, y0) > 1:
        return None
    return max(x0, 0.0), max(y0, 0.0), min(x1, 1.0), min(y1, 1.0)


def _area(box: UnitBox) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
