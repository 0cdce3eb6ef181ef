"""`eval vstar|hrbench|mme|mmbench|pope|folder`: the same questions, several ways of looking."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import subject as told
from pipeline.cli.places import AsJson
from pipeline.cli.printing import emit, print_table, say
from pipeline.cli.synthesize import Resume
from pipeline.errors import CofpipeError, ConfigError

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.eval.compare import Cell
    from pipeline.eval.outcome import Compared
    from pipeline.eval.protocol import Protocol
    from pipeline.eval.run import Evaluation

ABOUT = {
    "vstar": "V*: find a small thing in a large picture (folders, or test_questions.jsonl).",
    "hrbench": "HR-Bench 4K and 8K: a TSV with pictures, each question once for each cycle.",
    "mme": "MME: yes or no, scored by pairs; perception and cognition.",
    "mmbench": "MMBench: a TSV with options in every rotation.",
    "pope": "POPE: is there such an object? JSON lines beside a folder of pictures.",
    "folder": "Your own: questions.jsonl beside the pictures.",
}

Source = Annotated[
    str | None,
    typer.Argument(help="A folder or file, or hf://…; left out: where it is published."),
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        help="direct, zoom, coarse-to-fine, uniform, grid, exhaustive, saliency-crop, oracle-crop, "
        "random-crop, or all; repeatable.",
    ),
]
Resolutions = Annotated[
    str | None,
    typer.Option(help="Budgets R, as 224,448,896, or paper or doubling: no view has more than R²."),
]
Rollouts = Annotated[int, typer.Option(min=1, help="Tries at each question: k of Avg@k.")]
Limit = Annotated[int | None, typer.Option(min=1, help="About so many questions.")]
Compare = Annotated[
    bool, typer.Option("--compare", help="Write a chart and a page of disagreements, too.")
]
Against = Annotated[
    list[str] | None,
    typer.Option(metavar="RUN", help="Show another run's scores beside; repeatable."),
]
Preset = Annotated[str, typer.Option(help="Of coarse-to-fine: exact, or mme-hl as published.")]
Judge = Annotated[
    str | None, typer.Option(metavar="URL", help="A server that judges what no rule can.")
]
JudgeModel = Annotated[str | None, typer.Option("--judge-model", help="Of the judge's models.")]
Results = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Write the answers as the authors' script reads them (mme)."),
]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="A=B", help="One of the benchmark's own, as prompts=llava."),
]


def register(app: typer.Typer) -> None:
    """One command for each benchmark that is read from somewhere."""
    for name, about in ABOUT.items():
        app.command(name, help=about)(_command(name))


def _command(name: str) -> Callable[..., None]:
    def command(
        source: Source = None,
        endpoint: told.Endpoint = None,
        model: told.Model = None,
        model_name: told.ModelName = None,
        family: told.Family = None,
        policy: told.Who = None,
        methods: Methods = None,
        resolutions: Resolutions = None,
        rollouts: Rollouts = 1,
        limit: Limit = None,
        compare: Compare = False,
        against: Against = None,
        preset: Preset = "exact",
        judge: Judge = None,
        judge_model: JudgeModel = None,
        options: Options = None,
        results: Results = None,
        shards: told.Shards = 16,
        out: told.Out = None,
        config: told.ConfigFiles = None,
        sets: told.Sets = None,
        seed: told.Seed = None,
        address: told.Address = "none",
        resume: Annotated[
            Resume, typer.Option(help="Continue the run if it exists.")
        ] = Resume.auto,
        budget_usd: told.BudgetUsd = None,
        budget_tokens: told.BudgetTokens = None,
        budget_hours: told.BudgetHours = None,
        json: AsJson = False,
        runs_dir: told.RunsDir = None,
    ) -> None:
        from pipeline.config_files import load_config

        who = told.subject_settings(endpoint, model, model_name, family, policy)
        settings = load_config(
            config or [], [*(sets or []), *who], seed=seed, runs_dir=runs_dir,
            budget_usd=budget_usd, budget_tokens=budget_tokens, budget_hours=budget_hours,
        )  # fmt: skip
        asked = protocol_of(
            settings, name, source, methods, resolutions, rollouts=rollouts, limit=limit,
            preset=preset, judge=judge or "", judge_model=judge_model or "",
            options=own_options(options),
        )  # fmt: skip
        evaluate_benchmark(
            settings, asked, shards=shards, resume=resume.value, address=address, json=json,
            compare=compare, against=against or [], out=out, results=results,
        )  # fmt: skip

    command.__doc__ = ABOUT[name]
    return command


def protocol_of(
    settings: Config,
    benchmark: str,
    source: str | None,
    methods: list[str] | None,
    resolutions: str | None,
    **rest: Any,
) -> Protocol:
    """The flags as what is asked; raises `ConfigError`."""
    from pipeline.eval.protocol import ALL_METHODS, ON_ITS_OWN, Protocol, budgets

    chosen: tuple[Any, ...] = tuple(methods or ("direct", "zoom"))
    if chosen == ("all",):
        here = settings.policy.kind == "local"
        chosen = tuple(m for m in ALL_METHODS if here or m not in ON_ITS_OWN)
    at = budgets(resolutions or "672")
    return Protocol(benchmark, source, methods=chosen, resolutions=at, **rest)


def own_options(words: list[str] | None) -> dict[str, str]:
    """`A=B` as names and values."""
    pairs = [word.partition("=") for word in words or []]
    if odd := [name for name, equals, _ in pairs if not (name and equals)]:
        raise ConfigError(f"'{odd[0]}' is no option of a benchmark.", "Write it as NAME=VALUE.")
    return {name: value for name, _, value in pairs}


def evaluate_benchmark(
    settings: Config,
    asked: Protocol,
    *,
    shards: int,
    resume: str,
    address: str,
    json: bool,
    compare: bool,
    against: list[str],
    out: Path | None,
    results: Path | None = None,
) -> None:
    """Do it, and show what there is, also where it ended early."""
    from pipeline.eval.run import plan_benchmark

    planned = plan_benchmark(told.looked_for(settings), asked, shards=shards, resume=resume)
    if not json:
        ways = f"{' and '.join(asked.methods)} at {', '.join(map(str, asked.resolutions))}"
        say(f"{planned.subject}: {planned.plan.entries} questions, {ways}.")
    page = out or (Path(f"{planned.plan.run_id}.html") if compare else None)
    try:
        summary = told.work(planned, address, json)
    except CofpipeError:
        show_comparison(planned, asked, against, page, json)
        raise
    show_comparison(planned, asked, against, page, json)
    if results is not None:
        _write_results(planned, asked, results, json)
    told.conclude(summary, json)


def _write_results(planned: Evaluation, asked: Protocol, results: Path, json: bool) -> None:
    from pipeline.eval.benchmark_worker import opened
    from pipeline.eval.outcome import rows_of, write_results

    rows = rows_of(planned.run_dir.parent, [planned.plan.run_id])
    left_out = write_results(opened(planned.config, asked), rows, results)
    if not json:
        more = f", {left_out} questions left out" if left_out else ""
        say(f"{results}{more}")


def show_comparison(
    planned: Evaluation, asked: Protocol, against: list[str], page: Path | None, json: bool
) -> None:
    """Print the table and what follows from it; write the page and the chart beside it."""
    from pipeline.eval.benchmark_worker import opened
    from pipeline.eval.compare import plain
    from pipeline.eval.outcome import beside, compared, pictures_of, rows_of

    rows = rows_of(planned.run_dir.parent, [planned.plan.run_id])
    if not rows:
        return
    benchmark = opened(planned.config, asked)
    rows += beside(benchmark, rows_of(planned.run_dir.parent, against))
    found = compared(benchmark, rows, planned.config.seed)
    if json:
        told_all = [*map(plain, found.cells), *map(plain, found.pairs), *map(plain, found.savings)]
        for record in [*told_all, *found.totals]:
            emit({"run_id": planned.plan.run_id, **record})
    else:
        _print(found)
    if page is not None:
        from pipeline.report.compare import write_chart, write_compare

        cells = [plain(cell) for cell in found.cells]
        put = {item.item_id: item.question for item in benchmark.items}
        differ = [plain(one) | {"question": put[one.item_id]} for one in found.disagreements]
        write_compare(
            cells,
            [plain(saving) for saving in found.savings],
            differ,
            page,
            pairs=[plain(pair) for pair in found.pairs],
            pictures=pictures_of(benchmark, [one["item_id"] for one in differ]),
        )
        chart = write_chart(cells, page.with_suffix(".svg"))
        if not json:
            say(f"{page}\n{chart}")


def _print(found: Compared) -> None:
    """The table, the benchmark's own totals, and what looking closer saves where it can be told."""
    from pipeline.eval.saving import LARGEST, verdict

    print_table(*_table(found.cells), sys.stdout)
    for total in found.totals:
        print("  ".join(f"{name} {_short(value)}" for name, value in total.items()))
    told = {c.subject for c in found.cells if (c.method, c.resolution) == ("direct", LARGEST)}
    for saving in found.savings:
        if saving.subject in told:
            share = "" if saving.value is None else f" {saving.value:.0%} of the tokens"
            print(f"{saving.subject}, {saving.method}, saves{share}: {verdict(saving)}")


def _table(cells: list[Cell]) -> tuple[list[str], list[list[Any]]]:
    """Names and rows of the table for people."""
    names = ["subject", "method", "budget", "n", "right", "95 %", "looks", "visual tokens"]
    names += ["text tokens", "seconds", "invalid", "unfinished", "unscored"]
    rows = []
    for cell in cells:
        found = cell.accuracy
        share = "" if found is None else f"{found.value:.1%}"
        ends = "" if found is None else f"{found.low:.1%}–{found.high:.1%}"
        costs = [cell.looks, cell.visual_tokens, cell.tokens_out, cell.seconds]
        shares = ["" if s is None else f"{s:.0%}" for s in (cell.invalid, cell.unfinished)]
        rows.append([
            cell.subject, cell.method, cell.resolution, cell.items, share, ends,
            *(None if cost is None else round(cost, 2) for cost in costs),
            *shares, cell.unscored or "",
        ])  # fmt: skip
    return names, rows


def _short(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
