"""The synthesis worker: reads pictures of its shard, solves their problems, yields rows.

Opened once by the runner and holds the models; it is given listing rows and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from manifests.tables import DATA, MANIFEST
from pipeline.agent.crew import VisionCrews
from pipeline.agent.opening import open_crews, open_reader
from pipeline.config import Config, config_from
from pipeline.errors import BadImage
from pipeline.runner.stream import Stream, off_loop
from pipeline.saliency.prior import build_prior
from pipeline.samples import Rejection
from pipeline.shards import Ledger, Passed, Unit, Work
from pipeline.sources.base import Picture, Source
from pipeline.sources.decode import pixels_of
from pipeline.sources.listing import read_listing
from pipeline.sources.specs import open_source
from pipeline.synthesis.balance import Scale, balanced, first_kind, kept_before
from pipeline.synthesis.solve import Solver, Tables
from pipeline.synthesis.tasks import Prepared, prepare, problems_of
from pipeline.synthesis.written import written

if TYPE_CHECKING:
    import pyarrow as pa

MAIN = "trajectories"
_WITH_PICTURE = ("trajectories", "rejected")
_WITHOUT_PICTURE = ("steps", "traces")

MOST_PICTURES = 384
"""In work at a time, at most, where episodes wait for a model."""
AT_ONCE = 4
"""Attempts that share the room for pictures, where there is room for more than one picture."""
SPARE = 1.5
"""Episodes that are begun for each call that may be in flight: some are being cut and encoded."""


def open_worker(settings: dict[str, Any]) -> SynthesisWorker:
    """A worker from plain settings: `config`, `source` (an absolute specification), `listing`."""
    config = config_from(settings["config"])
    source = open_source(settings["source"], columns=config.columns or None, seed=config.seed)
    return SynthesisWorker(config, source, Path(settings["listing"]))


class Turn(NamedTuple):
    """A picture, and its number in the source: kinds of task take turns."""

    picture: Picture
    number: int


class SynthesisWorker:
    """Makes trajectories."""

    main = MAIN

    def __init__(self, config: Config, source: Source, listing: Path) -> None:
        from pipeline.models.sam import load

        self._config = config
        self._source = source
        self._listing = listing
        self._most = most_pictures(config)
        self._stream = Stream(self._most)
        self._crews = self._stream.run(open_crews(config))
        segmenter = config.segmenter
        self._segmenter = load(segmenter.checkpoint, segmenter.variant, segmenter.device)
        prior = build_prior(device=segmenter.device) if config.needs_saliency else None
        if segmenter.search == "saliency":
            assert prior is not None
            from pipeline.models.sam_search import Searching

            self._segmenter = Searching(self._segmenter, prior)
        self._solver = Solver(config, self._crews, self._segmenter, open_reader(config), prior)
        self.schemas: Mapping[str, pa.Schema] = schemas()
        self.manifest: Mapping[str, pa.Schema] = {n: MANIFEST[n] for n in ("rejections", "timings")}

    @property
    def at_once(self) -> int:
        """More than one where episodes wait for a model: the next fill the tails of the first."""
        return 1 if self._most == 1 else AT_ONCE

    def units(self, work: Work) -> Generator[Unit | Passed, None, None]:
        """One unit for each picture of the listing rows, as many in work as the policy is worth.

        Where the rows are to be balanced, they are weighed as they are handed out.
        """
        balance = self._config.balance
        if not balance.families or work.rows_left is None:
            return self._units(work, work.rows_left)
        wanted = work.rows_left + kept_before(balance, work.tally)
        return balanced(
            self._units(work, None), balance, Scale(balance, wanted, work.shard, work.tally)
        )

    def _units(self, work: Work, rows_left: int | None) -> Generator[Unit | Passed, None, None]:
        async def make(found: Turn, ledger: Ledger, rows_left: int | None) -> Unit:
            picture = found.picture
            if picture.image_id in work.crashed:
                return _gone(picture, "worker", "crashed_worker")
            work.started(picture.image_id)
            return await self._unit(found, ledger, rows_left)

        return self._stream.units(
            self._pictures(work.entries, work.skip),
            make,
            work.ledger,
            ahead=1 if work.careful else self._most,
            rows_left=rows_left,
            threads=self._crews.workers,
            pixels=_pixels,
        )

    def close(self) -> None:
        """Let go of connections, models and the event loop."""
        self._stream.run(self._crews.close())
        self._stream.close()

    def _pictures(self, entries: range, skip: int) -> Iterator[Turn | Passed]:
        """The pictures of listing rows without the first `skip`, and the end of each row."""
        for index in entries:
            (entry,) = read_listing(self._listing, index, index + 1)
            for number, picture in enumerate(self._source.pictures(entry)):
                if index > entries.start or number >= skip:
                    yield Turn(picture, index + number)
            yield Passed(index)

    async def _unit(self, found: Turn, ledger: Ledger, rows_left: int | None) -> Unit:
        """What comes of one picture."""
        task, seed, threads = self._config.task, self._config.seed, self._crews.workers
        picture = found.picture
        try:
            first = first_kind(task.kind, self._config.balance, found.number)
            made = partial(prepare, picture, task, seed, self._segmenter, first)
            prepared = await off_loop(threads, made)
        except BadImage as error:
            stage = "task" if error.reason == "no_task" else "decode"
            return _gone(picture, stage, error.reason, error.detail)
        lost: Sequence[Rejection] = ()
        if prepared.kind == "written":
            prepared, lost = await self._written(picture, prepared, ledger)
        tables = await self._solver.solve(picture, prepared, ledger, rows_left)
        for rejection in lost:
            tables.reject(rejection, picture.image_id)
        return tables.unit(picture.image_id)

    async def _written(
        self, picture: Picture, prepared: Prepared, ledger: Ledger
    ) -> tuple[Prepared, Sequence[Rejection]]:
        """The picture with the questions that a model writes about it, and those that fail."""
        assert isinstance(self._crews, VisionCrews)
        write = partial(self._crews.writer, ledger=ledger)
        asked, lost = await written(
            picture, prepared.image, self._config, self._segmenter, write, self._solver.prior
        )
        problems = problems_of(picture.image_id, prepared.image, asked)
        return replace(prepared, problems=problems), lost


def most_pictures(config: Config) -> int:
    """Pictures that are worth having in work: one where nothing waits, else enough for the calls.

    A local model answers one request after the other: two pictures keep it busy.
    """
    if config.policy.kind in ("scripted", "local"):
        return 1 if config.policy.kind == "scripted" else 2
    episodes = config.task.per_image * len(config.task.budgets)
    wanted = math.ceil(SPARE * config.endpoint.in_flight / episodes)
    return min(max(wanted, 2), MOST_PICTURES)


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


def _pixels(found: Turn) -> int:
    """Pixels of a picture when it is decoded; none where it will not be."""
    picture = found.picture
    if picture.image is not None:
        return picture.image.width * picture.image.height
    try:
        return pixels_of(picture.data or b"")
    except BadImage:
        return 0


def _gone(picture: Picture, stage: str, reason: str, detail: str = "") -> Unit:
    """The unit of a picture that yields no sample."""
    tables = Tables()
    lost = Rejection(f"{picture.image_id}#0", 0, 0, stage, reason, detail)
    tables.reject(lost, picture.image_id)
    return tables.unit(picture.image_id)
