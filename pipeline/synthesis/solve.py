"""All problems of one picture at all budgets: episodes, verdicts, and the rows they become.

Takes the problems as they are: nothing here draws, decodes or writes.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field, replace

from pipeline.agent.actions import NotUnderstood, Policy
from pipeline.agent.critic import verify
from pipeline.agent.episode import Episode, Limits, run_episode
from pipeline.agent.locate import Segmenter
from pipeline.agent.tools import Tools
from pipeline.config import Config
from pipeline.geometry import Box, Size, view_size
from pipeline.samples import Rejection
from pipeline.shards import Unit
from pipeline.sources.base import Picture
from pipeline.synthesis import rows
from pipeline.synthesis.tasks import Prepared, Problem
from pipeline.trajectory import Trajectory


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
class Solver:
    """What every picture of a run is worked on with."""

    config: Config
    policy: Policy
    segmenter: Segmenter

    async def solve(
        self, picture: Picture, prepared: Prepared, rows_left: int | None = None
    ) -> Tables:
        """Rows for every problem and budget; stops once `rows_left` are kept."""
        tables = Tables()
        tools = Tools(prepared.image, self.segmenter, _regions(picture, prepared))
        for problem in prepared.problems:
            try:
                await self._solve(problem, tools, tables, picture, prepared, rows_left)
            except NotUnderstood as error:
                sample = problem.sample
                why = ("agent", "not_understood", str(error))
                tables.reject(Rejection(sample.sample_id, 0, 0, *why), sample.image_id)
        return tables

    async def _solve(
        self,
        problem: Problem,
        tools: Tools,
        tables: Tables,
        picture: Picture,
        prepared: Prepared,
        rows_left: int | None,
    ) -> None:
        """One problem at every budget; a view that was solved before is not solved again."""
        solved: dict[Size, Episode] = {}
        for resolution in self.config.task.budgets:
            if rows_left is not None and tables.kept >= rows_left:
                return
            started = time.perf_counter()
            size = view_size(problem.sample.size, resolution)
            known = solved.get(size)
            if known is None:
                limits = self._limits(resolution)
                solved[size] = await run_episode(problem.sample, self.policy, tools, limits)
            episode = _at(solved[size], resolution, problem)
            row = rows.trajectory_row(
                episode.trajectory,
                problem,
                prepared,
                picture,
                prompt_sha256=self.policy.prompt_sha256,
                same_view_as=known.trajectory.resolution if known else None,
            )
            _enter(tables, episode, row, problem, time.perf_counter() - started)

    def _limits(self, resolution: int) -> Limits:
        limits = self.config.episode
        return Limits(resolution, limits.looks, limits.turns, limits.objections)


def _at(episode: Episode, resolution: int, problem: Problem) -> Episode:
    """The episode as solved at a budget, with the verifier's verdict."""
    path = replace(episode.trajectory, resolution=resolution)
    return replace(episode, trajectory=verify(path, problem.truth, problem.sample.options))


def _enter(
    tables: Tables, episode: Episode, row: rows.Row, problem: Problem, seconds: float
) -> None:
    """File an episode's rows: kept when verified, else rejected with all that was paid for."""
    path = episode.trajectory
    tables.rows["timings"].append(rows.timing_row(path, seconds))
    tables.rows["steps"] += rows.step_rows(path)
    if row["same_view_as"] is None:
        tables.rows["traces"] += rows.trace_rows(episode)
    if path.verified:
        tables.kept += 1
        tables.rows["trajectories"].append(row)
        return
    why = _verdict(path, problem)
    told = {"finish": "rejected", "stage": why.stage, "reason": why.reason, "detail": why.detail}
    tables.rows["rejected"].append(row | told)
    tables.reject(why, problem.sample.image_id)


def _verdict(path: Trajectory, problem: Problem) -> Rejection:
    """Why a trajectory is not kept."""
    reason = "forced" if path.finish == "forced" else "wrong_answer"
    detail = f"answered {path.answer!r}, the target is {problem.truth.target!r}"
    return Rejection(path.sample_id, path.resolution, path.rollout, "verify", reason, detail)


def _regions(picture: Picture, prepared: Prepared) -> list[Box]:
    """Boxes of the masks that the source brings, where they are of this picture's size."""
    size = prepared.image.size
    return [m.box for m in picture.masks if m.box is not None and (m.width, m.height) == size]
