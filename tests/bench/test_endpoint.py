"""How much of a server's limit one worker reaches, counted in the server's own log."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import quantiles
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.agent.chat import Picture, Request, Said
from pipeline.agent.crew import VisionCrews
from pipeline.agent.desk import Task
from pipeline.agent.encoding import picture_of
from pipeline.agent.endpoint import open_endpoint
from pipeline.agent.episode import Limits, run_episode
from pipeline.agent.families import FAMILIES
from pipeline.agent.tools import Tools
from pipeline.config import config_from
from pipeline.samples import Sample, Truth
from tests.agent.fakes import Paper
from tests.bench.test_row_cost import report
from tests.loopback.server import Body, Loopback, rate_limited

pytestmark = [pytest.mark.bench, pytest.mark.torch]

ANSWER = "<think> It can be read. </think><answer> A7K </answer>"


def _serve(pipe: Any, at_once: int, latency_s: float, faulty: bool) -> None:
    """A server in a process of its own, on the last core."""
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
            call = {"name": "zoom", "arguments": {"box": [20, 20, 90, 90]}}
            return f"<think> Look. </think><tool_call>{json.dumps(call)}</tool_call>"
        return ANSWER

    with Loopback(brain, latency_s=latency_s, at_once=at_once) as server:
        pipe.send(server.url)
        pipe.recv()
        pipe.send([(seen.in_s, seen.out_s) for seen in server.log])


def _served(
    work: Callable[[str], Any], at_once: int, latency_s: float, *, faulty: bool = False
) -> tuple[Any, list[tuple[float, float | None]]]:
    """What the work gave, and when each request came and went."""
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


def _steady_rate(log: list[tuple[float, float | None]], latency_s: float) -> float:
    """Replies a second between the time when the server was full and when work ran out."""
    ends = sorted(end for _, end in log if end is not None)
    first, last = ends[0] + 6 * latency_s, ends[-1] - 3 * latency_s
    inside = [end for end in ends if first < end < last]
    return len(inside) / (last - first)


@pytest.mark.parametrize(("at_once", "latency_s"), [(128, 1.0), (512, 2.0)])
def test_pictures_encoded_beforehand(at_once: int, latency_s: float) -> None:
    rng = np.random.default_rng(0)
    grain = rng.integers(0, 255, (56, 56, 3), np.uint8)
    picture = picture_of(Image.fromarray(grain).resize((448, 448)), 90)

    async def ask(url: str) -> float:
        settings = config_from({"endpoint": {"urls": [url], "in_flight": at_once}}).endpoint
        model = await open_endpoint(settings, "loopback")
        try:
            calls = [model.reply(_request(picture, n)) for n in range(at_once * 20)]
            started = time.process_time()
            await asyncio.gather(*calls)
            return (time.process_time() - started) / len(calls)
        finally:
            await model.close()

    cpu_s, log = _served(lambda url: asyncio.run(ask(url)), at_once, latency_s)
    limit = at_once / latency_s
    report(
        f"endpoint_{at_once}_in_flight",
        picture_kb=len(picture.jpeg) / 1000,
        replies_per_s=_steady_rate(log, latency_s),
        limit_per_s=limit,
        share=_steady_rate(log, latency_s) / limit,
        cpu_ms_per_call=cpu_s * 1000,
    )


def _request(picture: Picture, number: int) -> Request:
    return Request("read", (Said("user", (picture, f"{number}")),))


@pytest.mark.parametrize("faulty", [False, True])
def test_crops_cut_and_encoded_on_the_way(faulty: bool) -> None:
    """Whole episodes: two planner turns, a critic and a summary for each."""
    from pipeline.models.sam import load

    at_once, latency_s, episodes = 128, 1.0, 800
    config = config_from(
        {"policy": {"kind": "endpoint"}, "endpoint": {"in_flight": at_once, "tries": 8}}
    )
    grain = np.random.default_rng(0).integers(0, 255, (70, 100, 3), np.uint8)
    image = Image.fromarray(grain).resize((2000, 1400))
    lags: list[float] = []

    async def watch() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.005)
            lags.append(time.perf_counter() - began - 0.005)

    async def work(url: str) -> float:
        endpoint = config.endpoint.model_copy(update={"urls": (url,)})
        model = await open_endpoint(endpoint, "loopback")
        segmenter = load("pocket")
        with ThreadPoolExecutor(2) as threads:
            crews = VisionCrews(model, FAMILIES["qwen2.5-vl"], config, threads)
            places = asyncio.Semaphore(2 * at_once)

            async def one(number: int) -> None:
                async with places:
                    sample = Sample(f"{number}#0", str(number), image, image.size, f"{number}?")
                    tools = Tools(image, segmenter)
                    task = Task(sample.sample_id, 448)
                    crew = crews.crew(tools, task, Truth(sample.sample_id, "A7K"), Paper())
                    if number % 50 == 0:  # SAM runs beside the calls
                        asyncio.get_running_loop().run_in_executor(
                            threads, segmenter.automatic, np.asarray(image)
                        )
                    await run_episode(
                        sample,
                        crew.policy,
                        crew.tools,
                        Limits(448),
                        critic=crew.critic,
                        summariser=crew.summariser,
                    )

            watcher = asyncio.create_task(watch())
            started = time.process_time()
            await asyncio.gather(*(one(n) for n in range(episodes)))
            spent = time.process_time() - started
            watcher.cancel()
            await model.close()
            return spent

    cpu_s, log = _served(lambda url: asyncio.run(work(url)), at_once, latency_s, faulty=faulty)
    calls = 4 * episodes
    cpu_bound, wait_bound = calls / cpu_s, at_once / latency_s * (0.9 if faulty else 1.0)
    rate = _steady_rate(log, latency_s) * (0.9 if faulty else 1.0)
    report(
        "endpoint_episodes" + ("_with_429s" if faulty else ""),
        replies_per_s=rate,
        limit_by_server_per_s=wait_bound,
        limit_by_cpu_per_s=cpu_bound,
        share=rate / min(cpu_bound, wait_bound),
        cpu_ms_per_call=cpu_s / calls * 1000,
        loop_lag_p99_ms=quantiles(lags, n=100)[98] * 1000,
    )
