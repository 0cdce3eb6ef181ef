"""The import worker: reads published records of its shard and yields them as rows of our tables.

Nothing is solved here and no model is held: a record becomes a trajectory, or a rejection with the
reason. Counted in, counted out: every record is one of the two.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manifests.tables import MANIFEST
from pipeline.agent.critic import verify
from pipeline.agent.episode import Episode
from pipeline.errors import BadImage
from pipeline.samples import Rejection
from pipeline.shards import Passed, Unit, Work
from pipeline.sources.base import Picture
from pipeline.sources.decode import decode
from pipeline.sources.gps import strip_gps
from pipeline.sources.listing import read_listing
from pipeline.sources.published.dataset import Dataset, open_dataset
from pipeline.sources.published.paths import Crop, Imported, imported
from pipeline.sources.published.pictures import is_turned
from pipeline.sources.published.records import Path as PublishedPath
from pipeline.sources.published.records import unreadable
from pipeline.synthesis import rows
from pipeline.synthesis.solve import Tables
from pipeline.synthesis.tasks import Prepared, Problem
from pipeline.synthesis.worker import schemas

if TYPE_CHECKING:
    import pyarrow as pa

PICTURE_REASONS = frozenset({"missing_image", "outside_source", "turned", "unreadable"})
"""What is wrong with a picture; the decoder's own reasons come on top."""


def open_worker(settings: dict[str, Any]) -> ImportWorker:
    """A worker from plain settings: `dataset`, `layout`, `images`, `listing`."""
    images = settings["images"]
    dataset = open_dataset(
        Path(settings["dataset"]), settings["layout"], Path(images) if images else None
    )
    return ImportWorker(dataset, Path(settings["listing"]))


class ImportWorker:
    """Makes trajectories of published records."""

    main = "trajectories"
    at_once = 1

    def __init__(self, dataset: Dataset, listing: Path) -> None:
        self._dataset = dataset
        self._listing = listing
        self.schemas: Mapping[str, pa.Schema] = schemas()
        self.manifest: Mapping[str, pa.Schema] = {"rejections": MANIFEST["rejections"]}

    def units(self, work: Work) -> Generator[Unit | Passed, None, None]:
        """One unit for each record, one after the other."""
        left, entries = work.rows_left, work.entries
        listed = read_listing(self._listing, entries.start, entries.stop)
        for index, entry in zip(entries, listed, strict=True):
            for number, (image_id, record) in enumerate(self._dataset.records(entry)):
                if index == entries.start and number < work.skip:
                    continue
                if left == 0:
                    return
                tables = self._made(image_id, record, work)
                left = None if left is None else left - tables.kept
                yield tables.unit(image_id)
            yield Passed(index)

    def close(self) -> None:
        """Let go of the dataset's files."""
        self._dataset.close()

    def _made(self, image_id: str, record: Any, work: Work) -> Tables:
        """The rows of a record, or its rejection."""
        tables = Tables()
        if image_id in work.crashed:
            tables.reject(Rejection(f"{image_id}#0", 0, 0, "worker", "crashed_worker"), image_id)
            return tables
        work.started(image_id)
        stage = "import"
        try:
            path = self._path(record)
            stage = "decode"
            prepared = self._prepared(path)
            stage = "import"
            told = imported(path, self._dataset.layout, prepared.image, image_id, self._crops(path))
        except BadImage as error:
            stage = "decode" if error.reason in PICTURE_REASONS else stage
            why = Rejection(f"{image_id}#0", 0, 0, stage, error.reason, error.detail)
            tables.reject(why, image_id)
            return tables
        self._enter(tables, path, prepared, _verified(path, told))
        return tables

    def _path(self, record: Any) -> PublishedPath:
        """What a record says; raises `BadImage`, also the one that stands in its place."""
        if isinstance(record, BadImage):
            raise record
        return self._dataset.layout.read(record)

    def _prepared(self, path: PublishedPath) -> Prepared:
        """The picture as it is published again: its own bytes without the place it was taken."""
        found = self._dataset.pictures.read(path.pictures[0])
        image = decode(found)
        if is_turned(found):
            raise unreadable("turned", "EXIF turns the picture; its boxes are of the unturned one")
        data = strip_gps(found)
        sha256 = hashlib.sha256(data).hexdigest()
        return Prepared(image, data, sha256, hashlib.sha256(found).hexdigest(), (), "imported")

    def _crops(self, path: PublishedPath) -> list[Crop]:
        """The published crops; in place of one that cannot be read, why."""
        crops: list[Crop] = []
        for cell in path.pictures[1:]:
            try:
                crops.append(decode(self._dataset.pictures.read(cell)))
            except BadImage as error:
                crops.append(f"{error.reason} {error.detail}".strip())
        return crops

    def _enter(
        self, tables: Tables, path: PublishedPath, prepared: Prepared, told: Imported
    ) -> None:
        """File the rows of a trajectory."""
        sample, trajectory = told.sample, told.trajectory
        crops = [None] * len(trajectory.steps)  # the published ones, cut by another rule
        row = rows.trajectory_row(
            trajectory,
            Problem(sample, told.truth, path.task),
            prepared,
            Picture(sample.image_id, source=self._dataset.name),
            prompt_sha256=hashlib.sha256(path.instructions.encode()).hexdigest(),
            same_view_as=None,
            crops=crops,
        )
        tables.kept += 1
        tables.rows["trajectories"].append(row | {"target": path.target})
        tables.rows["steps"] += rows.step_rows(trajectory, crops)
        tables.rows["traces"] += rows.trace_rows(Episode(trajectory, told.turns))


def _verified(path: PublishedPath, told: Imported) -> Imported:
    """With the verifier's verdict, where there is a target to hold the answer against."""
    judged = verify(told.trajectory, told.truth, path.options)
    if path.target is None:
        judged = replace(judged, verified=None)
    return replace(told, trajectory=judged)
