"""The prompts worker: reads pictures of its shard and yields their visual prompts as rows.

Opened once by the runner; holds the saliency network and, where objects are proposed, the
segmenter. On a CPU it works with one thread on one picture at a time, so its rows do not depend on
who makes them and its memory not on how many there are.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manifests.tables import DATA, MANIFEST
from pipeline.config import Config, config_from
from pipeline.models import weights
from pipeline.saliency.objects import SamProposer
from pipeline.samples import Rejection
from pipeline.shards import Passed, Unit, Work
from pipeline.sources.base import Picture, Source
from pipeline.sources.listing import read_listing
from pipeline.sources.specs import open_source
from pipeline.synthesis.prompt_rows import rejected
from pipeline.synthesis.prompting import Prompter
from pipeline.synthesis.solve import Tables

if TYPE_CHECKING:
    import pyarrow as pa

MAIN = "prompts"
PROTOCOL = 1
"""Rises when the same settings come to mean other rows."""
THINNED = 0.5
"""Share of the grid's points that is asked where it is thinned."""


def open_worker(settings: dict[str, Any]) -> PromptsWorker:
    """A worker from plain settings: `config`, `source` (an absolute specification), `listing`."""
    config = config_from(settings["config"])
    source = open_source(settings["source"], columns=config.columns or None, seed=config.seed)
    return PromptsWorker(open_prompter(config), source, Path(settings["listing"]))


def open_prompter(config: Config) -> Prompter:
    """The network and the segmenter of a configuration; raises `ModelError` without their files."""
    import torch

    from pipeline.saliency.u2net import Saliency, load

    asked, segmenter = config.prompts, config.segmenter
    torch.set_num_threads(1)
    net = Saliency(load(asked.net), device=asked.device)
    proposer = digest = None
    if asked.proposes:
        from pipeline.models.sam import load as load_sam

        sam = load_sam(segmenter.checkpoint, segmenter.variant, segmenter.device)
        share = THINNED if asked.thin else 1.0
        proposer, digest = partial(SamProposer, sam, grid=asked.grid, share=share), sam.digest
    net_sha256 = weights.sha256_of(weights.find(asked.net))
    return Prompter(asked, config.seed, net, net_sha256, proposer, digest)


def determined_by(config: Config) -> dict[str, Any]:
    """What of the settings and weights a prompts run's rows follow from; no more than that."""
    asked, segmenter = config.prompts, config.segmenter
    left_out = {"net"} if asked.proposes else {"net", "propose", "grid", "thin", "least_salience"}
    told = {
        "protocol": PROTOCOL,
        "seed": config.seed,
        "columns": config.columns,
        "prompts": asked.model_dump(mode="json", exclude=left_out),
        "net": weights.sha256_of(weights.find(asked.net)),
    }
    if asked.proposes:
        told["segmenter"] = weights.sha256_of(weights.find(segmenter.checkpoint))
        told["segmenter_runs"] = [segmenter.variant, segmenter.device]
    return told


class PromptsWorker:
    """Makes visual prompts."""

    main = MAIN
    at_once = 1

    def __init__(self, prompter: Prompter, source: Source, listing: Path) -> None:
        self._prompter = prompter
        self._source = source
        self._listing = listing
        self.schemas: Mapping[str, pa.Schema] = schemas()
        self.manifest: Mapping[str, pa.Schema] = {n: MANIFEST[n] for n in ("rejections", "timings")}

    def units(self, work: Work) -> Generator[Unit | Passed, None, None]:
        """One unit for each picture, one after the other."""
        left = work.rows_left
        for one in self._pictures(work.entries, work.skip):
            if isinstance(one, Passed):
                yield one
                continue
            tables = self._made(one, work, left)
            left = None if left is None else left - tables.kept
            yield tables.unit(one.image_id)
            if left == 0:
                return

    def close(self) -> None:
        """Nothing is open."""

    def _pictures(self, entries: range, skip: int) -> Iterator[Picture | Passed]:
        """The pictures of listing rows without the first `skip`, and the end of each row."""
        for index in entries:
            (entry,) = read_listing(self._listing, index, index + 1)
            for number, picture in enumerate(self._source.pictures(entry)):
                if index > entries.start or number >= skip:
                    yield picture
            yield Passed(index)

    def _made(self, picture: Picture, work: Work, rows_left: int | None) -> Tables:
        """The rows of a picture, `rows_left` of them at most, and its rejections."""
        tables = Tables()
        image_id = picture.image_id
        if image_id in work.crashed:
            for task in self._prompter.settings.tasks:
                tables.reject(rejected(image_id, task, "worker", "crashed_worker"), image_id)
            return tables
        work.started(image_id)
        started = time.perf_counter()
        for made in self._prompter.prompts(picture):
            if isinstance(made, Rejection):
                tables.reject(made, image_id)
            elif rows_left is None or tables.kept < rows_left:
                tables.kept += 1
                tables.rows[MAIN].append(made)
        seconds = (time.perf_counter() - started) / max(1, tables.kept)
        for row in tables.rows.get(MAIN, ()):
            key = {"sample_id": row["sample_id"], "resolution": 0, "rollout": 0}
            tables.rows["timings"].append({**key, "seconds": seconds})
        return tables


def schemas() -> dict[str, pa.Schema]:
    """The data schema with pictures and the metadata that `datasets` reads them by."""
    import pyarrow as pa
    from datasets import Features, Image, List

    plain = DATA[MAIN]
    features = Features.from_arrow_schema(plain.remove_metadata())
    features |= {"image": Image(), "saliency": Image(), "frames": List(Image())}
    arrow = Features(features).arrow_schema
    fields = [plain.field(f.name) if f.name in plain.names else f for f in arrow]
    return {MAIN: pa.schema(fields, {**(plain.metadata or {}), **(arrow.metadata or {})})}
