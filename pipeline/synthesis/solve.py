"""All problems of one picture at all budgets: episodes, verdicts, checks, and the rows they become.

Takes the problems as they are: nothing here draws, decodes or writes.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from pipeline.agent.actions import NotUnderstood
from pipeline.agent.crew import Crew, Crews
from pipeline.agent.critic import verify
from pipeline.agent.desk import Ledger, Task
from pipeline.agent.episode import Episode, Limits, run_episode
from pipeline.agent.locate import Segmenter
from pipeline.agent.opening import WRITTEN
from pipeline.agent.probes import settled
from pipeline.agent.tools import Tools
from pipeline.agent.writing import SignReader
from pipeline.answers import is_right
from pipeline.config import Config
from pipeline.geometry import Box, Size, view_size
from pipeline.runner.ahead import in_order
from pipeline.runner.stream import off_loop
from pipeline.samples import Rejection
from pipeline.shards import Unit
from pipeline.sources.base import Picture
from pipeline.synthesis import checks, rows
from pipeline.synthesis.checks import Checked
from pipeline.synthesis.tasks import Prepared, Problem
from pipeline.trajectory import Trajectory

GRACE_S = 30.0
"""Time for calls under way to end when a picture is given up."""


@dataclass
class Tables:
    """Rows of one picture by table, and how many of them are kept."""

    kept: int = 0
    rows: defaultdict[str, list[rows.Row]] = field(default_factory=lambda: defaultdict(list))

    def reject(self, rejection: Rejection, image_id: str) -> None:
        """Count a rejection."""
        self.rows["rejections"].append(rows.rejection_row(rejection, image_id))

    def unit(self, key: str) -> Unit:
        return Unit(key, self.kept, dict(self.rows))


@dataclass(frozen=True, slots=True)
class Try:
    """One episode with the verifier's verdict, and what was checked of its path."""

    episode: Episode
    checked: Checked
    crops: tuple[str | None, ...]
    """Digest of what each step shows."""
    seconds: float

    @property
    def path(self) -> Trajectory:
        return self.episode.trajectory


@dataclass(frozen=True, slots=True)
class Solved:
    """Every try at one problem at one budget."""

    tries: tuple[Try, ...]
    prompt_sha256: str
    resolution: int
    """The lowest budget that gives this first view."""

    @property
    def right(self) -> int:
        """Tries with the right answer."""
        return sum(bool(one.path.verified) for one in self.tries)


