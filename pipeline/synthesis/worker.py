"""The synthesis worker: reads pictures of its shard, solves their problems, yields rows.

Opened once by the runner and holds the models; it is given listing rows and nothing else. Its
event loop has a thread of its own, so calls go on while the runner writes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from manifests.tables import DATA, MANIFEST
from pipeline.config import Config, config_from
from pipeline.errors import BadImage, BudgetReached
from pipeline.samples import Rejection
from pipeline.shards import Ledger, Passed, Unit
from pipeline.sources.base import Picture, Source
from pipeline.sources.listing import read_listing
from pipeline.sources.specs import open_source
from pipeline.synthesis.ahead import in_order
from pipeline.synthesis.crews import open_crews
from pipeline.synthesis.solve import Solver, Tables
from pipeline.synthesis.tasks import prepare

if TYPE_CHECKING:
    import pyarrow as pa

MAIN = "trajectories"
_WITH_PICTURE = ("trajectories", "rejected")
_WITHOUT_PICTURE = ("steps", "traces")

PICTURES_AHEAD = 64
"""Pictures in work at a time, at most, where episodes wait for a model."""
GRACE_S = 30.0
"""Time for calls under way to end when an attempt stops."""

T = TypeVar("T")


def open_worker(settings: dict[str, Any]) -> SynthesisWorker:
    """A worker from plain settings: `config`, `source` (an absolute specification), `listing`."""
    config = config_from(settings["config"])
    source = open_source(settings["source"], columns=config.columns or None, seed=config.seed)
    return SynthesisWorker(config, source, Path(settings["listing"]))


class SynthesisWorker:
    """Makes trajectories."""

    main = MAIN

    def __init__(self, config: Config, source: Source, listing: Path) -> None:
        from pipeline.models.sam import load

        self._config = config
        self._source = source
        self._listing = listing
        self._loop = _Loop()
        self._crews = self._loop.run(open_crews(config))
        segmenter = config.segmenter
        self._solver = Solver(
            config, self._crews, load(segmenter.checkpoint, segmenter.variant, segmenter.device)
        )
        self.schemas: Mapping[str, pa.Schema] = schemas()
        self.manifest: Mapping[str, pa.Schema] = {n: MANIFEST[n] for n in ("rejections", "timings")}

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
        """One unit for each picture of the listing rows, as many in work as the policy is worth."""
        gate = _Gate(ledger)
        shard = _Shard(self._solver, self._config, gate, crashed, started, self._crews.workers)
        ahead = 1 if careful else min(self._crews.in_flight, PICTURES_AHEAD)
        stream = shard.units(self._pictures(entries, skip), ahead, rows_left)
        try:
            while (unit := self._loop.run(_next(stream))) is not None:
                yield unit
        finally:
            gate.closed = True
            self._loop.run(stream.aclose())

    def close(self) -> None:
        """Let go of connections, models and the event loop."""
        self._loop.run(self._crews.close())
        self._loop.close()

    def _pictures(self, entries: range, skip: int) -> Iterator[Picture | Passed]:
        """The pictures of listing rows without the first `skip`, and the end of each row."""
        for index in entries:
            (entry,) = read_listing(self._listing, index, index + 1)
            for number, picture in enumerate(self._source.pictures(entry)):
                if index > entries.start or number >= skip:
                    yield picture
            yield Passed(index)


class _Shard:
    """What the units of one attempt have in common."""

    def __init__(
        self,
        solver: Solver,
        config: Config,
        ledger: Ledger,
        crashed: frozenset[str],
        started: Callable[[str], None],
        threads: Executor | None,
    ) -> None:
        self._solver = solver
        self._config = config
        self._ledger = ledger
        self._crashed = crashed
        self._started = started
        self._threads = threads

    async def units(
        self, pictures: Iterator[Picture | Passed], ahead: int, rows_left: int | None
    ) -> AsyncGenerator[Unit | Passed, None]:
        """Units in the pictures' order, cut where `rows_left` are kept."""
        left = rows_left

        async def makers() -> AsyncGenerator[partial[Any], None]:
            while (picture := await self._off_loop(next, pictures, None)) is not None:
                yield partial(self._tables, picture, left if ahead == 1 else None)

        grace_s = GRACE_S if ahead > 1 else 0.0
        async with aclosing(in_order(makers(), ahead, grace_s)) as done:
            async for picture, tables in done:
                if isinstance(picture, Passed):
                    yield picture
                    continue
                if left is not None:
                    if tables.kept > left:  # worked on ahead: cut by going over its calls again
                        _, tables = await self._tables(picture, left)
                    left -= tables.kept
                yield tables.unit(picture.image_id)
                if left == 0:
                    return

    async def _tables(
        self, picture: Picture | Passed, rows_left: int | None
    ) -> tuple[Picture | Passed, Tables]:
        tables = Tables()
        if isinstance(picture, Passed):
            return picture, tables
        if picture.image_id in self._crashed:
            tables.reject(_gone(picture, "worker", "crashed_worker", ""), picture.image_id)
            return picture, tables
        self._started(picture.image_id)
        try:
            prepared = await self._off_loop(prepare, picture, self._config.task, self._config.seed)
        except BadImage as error:
            stage = "task" if error.reason == "no_task" else "decode"
            tables.reject(_gone(picture, stage, error.reason, error.detail), picture.image_id)
            return picture, tables
        return picture, await self._solver.solve(picture, prepared, self._ledger, rows_left)

    async def _off_loop(self, work: Callable[..., T], *args: Any) -> T:
        """Work of milliseconds, kept off the loop where others wait for it."""
        if self._threads is None:
            return work(*args)
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)


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
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loop", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for the work's result; its errors pass through."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _next(stream: AsyncGenerator[T, None]) -> T | None:
    """The next of a stream, or None at its end."""
    return await anext(stream, None)


def schemas() -> dict[str, pa.Schema]:
    """Data schemas with pictures and the metadata that `datasets` reads them by."""
    import pyarrow as pa
    from datasets import Features, Image

    out = {}
    for name in (*_WITH_PICTURE, *_WITHOUT_PICTURE):
        plain = DATA[name]
        features = Features.from_arrow_schema(plain.remove_metadata())
        if name in _WITH_PICTURE:
            features["image"] = Image()
        arrow = features.arrow_schema
        fields = [plain.field(f.name) if f.name in plain.names else f for f in arrow]
        out[name] = pa.schema(fields, {**(plain.metadata or {}), **(arrow.metadata or {})})
    return out


def _gone(picture: Picture, stage: str, reason: str, detail: str) -> Rejection:
    """A picture that yields no sample."""
    return Rejection(f"{picture.image_id}#0", 0, 0, stage, reason, detail)
