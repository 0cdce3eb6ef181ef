"""The synthesis worker: reads pictures of its shard, solves their problems, yields rows.

Opened once by the runner and holds the models; it is given listing rows and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manifests.tables import DATA, MANIFEST
from pipeline.config import Config, config_from
from pipeline.errors import BadImage
from pipeline.samples import Rejection
from pipeline.shards import Unit
from pipeline.sources.base import Picture, Source
from pipeline.sources.listing import read_listing
from pipeline.sources.specs import open_source
from pipeline.synthesis.solve import Solver, Tables
from pipeline.synthesis.tasks import prepare

if TYPE_CHECKING:
    import pyarrow as pa

MAIN = "trajectories"
_WITH_PICTURE = ("trajectories", "rejected")
_WITHOUT_PICTURE = ("steps", "traces")


def open_worker(settings: dict[str, Any]) -> SynthesisWorker:
    """A worker from plain settings: `config`, `source` (an absolute specification), `listing`."""
    config = config_from(settings["config"])
    source = open_source(settings["source"], columns=config.columns or None, seed=config.seed)
    return SynthesisWorker(config, source, Path(settings["listing"]), _solver(config))


class SynthesisWorker:
    """Makes trajectories."""

    main = MAIN

    def __init__(self, config: Config, source: Source, listing: Path, solver: Solver) -> None:
        self._config = config
        self._source = source
        self._listing = listing
        self._solver = solver
        self._loop = asyncio.new_event_loop()
        self.schemas: Mapping[str, pa.Schema] = schemas()
        self.manifest: Mapping[str, pa.Schema] = {n: MANIFEST[n] for n in ("rejections", "timings")}

    def units(
        self,
        index: int,
        *,
        skip: int,
        rows_left: int | None,
        crashed: frozenset[str],
        started: Callable[[str], None],
    ) -> Iterator[Unit]:
        """One unit for each picture of a listing row."""
        (entry,) = read_listing(self._listing, index, index + 1)
        for number, picture in enumerate(self._source.pictures(entry)):
            if number < skip:
                continue
            if rows_left is not None and rows_left <= 0:
                return
            if picture.image_id in crashed:
                tables = Tables()
                tables.reject(_gone(picture, "worker", "crashed_worker", ""), picture.image_id)
            else:
                started(picture.image_id)
                tables = self._solved(picture, rows_left)
            if rows_left is not None:
                rows_left -= tables.kept
            yield tables.unit(picture.image_id)

    def close(self) -> None:
        """Close the event loop."""
        self._loop.close()

    def _solved(self, picture: Picture, rows_left: int | None) -> Tables:
        try:
            prepared = prepare(picture, self._config.task, self._config.seed)
        except BadImage as error:
            tables = Tables()
            stage = "task" if error.reason == "no_task" else "decode"
            tables.reject(_gone(picture, stage, error.reason, error.detail), picture.image_id)
            return tables
        return self._loop.run_until_complete(self._solver.solve(picture, prepared, rows_left))


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


def _solver(config: Config) -> Solver:
    from pipeline.agent.scripted import ScriptedPolicy
    from pipeline.models.sam import load

    return Solver(
        config,
        ScriptedPolicy(),
        load(config.segmenter.checkpoint, config.segmenter.variant, config.segmenter.device),
    )