@dataclass(frozen=True, slots=True)
class Solver:
    """What every picture of a run is worked on with."""

    config: Config
    crews: Crews
    segmenter: Segmenter
    reader: SignReader | None = None
    """For tasks whose answers are written; None where there are none."""
    prior: Callable[[Image.Image], np.ndarray] | None = None
    """Saliency of a picture, float HW, where boxes are compared with it or looks follow it."""

    async def solve(
        self,
        picture: Picture,
        prepared: Prepared,
        ledger: Ledger,
        rows_left: int | None = None,
    ) -> Tables:
        """Rows for every problem and budget; stops once `rows_left` are kept.

        A view that was solved before is not solved again. Episodes go on side by side, as many as
        the crews are worth; rows come in the same order however they are made.
        """
        tables = Tables()
        reader = self.reader if prepared.kind in WRITTEN else None
        guide = self.prior if self.config.segmenter.search == "saliency" else None
        regions = _regions(picture, prepared)
        tools = Tools(prepared.image, self.segmenter, regions, reader, guide)
        scene = _Scene(picture, prepared, tools, ledger, await self._salient(prepared.image))
        jobs = [(p, r) for p in prepared.problems for r in self._budgets(p).values()]
        ahead = self.crews.in_flight

        async def makers() -> AsyncGenerator[partial[Any], None]:
            for problem, resolution in jobs:
                yield partial(self._solved, problem, resolution, scene)

        async with aclosing(in_order(makers(), ahead, GRACE_S if ahead > 1 else 0)) as solved:
            for problem in prepared.problems:
                first = self._budgets(problem)
                done: dict[int, Solved | NotUnderstood] = {}
                for resolution in self.config.task.budgets:
                    known = first[view_size(problem.sample.size, resolution)]
                    if known not in done:
                        if rows_left is not None and tables.kept >= rows_left:
                            return tables
                        done[known] = await anext(solved)
                    elif not self.config.task.repeats:
                        continue
                    told = done[known]
                    if isinstance(told, Solved):
                        self._enter(tables, told, problem, resolution, scene, rows_left)
                    elif resolution == self.config.task.budgets[0]:
                        why = ("agent", "not_understood", str(told))
                        sample = problem.sample
                        tables.reject(Rejection(sample.sample_id, 0, 0, *why), sample.image_id)
        return tables

    async def _salient(self, image: Image.Image) -> np.ndarray | None:
        if self.prior is None or not self.config.checks.saliency:
            return None
        return await off_loop(self.crews.workers, self.prior, image)

    def _budgets(self, problem: Problem) -> dict[Size, int]:
        """The lowest budget for each size of first view."""
        sizes: dict[Size, int] = {}
        for resolution in self.config.task.budgets:
            sizes.setdefault(view_size(problem.sample.size, resolution), resolution)
        return sizes

    async def _solved(
        self, problem: Problem, resolution: int, scene: _Scene
    ) -> Solved | NotUnderstood:
        """One problem at one budget, one try after the other."""
        tries, prompt = [], ""
        for rollout in range(self.config.task.rollouts):
            task = Task(problem.sample.sample_id, resolution, rollout)
            crew = self.crews.crew(scene.tools, task, problem.truth, scene.ledger)
            try:
                tries.append(await self._tried(crew, problem, task, scene))
            except NotUnderstood as error:
                return error
            prompt = crew.policy.prompt_sha256
        return Solved(tuple(tries), prompt, resolution)

    async def _tried(self, crew: Crew, problem: Problem, task: Task, scene: _Scene) -> Try:
        """One episode, verified and, where its answer is right, checked."""
        started = time.perf_counter()
        most = self.config.episode
        bounds = Limits(task.resolution, most.looks, most.turns, most.objections, most.slips)
        episode = await run_episode(
            problem.sample,
            crew.policy,
            crew.tools,
            bounds,
            rollout=task.rollout,
            critic=crew.critic,
            summariser=crew.summariser,
        )
        path = verify(episode.trajectory, problem.truth, problem.sample.options)
        checked, crops = Checked(), tuple[str | None, ...]()
        if path.verified:
            checked = await self._checked(crew, problem, path, episode, scene.tools)
            work = partial(self._looked_at, path, scene)
            path, crops = await off_loop(self.crews.workers, work)
        path = replace(path, usage=crew.usage)
        seconds = time.perf_counter() - started
        return Try(replace(episode, trajectory=path), checked, crops, seconds)

    async def _checked(
        self, crew: Crew, problem: Problem, path: Trajectory, episode: Episode, tools: Tools
    ) -> Checked:
        """What was said where it could not have been known, and what probes answer."""
        sample, settings = problem.sample, self.config.checks
        said = checks.unfaithful(sample, path, episode.turns)
        if not said and settings.faithful == "model" and crew.auditor is not None:
            said = await crew.auditor.review(sample, path, episode.turns)
        if not settings.probes or crew.prober is None:
            return Checked(unfaithful=said)
        if not any(turn.tool == "zoom" for turn in episode.turns):
            # The answer was given from the first view alone.
            return Checked(settled(path.answer, sample.options), None, said)
        return Checked(*await checks.probe(sample, path, crew.prober, tools), said)

    def _looked_at(
        self, path: Trajectory, scene: _Scene
    ) -> tuple[Trajectory, tuple[str | None, ...]]:
        """The path with what masks and saliency say of its boxes; the digests of its crops."""
        if self.config.checks.masks:
            path = checks.with_masks(path, scene.tools)
        if scene.salient is not None:
            path = checks.with_saliency(path, scene.salient)
        return path, checks.crop_digests(path, scene.tools)

    def _enter(
        self,
        tables: Tables,
        solved: Solved,
        problem: Problem,
        resolution: int,
        scene: _Scene,
        rows_left: int | None,
    ) -> None:
        """File each try's rows: kept, or rejected with all that was paid for."""
        again = resolution != solved.resolution
        fewest = _fewest_looks(solved, problem)
        for one in solved.tries:
            if rows_left is not None and tables.kept >= rows_left:
                return
            episode = _at(one.episode, resolution)
            path = episode.trajectory
            crops = one.crops or (None,) * len(path.steps)
            row = rows.trajectory_row(
                path,
                problem,
                scene.prepared,
                scene.picture,
                prompt_sha256=solved.prompt_sha256,
                same_view_as=solved.resolution if again else None,
                crops=crops,
            )
            row["tries"], row["tries_right"] = len(solved.tries), solved.right
            row["fewest_looks"], row["objections"] = fewest, _objections(episode)
            row |= checks.columns(row, one.checked, path, problem.truth)
            tables.rows["timings"].append(rows.timing_row(path, 0.0 if again else one.seconds))
            tables.rows["steps"] += rows.step_rows(path, crops)
            if not again:
                tables.rows["traces"] += rows.trace_rows(episode)
            self._file(tables, row, episode, problem, one.checked)

    def _file(
        self, tables: Tables, row: rows.Row, episode: Episode, problem: Problem, checked: Checked
    ) -> None:
        """Keep a row, or reject it."""
        filters = self.config.filters
        if episode.trajectory.verified:
            reason = checks.refused(row, filters, checked.unfaithful)
            if not reason:
                tables.kept += 1
                weight = checks.weight_of(row["flaws"], filters)
                tables.rows["trajectories"].append(row | {"weight": weight})
                return
            why = Rejection(*_key(episode.trajectory), "filter", reason, row["answer"])
        else:
            why = _verdict(episode, problem)
            row = row | {"finish": "rejected"}
        tables.rows["rejected"].append(rows.rejected_row(row, why))
        tables.reject(why, problem.sample.image_id)


