"""Benchmarks: `eval needles`."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.places import AsJson
from pipeline.cli.printing import emit, print_table, say
from pipeline.cli.progress import progress
from pipeline.cli.stopping import INTERRUPTED, stop_on_signals
from pipeline.cli.synthesize import BUDGET_REACHED, Resume
from pipeline.errors import CofpipeError, ConfigError

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.eval.curves import Curve
    from pipeline.eval.run import Evaluation, Runner, Summary

app = typer.Typer(help="Benchmarks.", no_args_is_help=True)


@app.callback()
def root() -> None:
    """Benchmarks: what a model can see, and whether looking closer helps."""


class Policy(StrEnum):
    """Who is tested, where it is not told by its URL or its folder."""

    scripted = "scripted"
    endpoint = "endpoint"
    local = "local"
    auto = "auto"


@app.command()
def needles(
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="A server that speaks the OpenAI protocol.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="DIR", help="A Qwen-VL in a folder, run in here.")
    ] = None,
    model_name: Annotated[
        str | None, typer.Option("--model-name", help="Of the server's models; else the only one.")
    ] = None,
    family: Annotated[
        str | None, typer.Option(help="Coordinates it speaks, such as qwen2.5-vl; else its name's.")
    ] = None,
    policy: Annotated[
        Policy | None, typer.Option(help="scripted is the embedded reader: no key, no server.")
    ] = None,
    resolution: Annotated[int, typer.Option(min=56, help="No view has more than R² pixels.")] = 672,
    count: Annotated[int, typer.Option("-n", "--per-level", min=1, help="Pictures a level.")] = 20,
    factors: Annotated[
        list[str] | None,
        typer.Option("--factor", help="height_px, contrast, clutter, tilt_deg; repeatable."),
    ] = None,
    methods: Annotated[
        list[str] | None, typer.Option("--method", help="direct, zoom; repeatable.")
    ] = None,
    shards: Annotated[int, typer.Option(min=1, help="Units the work is cut into.")] = 16,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE.html", help="Write the page there.")
    ] = None,
    config: Annotated[
        list[Path] | None, typer.Option("--config", metavar="F.toml", help="Settings; repeatable.")
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="One setting; repeatable.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything that is drawn.")] = None,
    address: Annotated[
        str, typer.Option(help="none for this process; local, auto or ray://… for Ray.")
    ] = "none",
    resume: Annotated[Resume, typer.Option(help="Continue the run if it exists.")] = Resume.auto,
    budget_usd: Annotated[float | None, typer.Option(min=0, help="Stop at this cost.")] = None,
    budget_tokens: Annotated[int | None, typer.Option(min=0, help="Stop at so many.")] = None,
    budget_hours: Annotated[float | None, typer.Option(min=0, help="Stop after so long.")] = None,
    json: AsJson = False,
    runs_dir: Annotated[
        str | None,
        typer.Option("--runs-dir", help="Where runs are kept [COFPIPE_RUNS, else runs]."),
    ] = None,
) -> None:
    """At which text height, contrast, clutter and tilt does a model go blind; does zooming help?

    Without --endpoint, --model or --policy a server is looked for on the usual local ports. The
    same command again continues its run.
    """
    from pipeline.config_files import load_config
    from pipeline.eval.design import Design
    from pipeline.eval.run import plan_needles
    from pipeline.eval.stimuli import FACTORS
    from pipeline.eval.subjects import METHODS

    told = [*(sets or []), *_subject(endpoint, model, model_name, family, policy)]
    settings = load_config(
        config or [], told, seed=seed, runs_dir=runs_dir,
        budget_usd=budget_usd, budget_tokens=budget_tokens, budget_hours=budget_hours,
    )  # fmt: skip
    design = Design(resolution, count, tuple(factors or FACTORS), tuple(methods or METHODS))  # type: ignore[arg-type]
    planned = plan_needles(_looked_for(settings), design, shards=shards, resume=resume.value)
    if not json:
        say(f"{planned.subject}: {planned.plan.entries} pictures, {' and '.join(design.methods)}.")
    try:
        summary = _work(planned, address, json)
    except CofpipeError:
        _show(planned, json, out)
        raise
    _show(planned, json, out)
    _conclude(summary, json)


def _subject(
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


def _looked_for(settings: Config) -> Config:
    """The settings, with a local server to be looked for where they name no subject."""
    if "kind" in settings.policy.model_fields_set:
        return settings
    kind = "endpoint" if settings.endpoint.urls or settings.endpoint.urls_file else "auto"
    return settings.model_copy(update={"policy": settings.policy.model_copy(update={"kind": kind})})


def _work(planned: Evaluation, address: str, json: bool) -> Summary:
    """Do it, with progress for people and signals that drain."""
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


def _show(planned: Evaluation, json: bool, out: Path | None) -> None:
    """Print what there is, and write the page."""
    from pipeline.eval.curves import curves
    from pipeline.report.needles import write_needles

    found = curves(planned.run_dir, planned.design)
    if not any(point.scored or point.unscored for curve in found for point in curve.points):
        return
    records = [point.as_dict() for curve in found for point in curve.points]
    records += [curve.as_dict() for curve in found]
    if json:
        for record in records:
            emit({"run_id": planned.plan.run_id, **record})
    else:
        print_table(*_table(found), sys.stdout)
        for curve in found:
            print(f"{curve.factor} {curve.method}: {curve.words}")
    lost = sum(point.unscored for curve in found for point in curve.points)
    if lost and not json:
        say(f"{lost} readings are unscored, which is not wrong: see scores.explanation.")
    if out is not None:
        page = write_needles(records, _facts(planned), out)
        if not json:
            say(str(page))


def _facts(planned: Evaluation) -> dict[str, Any]:
    """What the page says of the run."""
    from pipeline.eval.stimuli import base

    design = planned.design
    return {
        "subject": planned.subject,
        "run_id": planned.plan.run_id,
        "resolution": design.resolution,
        "per_level": design.per_level,
        "base": base(),
    }


def _table(found: list[Curve]) -> tuple[list[str], list[list[Any]]]:
    """Names and rows: a line for each level, the methods side by side."""
    methods = list(dict.fromkeys(curve.method for curve in found))
    names = ["factor", "level"]
    for method in methods:
        names += [method, "95 %", "of", "looks"]
    rows = []
    for factor in dict.fromkeys(curve.factor for curve in found):
        mine = [curve for curve in found if curve.factor == factor]
        for points in zip(*(curve.points for curve in mine), strict=True):
            row: list[Any] = [factor, str(points[0].level)]
            for point in points:
                low, high = point.interval
                share = "" if point.accuracy is None else f"{point.accuracy:.0%}"
                looks = "" if point.zooms is None else f"{point.zooms:.1f}"
                row += [share, f"{low:.0%}–{high:.0%}", point.scored, looks]
            rows.append([*row, sum(p.unscored + p.missing for p in points) or ""])
    return [*names, "unscored"], rows


def _conclude(summary: Summary, json: bool) -> None:
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
