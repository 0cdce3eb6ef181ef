"""The agent's tools with a vision language model behind `locate`, `read` and `adjust_box`.

Every model sees one view, or a part of one, and nothing else; `zoom` and `segment` are the same as
without a model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from pipeline.agent import roles
from pipeline.agent.actions import Call, Heard
from pipeline.agent.chat import Picture, Request, Role, Said, Sampling
from pipeline.agent.desk import Desk
from pipeline.agent.encoding import encoded
from pipeline.agent.families import Family
from pipeline.agent.relevance import pixels_on_target, relevance_map, zoom_resolution
from pipeline.agent.tools import Tools
from pipeline.errors import GrammarError, InvalidBox
from pipeline.geometry import Box, Frame
from pipeline.instructions import convention
from pipeline.salient import most_salient
from pipeline.turns import FrameBox
from pipeline.views import View

SMALLEST_READ_PX = 56
"""A region is shown to the reader at no less than this many pixels a side."""

STANDS_OUT = "What stands out most is here:"


@dataclass(frozen=True)
class Eyes:
    """What the roles that look have in common."""

    desk: Desk
    family: Family
    sampling: Sampling
    workers: Executor | None = None
    """Where pictures are cut and encoded; None: here and now."""

    async def ask(self, role: Role, picture: np.ndarray, text: str) -> str:
        """What a model says to one picture and one text."""
        shown = await self.off_loop(encoded, picture, self.family)
        said = Said("user", (shown, text))
        return (await self.desk.ask(Request(role, (said,), self.sampling))).text

    async def off_loop(self, work: Callable[..., Any], *args: Any) -> Any:
        """Run what takes milliseconds where it does not hold up the calls in flight."""
        if self.workers is None:
            return work(*args)
        return await asyncio.get_running_loop().run_in_executor(self.workers, work, *args)

    async def show(self, view: View) -> Picture:
        """A view as it is sent."""
        return await self.off_loop(encoded, view.pixels, self.family)

    def frame(self, view: View) -> Frame:
        """The numbers in which a model speaks of a view, as a frame of the view's pixels."""
        return self.family.frame(view.observation.size)

    def read(self, numbers: Sequence[float], view: View) -> Box:
        """A model's box of a view in source pixels; raises `InvalidBox`."""
        box = self.family.read(numbers, view.observation.size)
        return view.to_source((box.x0, box.y0, box.x1, box.y1))

    def written(self, box: Box, view: View) -> FrameBox:
        """A source box as a model would write it of a view."""
        size = view.observation.size
        return self.family.written(Box(*view.to_view(box)).clip(size), size)


class VisionTools:
    """Tools for one episode: what a model is behind, and the picture's own tools for the rest."""

    def __init__(self, tools: Tools, eyes: Eyes) -> None:
        self._tools = tools
        self._eyes = eyes
        self._relevance: tuple[View, np.ndarray] | None = None
        """What the last `locate` found, and in which view."""

    async def open(self, resolution: int) -> View:
        """The first view at a budget."""
        return await self._eyes.off_loop(self._tools.open_view, resolution)

    async def use(self, call: Call, views: Sequence[View], resolution: int) -> Heard:
        """Carry out a call; a mistake of the policy or of a role comes back as an error."""
        try:
            if call.tool == "locate":
                return await self._locate(call, views[call.view])
            if call.tool == "zoom" and call.box is not None:
                resolution = self._enough(call.box, views[0], resolution)
            if call.tool in ("zoom", "segment"):
                return await self._eyes.off_loop(self._tools.carry_out, call, views, resolution)
            assert call.box is not None
            if call.tool == "read":
                return await self._read(call, call.box, views[call.view])
            return await self._adjust(call, call.box, views[call.view])
        except (InvalidBox, GrammarError) as error:
            return Heard(f"Error: {error}", kind="error")

    async def _locate(self, call: Call, view: View) -> Heard:
        said = convention(self._eyes.frame(view))
        asked = roles.LOCATE.format(phrase=call.phrase, convention=said)
        text = await self._eyes.ask("locate", view.pixels, asked)
        boxes = tuple(self._eyes.read(numbers, view) for numbers in roles.read_boxes(text))
        found = relevance_map(boxes, view)
        self._relevance = (view, found) if boxes else None
        if boxes:
            return Heard("found", boxes=boxes, relevance=found)
        said = f"{call.phrase} is not found."
        if self._tools.prior is None:
            return Heard(said, relevance=found)
        stands_out = await self._eyes.off_loop(salient_part, view, self._tools.prior)
        return Heard(f"{said} {STANDS_OUT}", boxes=(stands_out,), relevance=found)

    def _enough(self, box: Box, first: View, budget: int) -> int:
        """The resolution of a look at a box: no more pixels than its target is worth."""
        on_target = pixels_on_target(box, *self._relevance) if self._relevance else 0.0
        size = first.observation.region.x1, first.observation.region.y1
        return zoom_resolution(box, (int(size[0]), int(size[1])), on_target or box.area, budget)

    async def _read(self, call: Call, box: Box, view: View) -> Heard:
        cut = await self._eyes.off_loop(part, view, box)
        said = await self._eyes.ask("read", cut, roles.READ.format(question=call.phrase))
        return Heard(" ".join(said.split()) or "unclear")

    async def _adjust(self, call: Call, box: Box, view: View) -> Heard:
        asked = roles.ADJUST.format(
            box=list(self._eyes.written(box, view)),
            phrase=call.phrase,
            instruction=call.instruction or "fit",
            convention=convention(self._eyes.frame(view)),
        )
        numbers = roles.read_boxes(await self._eyes.ask("adjust_box", view.pixels, asked))
        if not numbers:
            raise GrammarError("The reply names no box.")
        return Heard("adjusted", box=self._eyes.read(numbers[0], view))


def salient_part(view: View, prior: Callable[[Image.Image], np.ndarray]) -> Box:
    """The most salient part of a view, in source pixels."""
    box = most_salient(prior(Image.fromarray(view.pixels)))
    return view.to_source((box.x0, box.y0, box.x1, box.y1))


def part(view: View, box: Box) -> np.ndarray:
    """The pixels of a view that show a source box, uint8 HWC; enlarged when they are very few."""
    height, width = view.pixels.shape[:2]
    x0, y0, x1, y1 = view.to_view(box)
    left, top = max(0, int(x0)), max(0, int(y0))
    right, bottom = min(width, int(np.ceil(x1))), min(height, int(np.ceil(y1)))
    if right <= left or bottom <= top:
        raise InvalidBox("The box lies outside the picture.")
    cut = view.pixels[top:bottom, left:right]
    grow = SMALLEST_READ_PX / min(cut.shape[:2])
    if grow <= 1:
        return np.ascontiguousarray(cut)
    size = (round(cut.shape[1] * grow), round(cut.shape[0] * grow))
    return np.asarray(Image.fromarray(cut).resize(size, Image.Resampling.BICUBIC))
