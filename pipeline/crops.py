"""What a look shows of the source: the region that each tool cuts around the box it was asked for.

A step keeps the box and the tool's name, so the crop follows from the row and the picture. `zoom`
is our own; the others are the published tools' rules, as imported datasets were made with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipeline.geometry import Box, Size
from pipeline.views import ENLARGE, crop_region

LEAST_SQUARE_PX = 224
"""Shortest side of the square that Visual-CoT cuts (deepcs233/Visual-CoT,
`llava/eval/model_cot_loader.py`: a half side of 112 at least)."""

Rule = Callable[[Box, Size], Box]


def enlarged(box: Box, size: Size) -> Box:
    """Each side times 1.5 about the centre, clipped and truncated, however small it stays.

    xtong-zhang/Chain-of-Focus, both the evaluation's tool and the one of its RL.
    """
    return box.clip(size).enlarge(ENLARGE, size)


def plain(box: Box, size: Size) -> Box:
    """The box itself, in whole pixels inside the picture.

    Visual-Agent/DeepEyes `eval/eval_vstar.py`; Mini-o3/Mini-o3 crops the raw picture so, too.
    """
    inside = box.clip(size).rounded()
    return inside.clip(size)


def square(box: Box, size: Size) -> Box:
    """A square about the box's centre, moved into the picture and clipped to it.

    deepcs233/Visual-CoT `llava/eval/model_cot_loader.py`.
    """
    inside = box.clip(size)
    half = max(inside.width // 2, inside.height // 2, LEAST_SQUARE_PX // 2)
    x0, x1 = _span((inside.x0 + inside.x1) // 2, half, size[0])
    y0, y1 = _span((inside.y0 + inside.y1) // 2, half, size[1])
    return Box(x0, y0, x1, y1)


def region_shown(tool: str, box: Box, size: Size) -> Box:
    """The source pixels that a look with this tool shows; an unknown tool's are those of `zoom`.

    Raises `InvalidBox` for a box outside the picture.
    """
    return RULES.get(tool, crop_region)(box, size)


def _span(centre: float, half: float, limit: int) -> tuple[float, float]:
    """[centre - half, centre + half], moved into [0, limit] and cut where it is longer."""
    centre = min(max(centre, half), limit - half) if 2 * half <= limit else limit / 2
    return max(0, centre - half), min(limit, centre + half)


RULES: Mapping[str, Rule] = {
    "zoom": crop_region,
    "enlarge": enlarged,
    "crop": plain,
    "square": square,
}
"""By the name that `FocusStep.tool` and the column `tool` hold."""
