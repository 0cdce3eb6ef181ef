"""How well the box of a look fits the thing that it holds: IoU with that thing's mask.

Asks the tools as the agent could have; it knows neither the truth nor the question.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.agent.actions import Call
from pipeline.agent.tools import Tools
from pipeline.geometry import Box
from pipeline.trajectory import FocusStep, Trajectory
from pipeline.views import View

WIDER = 1.1
"""A box is asked about again, so much wider, where its mask has exactly its own bounds."""


def mask_ious(tools: Tools, trajectory: Trajectory) -> tuple[float | None, ...]:
    """For each step the IoU of its last zoomed box with the mask of what it holds, in [0, 1].

    The mask is the source's own where one fits, else the segmenter's in the view that was zoomed
    from; None where there is none, or where the step is no look.
    """
    seen = (trajectory.view, *(step.observation for step in trajectory.steps))
    views = [tools.view(one or trajectory.view) for one in seen]
    return tuple(_fit(tools, views, step) for step in trajectory.steps)


def _fit(tools: Tools, views: Sequence[View], step: FocusStep) -> float | None:
    zoomed = [box for box, was in zip(step.boxes, step.zoomed, strict=True) if was]
    if step.observation is None or not zoomed:
        return None
    mask = _mask_box(tools, views, step.observation.parent or 0, zoomed[-1])
    return None if mask is None else zoomed[-1].iou(mask)


def _mask_box(tools: Tools, views: Sequence[View], number: int, box: Box) -> Box | None:
    """The bounds of what a box holds in a view; None where nothing is outlined.

    The tools give back the box itself where there is nothing, which a wider box tells apart from a
    mask that has just these bounds.
    """
    tight = _segmented(tools, views, number, box)
    if tight != box:
        return tight
    whole = views[0].observation.region
    wider = box.enlarge(WIDER, (int(whole.x1), int(whole.y1)))
    return None if _segmented(tools, views, number, wider) == wider else tight


def _segmented(tools: Tools, views: Sequence[View], number: int, box: Box) -> Box | None:
    """What the tools make of a box; None where the view does not show it."""
    return tools.carry_out(Call("segment", number, box=box), views, 0).box
