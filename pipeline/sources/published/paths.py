"""From a published path and its picture to our own records: sample, truth and trajectory.

Boxes become source pixels here, once. A view is what the published model was given: the picture
and the crops at the sizes its layout resizes them to, cut from the source by the rule of its tool.
Where the crops were published, their pixels decide which rule made them, and their size is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.crops import RULES, region_shown
from pipeline.errors import GrammarError, InvalidBox
from pipeline.geometry import Box, Frame, Size, four_numbers, smart_resize
from pipeline.samples import Sample, Truth
from pipeline.sources.published.records import Layout, Look, Path, unreadable
from pipeline.trajectory import FocusStep, Observation, TraceTurn, Trajectory, render

POLICY = "imported:"
"""Begins the name of the policy of every imported trajectory; its layout follows."""

THUMB: Size = (16, 16)
PREFERENCE = 3.0
"""The likeliest rule stands unless another one fits better by so many grey levels."""
WORST_FIT = 32.0
"""Mean difference, in grey levels of 255, from which a crop is no picture of its region."""

Crop = Image.Image | str | None
"""A published crop, why it cannot be looked at, or nothing."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What a record became."""

    sample: Sample
    truth: Truth
    trajectory: Trajectory
    turns: tuple[TraceTurn, ...]
    """The turns as published, and after each look what it showed."""


def imported(
    path: Path, layout: Layout, image: Image.Image, image_id: str, crops: Sequence[Crop] = ()
) -> Imported:
    """Our records for a path over its picture; `crops` are the published ones, if any.

    `verified` is left open. Raises `BadImage` with why a path cannot be told: `bad_box`,
    `crop_mismatch`, or `not_parsed` for texts that no chat can hold.
    """
    sample_id = f"{image_id}#0"
    sample = Sample(sample_id, image_id, image, image.size, path.question, path.options)
    walk = _Walk(path, layout, image, crops)
    steps = tuple(walk.step(look) for look in path.looks)
    targets = tuple(walk.box(values, 0) for values in path.target_boxes)
    trajectory = Trajectory(
        sample_id=sample_id,
        resolution=layout.resolution,
        rollout=path.rollout,
        view=walk.views[0],
        steps=steps,
        final_thought=path.final_thought,
        answer=path.answer,
        finish="answered",
        policy=POLICY + layout.name,
    )
    _check_sayable(sample, trajectory)
    turns = (*walk.turns, TraceTurn("policy", path.final_text or path.answer, "answer"))
    return Imported(sample, Truth(sample_id, path.target or "", targets), trajectory, turns)


def first_size(layout: Layout, size: Size) -> Size:
    """(width, height) at which a layout shows a picture of `size`."""
    return layout.view or _resized(layout, *size)


