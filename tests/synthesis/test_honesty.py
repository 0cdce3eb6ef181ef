"""The agent earns its answers: it sees views only, and what is kept is what was verified."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.samples import Truth
from pipeline.synthesis.solve import Solver, Tables
from pipeline.synthesis.tasks import Prepared, Problem
from pipeline.views import first_view
from tests.synthesis.conftest import BUDGETS, Work, solve_all

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("honesty")]


def rows(tables: list[Tables], name: str) -> Iterator[dict[str, Any]]:
    for table in tables:
        yield from table.rows[name]


def key(row: dict[str, Any]) -> tuple[str, int]:
    return row["sample_id"], row["resolution"]


def told(work: list[Work], truths: dict[str, Truth]) -> list[Work]:
    """The same work with other truths for some samples."""

    def changed(problem: Problem) -> Problem:
        return replace(problem, truth=truths.get(problem.sample.sample_id, problem.truth))

    return [(p, replace(d, problems=tuple(changed(q) for q in d.problems))) for p, d in work]


def test_most_tasks_are_solved_and_looks_fall_as_the_budget_grows(solved: list[Tables]) -> None:
    kept = list(rows(solved, "trajectories"))
    assert len(kept) >= 0.85 * len(kept + list(rows(solved, "rejected")))
    looks = [np.mean([r["num_zooms"] for r in kept if r["resolution"] == b]) for b in BUDGETS]
    assert looks == sorted(looks, reverse=True)
    assert looks[0] > looks[-1] + 0.3


def test_every_row_is_kept_or_rejected_and_none_twice(solved: list[Tables]) -> None:
    keys = [key(r) for name in ("trajectories", "rejected") for r in rows(solved, name)]
    assert len(keys) == len(set(keys)) == 10 * 2 * len(BUDGETS)
    assert all(r["verified"] for r in rows(solved, "trajectories"))
    assert not any(r["verified"] for r in rows(solved, "rejected"))


def test_a_wrong_truth_rejects_its_sample_and_changes_no_other_row(
    solver: Solver, work: list[Work], solved: list[Tables]
) -> None:
    chosen = [work[3][1].problems[0], work[7][1].problems[1]]
    others = [chosen[1].truth, chosen[0].truth]
    swapped = {
        p.sample.sample_id: replace(o, sample_id=p.sample.sample_id)
        for p, o in zip(chosen, others, strict=True)
    }
    again = solve_all(solver, told(work, swapped))
    for name in ("trajectories", "rejected", "steps"):
        before = [r for r in rows(solved, name) if r["sample_id"] not in swapped]
        assert before == [r for r in rows(again, name) if r["sample_id"] not in swapped]
    assert not [r for r in rows(again, "trajectories") if r["sample_id"] in swapped]
    reasons = [r["reason"] for r in rows(again, "rejections") if r["sample_id"] in swapped]
    assert len(reasons) == len(swapped) * len(BUDGETS)


def test_permuting_all_truths_changes_no_call_and_no_answer(
    solver: Solver, work: list[Work], solved: list[Tables]
) -> None:
    problems = [problem for _, prepared in work[:4] for problem in prepared.problems]
    ids = [problem.sample.sample_id for problem in problems]
    moved = problems[1:] + problems[:1]
    truths = {i: replace(p.truth, sample_id=i) for i, p in zip(ids, moved, strict=True)}
    again = solve_all(solver, told(work[:4], truths))
    assert list(rows(again, "traces")) == list(rows(solved[:4], "traces"))
    same = {
        i for i, p, q in zip(ids, problems, moved, strict=True) if p.truth.target == q.truth.target
    }
    assert len(same) < len(ids) / 2
    assert {r["sample_id"] for r in rows(again, "trajectories")} <= same


def test_a_pattern_that_vanishes_at_the_budget_leaves_the_first_box_unchanged(
    solver: Solver, work: list[Work]
) -> None:
    task = solver.config.task.model_copy(update={"budgets": (224,)})
    narrow = replace(solver, config=solver.config.model_copy(update={"task": task}))
    plain = [(p, drawn_over(d, 0)) for p, d in work[:6]]
    patterned = [(p, drawn_over(d, 3)) for p, d in work[:6]]
    for (_, before), (_, after) in zip(plain, patterned, strict=True):
        views = [first_view(d.image, 224).pixels.astype(int) for d in (before, after)]
        assert np.abs(views[1] - views[0]).max() <= 1, "more than rounding at the borders"
        assert np.mean(views[1] != views[0]) < 0.02
        assert not np.array_equal(np.asarray(before.image), np.asarray(after.image))
    firsts = [first_boxes(solve_all(narrow, work)) for work in (plain, patterned)]
    assert firsts[0] == firsts[1]
    assert len(firsts[0]) > 3


def test_random_weights_solve_next_to_nothing(solver: Solver, work: list[Work]) -> None:
    import torch

    from pipeline.models.sam import Segmenter
    from pipeline.models.sam_build import build

    torch.manual_seed(0)
    random = replace(solver, segmenter=Segmenter(build("pocket"), "pocket", "random"))
    tables = solve_all(random, work[:4])
    kept = len(list(rows(tables, "trajectories")))
    assert kept <= 0.1 * (kept + len(list(rows(tables, "rejected"))))


def drawn_over(prepared: Prepared, depth: int) -> Prepared:
    """The picture with a one-pixel chequered pattern of `depth` levels over all of it.

    The first view is a quarter as wide and high: there the pattern's halves cancel, but for what
    rounding leaves at the borders.
    """
    pixels = np.clip(np.asarray(prepared.image).astype(np.int16), 4, 251)
    rows_, columns = np.indices(pixels.shape[:2])
    sign = np.where((rows_ + columns) % 2, depth, -depth)[..., None]
    image = Image.fromarray((pixels + sign).astype(np.uint8))
    return replace(prepared, image=image, problems=shown(prepared, image))


def shown(prepared: Prepared, image: Image.Image) -> tuple[Problem, ...]:
    return tuple(replace(p, sample=replace(p.sample, image=image)) for p in prepared.problems)


def first_boxes(tables: list[Tables]) -> dict[str, str]:
    """The first zoom of every sample, as it was called."""
    found: dict[str, str] = {}
    for row in rows(tables, "traces"):
        if row["role"] == "policy" and row["tool"] == "zoom":
            found.setdefault(row["sample_id"], row["result"])
    return found
