"""How much of a server's limit one worker on one core reaches, counted in the server's own log."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from statistics import quantiles
from typing import Any

import pytest
from PIL import Image

from pipeline.config import config_from
from pipeline.runner.local import run_local
from pipeline.samples import rng_for
from pipeline.scenes.draw import scene
from pipeline.shards import Plan
from pipeline.synthesis import run
from pipeline.synthesis.worker import AT_ONCE
from tests.bench import talkers
from tests.bench.test_row_cost import report
from tests.loopback.server import Body, Loopback, rate_limited

pytestmark = [pytest.mark.bench, pytest.mark.torch]

SHARDS, TURNS = 16, 4
ANSWER = "<think> It can be read. </think><answer> A7K </answer>"


def _calls(*calls: tuple[str, list[int]]) -> str:
    written = [json.dumps({"name": name, "arguments": {"box": box}}) for name, box in calls]
    return "<think> Look. </think>" + "".join(f"<tool_call>{c}</tool_call>" for c in written)


def _serve(pipe: Any, at_once: int, latency_s: float, faulty: bool) -> None:
    """A server in a process of its own, on the last core: its model zooms, outlines, answers."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    number = 0

    def brain(body: Body) -> Any:
        nonlocal number
        number += 1
        if faulty and number % 10 == 0:
            return rate_limited(0)
        text = json.dumps(body["messages"][-1])
        if '\\"supported\\"' in text:
            return '{"supported": true, "advice": ""}'
        if '\\"needed\\"' in text:
            return '{"needed": [1], "thoughts": ["a", "b"]}'
        if len(body["messages"]) == 2:
            return _calls(("zoom", [200, 200, 420, 400]), ("segment", [250, 250, 350, 350]))
        return ANSWER

    with Loopback(brain, latency_s=latency_s, at_once=at_once) as server:
        pipe.send(server.url)
        pipe.recv()
        pipe.send([(seen.in_s, seen.out_s) for seen in server.log])


def _served(
    work: Callable[[str], Any], at_once: int, latency_s: float, *, faulty: bool = False
) -> tuple[Any, list[tuple[float, float | None]]]:
    """What the work gave, done on the first core, and when each request came and went."""
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(there, at_once, latency_s, faulty)
    )
    process.start()
    cores = os.sched_getaffinity(0)
    try:
        url = here.recv()
        os.sched_setaffinity(0, {min(cores)})
        result = work(url)
        here.send("stop")
        return result, here.recv()
    finally:
        os.sched_setaffinity(0, cores)
        process.join()


class _Clock:
    """CPU-seconds and wall clock at each event of a run."""

    def __init__(self) -> None:
        self.marks: list[tuple[str, float, float]] = []

    def __call__(self, event: dict[str, Any]) -> None:
        self.marks.append((event["event"], talkers.now(), talkers.cpu_s()))

    def steady(self, first: int) -> tuple[tuple[float, float], tuple[float, float]]:
        """From the grant of a shard, counted from 0, to that of the last one: (wall, CPU)."""
        granted = [(wall, cpu) for event, wall, cpu in self.marks if event == "granted"]
        return granted[first], granted[-1]


def _rate(
    log: list[tuple[float, float | None]], clock: _Clock, shard: int = AT_ONCE
) -> tuple[float, float]:
    """Replies a second while shards followed on shards, and CPU-seconds for each."""
    (first, cpu), (last, cpu_after) = clock.steady(shard)
    count = sum(end is not None and first < end <= last for _, end in log)
    return count / (last - first), (cpu_after - cpu) / count


@pytest.mark.parametrize("faulty", [False, True])
@pytest.mark.parametrize(("at_once", "latency_s"), [(128, 1.0), (512, 2.0)])
def test_pictures_encoded_beforehand(
    at_once: int, latency_s: float, faulty: bool, tmp_path: Path
) -> None:
    """16 shards of conversations of four calls, with journal and commits, nothing to compute."""
    clock = _Clock()
    shards = 2 * SHARDS if faulty else SHARDS  # it takes a while to see that nothing helps
    plan = Plan(str(tmp_path), "talk", "trajectories", shards * at_once, shards)

    def work(url: str) -> None:
        endpoint = {"urls": [url], "in_flight": at_once, "tries": 12}
        settings = {"endpoint": endpoint, "turns": TURNS}
        run_local(plan, talkers.TALKER, settings, workers=1, on_event=clock)

    _, log = _served(work, at_once, latency_s, faulty=faulty)
    rate, cpu_s = _rate(log, clock, SHARDS if faulty else AT_ONCE)
    limit = at_once / latency_s  # of replies, good or not: each holds a place at the server
    report(
        f"endpoint_{at_once}_in_flight" + ("_with_429s" if faulty else ""),
        picture_kb=len(talkers.photo_like().jpeg) / 1000,
        replies_per_s=rate,
        limit_per_s=limit,
        share=rate / limit,
        cpu_ms_per_call=cpu_s * 1000,
    )


def test_crops_cut_and_encoded_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real worker on photograph-sized pictures: tags planted, zoomed, outlined by SAM."""
    at_once, latency_s, pictures = 128, 1.0, 96 * SHARDS
    (tmp_path / "pictures").mkdir()
    for number in range(24):
        drawn = scene(rng_for(9, "bench", number), (1280, 960)).image
        Image.fromarray(drawn).save(tmp_path / "pictures" / f"{number}.jpg", quality=90)
    for number in range(24, pictures):
        (tmp_path / "pictures" / f"{number}.jpg").hardlink_to(
            tmp_path / "pictures" / f"{number % 24}.jpg"
        )
    monkeypatch.setattr(run, "WORKER", talkers.WATCHED)
    talkers.LAGS.clear()
    clock = _Clock()

    def work(url: str) -> None:
        config = config_from(
            {
                "source": str(tmp_path / "pictures"),
                "task": {"budgets": [672]},
                "policy": {"kind": "endpoint", "model": "loopback", "family": "qwen2.5-vl"},
                "endpoint": {"urls": [url], "in_flight": at_once},
                "run": {"dir": str(tmp_path / "runs")},
            }
        )
        run.synthesize(config, shards=SHARDS, address="none", on_event=clock)

    _, log = _served(work, at_once, latency_s)
    rate, cpu_s = _rate(log, clock)
    report(
        "endpoint_episodes",
        replies_per_s=rate,
        limit_by_server_per_s=at_once / latency_s,
        limit_by_cpu_per_s=1 / cpu_s,
        share=rate / min(1 / cpu_s, at_once / latency_s),
        cpu_ms_per_call=cpu_s * 1000,
        loop_lag_p50_ms=quantiles(talkers.LAGS, n=100)[49] * 1000,
        loop_lag_p99_ms=quantiles(talkers.LAGS, n=100)[98] * 1000,
    )