class _Walk:
    """A path over its picture, look by look."""

    def __init__(
        self, path: Path, layout: Layout, image: Image.Image, crops: Sequence[Crop]
    ) -> None:
        self._path, self._layout, self._image = path, layout, image
        self._crops = list(crops)
        whole = Box(0, 0, *image.size)
        self.views = [Observation(whole, first_size(layout, image.size))]
        self.turns: list[TraceTurn] = []

    def step(self, look: Look) -> FocusStep:
        """A look as a step; every crop it brings is a view."""
        if look.of >= len(self.views):
            raise unreadable("bad_box", f"a box on view {look.of} of {len(self.views)}")
        self.turns.append(TraceTurn("policy", look.text or look.thought))
        boxes = tuple(self.box(values, look.of) for values in look.boxes)
        seen, tool = None, self._layout.tools[0]
        for values, box, was in zip(look.boxes, boxes, look.zoomed, strict=True):
            if was:
                tool, seen = self._view(values, box, look.of)
        gain = None if seen is None else not seen.gains_on(self.views[:-1])
        label = next((label for label in look.labels if label), "")
        return FocusStep(
            look.thought, boxes, look.zoomed, label, tool, seen, checks={"no_gain": gain}
        )

    def box(self, values: Sequence[float], of: int) -> Box:
        """A published box in whole source pixels; raises `BadImage` `bad_box`."""
        region = self.views[of].region
        local = (int(region.width), int(region.height))
        try:
            box = Box.from_frame(*self._cut(values, self._frame(local)))
        except InvalidBox as error:
            raise unreadable("bad_box", str(error)) from error
        x, y = region.x0, region.y0
        return Box(box.x0 + x, box.y0 + y, box.x1 + x, box.y1 + y)

    def _frame(self, size: Size) -> Frame:
        """The numbers that boxes on a view of `size` source pixels are written in."""
        kind = self._path.coordinates
        if kind == "view":
            return Frame("pixels", size, first_size(self._layout, size))
        if kind == "source":
            return Frame("pixels", size, self._path.size or size)
        return Frame(kind, size)

    def _cut(self, values: Sequence[float], frame: Frame) -> tuple[tuple[float, ...], Frame]:
        """The box, cut to the picture where it passes the edge by no more than the slack."""
        x0, y0, x1, y1 = Box(0, 0, *frame.size).to_frame(frame)
        slack, numbers = self._path.slack, four_numbers(values)
        edges = ((x0, x1), (y0, y1), (x0, x1), (y0, y1))
        cut = tuple(min(max(n, low), high) for n, (low, high) in zip(numbers, edges, strict=True))
        if any(abs(a - b) > slack for a, b in zip(numbers, cut, strict=True)):
            return numbers, frame
        return cut, frame

    def _view(self, values: Sequence[float], box: Box, parent: int) -> tuple[str, Observation]:
        """The tool that was used and the view it gave, added to `views`."""
        number = len(self.views)
        crop = self._crops[number - 1] if number <= len(self._crops) else None
        tool = self._layout.tools[0]
        try:
            if isinstance(crop, Image.Image):
                tool = self._fitting(box, crop)
            region = region_shown(tool, box, self._image.size)
            size = self._size(values, region, crop, tool)
        except (ValueError, ZeroDivisionError) as error:
            raise unreadable("bad_box", f"the crop cannot be shown: {error}") from error
        view = Observation(region, size, parent)
        self.views.append(view)
        told = f"{region.as_list()} at {size[0]} x {size[1]}"
        told += f"; the published crop was not looked at: {crop}" if isinstance(crop, str) else ""
        self.turns.append(TraceTurn("tool", "", tool, told))
        return tool, view

    def _fitting(self, box: Box, crop: Image.Image) -> str:
        """The tool whose region a published crop shows."""
        fits = {
            tool: _difference(crop, self._image, region_shown(tool, box, self._image.size))
            - PREFERENCE * (place == 0)
            for place, tool in enumerate(self._layout.tools)
        }
        best = min(fits, key=lambda tool: fits[tool])
        if fits[best] > WORST_FIT:
            detail = f"crop {len(self.views)} does not show box {box.as_list()}"
            raise unreadable("crop_mismatch", detail)
        return best

    def _size(self, values: Sequence[float], region: Box, crop: Crop, tool: str) -> Size:
        """(width, height) of a view: the published crop's, else what the tool makes of the box."""
        if self._layout.view:
            return self._layout.view
        if isinstance(crop, Image.Image):
            return _resized(self._layout, *crop.size)
        if self._path.coordinates != "view":
            return _resized(self._layout, int(region.width), int(region.height))
        cut = RULES[tool](Box(*four_numbers(values)), self.views[0].size)
        return _resized(self._layout, int(cut.width * 2), int(cut.height * 2))


def _resized(layout: Layout, width: int, height: int) -> Size:
    rows, columns = smart_resize(
        height, width, min_pixels=layout.least_pixels, max_pixels=layout.most_pixels
    )
    return columns, rows


def _difference(crop: Image.Image, image: Image.Image, region: Box) -> float:
    """Mean difference of a crop and a region of the picture, both made small, in grey levels."""
    place = (region.x0, region.y0, region.x1, region.y1)
    ours = image.resize(THUMB, Image.Resampling.BOX, box=place)
    theirs = crop.convert("RGB").resize(THUMB, Image.Resampling.BOX)
    return float(np.abs(np.asarray(ours, np.int16) - np.asarray(theirs, np.int16)).mean())


def _check_sayable(sample: Sample, trajectory: Trajectory) -> None:
    """Raise `BadImage` for a path whose texts would be taken for marks of a chat."""
    frame = Frame("pixels", sample.size, trajectory.view.size)
    try:
        render(sample, trajectory, "cof-v2", frame)
    except GrammarError as error:
        raise unreadable("not_parsed", str(error)) from error
