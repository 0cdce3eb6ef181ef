"""Policy of a vision language model that is asked as it was trained: the profile `cof-v2`.

Owns one conversation, which `trajectory.render` would write of the path that comes of it: the same
instructions, question, views and turns, boxes in the same numbers. No tool but the zoom of the data
exists, and what cannot be used is told in the words in which training tells it. Only the end that
limits force, and a critic's objection, are words that no training has.
"""

from __future__ import annotations

import hashlib
import io
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import get_args

import numpy as np
from PIL import Image

from pipeline.agent import roles
from pipeline.agent.actions import Action, Answer, Call, Heard, NotUnderstood, Slip
from pipeline.agent.chat import Part, Picture, Reply, Request, Said
from pipeline.agent.tools import Tools
from pipeline.agent.vision import answered, nearest
from pipeline.agent.vision_tools import Eyes
from pipeline.answers import ASKS_FOR_BOX, box_of
from pipeline.errors import GrammarError, InvalidBox
from pipeline.geometry import Box, Frame, FrameKind
from pipeline.grammar import parse
from pipeline.instructions import instructions
from pipeline.trajectory import question_text
from pipeline.turns import ZoomCall
from pipeline.views import View

PNG_LEVEL = 1
"""A picture is sent once and not kept: speed goes before size."""


def _prompts_sha256() -> str:
    one = (1, 1)
    frames = (Frame(kind, one, one if kind == "pixels" else None) for kind in get_args(FrameKind))
    told = [roles.PROMPTS_SHA256, *(instructions("cof-v2", frame) for frame in frames)]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


PROMPTS_SHA256 = _prompts_sha256()
"""Digest of all that such a model is told, and of the other roles' words."""


@dataclass(frozen=True)
class TrainedPolicy:
    """One episode's model, spoken to in `cof-v2`."""

    name: str
    """As written to the `policy` column."""
    eyes: Eyes

    prompt_sha256 = PROMPTS_SHA256

    def begin(
        self, sample_id: str, question: str, options: Sequence[str], rollout: int = 0
    ) -> TrainedPlanner:
        """A planner for a question; raises `NotUnderstood` for one that no export can hold."""
        try:
            return TrainedPlanner(self.eyes, question, question_text(question, options))
        except GrammarError as error:
            raise NotUnderstood(error.message) from error


class TrainedPlanner:
    """One conversation."""

    def __init__(self, eyes: Eyes, question: str, asked: str) -> None:
        self._eyes = eyes
        self._question = question
        self._asked = asked
        self._frame: Frame | None = None
        self._views: list[View] = []
        self._said: list[Said] = []
        self._waiting: deque[ZoomCall] = deque()
        self._thought = ""

    async def act(self, heard: Heard) -> Action:
        """The next zoom of the turn, or what the model says next."""
        await self._hear(heard)
        if self._waiting:
            return self._zoom(self._waiting.popleft())
        reply = await self._ask()
        try:
            return self._understood(reply)
        except GrammarError as error:
            return Slip(reply.text, error.message)

    async def _hear(self, heard: Heard) -> None:
        """Put what came back into the conversation: a message of its own for each call."""
        if heard.view is not None:
            self._views.append(heard.view)
            shown = await self._eyes.off_loop(lossless, heard.view.pixels)
            if heard.kind == "opening":
                first = heard.view.observation
                size = int(first.region.x1), int(first.region.y1)
                self._frame = self._eyes.family.frame(size, first.size)
                self._said.append(Said("system", (instructions("cof-v2", self._frame),)))
                self._tell(shown, self._asked)
            else:
                self._thought = ""
                self._tell(shown)
        elif heard.kind == "error":
            self._tell(roles.MISREAD.format(why=heard.text.removeprefix("Error: ")))
        else:
            self._waiting.clear()
            forced = heard.kind == "forced"
            self._tell(roles.FORCED if forced else roles.OBJECTION.format(text=heard.text))

    def _tell(self, *parts: Part) -> None:
        self._said.append(Said("user", parts))

    async def _ask(self) -> Reply:
        desk = self._eyes.desk
        reply = await desk.ask(Request("planner", tuple(self._said), self._eyes.sampling))
        desk.turn += 1
        self._said.append(Said("assistant", (reply.text,)))
        return reply

    def _understood(self, reply: Reply) -> Action:
        """What a turn asks for or answers; raises `GrammarError`."""
        if reply.finish == "length":
            raise GrammarError("The turn is longer than a turn may be.")
        turn = parse(reply.text, "cof-v2")
        if turn.answer is not None:
            return self._answer(turn.answer, turn.thought)
        self._thought = turn.thought
        self._waiting.extend(turn.calls)
        return self._zoom(self._waiting.popleft())

    def _zoom(self, call: ZoomCall) -> Action:
        """The look that a call means; the turn's thought goes with the first that is shown."""
        assert self._frame is not None
        try:
            box = Box.from_frame(call.box, self._frame)
        except InvalidBox as error:
            return Slip(f"zoom {list(call.box)}", error.message)
        return Call("zoom", nearest(self._views, box), self._thought, box, call.label)

    def _answer(self, text: str, thought: str) -> Answer:
        """An answer; one that is a box, where one is asked for, in source pixels."""
        assert self._frame is not None
        box = box_of(text) if self._question.endswith(ASKS_FOR_BOX) else None
        if box is not None:
            with suppress(InvalidBox):  # one outside is judged as it stands
                text = str(Box.from_frame(box.as_list(), self._frame).as_list())
        return answered(text, thought, self._views)


class ZoomTools:
    """The one tool of the data over a picture: each look has the whole budget, as in training."""

    def __init__(self, tools: Tools, eyes: Eyes) -> None:
        self._tools = tools
        self._eyes = eyes

    async def open(self, resolution: int) -> View:
        """The first view at a budget."""
        return await self._eyes.off_loop(self._tools.open_view, resolution)

    async def use(self, call: Call, views: Sequence[View], resolution: int) -> Heard:
        """Carry out a zoom; a box that cannot be shown comes back as an error."""
        assert call.tool == "zoom" and call.box is not None
        return await self._eyes.off_loop(self._tools.carry_out, call, views, resolution)


def lossless(pixels: np.ndarray) -> Picture:
    """uint8 HWC pixels (RGB) as PNG at their own size: what the model's own processor is to see."""
    sink = io.BytesIO()
    image = Image.fromarray(pixels)
    image.save(sink, "PNG", compress_level=PNG_LEVEL)
    return Picture(sink.getvalue(), image.size)
