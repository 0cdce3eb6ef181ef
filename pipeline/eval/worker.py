"""The worker of the needle sweep: draws a picture, has it read with every method, yields scores.

An item's picture is drawn where it is needed; nothing is listed and nothing but rows is stored.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any, TypeVar

from manifests.tables import DATA, MANIFEST
from pipeline.agent.opening import open_crews
from pipeline.config import Config, config_from
from pipeline.errors import BudgetReached
from pipeline.eval.design import BENCHMARK, PROTOCOL, Design
from pipeline.eval.stimuli import Item, Stimulus, canvas, first_size, stimulus
from pipeline.eval.subjects import Method, Reading, Subject, score
from pipeline.samples import Sample, Score
from pipeline.shards import Ledger, Passed, Unit

if TYPE_CHECKING:
    import pyarrow as pa

MAIN = "scores"
ROOM_PIXELS = 400_000_000
"""Of pictures in work at a time: 1.2 GB."""
GRACE_S = 30.0
"""Time for calls under way to end when an attempt stops."""

T = TypeVar("T")
Row = dict[str, Any]


def open_worker(settings: dict[str, Any]) -> NeedlesWorker:
    """A worker from plain settings: `config` and `design`."""
    return NeedlesWorker(config_from(settings["config"]), Design.of(settings["design"]))


class NeedlesWorker:
    """Scores a subject on the items of a design."""

    main = MAIN
    at_once = 1
    schemas: Mapping[str, pa.Schema] = {"traces": DATA["traces"]}
    manifest: Mapping[str, pa.Schema] = {MAIN: MANIFEST[MAIN]}

    def __init__(self, config: Config, design: Design) -> None:
        from pipeline.models.sam import load

        self._design = design
        self._items = design.items()
        self._seed = config.seed
        self._loop = _Loop()
        self._crews = self._loop.begin(open_crews(config)).result()
        segmenter = config.segmenter
        outlines = load(segmenter.checkpoint, segmenter.variant, segmenter.device)
        self._subject = Subject(self._crews, config, outlines, design.resolution)
        view = first_size(design.resolution)
        self._canvas = canvas(design.resolution, self._subject.sent(view))
        width, height = self._canvas.source
        self._room = max(1, ROOM_PIXELS // (width * height))

    def units(
        self,
        entries: range,
        *,
        skip: int,
        rows_left: int | None,
        crashed: frozenset[str],
        careful: bool,
        started: Callable[[str], None],
        ledger: Ledger,
    ) -> Generator[Unit | Passed, None, None]:
        """One unit for each item, as many in work as the subject is worth.

        An item at which workers died twice is unscored.
        """
        gate = _Gate(ledger)
        ahead = 1 if careful else min(self._crews.in_flight, self._room)
        begun: deque[tuple[int, Future[Unit]]] = deque()

        def finished() -> Iterator[Unit | Passed]:
            index, unit = begun[0]
            if index > entries.start or not skip:
                yield unit.result()
            begun.popleft()
            yield Passed(index)

        try:
            for index in entries:
                item = self._items[index]
                work = self._gone(item) if item.key in crashed else self._unit(item, started, gate)
                begun.append((index, self._loop.begin(work)))
                if len(begun) >= ahead:
                    yield from finished()
            while begun:
                yield from finished()
        finally:
            gate.closed = True
            self._end([unit for _, unit in begun])

    def close(self) -> None:
        """Let go of connections, models and the event loop."""
        self._loop.begin(self._crews.close()).result()
        self._loop.close()

    def _end(self, begun: list[Future[Unit]]) -> None:
        """Wait for calls under way, for some time; what they cost is kept, what is left is not."""
        wait(begun, timeout=GRACE_S)
        for unit in begun:
            unit.cancel()
        self._loop.begin(_settled()).result()

    async def _unit(self, item: Item, started: Callable[[str], None], ledger: Ledger) -> Unit:
        started(item.key)
        drawn = await self._drawn(item)
        tables: dict[str, list[Row]] = {MAIN: [], "traces": []}
        for method in self._design.methods:
            sample_id = sample_id_of(item, method)
            sample = Sample(sample_id, item.key, drawn.image, drawn.image.size, drawn.question)
            began = time.perf_counter()
            reading = await self._subject.read(method, sample, ledger)
            seconds = time.perf_counter() - began
            told = score(sample_id, reading, drawn.code)
            tables[MAIN].append(self._row(item, method, told, reading, seconds))
            tables["traces"] += self._traces(sample_id, reading)
        return Unit(item.key, len(tables[MAIN]), tables)

    async def _drawn(self, item: Item) -> Stimulus:
        """The picture; it takes milliseconds, so calls in flight are not held up."""
        threads = self._crews.workers
        if threads is None:
            return stimulus(item, self._canvas, self._seed)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(threads, stimulus, item, self._canvas, self._seed)

    async def _gone(self, item: Item) -> Unit:
        """The unit of an item that kills whoever works on it."""
        reading = Reading(unscored="crashed_worker")
        rows = [
            self._row(item, method, score(sample_id_of(item, method), reading, ""), reading, 0.0)
            for method in self._design.methods
        ]
        return Unit(item.key, len(rows), {MAIN: rows})

    def _row(
        self, item: Item, method: Method, told: Score, reading: Reading, seconds: float
    ) -> Row:
        """A row of `scores`."""
        return {
            "benchmark": BENCHMARK,
            "category": item.category,
            "method": method,
            "resolution": self._design.resolution,
            "rollout": 0,
            "sample_id": told.sample_id,
            "scorer": told.scorer,
            "value": told.value,
            "explanation": told.explanation,
            "zooms": reading.zooms,
            "visual_tokens": reading.visual_tokens,
            "seconds": seconds,
            "protocol": PROTOCOL,
        }

    def _traces(self, sample_id: str, reading: Reading) -> Iterator[Row]:
        """Rows of `traces`: what was said."""
        for number, turn in enumerate(reading.turns):
            yield {
                "sample_id": sample_id,
                "resolution": self._design.resolution,
                "rollout": 0,
                "turn": number,
                "role": turn.role,
                "text": turn.text,
                "tool": turn.tool,
                "result": turn.result,
            }


def sample_id_of(item: Item, method: Method) -> str:
    """The picture's id and what it is used for: a method is a task of its own."""
    return f"{item.key}#{method}"


class _Gate:
    """A ledger that lets no new call out once it is closed."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.find, self.add, self.replayed = ledger.find, ledger.add, ledger.replayed
        self.closed = False

    def check(self) -> None:
        if self.closed:
            raise BudgetReached("The attempt is ending.")
        self._ledger.check()


class _Loop:
    """An event loop in a thread of its own, so that calls go on while the runner writes."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="eval", daemon=True)
        self._thread.start()

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """The work's result, some day."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _settled() -> None:
    """Return once every other task of the loop has ended."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others, return_exceptions=True)
