"""Who is tested, and how it is asked: with views that a method chooses, or as an agent.

A subject sees the picture and the question. What it is told of the truth is nothing; only the
controls `oracle-crop` and `random-crop` are given crops that depend on where the answer is.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipeline.agent.actions import Call, Heard, NotUnderstood
from pipeline.agent.chat import Reply, Request, Said, Sampling
from pipeline.agent.crew import Crew, Crews, VisionCrews
from pipeline.agent.desk import Ledger, Task
from pipeline.agent.encoding import encoded
from pipeline.agent.episode import Limits, Toolbox, run_episode
from pipeline.agent.locate import Segmenter
from pipeline.agent.probes import settled
from pipeline.config import Config
from pipeline.errors import ContextOverflow, InvalidBox
from pipeline.eval.coarse_to_fine import (
    LOCATE_PROMPTS,
    Preset,
    Region,
    locate_text,
    outcome_of,
    read_region,
    region_mask,
)
from pipeline.eval.looks import Method, finer, observations
from pipeline.eval.readings import Asked, Reading, of_episode, of_reply
from pipeline.eval.scorers import answer_in
from pipeline.geometry import FrameKind, Size
from pipeline.grids import Space
from pipeline.highlight import Highlight
from pipeline.samples import Sample, Truth, rng_for
from pipeline.trajectory import Observation, TraceTurn
from pipeline.views import View

METHODS: tuple[Method, ...] = ("direct", "zoom")
"""What is compared where nothing else is asked for."""

HINT = "It is a code of three characters, capitals and digits. Answer with the code alone."
"""Told to a model that reads needles."""
SPACES: Mapping[FrameKind, Space] = {
    "pixels": "pixel",
    "thousand": "permille",
    "unit": "unit",
    "unit-padded": "unit",
}
"""How families speak of boxes, as the first stage of `coarse-to-fine` reads them."""
CELLS = (24, 24)
"""Grid on which it is told whether a box meets a cell at all."""
UNSURE = "If this part of the picture does not show it, reply with the single word unclear."


@dataclass(frozen=True, slots=True)
class Subject:
    """A policy with its tools."""

    crews: Crews
    config: Config
    segmenter: Segmenter
    preset: Preset | None = None
    """For `coarse-to-fine`."""

    def sent(self, view: Size) -> Size:
        """(width, height) at which a view of that size is sent: models may see less of it."""
        if not isinstance(self.crews, VisionCrews):
            return view
        seen = self.crews.family.seen(view)
        return min(view[0], seen[0]), min(view[1], seen[1])

    async def read(self, method: Method, asked: Asked, ledger: Ledger) -> Reading:
        """What the subject answers; raises `ModelError`, `BudgetReached`."""
        sample = asked.sample
        task = Task(sample.sample_id, asked.resolution, asked.rollout)
        crew = self.crews.crew(asked.tools, task, Truth(sample.sample_id, ""), ledger)
        models = isinstance(self.crews, VisionCrews)
        looks = self.config.episode.looks
        if method == "uniform":
            method, asked = "direct", replace(asked, resolution=finer(asked.resolution))
        try:
            if method == "zoom":
                if models and self.config.policy.asked_as == "roles":
                    sample = replace(sample, question=asked.text, options=())
                return await self._episode(crew, sample, asked, looks)
            if not models and method == "direct":
                return await self._episode(crew, sample, asked, 0)
            if method == "coarse-to-fine":
                return await self._steered(crew, asked)
            views = self._views(method, asked)
            if not models:
                return await self._scripted(crew, asked, views)
            if method == "exhaustive":
                return await self._each(crew, asked, views)
            reply = await self._ask(crew, views, asked.text)
            return of_reply(reply, views, crew.usage)
        except ContextOverflow as error:
            return Reading(unscored=f"context_overflow: {error.message}", usage=crew.usage)
        except NotUnderstood as error:
            return Reading(unscored=f"not_understood: {error}", usage=crew.usage)
        except InvalidBox as error:  # a picture, or a box of the benchmark, that cannot be shown
            return Reading(unscored=f"not_shown: {error}", usage=crew.usage)
        except _NotThere as error:
            return Reading(unscored=str(error), usage=crew.usage)

    def _views(self, method: Method, asked: Asked) -> list[View]:
        sample = asked.sample
        if method == "oracle-crop" and not asked.boxes:
            raise _NotThere("no_boxes: The benchmark does not say where the answer is.")
        rng = rng_for(self.config.seed, sample.sample_id, "random-crop", asked.rollout)
        seen = observations(
            method, sample.size, asked.resolution, boxes=asked.boxes, salient=asked.salient, rng=rng
        )
        return [asked.tools.view(observation) for observation in seen]

    async def _ask(
        self,
        crew: Crew,
        views: Sequence[View],
        text: str,
        highlight: Highlight | None = None,
        most: int | None = None,
    ) -> Reply:
        """One call with all the views, in their order, and one text."""
        assert crew.desk is not None and isinstance(self.crews, VisionCrews)
        loop, family = asyncio.get_running_loop(), self.crews.family
        pictures = [
            await loop.run_in_executor(self.crews.workers, encoded, view.pixels, family)
            for view in views
        ]
        policy = self.config.policy
        sampling = Sampling(policy.temperature, policy.top_p, most or policy.max_tokens)
        said = Said("user", (*pictures, text))
        return await crew.desk.ask(Request("read", (said,), sampling, highlight=highlight))

    async def _each(self, crew: Crew, asked: Asked, views: Sequence[View]) -> Reading:
        """Every view by itself; of the sure answers the commonest, of those the first."""
        replies = [await self._ask(crew, [view], f"{asked.text}\n{UNSURE}") for view in views]
        sure = Counter(settled(answer_in(reply.text)) for reply in replies)
        del sure[""]
        turns = tuple(TraceTurn("policy", reply.text) for reply in replies)
        answer = sure.most_common(1)[0][0] if sure else ""
        return replace(
            of_reply(replies[-1], views, crew.usage), answer=answer, fault="", turns=turns
        )

    async def _scripted(self, crew: Crew, asked: Asked, views: Sequence[View]) -> Reading:
        """A script reads each view by itself, the whole picture last; the first sure answer."""
        assert crew.prober is not None
        crops = views[1:]
        answers = [await crew.prober.from_crop(asked.sample, crop) for crop in crops]
        answers.append(await crew.prober.unaided(asked.sample, asked.resolution))
        turns = tuple(TraceTurn("policy", answer) for answer in answers)
        tokens = sum(view.observation.visual_tokens for view in views)
        answer = next(filter(None, answers), "")
        return Reading(answer, zooms=len(crops), visual_tokens=tokens, turns=turns)

    async def _steered(self, crew: Crew, asked: Asked) -> Reading:
        """The model names a region, then answers while it attends to it more."""
        preset = self.preset
        assert preset is not None and isinstance(self.crews, VisionCrews)
        view = asked.tools.open_view(asked.resolution)
        found, said = await self._located(crew, asked, view, preset)
        outcome = outcome_of(found, region_mask(found, CELLS, preset))
        reply = await self._ask(crew, [view], asked.text, steering(found, preset))
        reading = of_reply(reply, [view, view], crew.usage)
        turns = (TraceTurn("policy", said), *reading.turns)
        return replace(reading, turns=turns, outcome=outcome, zooms=0)

    async def _located(
        self, crew: Crew, asked: Asked, view: View, preset: Preset
    ) -> tuple[Region, str]:
        """Where the model says the answer is, and its words; a model that was never taught boxes
        is given the most salient part of the picture."""
        assert isinstance(self.crews, VisionCrews)
        family, (width, height) = self.crews.family, asked.sample.size
        if not family.boxes:
            part = asked.salient
            assert part is not None
            box = part.x0 / width, part.y0 / height, part.x1 / width, part.y1 / height
            return Region((box,)), "the most salient part"
        space = SPACES[family.kind]
        text = locate_text(asked.text, LOCATE_PROMPTS[space])
        reply = await self._ask(crew, [view], text, most=preset.locate_tokens)
        sent = self.sent(view.observation.size)
        return read_region(reply.text, preset, space=space, size=sent), reply.text

    async def _episode(self, crew: Crew, sample: Sample, asked: Asked, looks: int) -> Reading:
        """The policy by itself with its tools: no model reviews or rewrites what it does."""
        limits = self.config.episode
        tools = _Watched(crew.tools)
        episode = await run_episode(
            sample,
            crew.policy,
            tools,
            Limits(asked.resolution, looks, limits.turns, limits.objections, limits.slips),
            rollout=asked.rollout,
        )
        return of_episode(episode, tools.seen, crew.usage)


def steering(found: Region, preset: Preset) -> Highlight | None:
    """What the second answer attends to more; None where there is nothing to highlight."""
    if not (found.boxes or found.whole):
        return None
    return Highlight(
        found.boxes,
        preset.weight,
        preset.expansion,
        preset.square,
        preset.compat,
        whole=found.whole,
    )


class _NotThere(Exception):
    """What a method needs, the benchmark has not."""


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
