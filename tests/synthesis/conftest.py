"""Pictures, problems and a solver that the synthesis tests share."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from pipeline.agent.crew import ScriptedCrews
from pipeline.config import Config, config_from
from pipeline.samples import rng_for
from pipeline.scenes.draw import scene
from pipeline.sources.base import Picture
from pipeline.synthesis.solve import Solver, Tables
from pipeline.synthesis.tasks import Prepared, prepare
from tests.agent.fakes import Paper

BUDGETS = (224, 448, 1024)
Work = tuple[Picture, Prepared]


def drawn(number: int, size: tuple[int, int] = (1008, 672)) -> Image.Image:
    """A scene of its own seed range."""
    return Image.fromarray(scene(rng_for(77, "test-scene", number), size).image)


@pytest.fixture(scope="session")
def config() -> Config:
    return config_from({"task": {"per_image": 2, "budgets": list(BUDGETS)}})


@pytest.fixture(scope="session")
def work(config: Config) -> list[Work]:
    """Ten drawn pictures with two questions each."""
    pictures = [Picture(f"{n:03d}", image=drawn(n), source="test") for n in range(10)]
    return [(p, prepare(p, config.task, seed=5)) for p in pictures]


@pytest.fixture(scope="session")
def solver(config: Config) -> Solver:
    from pipeline.models.sam import load

    return Solver(config, ScriptedCrews(), load("pocket"))


def solve_all(solver: Solver, work: Sequence[Work]) -> list[Tables]:
    return [asyncio.run(solver.solve(picture, prepared, Paper())) for picture, prepared in work]


@pytest.fixture(scope="session")
def solved(solver: Solver, work: list[Work]) -> list[Tables]:
    """What the shipped segmenter makes of the pictures."""
    return solve_all(solver, work)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of eight small pictures, one of them broken."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for n in range(7):
        drawn(n, (640, 480)).save(folder / ("more" if n % 2 else ".") / f"{n}.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    return folder
