"""Flags that say who is tested and how the work is run, the same for every benchmark."""

from __future__ import annotations

from contextlib import nullcontext
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.printing import emit, say
from pipeline.cli.progress import progress
from pipeline.cli.stopping import INTERRUPTED, stop_on_signals
from pipeline.cli.synthesize import BUDGET_REACHED
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.eval.run import Evaluation, Runner, Summary


class Policy(StrEnum):
    """Who is tested, where it is not told by its URL or its folder."""

    scripted = "scripted"
    endpoint = "endpoint"
    local = "local"
    auto = "auto"


Endpoint = Annotated[
    str | None, typer.Option(metavar="URL", help="A server that speaks the OpenAI protocol.")
]
Model = Annotated[
    str | None, typer.Option(metavar="DIR", help="A vision language model's folder, run in here.")
]
ModelName = Annotated[
    str | None, typer.Option("--model-name", help="Of the server's models; else the only one.")
]
Family = Annotated[
    str | None, typer.Option(help="Coordinates it speaks, such as qwen2.5-vl; else its name's.")
]
Who = Annotated[
    Policy | None,
    typer.Option("--policy", help="scripted is the embedded reader: no key, no server."),
]
Shards = Annotated[int, typer.Option(min=1, help="Units the work is cut into.")]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", metavar="FILE.html", help="Write the page there.")
]
ConfigFiles = Annotated[
    list[Path] | None, typer.Option("--config", metavar="F.toml", help="Settings; repeatable.")
]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="One setting; repeatable.")
]
Seed = Annotated[int | None, typer.Option(help="Seed of everything that is drawn.")]
Address = Annotated[
    str, typer.Option(help="none for this process; local, auto or ray://… for Ray.")
]
BudgetUsd = Annotated[float | None, typer.Option(min=0, help="Stop at this cost.")]
BudgetTokens = Annotated[int | None, typer.Option(min=0, help="Stop at so many.")]
BudgetHours = Annotated[float | None, typer.Option(min=0, help="Stop after so long.")]
RunsDir = Annotated[
    str | None,
    typer.Option("--runs-dir", help="Where runs are kept [COFPIPE_RUNS, else runs]."),
]


def subject_settings(
    endpoint: str | None,
    model: str | None,
    model_name: str | None,
    family: str | None,
    policy: Policy | None,
) -> list[str]:
    """The flags that say who is tested, as settings."""
    if endpoint and model:
        raise ConfigError("--endpoint and --model are two subjects.", "Give one of them.")
    if model and model_name:
        raise ConfigError("--model-name is for a server's model.", "Give --model alone.")
    kind = "endpoint" if endpoint else "local" if model else None
    if kind and policy and policy.value != kind:
        raise ConfigError(f"--policy {policy.value} does not go with --{kind}.", "Leave it out.")
    chosen = {
        "policy.kind": kind or (policy.value if policy else None),
        "endpoint.urls": endpoint,
        "policy.model": model or model_name,
        "policy.family": family,
    }
    return [f"{name}={value}" for name, value in chosen.items() if value]


def looked_for(settings: Config) -> Config:
    """The settings, with a local server to be looked for where they name no subject."""
    if "kind" in settings.policy.model_fields_set:
        return settings
    kind = "endpoint" if settings.endpoint.urls or settings.endpoint.urls_file else "auto"
    return settings.model_copy(update={"policy": settings.policy.model_copy(update={"kind": kind})})


def work(planned: Evaluation, address: str, json: bool) -> Summary:
    """Do what is planned, with progress for people and signals that drain."""
    from pipeline.eval.run import evaluate

    runner, shards = _runner(address, planned.config.run.workers), planned.plan.shards_total
    with stop_on_signals() as stop, nullcontext() if json else progress(shards) as on_event:
        return evaluate(planned, runner=runner, on_event=on_event, stop=stop)


def _runner(address: str, workers: int | None) -> Runner:
    """Threads of this process, or Ray."""
    if address == "none":
        from pipeline.runner.local import run_local

        return partial(run_local, workers=workers or 1)
    from pipeline.runner.ray import run_ray

    return partial(run_ray, workers=workers, address=address)


def conclude(summary: Summary, json: bool) -> None:
    """Say how it went, and end with the exit code that says the same."""
    if json:
        emit(summary.as_dict())
    elif summary.status == "done":
        say(f"{summary.run_id}: {summary.scored} readings scored.")
    else:
        say(f"{summary.reason} The same command continues it.".lstrip())
    if summary.status == "interrupted":
        raise typer.Exit(INTERRUPTED)
    if summary.status == "budget":
        raise typer.Exit(BUDGET_REACHED)
