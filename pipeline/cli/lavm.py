"""`eval lavm`: prompts shown to a large autoregressive vision model, its predictions scored."""

from __future__ import annotations

import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import subject as told
from pipeline.cli.places import RUNS_DIR, AsJson, find_run
from pipeline.cli.printing import emit, print_table, say
from pipeline.cli.prompts import PromptTask
from pipeline.cli.synthesize import Resume
from pipeline.errors import CofpipeError

if TYPE_CHECKING:
    from pipeline.eval.lavm_protocol import LavmProtocol
    from pipeline.eval.lavm_results import Record
    from pipeline.eval.run import Evaluation

SHOWN = 8
"""Queries on the page."""


class LavmVariant(StrEnum):
    """Whose way of seeing and drawing; the model's folder tells, unless it is given."""

    delvm = "delvm"
    lvm = "lvm"


def lavm(
    prompts: Annotated[
        str,
        typer.Option(
            metavar="RUN|FOLDER",
            help="The pool: a run of prompts, published frames, or 'scenes' (drawn ones).",
        ),
    ],
    queries: Annotated[
        str,
        typer.Option(
            metavar="RUN|DIR", help="What is predicted: a run of prompts, pictures, or 'scenes'."
        ),
    ],
    model: Annotated[
        Path, typer.Option(metavar="DIR|pocket", help="The LAVM: DeLVM, LVM, or the shipped one.")
    ],
    tokenizer: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The VQGAN; else inside the model's folder.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The pictures of a FOLDER of frames.")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Frames of a DIR of queries, as published.")
    ] = None,
    task: Annotated[PromptTask, typer.Option(help="What the prompts show.")] = PromptTask.seg,
    methods: Annotated[
        list[str] | None,
        typer.Option("--method", help="chain, no-chain, nearest, random; repeatable; else all."),
    ] = None,
    shortlist: Annotated[int, typer.Option(min=1, help="Relevant pictures, for richness.")] = 100,
    k: Annotated[int, typer.Option("--k", min=1, help="Exemplars of a sentence.")] = 1,
    levels: Annotated[int, typer.Option(min=1, help="Frames shown of each exemplar.")] = 2,
    threshold: Annotated[
        int, typer.Option(min=0, max=254, help="Brighter in any channel is foreground.")
    ] = 30,
    variant: Annotated[
        LavmVariant | None, typer.Option(help="Pictures cropped (delvm) or squashed (lvm).")
    ] = None,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="The likeliest code each time, nothing drawn.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="The first so many queries.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Queries worked on at a time.")] = 8,
    device: Annotated[str | None, typer.Option(help="Where the model runs, such as cuda.")] = None,
    save_images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write predictions as result_NAME.jpg.")
    ] = None,
    shards: told.Shards = 16,
    out: told.Out = None,
    config: told.ConfigFiles = None,
    sets: told.Sets = None,
    seed: told.Seed = None,
    address: told.Address = "none",
    resume: Annotated[Resume, typer.Option(help="Continue the run if it exists.")] = Resume.auto,
    json: AsJson = False,
    runs_dir: told.RunsDir = None,
) -> None:
    """Predict masks or poses from exemplars, and tell what the chain and the choice are worth.

    Each query is predicted with the chain of levels, with the final frame alone, with the nearest
    exemplar however rich, and with a random one. The same command again continues its run.
    """
    from pipeline.config_files import load_config
    from pipeline.eval.lavm_run import asked_of, plan_lavm

    where = {"policy.kind": "local", "policy.model": str(model), "policy.device": device}
    who = [f"{name}={value}" for name, value in where.items() if value]
    settings = load_config(config or [], [*(sets or []), *who], seed=seed, runs_dir=runs_dir)
    places = {"prompts": prompts, "queries": queries}
    found = {name: _place(settings.run.dir, word) for name, word in places.items()}
    asked = asked_of(
        **found, model=model, tokenizer=tokenizer, images=images, truth=truth,
        variant=variant.value if variant else None, methods=methods, task=task.value,
        shortlist=shortlist, k=k, levels=levels, threshold=threshold, greedy=greedy, limit=limit,
        batch=batch,
    )  # fmt: skip
    planned = plan_lavm(settings, asked, shards=shards, resume=resume.value)
    if not json:
        ways = ", ".join(asked.methods)
        say(f"{planned.subject}: {planned.plan.entries} queries by {ways}.")
    try:
        summary = told.work(planned, address, json)
    except CofpipeError:
        _show(planned, asked, json, out)
        raise
    _show(planned, asked, json, out)
    if save_images is not None:
        _save(planned, asked, save_images, json)
    told.conclude(summary, json)


