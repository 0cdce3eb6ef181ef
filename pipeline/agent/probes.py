"""Probes: what is answered from the first view alone, and from the last crop alone.

A right answer without the looks means that they were not needed, one from the crop alone that it
shows all there is to know. What a probe was shown is the only picture it saw. Which answer is right
is for the caller to say.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from PIL import Image

from pipeline.agent import roles
from pipeline.agent.actions import Call, Heard, NotUnderstood
from pipeline.agent.episode import Limits, Toolbox, run_episode
from pipeline.agent.scripted import COMPARING, ScriptedPolicy
from pipeline.agent.tools import Tools
from pipeline.agent.vision import in_pixels
from pipeline.agent.vision_tools import Eyes
from pipeline.answers import ASKS_FOR_BOX, extract_answer, option_index
from pipeline.errors import ContextOverflow, InvalidBox
from pipeline.geometry import Box
from pipeline.instructions import convention
from pipeline.samples import Sample
from pipeline.trajectory import Observation
from pipeline.views import View

PROBE = (
    "{asked}\nAnswer from this picture alone. Reply with the answer alone; if the picture does not "
    "show it clearly enough to be certain, reply with the single word unclear."
)
BOX = "A box is [left, top, right, bottom] {convention}."

PROMPTS_SHA256 = hashlib.sha256("\n".join((PROBE, BOX)).encode()).hexdigest()
"""Digest of all that a model is told in a probe."""

_UNSURE = re.compile(
    r"\b(?:un(?:clear|known|sure|certain|able|readable|answerable|determined)|indeterminate"
    r"|illegible|no such|can ?not|could not|(?:ca|could)n['’]?t"
    r"|(?:do not|does not|don['’]?t|doesn['’]?t) (?:know|see|show|say|tell|contain|appear|provide)"
    r"|(?:not|isn['’]?t|hardly|barely) (?:\w+ )?(?:sure|certain|clear|visible|legible|readable|"
    r"possible|enough|shown|able|present|determinable))\b",
    re.IGNORECASE,
)
_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)


class Prober(Protocol):
    """Answers a question from one picture; "" where the answer is unsure."""

    async def unaided(self, sample: Sample, resolution: int) -> str:
        """From the first view at a budget, without a look."""

    async def from_crop(self, sample: Sample, look: View) -> str:
        """From what a look shows; a box in pixels of the source."""


@dataclass(frozen=True)
class ScriptedProber:
    """The scripted policy with its looks taken away: a function of the pixels it is shown."""

    policy: ScriptedPolicy
    tools: Tools

    async def unaided(self, sample: Sample, resolution: int) -> str:
        return await self._answer(sample, self.tools, resolution)

    async def from_crop(self, sample: Sample, look: View) -> str:
        """From the crop; "" where the question compares places, as the others are not in it."""
        if any(pattern.fullmatch(sample.question) for pattern in COMPARING):
            return ""
        tools = self.tools.afresh(Image.fromarray(look.pixels))
        return await self._answer(sample, _Alone(_somewhere(look, sample), tools), 0)

    async def _answer(self, sample: Sample, tools: Toolbox, resolution: int) -> str:
        limits = Limits(resolution, looks=0, objections=0)
        try:
            episode = await run_episode(sample, self.policy, tools, limits)
        except NotUnderstood:
            return ""
        path = episode.trajectory
        return settled(path.answer, sample.options) if path.finish == "answered" else ""


@dataclass(frozen=True)
class _Alone:
    """One view and the tools that work on it: there is nothing behind it to zoom into."""

    view: View
    tools: Tools

    async def open(self, resolution: int) -> View:
        return self.view

    async def use(self, call: Call, views: Sequence[View], resolution: int) -> Heard:
        return self.tools.carry_out(call, views, resolution)


def _somewhere(look: View, sample: Sample) -> View:
    """The same pixels, as if they were the lower right part of the picture.

    How large things are in the source stays known, as scripts go by it; where they are does not.
    """
    (width, height), seen = sample.size, look.observation
    place = Box(width - seen.region.width, height - seen.region.height, width, height)
    return View(Observation(place, seen.size), look.pixels)


@dataclass(frozen=True)
class VisionProber:
    """A vision language model, asked once with one picture.

    Always at temperature 0: the probe is the same for all tries, and paid for once.
    """

    eyes: Eyes
    tools: Tools

    async def unaided(self, sample: Sample, resolution: int) -> str:
        view = await self.eyes.off_loop(self.tools.open_view, resolution)
        return await self._answer(sample, view)

    async def from_crop(self, sample: Sample, look: View) -> str:
        return await self._answer(sample, look)

    async def _answer(self, sample: Sample, view: View) -> str:
        eyes = replace(self.eyes, sampling=replace(self.eyes.sampling, temperature=0.0))
        asked = PROBE.format(asked=roles.asked(sample.question, sample.options))
        if sample.question.endswith(ASKS_FOR_BOX):
            asked += " " + BOX.format(convention=convention(eyes.frame(view)))
        try:
            said = await eyes.ask("probe", view.pixels, asked)
        except (ContextOverflow, InvalidBox):  # more, or thinner, than the model can see
            return ""
        return in_pixels(settled(said, sample.options), sample.question, eyes, view)


def settled(said: str, options: Sequence[str] = ()) -> str:
    """The answer in a reply, on one line; "" where it says anywhere that it is unsure.

    That there is no such thing, or that it cannot be read, is unsure, too: one view may be the
    wrong one for it. Only among options such words are an answer.
    """
    text = _THOUGHT.sub(" ", said)
    text = " ".join((extract_answer(text) or text).split()).strip("\"'“”‘’` ")
    if options and option_index(text, options) is not None:
        return text
    return "" if _UNSURE.search(text) else text
