"""Benchmarks: `eval needles`, and those of `benchmarks.py`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import benchmarks, lavm
from pipeline.cli import subject as told
from pipeline.cli.places import AsJson
from pipeline.cli.printing import emit, print_table, say
from pipeline.cli.synthesize import Resume
from pipeline.errors import CofpipeError, ConfigError

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.eval.curves import Curve
    from pipeline.eval.design import Design
    from pipeline.eval.run import Evaluation

app = typer.Typer(help="Benchmarks.", no_args_is_help=True)
benchmarks.register(app)
app.command()(lavm.lavm)


@app.callback()
def root() -> None:
    """Benchmarks: what a model can see, and whether looking closer helps."""


@app.command()
def needles(
    endpoint: told.Endpoint = None,
    model: told.Model = None,
    model_name: told.ModelName = None,
    family: told.Family = None,
    policy: told.Who = None,
    resolution: Annotated[int, typer.Option(min=56, help="No view has more than R² pixels.")] = 672,
    count: Annotated[int, typer.Option("-n", "--per-level", min=1, help="Pictures a level.")] = 20,
    factors: Annotated[
        list[str] | None,
        typer.Option("--factor", help="height_px, contrast, clutter, tilt_deg; repeatable."),
    ] = None,
    methods: benchmarks.Methods = None,
    resolutions: benchmarks.Resolutions = None,
    rollouts: benchmarks.Rollouts = 1,
    limit: benchmarks.Limit = None,
    compare: benchmarks.Compare = False,
    against: benchmarks.Against = None,
    preset: benchmarks.Preset = "exact",
    options: benchmarks.Options = None,
    shards: told.Shards = 16,
    out: told.Out = None,
    config: told.ConfigFiles = None,
    sets: told.Sets = None,
    seed: told.Seed = None,
    address: told.Address = "none",
    resume: Annotated[Resume, typer.Option(help="Continue the run if it exists.")] = Resume.auto,
    budget_usd: told.BudgetUsd = None,
    budget_tokens: told.BudgetTokens = None,
    budget_hours: told.BudgetHours = None,
    json: AsJson = False,
    runs_dir: told.RunsDir = None,
) -> None:
    """At which text height, contrast, clutter and tilt does a model go blind; does zooming help?

    With --resolutions or --compare, held-out drawn pictures with tags are asked about instead, with
    every method at every budget, side by side.

    Without --endpoint, --model or --policy a server is looked for on the usual local ports. The
    same command again continues its run.
    """
    from pipeline.config_files import load_config
    from pipeline.eval.design import Design
    from pipeline.eval.stimuli import FACTORS
    from pipeline.eval.subjects import METHODS

    who = told.subject_settings(endpoint, model, model_name, family, policy)
    settings = load_config(
        config or [], [*(sets or []), *who], seed=seed, runs_dir=runs_dir,
        budget_usd=budget_usd, budget_tokens=budget_tokens, budget_hours=budget_hours,
    )  # fmt: skip
    if resolutions or compare:
        if factors:
            raise ConfigError("--factor is for the sweep at one budget.", "Leave it out.")
        asked = benchmarks.protocol_of(
            settings,
            "needles",
            None,
            methods,
            resolutions,
            rollouts=rollouts,
            limit=limit,
            preset=preset,
            options=benchmarks.own_options(options),
        )
        benchmarks.evaluate_benchmark(
            settings, asked, shards=shards, resume=resume.value, address=address, json=json,
            compare=compare, against=against or [], out=out,
        )  # fmt: skip
        return
    design = Design(resolution, count, tuple(factors or FACTORS), tuple(methods or METHODS))  # type: ignore[arg-type]
    _sweep(settings, design, shards, resume.value, address, json, out)


def _sweep(
    settings: Config,
    design: Design,
    shards: int,
    resume: str,
    address: str,
    json: bool,
    out: Path | None,
) -> None:
    """How small, faint, crowded and tilted a print can be and be read."""
    from pipeline.eval.run import plan_needles

    planned = plan_needles(told.looked_for(settings), design, shards=shards, resume=resume)
    if not json:
        say(f"{planned.subject}: {planned.plan.entries} pictures, {' and '.join(design.methods)}.")
    try:
        summary = told.work(planned, address, json)
    except CofpipeError:
        _show(planned, design, json, out)
        raise
    _show(planned, design, json, out)
    told.conclude(summary, json)


def _show(planned: Evaluation, design: Design, json: bool, out: Path | None) -> None:
    """Print what there is, and write the page."""
    from pipeline.eval.curves import curves
    from pipeline.report.needles import write_needles

    found = curves(planned.run_dir, design)
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
        page = write_needles(records, _facts(planned, design), out)
        if not json:
            say(str(page))


def _facts(planned: Evaluation, design: Design) -> dict[str, Any]:
    """What the page says of the run."""
    from pipeline.eval.stimuli import base

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