def _place(runs_dir: str, word: str) -> Path:
    """A folder as it is named, else the run of that name, or drawn scenes."""
    from pipeline.eval.lavm_pictures import is_drawn

    if is_drawn(word):
        return Path(word)
    folder = Path(word).expanduser()
    return folder if folder.is_dir() else find_run(runs_dir or RUNS_DIR, word)


def _save(planned: Evaluation, asked: LavmProtocol, folder: Path, json: bool) -> None:
    from pipeline.eval.lavm_rows import save_images

    written = save_images(planned.run_dir, folder, asked.methods[0])
    if not json:
        say(f"{written} predictions by {asked.methods[0]} in {folder}.")


def _show(planned: Evaluation, asked: LavmProtocol, json: bool, page: Path | None) -> None:
    """Print what there is, keep it beside the run, and write the page."""
    from pipeline.eval.lavm_results import cards, keep_results, results
    from pipeline.eval.outcome import rows_of

    rows = rows_of(planned.run_dir.parent, [planned.plan.run_id])
    if not rows:
        return
    found = results(rows, asked, planned.config.seed)
    keep_results(planned.run_dir, found)
    records = [asdict(record) for record in found]
    if json:
        for record in records:
            emit({"run_id": planned.plan.run_id, **record})
    else:
        _print(found)
    if page is not None:
        from pipeline.report.lavm import write_lavm

        written = write_lavm(
            _facts(planned, asked), records, cards(planned.run_dir, asked, rows, SHOWN), page
        )
        if not json:
            say(str(written))


def _print(found: list[Record]) -> None:
    """A line for each method, the scorers side by side; then what each part is worth."""
    from pipeline.eval.lavm_results import Gap, Line

    lines = [record for record in found if isinstance(record, Line)]
    scorers = list(dict.fromkeys(line.scorer for line in lines))
    main = {line.method: line for line in lines if line.scorer == scorers[0]}
    head = ["method", *[word for scorer in scorers for word in (scorer, "95 %")]]
    body = []
    for method, first in main.items():
        mine = [line for line in lines if line.method == method]
        cells = [word for line in mine for word in _mean(line)]
        body.append([method, *cells, first.queries, first.unscored or ""])
    print_table([*head, "of", "unscored"], body, sys.stdout)
    gaps = [record for record in found if isinstance(record, Gap) and record.queries]
    words = ["difference", "scorer", "by", "95 %", "queries", "better", "worse", "p"]
    if gaps:
        print_table(words, [_gap(gap) for gap in gaps], sys.stdout)
    for why, count in lines[0].reasons.items():
        say(f"{count} queries are unscored by {scorers[0]}, which is not zero: {why}.")


def _mean(line: Any) -> tuple[str, str]:
    if line.mean is None:
        return "", ""
    return f"{line.mean.value:.3f}", f"{line.mean.low:.3f}–{line.mean.high:.3f}"


def _gap(gap: Any) -> list[Any]:
    found = gap.difference
    by = "" if found is None else f"{found.value:+.3f}"
    ends = "" if found is None else f"{found.low:+.3f} to {found.high:+.3f}"
    name = f"{gap.one} - {gap.other}"
    return [name, gap.scorer, by, ends, gap.queries, gap.better, gap.worse, f"{gap.p:.3g}"]


def _facts(planned: Evaluation, asked: LavmProtocol) -> dict[str, Any]:
    """What the page says of the run."""
    return {
        "run_id": planned.plan.run_id,
        "subject": planned.subject,
        "task": asked.task,
        "exemplars": asked.k,
        "levels": asked.levels,
        "shortlist": asked.shortlist,
        "threshold": asked.threshold,
    }
