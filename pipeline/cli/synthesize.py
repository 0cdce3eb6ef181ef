"""The main job: `synthesize`."""

from __future__ import annotations

import json as jsonlib
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.places import AsJson
from pipeline.cli.printing import emit, plain, say
from pipeline.cli.progress import progress
from pipeline.cli.stopping import INTERRUPTED, stop_on_signals

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.synthesis.run import Summary

TOO_MANY_REJECTED = 3
BUDGET_REACHED = 4


class Kind(StrEnum):
    """What is made."""

    trajectories = "trajectories"
    prompts = "prompts"
    all = "all"


KINDS: dict[Kind, tuple[str, ...]] = {
    Kind.trajectories: ("trajectories",),
    Kind.prompts: ("prompts",),
    Kind.all: ("trajectories", "prompts"),
}
"""The runs that each makes, one after the other."""


class Resume(StrEnum):
    """What happens when the run exists."""

    auto = "auto"
    never = "never"


def synthesize(
    source: Annotated[
        str | None,
        typer.Argument(metavar="[SOURCE]", help="A folder of images, or scenes, sa1b:…, …"),
    ] = None,
    kind: Annotated[Kind, typer.Option(help="What to make.")] = Kind.trajectories,
    shards: Annotated[
        int | None, typer.Option(min=1, help="Units the work is cut into [64].")
    ] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Stop at so many kept rows.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use so many images at most.")] = None,
    config: Annotated[
        list[Path] | None,
        typer.Option(
            "--config",
            metavar="F.toml|NAME",
            help="Settings, or a recipe such as mm-cof-3k; repeatable.",
        ),
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="One setting; repeatable.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything that is drawn.")] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the resolved settings and stop.")
    ] = False,
    address: Annotated[
        str, typer.Option(help="local, auto or ray://… for Ray; none for this process.")
    ] = "local",
    resume: Annotated[Resume, typer.Option(help="Continue the run if it exists.")] = Resume.auto,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
    budget_usd: Annotated[float | None, typer.Option(min=0, help="Stop at this cost.")] = None,
    budget_tokens: Annotated[int | None, typer.Option(min=0, help="Stop at so many.")] = None,
    budget_hours: Annotated[float | None, typer.Option(min=0, help="Stop after so long.")] = None,
    max_reject_rate: Annotated[
        float | None, typer.Option(min=0, max=1, help="End with 3 when more are rejected.")
    ] = None,
    json: AsJson = False,
    runs_dir: Annotated[
        str | None,
        typer.Option("--runs-dir", help="Where runs are kept [COFPIPE_RUNS, else runs]."),
    ] = None,
) -> None:
    """Make focus trajectories or visual prompts. The same command again continues its run."""
    from pipeline.config_files import load_config

    settings = load_config(
        config or [], sets or [], source=source, seed=seed, runs_dir=runs_dir,
        budget_usd=budget_usd, budget_tokens=budget_tokens, budget_hours=budget_hours,
        rows=rows, shards=shards,
    )  # fmt: skip
    if print_config:
        print(jsonlib.dumps(settings.describe(), indent=2, ensure_ascii=False, default=plain))
        return
    worst = 0
    for each in KINDS[kind]:
        summary = _run(
            settings, json, kind=each, limit=limit, address=address, resume=resume.value,
            dry_run=dry_run,
        )  # fmt: skip
        worst = max(worst, _concluded(summary, json, max_reject_rate))
        if worst == INTERRUPTED:
            break
    if worst:
        raise typer.Exit(worst)


def _run(settings: Config, json: bool, *, dry_run: bool, **asked: Any) -> Summary:
    """Do it, with progress for people and signals that drain."""
    from pipeline.synthesis import run

    quiet = json or dry_run
    with (
        stop_on_signals() as stop,
        nullcontext() if quiet else progress(settings.shards) as on_event,
    ):
        return run.synthesize(settings, dry_run=dry_run, on_event=on_event, stop=stop, **asked)


def _concluded(summary: Summary, json: bool, max_reject_rate: float | None) -> int:
    """Say how it went; the exit code that says the same, the worse the higher."""
    emit(summary.as_dict()) if json else _tell(summary)
    if summary.status == "interrupted":
        return INTERRUPTED
    if summary.status == "budget":
        return BUDGET_REACHED
    tries = summary.kept + summary.rejected
    if max_reject_rate is not None and tries and summary.rejected > max_reject_rate * tries:
        say(f"{summary.rejected / tries:.0%} were rejected, over --max-reject-rate.")
        return TOO_MANY_REJECTED
    return 0


def _tell(summary: Summary) -> None:
    """The end of a run for people, and what they may want to do next."""
    name = summary.run_id
    if summary.status == "planned":
        known = "continues" if summary.continued else "is new"
        say(f"{name} {known}: {summary.entries} images in {summary.shards_total} shards.")
        return
    made = f"{summary.kept} kept, {summary.rejected} rejected"
    say(f"{name}: {made}, {summary.shards_done} of {summary.shards_total} shards.")
    if summary.status == "done":
        say(f"Look at it: cofpipe report {name} -o report.html")
    else:
        say(f"{summary.reason} The same command continues it.".lstrip())
