"""Signs all the way: picture, path, row, proof; and the agent still sees views only."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from manifests.database import query
from pipeline.agent.crew import ScriptedCrews
from pipeline.agent.pocket_reader import build_reader
from pipeline.config import Config, config_from
from pipeline.samples import Truth
from pipeline.sources.base import Picture
from pipeline.synthesis.recheck import recheck
from pipeline.synthesis.run import synthesize
from pipeline.synthesis.solve import Solver, Tables
from pipeline.synthesis.tasks import Prepared, prepare
from pipeline.synthesis.worker import SynthesisWorker
from tests.agent.fakes import Paper
from tests.synthesis.conftest import drawn

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("honesty")]

BUDGETS = [224, 672]


@pytest.fixture(scope="module")
def config() -> Config:
    return config_from({"task": {"kind": "signs", "per_image": 3, "budgets": BUDGETS}})


@pytest.fixture(scope="module")
def solver(config: Config) -> Solver:
    from pipeline.models.sam import load

    return Solver(config, ScriptedCrews(), load("pocket"), build_reader())


@pytest.fixture(scope="module")
def work(config: Config, solver: Solver) -> tuple[Picture, Prepared]:
    picture = Picture("s", image=drawn(4), source="test")
    return picture, prepare(picture, config.task, 2, solver.segmenter)


def solve(solver: Solver, picture: Picture, prepared: Prepared) -> Tables:
    return asyncio.run(solver.solve(picture, prepared, Paper()))


def test_other_truths_change_no_call_and_no_answer(
    solver: Solver, work: tuple[Picture, Prepared]
) -> None:
    picture, prepared = work
    honest = solve(solver, picture, prepared)
    problems = tuple(
        replace(p, truth=Truth(p.sample.sample_id, "none"), recipe="{}") for p in prepared.problems
    )
    blind = solve(solver, picture, replace(prepared, problems=problems))
    assert blind.rows["traces"] == honest.rows["traces"]
    assert blind.kept == 0 < honest.kept


def test_the_reader_reads_signs_only_where_there_are_some(tmp_path: Path, config: Config) -> None:
    from pipeline.sources.specs import open_source

    source = open_source("scenes:2")
    for kind, wanted in ((("signs",), True), (("needles",), False), (("needles", "signs"), True)):
        task = config.task.model_copy(update={"kind": kind})
        worker = SynthesisWorker(config.model_copy(update={"task": task}), source, tmp_path)
        assert (worker._solver.reader is not None) == wanted
        worker.close()


def test_a_run_is_kept_proven_and_tells_its_recipes(tmp_path: Path, config: Config) -> None:
    settings = config.describe() | {"source": "scenes:3", "run": {"dir": str(tmp_path)}}
    done = synthesize(config_from(settings), shards=1, address="none")
    assert done.kept >= 6
    rows = query(tmp_path, "SELECT task, recipe FROM trajectories").to_pylist()
    assert all(row["task"].startswith("sign_") for row in rows)
    assert all(json.loads(row["recipe"])["kind"] == "signs" for row in rows)
    fixed = json.loads((Path(done.run_dir) / "run.json").read_text())["determined_by"]
    assert {"pocket-finder", "pocket-reader"} <= fixed.keys()
    report = recheck(done.run_dir)
    assert report.holds and report.agreed == report.looked_at == done.kept
