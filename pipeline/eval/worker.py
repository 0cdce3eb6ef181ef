"""The worker of the needle sweep: draws a picture, has it read with every method, yields scores.

An item's picture is drawn where it is needed; nothing is listed and nothing but rows is stored.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from manifests.tables import DATA, MANIFEST
from pipeline.agent.opening import open_crews
from pipeline.config import Config, config_from
from pipeline.eval.design import BENCHMARK, PROTOCOL, Design
from pipeline.eval.stimuli import Item, canvas, first_size, stimulus
from pipeline.eval.subjects import Method, Reading, Subject, score
from pipeline.runner.stream import Stream, off_loop
from pipeline.samples import Sample, Score
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
        self._stream = Stream(config.endpoint.in_flight)
        self._crews = self._stream.run(open_crews(config))
        segmenter = config.segmenter
        outlines = load(segmenter.checkpoint, segmenter.variant, segmenter.device)
        self._subject = Subject(self._crews, config, outlines, design.resolution)
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

    def _gone(self, item: Item) -> Unit:
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
