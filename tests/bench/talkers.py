"""Workers for the endpoint's benchmark: one that only talks, and the real one, watched."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
from PIL import Image

from pipeline.agent.chat import Request, Said
from pipeline.agent.desk import Desk, Task
from pipeline.agent.encoding import picture_of
from pipeline.agent.endpoint import open_endpoint
from pipeline.config import config_from
from pipeline.runner.stream import Stream
from pipeline.shards import Ledger, Passed, Unit, Work
from pipeline.synthesis.worker import AT_ONCE, SPARE, SynthesisWorker, open_worker
from tests.runner.workers import SCHEMA

TALKER = "tests.bench.talkers:Talker"
WATCHED = "tests.bench.talkers:open_watched"

LAGS: list[float] = []
"""Seconds by which the loop of `open_watched`'s workers was late, each time it was asked."""


def photo_like() -> Any:
    """A picture of about 60 kB as JPEG."""
    grain = np.random.default_rng(0).integers(0, 255, (56, 56, 3), np.uint8)
    return picture_of(Image.fromarray(grain).resize((448, 448)), 90)


class Talker:
    """Every entry is a conversation of `turns` calls about a picture encoded beforehand."""

    main = "trajectories"
    at_once = AT_ONCE
    schemas = {"trajectories": SCHEMA}
    manifest: dict[str, Any] = {}

    def __init__(self, settings: dict[str, Any]) -> None:
        endpoint = config_from({"endpoint": settings["endpoint"]}).endpoint
        self._turns = settings["turns"]
        self._ahead = math.ceil(SPARE * endpoint.in_flight)
        self._stream = Stream(self._ahead)
        self._model = self._stream.run(open_endpoint(endpoint, "loopback"))
        self._picture = photo_like()

    def units(self, work: Work) -> Generator[Unit | Passed, None, None]:
        def keys() -> Iterator[str | Passed]:
            for entry in work.entries:
                yield f"e{entry}"
                yield Passed(entry)

        return self._stream.units(keys(), self._talk, work.ledger, ahead=self._ahead)

    async def _talk(self, key: str, ledger: Ledger, rows_left: int | None) -> Unit:
        desk = Desk(self._model, ledger, Task(key, 448))
        said = [Said("user", (self._picture, key))]
        for turn in range(self._turns):
            reply = await desk.ask(Request("planner", tuple(said)))
            said += [Said("assistant", (reply.text,)), Said("user", (f"and {turn}?",))]
        return Unit(key, 0, {})

    def close(self) -> None:
        self._stream.run(self._model.close())
        self._stream.close()


def open_watched(settings: dict[str, Any]) -> SynthesisWorker:
    """The synthesis worker; how late its loop is goes into `LAGS`."""
    worker = open_worker(settings)
    worker._stream.run(_watch_from_now_on())
    return worker


async def _watch_from_now_on() -> None:
    loop = asyncio.get_running_loop()

    def look(due: float) -> None:
        LAGS.append(max(0.0, loop.time() - due))
        due = loop.time() + 0.005
        loop.call_at(due, look, due)

    look(loop.time())


def cpu_s() -> float:
    """CPU-seconds of this process so far."""
    times = os.times()
    return times.user + times.system


def now() -> float:
    """The clock of the loopback server's log."""
    return time.monotonic()
