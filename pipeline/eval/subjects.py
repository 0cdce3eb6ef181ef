"""Who is tested, and how it is asked: once with the whole picture, or as an agent that may zoom.

A subject sees the picture and the question. What it is told of the truth is nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from pipeline.agent.actions import Call, Heard
from pipeline.agent.chat import Request, Said, Sampling
from pipeline.agent.crew import Crew, Crews, VisionCrews
from pipeline.agent.desk import Ledger, Task
from pipeline.agent.encoding import encoded
from pipeline.agent.episode import Episode, Limits, Toolbox, run_episode
from pipeline.agent.families import Family
from pipeline.agent.locate import Segmenter
from pipeline.agent.tools import Tools
from pipeline.answers import extract_answer, matches
from pipeline.config import Config
from pipeline.errors import ContextOverflow
from pipeline.geometry import Size
from pipeline.samples import Sample, Score, Truth
from pipeline.trajectory import Observation, TraceTurn
from pipeline.views import View

Method = Literal["direct", "zoom"]
METHODS: tuple[Method, ...] = ("direct", "zoom")
"""`direct`: the whole picture, once; `zoom`: an episode with the agent's tools."""

SCORER = "exact"
HINT = "It is a code of three characters, capitals and digits. Answer with the code alone."
"""Told to a model with either method."""

_THOUGHT_ENDS = "</think>"


@dataclass(frozen=True, slots=True)
class Reading:
    """What a subject made of a picture."""

    answer: str = ""
    fault: str = ""
    """Why there is no answer, where that is its own doing: wrong."""
    unscored: str = ""
    """Why it cannot be judged: not wrong."""
    zooms: int = 0
    visual_tokens: int = 0
    turns: tuple[TraceTurn, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Subject:
    """A policy with its tools."""

    crews: Crews
    config: Config
    segmenter: Segmenter
    resolution: int
    """The budget R of every view."""

    def sent(self, view: Size) -> Size:
        """(width, height) at which a view of that size is sent: models may see less of it."""
        if not isinstance(self.crews, VisionCrews):
            return view
        seen = self.crews.family.seen(view)
        return min(view[0], seen[0]), min(view[1], seen[1])

    async def read(self, method: Method, sample: Sample, ledger: Ledger) -> Reading:
        """What the subject answers; raises `ModelError`, `BudgetReached`."""
        tools = Tools(sample.image, self.segmenter)
        task = Task(sample.sample_id, self.resolution)
        crew = self.crews.crew(tools, task, Truth(sample.sample_id, ""), ledger)
        if isinstance(self.crews, VisionCrews):
            asked = f"{sample.question} {HINT}"
            if method == "direct":
                return await self._at_once(crew, self.crews.family, tools, asked)
            told = Sample(sample.sample_id, sample.image_id, sample.image, sample.size, asked)
            return await self._episode(crew, told, self.config.episode.looks)
        return await self._episode(crew, sample, self.config.episode.looks * (method == "zoom"))

    async def _at_once(self, crew: Crew, family: Family, tools: Tools, asked: str) -> Reading:
        """One call with the first view."""
        assert crew.desk is not None
        view = await crew.tools.open(self.resolution)
        loop, threads = asyncio.get_running_loop(), self.crews.workers
        picture = await loop.run_in_executor(threads, encoded, view.pixels, family)
        policy = self.config.policy
        sampling = Sampling(policy.temperature, policy.top_p, policy.max_tokens)
        said = Said("user", (picture, asked))
        tokens = view.observation.visual_tokens
        try:
            reply = await crew.desk.ask(Request("read", (said,), sampling))
        except ContextOverflow as error:
            return Reading(unscored=f"context_overflow: {error.message}", visual_tokens=tokens)
        cut = "malformed: The reply was cut off at policy.max_tokens."
        return Reading(
            answer_in(reply.text),
            fault=cut if reply.finish == "length" else "",
            visual_tokens=tokens,
            turns=(TraceTurn("policy", reply.text),),
        )

    async def _episode(self, crew: Crew, sample: Sample, looks: int) -> Reading:
        """The policy by itself with its tools: no model reviews or rewrites what it does."""
        limits = self.config.episode
        tools = _Watched(crew.tools)
        episode = await run_episode(
            sample,
            crew.policy,
            tools,
            Limits(self.resolution, looks, limits.turns, limits.objections, limits.slips),
        )
        return Reading(
            episode.trajectory.answer,
            **_refused(episode),
            zooms=len(tools.seen) - 1,
            visual_tokens=sum(view.visual_tokens for view in tools.seen),
            turns=episode.turns,
        )


@dataclass
class _Watched:
    """Tools, and every view that they gave: a path keeps only those that its answer needs."""

    tools: Toolbox
    seen: list[Observation] = field(default_factory=list)

    async def open(self, resolution: int) -> View:
        view = await self.tools.open(resolution)
        self.seen.append(view.observation)
        return view

    async def use(self, call: Call, views: Sequence[View], resolution: int) -> Heard:
        heard = await self.tools.use(call, views, resolution)
        if heard.view is not None:
            self.seen.append(heard.view.observation)
        return heard


def answer_in(text: str) -> str:
    """What a reply answers: after its thoughts, inside `<answer>` where there is such a tag."""
    said = text.rpartition(_THOUGHT_ENDS)[2]
    return extract_answer(said) or said.strip()


def score(sample_id: str, reading: Reading, code: str) -> Score:
    """Right, wrong, or unscored; why, unless it is right."""
    if reading.unscored:
        return Score(sample_id, SCORER, None, reading.unscored)
    if reading.fault:
        return Score(sample_id, SCORER, 0.0, reading.fault)
    if matches(reading.answer, code):
        return Score(sample_id, SCORER, 1.0)
    said = f"answered {reading.answer!r}" if reading.answer else "no_answer: The answer is empty"
    return Score(sample_id, SCORER, 0.0, f"{said}; {code} is printed")


def _refused(episode: Episode) -> dict[str, str]:
    """Why an episode has no answer, as what it counts."""
    if episode.trajectory.finish != "rejected":
        return {}
    last = episode.turns[-1]
    why = f"{episode.reason}: {last.result or last.text}"
    return {"unscored" if episode.reason == "context_overflow" else "fault": why}
