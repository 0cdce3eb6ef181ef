"""One command's run: list the source, name the run, and let the workers work until it is done.

The run's id is a digest of what determines its rows; where it lies, how many workers there are and
what they may spend is left out, so the same command continues its run.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import platform
import shutil
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.models import weights
from pipeline.runner.local import run_local
from pipeline.runner.rundir import LISTING, write_run
from pipeline.runner.storage import storage_at
from pipeline.shards import MEGABYTE, Outcome, Plan, Status
from pipeline.sources.base import Source
from pipeline.sources.listing import Listing, write_listing
from pipeline.sources.specs import open_source
from pipeline.synthesis.crews import prompts_sha256, resolved

KIND = "trajectories"
PROTOCOL = 2
"""Rises when the same settings come to mean other rows."""
WORKER = "pipeline.synthesis.worker:open_worker"
PACKAGES = ("cofpipe", "numpy", "pillow", "pyarrow", "ray", "segment-anything", "torch")

OnEvent = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Summary:
    """How a command ended."""

    run_id: str
    run_dir: str
    status: Status | str
    """`done`, `interrupted`, `budget`, or `planned` for a dry run."""
    kept: int
    rejected: int
    shards_done: int
    shards_total: int
    entries: int
    continued: bool
    """Whether the run was there before."""
    workers_lost: int = 0
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def synthesize(
    config: Config,
    *,
    shards: int = 64,
    rows: int | None = None,
    limit: int | None = None,
    address: str = "local",
    resume: str = "auto",
    dry_run: bool = False,
    on_event: OnEvent | None = None,
    stop: threading.Event | None = None,
) -> Summary:
    """Make trajectories from the configured source; the same call again continues its run.

    `rows` is how many are to be kept, `limit` how many source items are used. `address` is `none`
    for this process, else Ray's. Raises `ConfigError` for what cannot be run.
    """
    if config.policy.kind != "scripted":
        config = asyncio.run(resolved(config))
    runs = Path(config.run.dir)
    runs.mkdir(parents=True, exist_ok=True)
    source = open_source(config.source, columns=config.columns or None, seed=config.seed)
    hidden = runs / f".listing-{uuid4().hex}"
    try:
        listing = write_listing(islice(source.entries(), limit), hidden)
        if not listing.count:
            raise ConfigError(f"There is no picture in '{config.source}'.", "Give another source.")
        run_id = _run_id(config, source, listing, shards, limit, resume)
        plan = _plan(config, runs / run_id, run_id, listing, shards, rows)
        continued = (runs / run_id / "run.json").exists()
        if dry_run:
            return _summary(plan, Outcome("done", 0, 0, 0, plan.shards_total), "planned", continued)
        if not continued:
            _begin(config, source, listing, plan, hidden, limit)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    if on_event:
        on_event(_planned(plan, continued))
    outcome = _work(config, plan, address, on_event, stop)
    return _summary(plan, outcome, outcome.status, continued)


def _work(
    config: Config,
    plan: Plan,
    address: str,
    on_event: OnEvent | None,
    stop: threading.Event | None,
) -> Outcome:
    settings = {
        "config": config.describe(),
        "source": _absolute(config.source),
        "listing": str(Path(plan.run_dir) / LISTING),
    }
    workers = config.run.workers
    if address == "none":
        return run_local(plan, WORKER, settings, workers=workers or 1, on_event=on_event, stop=stop)
    from pipeline.runner.ray import run_ray

    return run_ray(
        plan, WORKER, settings, workers=workers, on_event=on_event, stop=stop, address=address
    )


def _plan(
    config: Config, run_dir: Path, run_id: str, listing: Listing, shards: int, rows: int | None
) -> Plan:
    run = config.run
    return Plan(
        run_dir=str(run_dir.absolute()),
        run_id=run_id,
        kind=KIND,
        entries=listing.count,
        shards=shards,
        rows=rows,
        part_rows=run.part_rows,
        part_bytes=run.part_mb * MEGABYTE,
        stall_s=run.stall_s,
        window=run.window,
        budget_usd=config.budget.usd,
        budget_tokens=config.budget.tokens,
        budget_hours=config.budget.hours,
    )


def _begin(
    config: Config, source: Source, listing: Listing, plan: Plan, hidden: Path, limit: int | None
) -> None:
    """Put the listing in its place, then `run.json`: a run without one is no run."""
    run_dir = Path(plan.run_dir)
    run_dir.mkdir(exist_ok=True)
    place = run_dir / LISTING
    if not place.exists():
        hidden.rename(place)
    fields = {
        "run_id": plan.run_id,
        "kind": KIND,
        "recipe": config.recipe,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": config.seed,
        "shards_total": plan.shards_total,
        "entries": listing.count,
        "limit": limit,
        "listing_digest": listing.digest,
        "skipped": dict(source.skipped),
        "parents": [],
        "config": config.describe(),
        "determined_by": _determined_by(config, source, listing, plan.shards, limit),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
    }
    write_run(storage_at(plan.run_dir), fields)


def _run_id(
    config: Config, source: Source, listing: Listing, shards: int, limit: int | None, resume: str
) -> str:
    """The recipe and ten hex digits of all that determines the rows."""
    known = _determined_by(config, source, listing, shards, limit)
    text = json.dumps(known, sort_keys=True) + (uuid4().hex if resume == "never" else "")
    return f"{config.recipe}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def _determined_by(
    config: Config, source: Source, listing: Listing, shards: int, limit: int | None
) -> dict[str, Any]:
    return {
        "kind": KIND,
        "protocol": PROTOCOL,
        "settings": config.semantic(),
        "source": source.name,
        "shards": shards,
        "limit": limit,
        "listing": listing.digest,
        "weights": weights.sha256_of(weights.find(config.segmenter.checkpoint)),
        "prompts": prompts_sha256(config),
    }


def _absolute(spec: str) -> str:
    """A source specification whose paths hold in another working directory."""
    form, colon, rest = spec.partition(":")
    if form == "scenes" or "://" in spec:
        return spec
    paths = [
        str(Path(part).expanduser().absolute()) for part in (rest if colon else spec).split(":")
    ]
    return ":".join([form, *paths] if colon else paths)


def _planned(plan: Plan, continued: bool) -> dict[str, Any]:
    return {
        "event": "planned",
        "run_id": plan.run_id,
        "continued": continued,
        "entries": plan.entries,
        "shards": plan.shards_total,
    }


def _summary(plan: Plan, outcome: Outcome, status: str, continued: bool) -> Summary:
    return Summary(
        run_id=plan.run_id,
        run_dir=plan.run_dir,
        status=status,
        kept=outcome.kept,
        rejected=outcome.rejected,
        shards_done=outcome.shards_done,
        shards_total=outcome.shards_total,
        entries=plan.entries,
        continued=continued,
        workers_lost=outcome.workers_lost,
        reason=outcome.reason,
    )
