"""How many sign tasks on photographs the agent solves, with how many looks, and a searcher that
cannot read beside it.

The photographs lie beside the checkout and are no part of it; without them nothing is measured.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from pipeline.agent.critic import SecondReading, verify
from pipeline.agent.episode import Limits, run_episode
from pipeline.agent.pocket_reader import PocketReader, build_reader
from pipeline.agent.scripted import ScriptedPolicy
from pipeline.agent.tools import Tools
from pipeline.models.sam import Segmenter, load
from pipeline.synthesis.tasks import Problem
from tests.bench.test_row_cost import report
from tests.bench.test_signs import TASKS, Made, made, photos
from tests.scenes.blob_baseline import solves

pytestmark = [pytest.mark.bench, pytest.mark.torch]

BUDGETS = (224, 336, 448, 672, 1024)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one question at one budget."""

    solved: bool
    looks: int
    """That were taken, dead ends included."""
    kept: int
    """Of them, those that the answer rests on."""
    again: bool
    """Whether a first answer was sent back or a box adjusted."""
    finish: str
    task: str
    seconds: float


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return load("pocket")


@pytest.fixture(scope="module")
def tasks(segmenter: Segmenter) -> list[Made]:
    """The first pictures that have signs: none is picked."""
    found, kept = photos(), list[Made]()
    for seed in range(9):
        for picture in found:
            task = made(picture, segmenter, seed)
            kept += [task] if task is not None else []
            if len(kept) == TASKS:
                return kept
    raise AssertionError(f"only {len(kept)} pictures with signs")


def outcome(problem: Problem, tools: Tools, budget: int) -> Outcome:
    """One episode, judged."""
    critic, started = SecondReading(tools.reader), time.process_time()
    episode = asyncio.run(
        run_episode(problem.sample, ScriptedPolicy(), tools, Limits(budget), critic=critic)
    )
    seconds, turns = time.process_time() - started, episode.turns
    path = verify(episode.trajectory, problem.truth, problem.sample.options)
    again = any(t.role == "critic" or t.tool == "adjust_box" for t in turns)
    looks = sum(t.role == "policy" and t.tool == "zoom" for t in turns)
    verified, kept = bool(path.verified), path.num_zooms
    return Outcome(verified, looks, kept, again, path.finish, problem.task, seconds)


def told(name: str, outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Prints and gives the figures of some outcomes."""
    solved = [one for one in outcomes if one.solved]
    looks = Counter(min(one.looks, 5) for one in solved)
    figures = {
        "tasks": float(len(outcomes)),
        "solved": len(solved) / len(outcomes),
        "two_looks": float(np.mean([one.looks >= 2 for one in solved])),
        "two_kept": float(np.mean([one.kept >= 2 for one in solved])),
        "again": float(np.mean([one.again for one in solved])),
        "forced": float(np.mean([one.finish == "forced" for one in outcomes])),
        "mean_s": float(np.mean([one.seconds for one in outcomes])),
        "worst_s": max(one.seconds for one in outcomes),
    }
    kinds = {one.task for one in outcomes}
    shares = {k: float(np.mean([o.solved for o in outcomes if o.task == k])) for k in sorted(kinds)}
    report(name, **figures, **{f"looks_{n}": looks[n] for n in range(6)}, **shares)
    return figures


def test_most_tasks_are_solved_by_reading_and_few_by_colour(
    tasks: list[Made], segmenter: Segmenter
) -> None:
    reader: PocketReader = build_reader()
    first, every = dict[int, dict[str, float]](), dict[int, dict[str, float]]()
    boxes = [Tools(task.prepared.image, segmenter, reader=reader) for task in tasks]
    for budget in BUDGETS:
        of = [
            [outcome(problem, tools, budget) for problem in task.prepared.problems]
            for task, tools in zip(tasks, boxes, strict=True)
        ]
        first[budget] = told(f"signs_solved_{budget}", [one[0] for one in of])
        every[budget] = told(f"signs_solved_all_{budget}", [one for some in of for one in some])
    blind = blob_share(tasks)
    report("signs_solved_by_colour", solved=blind)
    assert first[672]["solved"] >= 0.7 and every[672]["solved"] >= 0.7
    assert blind <= 0.3
    assert every[224]["two_kept"] >= 0.2 and every[224]["again"] >= 0.1
    assert every[672]["mean_s"] < 1.0


def blob_share(tasks: Sequence[Made]) -> float:
    """Share of all questions that the most saturated blob of the first view gives away."""
    solved = []
    for task in tasks:
        caps = {sign.box: min(sign.cap_px) for sign in task.signs}
        for problem in task.prepared.problems:
            targets = problem.truth.target_boxes
            cap = min((caps[box] for box in targets), default=0.0)
            solved.append(solves(task.prepared.image, targets, cap))
    return float(np.mean(solved))
