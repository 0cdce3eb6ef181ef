"""Puzzles all the way: picture, path, row, proof; and the agent still sees views only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from manifests.database import query
from pipeline.config import Config, config_from
from pipeline.sources.base import Picture
from pipeline.synthesis.recheck import recheck
from pipeline.synthesis.run import synthesize
from pipeline.synthesis.solve import Solver, Tables
from pipeline.synthesis.tasks import Prepared, prepare
from tests.agent.fakes import Paper
from tests.scenes.pictures import photograph, with_objects

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("honesty")]

KINDS = ("closeup", "where", "change", "count")


def config(kind: str) -> Config:
    return config_from({"task": {"kind": kind, "per_image": 2, "budgets": [224, 672]}})


def work(solver: Solver, kind: str) -> Iterator[tuple[Picture, Prepared]]:
    for key in range(2):
        image = with_objects(key)[0] if kind == "change" else photograph(key)
        picture = Picture(f"{key}", image=image)
        yield picture, prepare(picture, config(kind).task, 1, solver.segmenter)


def solve(solver: Solver, kind: str, picture: Picture, prepared: Prepared) -> Tables:
    own = replace(solver, config=config(kind))
    return asyncio.run(own.solve(picture, prepared, Paper()))


@pytest.mark.parametrize("kind", KINDS)
def test_other_truths_change_no_call_and_no_answer(solver: Solver, kind: str) -> None:
    for picture, prepared in work(solver, kind):
        honest = solve(solver, kind, picture, prepared)
        problems = tuple(
            replace(p, truth=replace(p.truth, target="none", target_boxes=()))
            for p in prepared.problems
        )
        blind = solve(solver, kind, picture, replace(prepared, problems=problems))
        assert blind.rows["traces"] == honest.rows["traces"]
        assert blind.kept == 0 < len(honest.rows["traces"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_kept_proven_and_tells_its_recipes(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for key in range(3):
        image = with_objects(key)[0] if kind == "change" else photograph(key)
        image.save(folder / f"{key}.png")
    settings = config(kind).describe() | {"source": str(folder), "run": {"dir": str(tmp_path)}}
    done = synthesize(config_from(settings), shards=1, address="none")
    assert done.kept >= 4
    rows = query(tmp_path, "SELECT task, recipe, sample_id FROM trajectories").to_pylist()
    assert {row["task"] for row in rows} == {kind}
    assert all(json.loads(row["recipe"])["kind"] == kind for row in rows)
    report = recheck(done.run_dir)
    assert report.holds and report.agreed == report.looked_at == done.kept
