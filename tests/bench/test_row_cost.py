"""What a row costs end to end, against its parts measured alone on the same inputs."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from pipeline.agent.crew import ScriptedCrews
from pipeline.config import Config, config_from
from pipeline.models.sam import load
from pipeline.samples import rng_for
from pipeline.scenes.draw import scene
from pipeline.scenes.needles import plant, questions
from pipeline.sources.base import Picture
from pipeline.sources.decode import decode, encode
from pipeline.synthesis.run import synthesize
from pipeline.synthesis.solve import Solver
from pipeline.synthesis.tasks import prepare
from tests.agent.fakes import Paper

pytestmark = [pytest.mark.bench, pytest.mark.torch]

PICTURES = 16
SIZE = (1600, 1200)


def report(name: str, **figures: float | int | str) -> None:
    """One JSON line; floats with four digits that count."""
    rounded = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in figures.items()}
    print("\n" + json.dumps({"bench": name, **rounded}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JPEG files of drawn scenes."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("bench") / "pictures"
    folder.mkdir()
    for number in range(PICTURES):
        image = Image.fromarray(scene(rng_for(9, "bench", number), SIZE).image)
        (folder / f"{number:03d}.jpg").write_bytes(encode(image))
    return folder


def settings(folder: Path, runs: Path, workers: int = 1) -> Config:
    task = {"per_image": 2, "budgets": [224, 672, 1024, 1920]}
    run = {"dir": str(runs), "workers": workers}
    return config_from({"source": str(folder), "task": task, "run": run})


def test_a_row_end_to_end_against_its_parts_alone(folder: Path, tmp_path: Path) -> None:
    config = settings(folder, tmp_path / "runs")
    solver = Solver(config, ScriptedCrews(), load("pocket"))
    files = sorted(folder.iterdir())
    asyncio.run(_solve_all(config, files[:1], solver))  # warm up
    spent = dict.fromkeys(("decode", "encode", "model"), 0.0)
    loop = asyncio.new_event_loop()
    for path in files:
        data = path.read_bytes()
        started = time.process_time()
        image = decode(data)
        spent["decode"] += time.process_time() - started
        started = time.process_time()
        composite, tags = plant(image, rng_for(0, path.name, "needles"), config.task.budgets)
        questions(tags, rng_for(0, path.name, "questions"), 2)
        decode(encode(composite))
        spent["encode"] += time.process_time() - started
        picture = Picture(path.name, data=data, source="bench")
        prepared = prepare(picture, config.task, config.seed)
        started = time.process_time()
        loop.run_until_complete(solver.solve(picture, prepared, Paper()))
        spent["model"] += time.process_time() - started
    loop.close()
    started = time.process_time()
    summary = synthesize(config, shards=4, address="none")
    whole = time.process_time() - started
    rows = summary.kept + summary.rejected
    alone = sum(spent.values())
    report(
        "row_cost",
        rows=rows,
        cpu_s_per_row=whole / rows,
        parts_cpu_s_per_row=alone / rows,
        ratio=whole / alone,
        **{f"{name}_share": value / alone for name, value in spent.items()},
    )


async def _solve_all(config: Config, files: list[Path], solver: object) -> None:
    for path in files:
        picture = Picture(path.name, data=path.read_bytes(), source="bench")
        await solver.solve(picture, prepare(picture, config.task, config.seed), Paper())  # type: ignore[attr-defined]


@pytest.mark.ray
def test_one_worker_against_two(folder: Path, tmp_path: Path) -> None:
    seconds = {}
    for address in ("none", "local"):
        for workers in (1, 2):
            config = settings(folder, tmp_path / f"{address}-{workers}", workers)
            started = time.perf_counter()
            synthesize(config, shards=8, address=address)
            seconds[f"{address}_{workers}_wall_s"] = time.perf_counter() - started
    report("workers", **seconds)
