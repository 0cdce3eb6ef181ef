"""All problems of one picture at all budgets: episodes, verdicts, and the rows they become.

Takes the problems as they are: nothing here draws, decodes or writes.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from pipeline.agent.actions import NotUnderstood
from pipeline.agent.crew import Crews
from pipeline.agent.critic import verify
from pipeline.agent.desk import Ledger, Task
from pipeline.agent.episode import Episode, Limits, run_episode
from pipeline.agent.locate import Segmenter
from pipeline.agent.tools import Tools
from pipeline.agent.writing import SignReader
from pipeline.config import Config
from pipeline.geometry import Box, Size, view_size
from pipeline.runner.ahead import in_order
from pipeline.samples import Rejection
from pipeline.shards import Unit
from pipeline.sources.base import Picture
from pipeline.synthesis import rows
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
class Solved:
    """An episode as it was worked on, before the truth is looked at."""

    episode: Episode
    prompt_sha256: str
    resolution: int
    """The lowest budget that gives this first view."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Solver:
    """What every picture of a run is worked on with."""

    config: Config
    crews: Crews
    segmenter: Segmenter
    reader: SignReader | None = None
    """For tasks whose answers are written; None where there are none."""

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
        tools = Tools(prepared.image, self.segmenter, _regions(picture, prepared), self.reader)
        jobs = [(p, r) for p in prepared.problems for r in self._budgets(p).values()]
        ahead = self.crews.in_flight

        async def makers() -> AsyncGenerator[partial[Any], None]:
            for problem, resolution in jobs:
                yield partial(self._solved, problem, resolution, tools, ledger)

        async with aclosing(in_order(makers(), ahead, GRACE_S if ahead > 1 else 0)) as solved:
            for problem in prepared.problems:
                first = self._budgets(problem)
                done = {}
                for resolution in self.config.task.budgets:
                    if rows_left is not None and tables.kept >= rows_left:
                        return tables
                    known = first[view_size(problem.sample.size, resolution)]
                    if known not in done:
                        done[known] = await anext(solved)
                    told = done[known]
                    if isinstance(told, Solved):
                        self._enter(tables, told, problem, resolution, prepared, picture)
                    elif resolution == self.config.task.budgets[0]:
                        why = ("agent", "not_understood", str(told))
                        sample = problem.sample
                        tables.reject(Rejection(sample.sample_id, 0, 0, *why), sample.image_id)
        return tables

    def _budgets(self, problem: Problem) -> dict[Size, int]:
        """The lowest budget for each size of first view."""
        sizes: dict[Size, int] = {}
        for resolution in self.config.task.budgets:
            sizes.setdefault(view_size(problem.sample.size, resolution), resolution)
        return sizes

    async def _solved(
        self, problem: Problem, resolution: int, tools: Tools, ledger: Ledger
    ) -> Solved | NotUnderstood:
        """One problem at one budget."""
        started = time.perf_counter()
        limits = self.config.episode
        bounds = Limits(resolution, limits.looks, limits.turns, limits.objections, limits.slips)
        task = Task(problem.sample.sample_id, resolution)
        crew = self.crews.crew(tools, task, problem.truth, ledger)
        try:
            episode = await run_episode(
                problem.sample,
                crew.policy,
                crew.tools,
                bounds,
                critic=crew.critic,
                summariser=crew.summariser,
            )
        except NotUnderstood as error:
            return error
        path = replace(episode.trajectory, usage=crew.usage)
        seconds = time.perf_counter() - started
        episode = replace(episode, trajectory=path)
        return Solved(episode, crew.policy.prompt_sha256, resolution, seconds)

    def _enter(
        self,
        tables: Tables,
        solved: Solved,
        problem: Problem,
        resolution: int,
        prepared: Prepared,
        picture: Picture,
    ) -> None:
        """File an episode's rows: kept when verified, else rejected with all that was paid for."""
        again = resolution != solved.resolution
        episode = _at(solved.episode, resolution, problem)
        path = episode.trajectory
        row = rows.trajectory_row(
            path,
            problem,
            prepared,
            picture,
            prompt_sha256=solved.prompt_sha256,
            same_view_as=solved.resolution if again else None,
        )
        tables.rows["timings"].append(rows.timing_row(path, 0.0 if again else solved.seconds))
        tables.rows["steps"] += rows.step_rows(path)
        if not again:
            tables.rows["traces"] += rows.trace_rows(episode)
        if path.verified:
            tables.kept += 1
            tables.rows["trajectories"].append(row)
            return
        why = _verdict(episode, problem)
        told = {
            "finish": "rejected",
            "stage": why.stage,
            "reason": why.reason,
            "detail": why.detail,
        }
        tables.rows["rejected"].append(row | told)
        tables.reject(why, problem.sample.image_id)


def _at(episode: Episode, resolution: int, problem: Problem) -> Episode:
    """The episode as solved at a budget, with the verifier's verdict."""
    path = replace(episode.trajectory, resolution=resolution)
    return replace(episode, trajectory=verify(path, problem.truth, problem.sample.options))


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
