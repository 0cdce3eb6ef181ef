"""One evaluation: name the run, let the workers work, say how it ended.

A run lies below the runs directory like any other; its id is a digest of what determines its rows,
so the same command continues it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import platform
import threading
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

from pipeline.agent.opening import prompts_sha256, resolved
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.eval import benchmark_worker, protocol, worker
from pipeline.eval.design import BENCHMARK, PROTOCOL, Design
from pipeline.eval.protocol import ON_ITS_OWN, Protocol
from pipeline.eval.subjects import HINT, UNSURE
from pipeline.models import weights
from pipeline.runner.local import run_local
from pipeline.runner.rundir import write_run
from pipeline.runner.storage import storage_at
from pipeline.shards import MEGABYTE, Outcome, Plan

KIND = "scores"
SHARDS = 16
PACKAGES = ("cofpipe", "numpy", "openai", "pillow", "pyarrow", "torch", "transformers")

OnEvent = Callable[[dict[str, Any]], None]
Runner = Callable[..., Outcome]
"""Takes a plan, the worker's name, its settings, and `on_event` and `stop` by name."""


class Described(typing.Protocol):
    """What an evaluation asks."""

    def describe(self) -> dict[str, Any]:
        """As plain values."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A run that is planned: what it asks of whom, and where it lies."""

    config: Config
    """Resolved: the model has a name."""
    design: Described
    plan: Plan
    worker: str
    """`module:function` that opens one."""
    continued: bool
    """Whether the run was there before."""

    @property
    def run_dir(self) -> Path:
        return Path(self.plan.run_dir)

    @property
    def subject(self) -> str:
        """Who is tested, in words."""
        return subject_of(self.config)


@dataclass(frozen=True, slots=True)
class Summary:
    """How a command ended."""

    run_id: str
    run_dir: str
    subject: str
    status: str
    """`done`, `interrupted`, or `budget`."""
    scored: int
    """Rows of the view `scores`, the unscored ones included."""
    shards_done: int
    shards_total: int
    items: int
    continued: bool
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def plan_needles(
    config: Config, design: Design, *, shards: int = SHARDS, resume: str = "auto"
) -> Evaluation:
    """The legibility sweep: find the model and write `run.json`; nothing is asked of it yet.

    Raises `ConfigError` for what cannot be run, `ModelError` where no server answers.
    """
    told = {"protocol": PROTOCOL, "prompts": [HINT], "data": []}
    return _plan(config, design, _opener(worker), len(design.items()), told, shards, resume)


def plan_benchmark(
    config: Config, asked: Protocol, *, shards: int = SHARDS, resume: str = "auto"
) -> Evaluation:
    """A benchmark: find it and the model, and write `run.json`; errors as `plan_needles`."""
    local = [method for method in asked.methods if method in ON_ITS_OWN]
    if local and config.policy.kind != "local":
        raise ConfigError(
            f"Method '{local[0]}' changes a model's attention: it needs one in this process.",
            "Name its folder with --model.",
        )
    benchmark_worker.preset_of(asked)
    found = benchmark_worker.opened(config, asked)
    told = {"protocol": protocol.VERSION, "prompts": [UNSURE], "data": [found.digest]}
    return _plan(config, asked, _opener(benchmark_worker), len(found.items), told, shards, resume)


def _plan(
    config: Config,
    design: Design | Protocol,
    opener: str,
    entries: int,
    told: dict[str, Any],
    shards: int,
    resume: str,
) -> Evaluation:
    benchmark = BENCHMARK if isinstance(design, Design) else design.benchmark
    recipe = f"eval-{benchmark}"
    if config.policy.kind != "scripted":
        config = asyncio.run(resolved(config))
    config = _absolute(config).model_copy(update={"recipe": recipe})
    told = _determined_by(config, design, shards) | told
    told["prompts"] = [prompts_sha256(config), *told["prompts"]]
    plan = plan_of(config, run_id_of(recipe, told, resume), entries, shards)
    continued = (Path(plan.run_dir) / "run.json").exists()
    if not continued:
        begin(config, design, plan, told, told["data"])
    return Evaluation(config, design, plan, opener, continued)


