"""The agent's tools over one picture: locate, zoom, segment, read, adjust_box.

Each works on one view and sees nothing beyond it; only `zoom` goes back to the source, within the
budget. Results for a view are kept, as many questions and budgets share them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from pipeline.agent.actions import Call, Heard
from pipeline.agent.glyph_reader import Reading, read
from pipeline.agent.locate import Candidate, Segmenter, find_tags, logit_box, outlines
from pipeline.agent.writing import WRITING, SignReader, Writing, grouped
from pipeline.errors import InvalidBox
from pipeline.geometry import Box, Size
from pipeline.scenes.tags import COLORS
from pipeline.trajectory import Observation
from pipeline.views import View, look_at, shown, whole_at

ENLARGED = 1.6
NARROWED = 0.7
SAME_REGION = 0.5
"""A source's region is what a box holds from this IoU on."""


class Tools:
    """The tools for one picture, shared by all episodes on it."""

    def __init__(
        self,
        image: Image.Image,
        segmenter: Segmenter,
        regions: Sequence[Box] = (),
        reader: SignReader | None = None,
        prior: Callable[[Image.Image], np.ndarray] | None = None,
    ) -> None:
        self.prior = prior
        """Saliency of a view, float HW: what to look at where nothing else says; None: nothing."""
        self.reader = reader
        """What finds and reads writing; None: only tags are found, and only their codes read."""
        self._image = image
        self._segmenter = segmenter
        self._regions = regions
        """Boxes of masks that the source brings; they spare the segmenter."""
        self._pixels: dict[tuple[Box, Size], np.ndarray] = {}
        self._found: dict[tuple[Box, Size, tuple[str, ...]], tuple[Candidate, ...]] = {}
        self._writing: dict[tuple[Box, Size], tuple[Writing, ...]] = {}
        self._lines: dict[tuple[Box, Size, Box], tuple[Reading, ...]] = {}

    def afresh(self, image: Image.Image) -> Tools:
        """The same tools over another picture, of which nothing is known."""
        return Tools(image, self._segmenter, reader=self.reader, prior=self.prior)

    async def open(self, resolution: int) -> View:
        """The first view at a budget."""
        return self.open_view(resolution)

    async def use(self, call: Call, views: Sequence[View], resolution: int) -> Heard:
        """Carry out a call, here and now: nothing else waits."""
        return self.carry_out(call, views, resolution)

    def open_view(self, resolution: int) -> View:
        """The first view at a budget."""
        return self.view(whole_at(self._image.size, resolution))

    def view(self, observation: Observation) -> View:
        """An observation with its pixels, which are cut from the source once."""
        known = observation.region, observation.size
        if known not in self._pixels:
            self._pixels[known] = shown(self._image, observation).pixels
        return View(observation, self._pixels[known])

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
                look = look_at(self._image.size, call.box, resolution, call.view)
                return Heard(f"view {len(views)}", view=self.view(look), index=len(views))
            if call.tool == "read":
                return self._read(call.box, view)
            return self._box(call, view)
        except InvalidBox as error:
            return Heard(f"Error: {error}", kind="error")

    def _locate(self, call: Call, view: View) -> Heard:
        if call.phrase in WRITING:
            return self._locate_writing(call, view)
        words = call.phrase.split()
        colors = tuple(c for c in COLORS if c in words) or tuple(COLORS)
        seen = view.observation
        key = (seen.region, seen.size, colors)
        if key not in self._found:
            self._found[key] = tuple(find_tags(view.pixels, colors, self._segmenter))
        found = self._found[key]
        boxes = ", ".join(f"{c.color} {c.shape} {view.to_source(c.box).as_list()}" for c in found)
        return Heard(boxes or f"no {call.phrase} found", candidates=found)

    def _locate_writing(self, call: Call, view: View) -> Heard:
        """Signs and other writing, the surest pairs of lines first."""
        if self.reader is None:
            return Heard(f"Error: There is nothing to find {call.phrase} with.", kind="error")
        seen = view.observation
        if (seen.region, seen.size) not in self._writing:
            found = grouped(self.reader.finder.find(view.pixels))
            self._writing[seen.region, seen.size] = found
        writing = self._writing[seen.region, seen.size]
        boxes = ", ".join(str(view.to_source(one.box).as_list()) for one in writing)
        return Heard(boxes or f"no {call.phrase} found", writing=writing)

    def _read(self, box: Box, view: View) -> Heard:
        """The lines in a box where there is a reader of writing, else a tag's code."""
        if self.reader is None:
            return _heard_reading(read(view.pixels, view.to_view(box)))
        seen = view.observation
        key = (seen.region, seen.size, box)
        if key not in self._lines:
            lines = self.reader.read_lines(view.pixels, view.to_view(box))
            self._lines[key] = tuple(lines)
        return _heard_lines(self._lines[key])

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


def _heard_lines(lines: Sequence[Reading]) -> Heard:
    """What each line says, a guess marked as one, and all together: clear where every one is."""
    guess = " ".join(line.guess for line in lines if line.guess)
    least = min((line.confidence for line in lines), default=0.0)
    clear = bool(lines) and all(line.clear for line in lines)
    whole = Reading(guess if clear else "", least, guess)
    said = (line.text or (f"{line.guess}?" if line.guess else "unclear") for line in lines)
    text = " / ".join(said)
    return Heard(text or "unclear", reading=whole, lines=tuple(lines))