@dataclass(frozen=True, slots=True, eq=False)
class _Scene:
    """A picture under way: what its problems have in common."""

    picture: Picture
    prepared: Prepared
    tools: Tools
    ledger: Ledger
    salient: np.ndarray | None


def _fewest_looks(solved: Solved, problem: Problem) -> int | None:
    """The fewest looks with which the problem was solved at this budget; None where untold.

    0 where the answer is right from the first view alone.
    """
    right = [one for one in solved.tries if one.path.verified]
    unaided = next((o.checked.unaided_answer for o in right if o.checked.unaided_answer), "")
    truth = problem.truth
    if is_right(unaided, truth.target, problem.sample.options, truth.target_boxes):
        return 0
    probed = any(one.checked.unaided_answer is not None for one in right)
    return min(o.path.num_zooms for o in right) if probed or len(right) > 1 else None


def _objections(episode: Episode) -> int:
    """How often the critic sent an answer back."""
    return sum(turn.role == "critic" for turn in episode.turns)


def _at(episode: Episode, resolution: int) -> Episode:
    """The episode as solved at a budget."""
    return replace(episode, trajectory=replace(episode.trajectory, resolution=resolution))


def _verdict(episode: Episode, problem: Problem) -> Rejection:
    """Why a trajectory is not kept."""
    path = episode.trajectory
    if path.finish == "rejected":
        detail = episode.turns[-1].result or episode.turns[-1].text
        return Rejection(*_key(path), "agent", episode.reason, detail)
    reason = "forced" if path.finish == "forced" else "wrong_answer"
    detail = f"answered {path.answer!r}, the target is {problem.truth.target!r}"
    return Rejection(*_key(path), "verify", reason, detail)


def _key(path: Trajectory) -> tuple[str, int, int]:
    return path.sample_id, path.resolution, path.rollout


def _regions(picture: Picture, prepared: Prepared) -> list[Box]:
    """Boxes of the masks that the source brings, where they are of this picture's size."""
    size = prepared.image.size
    return [m.box for m in picture.masks if m.box is not None and (m.width, m.height) == size]
