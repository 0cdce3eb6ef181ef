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
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from pipeline.agent.opening import prompts_sha256, reads_writing, resolved
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.models import weights
from pipeline.runner.local import run_local
from pipeline.runner.rundir import LISTING, write_run
from pipeline.runner.storage import storage_at
from pipeline.saliency.prior import NET
from pipeline.shards import MEGABYTE, Outcome, Plan, Status
from pipeline.sources.base import Source
from pipeline.sources.listing import Listing, write_listing
from pipeline.sources.specs import open_source
from pipeline.synthesis import prompts_worker
from pipeline.synthesis.pixel_recipes import drawing_versions

Kind = Literal["trajectories", "prompts"]
KIND: Kind = "trajectories"
PROTOCOL = 3
"""Rises when the same settings come to mean other rows."""
WORKERS: Mapping[Kind, str] = {
    "trajectories": "pipeline.synthesis.worker:open_worker",
    "prompts": "pipeline.synthesis.prompts_worker:open_worker",
}
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
    kind: Kind = KIND,
    *,
    shards: int | None = None,
    rows: int | None = None,
    limit: int | None = None,
    address: str = "local",
    resume: str = "auto",
    dry_run: bool = False,
    on_event: OnEvent | None = None,
    stop: threading.Event | None = None,
) -> Summary:
    """Make rows of a kind from the configured source; the same call again continues its run.

    `rows` is how many are to be kept, `limit` how many source items are used; without `rows` and
    `shards`, the configured ones hold. `address` is `none`
    for this process, else Ray's. Raises `ConfigError` for what cannot be run.
    """
    if kind == "trajectories" and config.policy.kind != "scripted":
        config = asyncio.run(resolved(config))
    shards = shards or config.shards
    runs = Path(config.run.dir)
    runs.mkdir(parents=True, exist_ok=True)
    source = open_source(config.source, columns=config.columns or None, seed=config.seed)
    hidden = runs / f".listing-{uuid4().hex}"
    try:
        listing = write_listing(islice(source.entries(), limit), hidden)
        if not listing.count:
            raise ConfigError(f"There is no picture in '{config.source}'.", "Give another source.")
        known = _determined_by(config, kind, source, listing, shards, limit)
        recipe = recipe_of(config, kind)
        run_id = run_id_of(recipe, known, resume)
        plan = plan_of(config, run_id, listing, shards, rows or config.rows, kind)
        continued = (runs / run_id / "run.json").exists()
        if dry_run:
            return planned(plan, continued)
        if not continued:
            fields = {"recipe": recipe, "seed": config.seed, "config": config.describe()}
            begin(plan, listing, hidden, limit, source.skipped, known, fields)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    settings = {"config": config.describe(), "source": _absolute(config.source)}
    return work(
        plan,
        WORKERS[kind],
        settings,
        workers=config.run.workers,
        address=address,
        continued=continued,
        on_event=on_event,
        stop=stop,
    )


def work(
    plan: Plan,
    worker: str,
    settings: dict[str, Any],
    *,
    workers: int | None,
    address: str,
    continued: bool,
    on_event: OnEvent | None = None,
    stop: threading.Event | None = None,
) -> Summary:
    """Let workers work on a run that was begun; `settings` get the `listing` they are given."""
    if on_event:
        on_event(_planned(plan, continued))
    settings = {**settings, "listing": str(Path(plan.run_dir) / LISTING)}
    if address == "none":
        here = workers or 1
        outcome = run_local(plan, worker, settings, workers=here, on_event=on_event, stop=stop)
    else:
        from pipeline.runner.ray import run_ray

        outcome = run_ray(
            plan, worker, settings, workers=workers, on_event=on_event, stop=stop, address=address
        )
    return _summary(plan, outcome, outcome.status, continued)


def planned(plan: Plan, continued: bool) -> Summary:
    """What a dry run says."""
    return _summary(plan, Outcome("done", 0, 0, 0, plan.shards_total), "planned", continued)


def plan_of(
    config: Config,
    run_id: str,
    listing: Listing,
    shards: int,
    rows: int | None = None,
    kind: Kind = KIND,
) -> Plan:
    """The run below the configured directory, watched and cut as configured."""
    run, run_dir = config.run, Path(config.run.dir) / run_id
    return Plan(
        run_dir=str(run_dir.absolute()),
        run_id=run_id,
        kind=kind,
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


def begin(
    plan: Plan,
    listing: Listing,
    hidden: Path,
    limit: int | None,
    skipped: Mapping[str, int],
    determined_by: Mapping[str, Any],
    fields: Mapping[str, Any],
) -> None:
    """Put the listing in its place, then `run.json`: a run without one is no run.

    `hidden` is where the listing was written; `fields` are `recipe`, `seed` and `config`.
    """
    run_dir = Path(plan.run_dir)
    run_dir.mkdir(exist_ok=True)
    place = run_dir / LISTING
    if not place.exists():
        hidden.rename(place)
    told = {
        "run_id": plan.run_id,
        "kind": plan.kind,
        "recipe": fields["recipe"],
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": fields["seed"],
        "shards_total": plan.shards_total,
        "entries": listing.count,
        "limit": limit,
        "listing_digest": listing.digest,
        "skipped": dict(skipped),
        "parents": [],
        "config": fields["config"],
        "determined_by": dict(determined_by),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "drawn_with": dict(drawing_versions()),
    }
    write_run(storage_at(plan.run_dir), told)


def run_id_of(recipe: str, determined_by: Mapping[str, Any], resume: str = "auto") -> str:
    """The recipe and ten hex digits of all that determines the rows."""
    text = json.dumps(determined_by, sort_keys=True) + (uuid4().hex if resume == "never" else "")
    return f"{recipe}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def recipe_of(config: Config, kind: Kind) -> str:
    """What a run's id begins with: the recipe that was set, else what the run is for."""
    if kind == "trajectories" or "recipe" in config.model_fields_set:
        return config.recipe
    return "queries" if config.prompts.role == "query" else "prompts"


def _determined_by(
    config: Config, kind: Kind, source: Source, listing: Listing, shards: int, limit: int | None
) -> dict[str, Any]:
    told = _trajectories_follow_from if kind == "trajectories" else prompts_worker.determined_by
    return {
        "kind": kind,
        "source": source.name,
        "shards": shards,
        "limit": limit,
        "listing": listing.digest,
        **told(config),
    }


def _trajectories_follow_from(config: Config) -> dict[str, Any]:
    """What of the settings, weights and wording trajectories follow from."""
    readers: tuple[str, ...] = ("pocket-finder", "pocket-reader") if reads_writing(config) else ()
    readers += (NET,) if config.needs_saliency else ()
    return {
        "protocol": PROTOCOL,
        "settings": config.semantic(),
        "weights": weights.sha256_of(weights.find(config.segmenter.checkpoint)),
        "prompts": prompts_sha256(config),
        **{name: weights.sha256_of(weights.find(name)) for name in readers},
    }


def _absolute(spec: str) -> str:
    """A source specification whose paths hold in another working directory."""
    form, colon, rest = spec.partition(":")
    if form == "scenes" or "://" in spec:
        return spec
    paths = [_absolute_path(part) for part in (rest if colon else spec).split(":")]
    return ":".join([form, *paths] if colon else paths)


def _absolute_path(text: str) -> str:
    """A path, or several joined by `+`, from the root."""
    names = [text] if Path(text).expanduser().exists() else text.split("+")
    return "+".join(str(Path(name).expanduser().absolute()) for name in names)


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
