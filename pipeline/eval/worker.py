"""The worker of the needle sweep: draws a picture, has it read with every method, yields scores.

An item's picture is drawn where it is needed; nothing is listed and nothing but rows is stored.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from manifests.tables import DATA, MANIFEST
from pipeline.agent.opening import open_crews
from pipeline.agent.tools import Tools
from pipeline.config import Config, config_from
from pipeline.eval.design import BENCHMARK, PROTOCOL, Design
from pipeline.eval.looks import Method
from pipeline.eval.readings import Asked, Reading, score
from pipeline.eval.score_rows import Put, score_row, trace_rows
from pipeline.eval.stimuli import Item, canvas, first_size, stimulus
from pipeline.eval.subjects import HINT, Subject
from pipeline.runner.stream import Stream, off_loop
from pipeline.samples import Sample
from pipeline.shards import Ledger, Passed, Unit, Work

if TYPE_CHECKING:
    import pyarrow as pa

MAIN = "scores"
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
        self._name = config.policy.model or config.policy.kind
        self._stream = Stream(config.endpoint.in_flight)
        self._crews = self._stream.run(open_crews(config))
        segmenter = config.segmenter
        outlines = load(segmenter.checkpoint, segmenter.variant, segmenter.device)
        self._segmenter = outlines
        self._subject = Subject(self._crews, config, outlines)
        view = first_size(design.resolution)
        self._canvas = canvas(design.resolution, self._subject.sent(view))

    def units(self, work: Work) -> Generator[Unit | Passed, None, None]:
        """One unit for each item, as many in work as the subject is worth.

        An item at which workers died twice is unscored.
        """

        async def make(item: Item, ledger: Ledger, rows_left: int | None) -> Unit:
            if item.key in work.crashed:
                return self._gone(item)
            work.started(item.key)
            return await self._unit(item, ledger)

        def items() -> Iterator[Item | Passed]:
            for index in work.entries:
                if index > work.entries.start or not work.skip:
                    yield self._items[index]
                yield Passed(index)

        width, height = self._canvas.source
        return self._stream.units(
            items(),
            make,
            work.ledger,
            ahead=1 if work.careful else self._crews.in_flight,
            pixels=lambda _: width * height,
        )

    def close(self) -> None:
        """Let go of connections, models and the event loop."""
        self._stream.run(self._crews.close())
        self._stream.close()

    async def _unit(self, item: Item, ledger: Ledger) -> Unit:
        drawn = await off_loop(self._crews.workers, stimulus, item, self._canvas, self._seed)
        tools = Tools(drawn.image, self._segmenter)
        tables: dict[str, list[Row]] = {MAIN: [], "traces": []}
        for method in self._design.methods:
            put = self._put(item, method, drawn.code)
            sample = Sample(put.sample_id, item.key, drawn.image, drawn.image.size, drawn.question)
            asked = Asked(sample, f"{drawn.question} {HINT}", tools, put.resolution)
            began = time.perf_counter()
            reading = await self._subject.read(method, asked, ledger)
            seconds = time.perf_counter() - began
            told = score(put.sample_id, reading, drawn.code)
            tables[MAIN].append(score_row(put, told, reading, seconds))
            tables["traces"] += trace_rows(put, reading)
        return Unit(item.key, len(tables[MAIN]), tables)

    def _gone(self, item: Item) -> Unit:
        """The unit of an item that kills whoever works on it."""
        reading = Reading(unscored="crashed_worker", finish="unfinished")
        rows = []
        for method in self._design.methods:
            put = self._put(item, method, "")
            rows.append(score_row(put, score(put.sample_id, reading, ""), reading, 0.0))
        return Unit(item.key, len(rows), {MAIN: rows})

    def _put(self, item: Item, method: Method, code: str) -> Put:
        return Put(
            BENCHMARK, item.category, item.key, item.key, code, self._name, method,
            self._design.resolution, 0, PROTOCOL,
        )  # fmt: skip
