"""The agent's tools over one picture: locate, zoom, segment, read, adjust_box.

Each works on one view and sees nothing beyond it; only `zoom` goes back to the source, within the
budget. Results for a view are kept, as many questions and budgets share them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from pipeline.agent.actions import Call, Heard
from pipeline.agent.glyph_reader import Reading, read
from pipeline.agent.locate import Candidate, Segmenter, find_tags, logit_box, outlines
from pipeline.errors import InvalidBox
from pipeline.geometry import Box, Size
from pipeline.scenes.tags import COLORS
from pipeline.views import View, first_view, zoomed

ENLARGED = 1.6
NARROWED = 0.7
SAME_REGION = 0.5
"""A source's region is what a box holds from this IoU on."""


class Tools:
    """The tools for one picture, shared by all episodes on it."""

    def __init__(
        self, image: Image.Image, segmenter: Segmenter, regions: Sequence[Box] = ()
    ) -> None:
        self._image = image
        self._segmenter = segmenter
        self._regions = regions
        """Boxes of masks that the source brings; they spare the segmenter."""
        self._views: dict[tuple[Box, Size, int | None], View] = {}
        self._found: dict[tuple[Box, Size, tuple[str, ...]], tuple[Candidate, ...]] = {}

    async def open(self, resolution: int) -> View:
        """The first view at a budget."""
        return self.open_view(resolution)

    async def use(self, call: Call, views: Sequence[View], resolution: int) -> Heard:
        """Carry out a call, here and now: nothing else waits."""
        return self.carry_out(call, views, resolution)

    def open_view(self, resolution: int) -> View:
        """The first view at a budget."""
        return self._kept(first_view(self._image, resolution))

    def carry_out(self, call: Call, views: Sequence[View], resolution: int) -> Heard:
        """Carry out a call; a policy's mistake comes back as an error, never as a picture."""
        try:
            if not 0 <= call.view < len(views):
                raise InvalidBox(f"There is no view {call.view}.")
            view = views[call.view]
            if call.tool == "locate":
                return self._locate(call, view)
            if call.box is None or not _inside(call.box, view):
                raise InvalidBox(f"Tool '{call.tool}' needs a box inside view {call.view}.")
            if call.tool == "zoom":
                look = self._kept(zoomed(self._image, call.box, resolution, call.view))
                return Heard(f"view {len(views)}", view=look, index=len(views))
            if call.tool == "read":
                return _heard_reading(read(view.pixels, view.to_view(call.box)))
            return self._box(call, view)
        except InvalidBox as error:
            return Heard(f"Error: {error}", kind="error")

    def _kept(self, view: View) -> View:
        seen = view.observation
        return self._views.setdefault((seen.region, seen.size, seen.parent), view)

    def _locate(self, call: Call, view: View) -> Heard:
        words = call.phrase.split()
        colors = tuple(c for c in COLORS if c in words) or tuple(COLORS)
        seen = view.observation
        key = (seen.region, seen.size, colors)
        if key not in self._found:
            self._found[key] = tuple(find_tags(view.pixels, colors, self._segmenter))
        found = self._found[key]
        boxes = ", ".join(f"{c.color} {c.shape} {view.to_source(c.box).as_list()}" for c in found)
        return Heard(boxes or f"no {call.phrase} found", candidates=found)

    def _box(self, call: Call, view: View) -> Heard:
        """`segment` and `adjust_box`: another box for what is in the given one."""
        assert call.box is not None
        if call.instruction == "enlarge":
            box = call.box.enlarge(ENLARGED, self._image.size)
        elif call.instruction == "narrow":
            box = call.box.enlarge(NARROWED, self._image.size)
        else:
            box = self._fitted(view, call.box)
        return Heard(str(box.as_list()), box=box)

    def _fitted(self, view: View, box: Box) -> Box:
        """The tight box of what `box` holds: the source's own mask where it has one, else SAM's."""
        known = max(self._regions, key=box.iou, default=None)
        if known is not None and box.iou(known) >= SAME_REGION:
            return known
        found = outlines(self._segmenter, view.pixels, view.to_view(box))
        logits = found.logits[int(np.argmax(found.ious))]
        if not (logits > 0).any():
            return box
        x0, y0, x1, y1 = (edge * found.cell_px for edge in logit_box(logits))
        return view.to_source((x0, y0, x1, y1))


def _inside(box: Box, view: View) -> bool:
    """Whether the box shares pixels with what the view shows."""
    return view.observation.region.intersection(box) > 0


def _heard_reading(reading: Reading) -> Heard:
    return Heard(reading.text or "unclear", reading=reading)
