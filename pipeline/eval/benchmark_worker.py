"""The worker of a benchmark: opens a picture, has it read in every way that is compared, scores it.

A unit is one question with all methods, budgets and tries: what is common to them is done once.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from manifests.tables import DATA, MANIFEST
from pipeline.agent.chat import ChatModel, Request, Said
from pipeline.agent.crew import Crews, VisionCrews
from pipeline.agent.desk import Desk, Task
from pipeline.agent.opening import open_crews
from pipeline.agent.tools import Tools
from pipeline.config import Config, config_from
from pipeline.errors import BadImage, ConfigError, nearest
from pipeline.eval.benchmark import Benchmark, Item
from pipeline.eval.benchmarks.opening import open_benchmark
from pipeline.eval.coarse_to_fine import PRESETS, Preset
from pipeline.eval.judge import judged
from pipeline.eval.looks import Method
from pipeline.eval.protocol import Option, Protocol, told
from pipeline.eval.readings import Asked, Reading
from pipeline.eval.score_rows import Put, score_row, trace_rows
from pipeline.eval.subjects import Subject
from pipeline.runner.stream import Stream, off_loop
from pipeline.saliency.prior import build_prior
from pipeline.salient import most_salient
from pipeline.samples import Sample, Score
from pipeline.shards import Ledger, Passed, Unit, Work
from pipeline.sources.decode import decode

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image

MAIN = "scores"
PIXELS = 16_000_000
"""Room that a picture is given before its size is known."""
Row = dict[str, Any]


def open_worker(settings: dict[str, Any]) -> BenchmarkWorker:
    """A worker from plain settings: `config`, `design` (a protocol) and `subject`."""
    protocol = Protocol.of(settings["design"])
    return BenchmarkWorker(config_from(settings["config"]), protocol, settings["subject"])


class BenchmarkWorker:
    """Scores a subject on the questions of a benchmark."""

    main = MAIN
    at_once = 1
    schemas: Mapping[str, pa.Schema] = {"traces": DATA["traces"]}
    manifest: Mapping[str, pa.Schema] = {MAIN: MANIFEST[MAIN]}

    def __init__(self, config: Config, protocol: Protocol, subject: str) -> None:
        from pipeline.models.sam import load

        self._config, self._protocol, self._name = config, protocol, subject
        self._benchmark = opened(config, protocol)
        self._stream = Stream(config.endpoint.in_flight)
        self._crews = self._stream.run(open_crews(config))
        self._judge = self._stream.run(open_judge(config, protocol)) if protocol.judge else None
        segmenter = config.segmenter
        outlines = load(segmenter.checkpoint, segmenter.variant, segmenter.device)
        self._segmenter = outlines
        self._saliency = build_prior() if needs_saliency(protocol, self._crews) else None
        self._subject = Subject(self._crews, config, outlines, preset_of(protocol))

    def units(self, work: Work) -> Generator[Unit | Passed, None, None]:
        """One unit for each question, as many in work as the subject is worth.

        A question at which workers died twice, or whose picture cannot be opened, is unscored.
        """

        async def make(item: Item, ledger: Ledger, rows_left: int | None) -> Unit:
            if item.item_id in work.crashed:
                return self._gone(item, "crashed_worker")
            work.started(item.item_id)
            return await self._unit(item, ledger)

        def items() -> Iterator[Item | Passed]:
            for index in work.entries:
                if index > work.entries.start or not work.skip:
                    yield self._benchmark.items[index]
                yield Passed(index)

        return self._stream.units(
            items(),
            make,
            work.ledger,
            ahead=1 if work.careful else self._crews.in_flight,
            pixels=lambda _: PIXELS,
        )

    def close(self) -> None:
        """Let go of connections, models and the event loop."""
        if self._judge is not None:
            self._stream.run(self._judge.close())
        self._stream.run(self._crews.close())
        self._stream.close()

    async def _unit(self, item: Item, ledger: Ledger) -> Unit:
        try:
            image = await off_loop(self._crews.workers, self._opened, item)
        except BadImage as error:
            return self._gone(item, f"{error.reason}: {error.detail}")
        tools = Tools(image, self._segmenter)
        salient = None
        if self._saliency is not None:
            seen = await off_loop(self._crews.workers, self._saliency, image)
            salient = most_salient(seen)
        rows: list[Row] = []
        traces: list[Row] = []
        for put in self._puts(item):
            sample = Sample(
                put.sample_id, item.image_id, image, image.size, item.question, item.options
            )
            text = self._benchmark.ask(item)
            asked = Asked(sample, text, tools, put.resolution, put.rollout, item.boxes, salient)
            began = time.perf_counter()
            reading = await self._subject.read(put.method, asked, ledger)
            seconds = time.perf_counter() - began
            score = await self._scored(item, asked, reading, ledger)
            rows.append(score_row(put, score, reading, seconds))
            traces += trace_rows(put, reading)
        return Unit(item.item_id, len(rows), {MAIN: rows, "traces": traces})

    def _opened(self, item: Item) -> Image.Image:
        return decode(self._benchmark.picture(item))

    def _puts(self, item: Item) -> Iterator[Put]:
        """The question with every method at every budget, as often as it is tried."""
        protocol = self._protocol
        for method in protocol.methods:
            how = self._how(method)
            for resolution in protocol.resolutions:
                for rollout in range(protocol.rollouts):
                    yield Put(
                        self._benchmark.name, item.category, item.item_id, item.image_id,
                        item.answer, self._name, method, resolution, rollout, how,
                    )  # fmt: skip

    async def _scored(self, item: Item, asked: Asked, reading: Reading, ledger: Ledger) -> Score:
        """The rule's verdict; where no rule can tell, the judge's, if there is one."""
        sample_id = asked.sample.sample_id
        if reading.unscored:
            return Score(sample_id, "none", None, reading.unscored)
        if reading.fault:
            return Score(sample_id, "rule", 0.0, reading.fault)
        score = replace(self._benchmark.score(item, reading.answer), sample_id=sample_id)
        if score.value is not None or self._judge is None:
            return score
        task = Task(sample_id, asked.resolution, asked.rollout)
        desk = Desk(self._judge, ledger, task, self._config.prices.get(self._judge.name))

        async def ask(text: str) -> str:
            return (await desk.ask(Request("verifier", (Said("user", (text,)),)))).text

        return replace(await judged(item, reading.answer, ask), sample_id=sample_id)

    def _gone(self, item: Item, why: str) -> Unit:
        """The unit of a question that cannot be put: every row of it unscored."""
        reading = Reading(unscored=why, finish="unfinished")
        rows = [
            score_row(put, Score(put.sample_id, "none", None, why), reading, 0.0)
            for put in self._puts(item)
        ]
        return Unit(item.item_id, len(rows), {MAIN: rows})

    def _how(self, method: Method) -> str:
        """The protocol, as it is stored with each score."""
        policy = self._config.policy
        how: dict[str, Option] = {
            "seed": self._config.seed,
            "temperature": policy.temperature,
            "max_tokens": policy.max_tokens,
        }
        if method == "zoom":
            episode = self._config.episode
            how |= {"looks": episode.looks, "turns": episode.turns, "asked_as": policy.asked_as}
        if method == "coarse-to-fine":
            how["preset"] = self._protocol.preset
        if self._judge is not None:
            how["judge"] = self._judge.name
        return told(self._protocol, self._benchmark.protocol, how)


def needs_saliency(protocol: Protocol, crews: Crews) -> bool:
    """Whether a method needs the saliency network: `coarse-to-fine` for models without boxes."""
    boxes = not isinstance(crews, VisionCrews) or crews.family.boxes
    asked = set(protocol.methods)
    return "saliency-crop" in asked or ("coarse-to-fine" in asked and not boxes)


def preset_of(protocol: Protocol) -> Preset:
    """The settings of `coarse-to-fine`; raises `ConfigError`."""
    if protocol.preset not in PRESETS:
        raise ConfigError(
            f"There is no preset '{protocol.preset}'.", nearest(protocol.preset, PRESETS)
        )
    return PRESETS[protocol.preset]


def opened(config: Config, protocol: Protocol) -> Benchmark:
    """The benchmark that a protocol names; raises `ConfigError` where it is not at hand."""
    return open_benchmark(
        protocol.benchmark,
        protocol.source,
        seed=config.seed,
        limit=protocol.limit,
        **protocol.options,
    )


async def open_judge(config: Config, protocol: Protocol) -> ChatModel:
    """The server whose model judges, with the settings of the endpoint but for its address."""
    from pipeline.agent.endpoint import open_endpoint

    endpoint = config.endpoint.model_copy(update={"urls": (protocol.judge,), "urls_file": None})
    return await open_endpoint(endpoint, protocol.judge_model or None)