def run_id_of(recipe: str, told: Mapping[str, Any], resume: str) -> str:
    """The recipe and a digest of all that determines a run's rows; `never` makes a new one."""
    text = json.dumps(told, sort_keys=True) + (uuid4().hex if resume == "never" else "")
    return f"{recipe}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def plan_of(config: Config, run_id: str, entries: int, shards: int) -> Plan:
    """What the runner is told of a run of scores."""
    run, budget = config.run, config.budget
    return Plan(
        run_dir=str(Path(run.dir).absolute() / run_id),
        run_id=run_id,
        kind=KIND,
        entries=entries,
        shards=shards,
        part_rows=run.part_rows,
        part_bytes=run.part_mb * MEGABYTE,
        stall_s=run.stall_s,
        window=run.window,
        budget_usd=budget.usd,
        budget_tokens=budget.tokens,
        budget_hours=budget.hours,
    )


def evaluate(
    planned: Evaluation,
    *,
    runner: Runner = run_local,
    on_event: OnEvent | None = None,
    stop: threading.Event | None = None,
) -> Summary:
    """Work until every picture is scored; a call that was paid for is not made again.

    `runner` is `run_local`, or `run_ray` with its address. An endpoint that keeps failing raises
    `ModelError`: what is scored stays, the rest is not there, and the same call goes on.
    """
    if on_event:
        on_event(_planned(planned))
    settings = {
        "config": planned.config.describe(),
        "design": planned.design.describe(),
        "subject": planned.subject,
    }
    outcome = runner(planned.plan, planned.worker, settings, on_event=on_event, stop=stop)
    return _summary(planned, outcome)


def subject_of(config: Config) -> str:
    """Who is tested, in words."""
    policy = config.policy
    if policy.kind == "local":
        return Path(policy.model or "").name
    return policy.model or policy.kind


def _opener(module: ModuleType) -> str:
    return f"{module.__name__}:open_worker"


def begin(
    config: Config, design: Described, plan: Plan, told: Mapping[str, Any], data: Sequence[str]
) -> None:
    """Write a run's `run.json`; its parents are the data it is asked about and the weights."""
    Path(plan.run_dir).mkdir(parents=True, exist_ok=True)
    fields = {
        "run_id": plan.run_id,
        "kind": KIND,
        "recipe": config.recipe,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": config.seed,
        "shards_total": plan.shards_total,
        "entries": plan.entries,
        "parents": [*data, *told["model"]],
        "design": design.describe(),
        "config": config.describe(),
        "determined_by": told,
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
    }
    write_run(storage_at(plan.run_dir), fields)


def _determined_by(config: Config, design: Design | Protocol, shards: int) -> dict[str, Any]:
    return {
        "kind": KIND,
        "design": design.describe(),
        "settings": config.semantic(),
        "shards": shards,
        "weights": weights.sha256_of(weights.find(config.segmenter.checkpoint)),
        "model": [weights.sha256_of(file) for file in _model_files(config)],
    }


def _absolute(config: Config) -> Config:
    """The settings with a model's folder that is the same one from everywhere."""
    policy = config.policy
    if policy.kind != "local" or not Path(policy.model or "").expanduser().is_dir():
        return config
    folder = str(Path(policy.model or "").expanduser().resolve())
    return config.model_copy(update={"policy": policy.model_copy(update={"model": folder})})


def _model_files(config: Config) -> list[Path]:
    """Weights of a model in a folder: trained further, it is another subject."""
    if config.policy.kind != "local":
        return []
    return sorted(Path(config.policy.model or "").glob("*.safetensors"))


def _planned(planned: Evaluation) -> dict[str, Any]:
    return {
        "event": "planned",
        "run_id": planned.plan.run_id,
        "continued": planned.continued,
        "entries": planned.plan.entries,
        "shards": planned.plan.shards_total,
        "shards_total": planned.plan.shards_total,
    }


def _summary(planned: Evaluation, outcome: Outcome) -> Summary:
    return Summary(
        run_id=planned.plan.run_id,
        run_dir=planned.plan.run_dir,
        subject=planned.subject,
        status=outcome.status,
        scored=outcome.kept,
        shards_done=outcome.shards_done,
        shards_total=outcome.shards_total,
        items=planned.plan.entries,
        continued=planned.continued,
        reason=outcome.reason,
    )
