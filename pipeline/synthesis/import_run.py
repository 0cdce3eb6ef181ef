"""An import as a run: the records are listed, the run is named after them, workers read them.

The run's id is a digest of the listing (every record, and what is known of its pictures) and of the
layout, so the same command finds its run again, wherever the data lies.
"""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from uuid import uuid4

from pipeline.config import config_from
from pipeline.errors import ConfigError
from pipeline.sources.listing import write_listing
from pipeline.sources.published.dataset import open_dataset
from pipeline.synthesis.run import KIND, OnEvent, Summary, begin, plan_of, run_id_of, work

RECIPE = "import"
PROTOCOL = 1
"""Rises when the same records come to mean other rows."""
WORKER = "pipeline.synthesis.importing:open_worker"


def import_dataset(
    root: str | Path,
    *,
    layout: str = "auto",
    images: str | Path | None = None,
    runs_dir: str = "runs",
    shards: int = 8,
    limit: int | None = None,
    workers: int | None = None,
    address: str = "none",
    on_event: OnEvent | None = None,
    stop: threading.Event | None = None,
) -> Summary:
    """Read a published dataset into a run of trajectories; the same call again continues it.

    `root` is a folder or one file, `images` a folder or a zip file. `limit` is how many records are
    read. `address` is `none` for this process, else Ray's. Raises `ConfigError` for what is no
    known dataset.
    """
    place = Path(root).expanduser().absolute()
    pictures = Path(images).expanduser().absolute() if images else None
    config = config_from({"recipe": RECIPE, "run": {"dir": runs_dir, "workers": workers}})
    dataset = open_dataset(place, layout, pictures)
    runs = Path(runs_dir)
    runs.mkdir(parents=True, exist_ok=True)
    hidden = runs / f".listing-{uuid4().hex}"
    try:
        listing = write_listing(dataset.entries(limit), hidden)
        if not listing.count:
            raise ConfigError(f"There is no record in '{root}'.", "Give another folder.")
        known = {
            "kind": KIND,
            "import": PROTOCOL,
            "layout": dataset.layout.name,
            "shards": shards,
            "limit": limit,
            "listing": listing.digest,
        }
        plan = plan_of(config, run_id_of(RECIPE, known), listing, shards)
        continued = (runs / plan.run_id / "run.json").exists()
        settings = {
            "dataset": str(place),
            "layout": dataset.layout.name,
            "images": str(pictures) if pictures else None,
        }
        if not continued:
            fields = {"recipe": RECIPE, "seed": 0, "config": settings}
            begin(plan, listing, hidden, limit, dataset.skipped, known, fields)
    finally:
        dataset.close()
        shutil.rmtree(hidden, ignore_errors=True)
    return work(
        plan,
        WORKER,
        settings,
        workers=workers,
        address=address,
        continued=continued,
        on_event=on_event,
        stop=stop,
    )
