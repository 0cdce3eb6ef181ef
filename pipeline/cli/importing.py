"""Published datasets as runs: `import`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.places import RUNS_DIR, AsJson, RunsDir
from pipeline.cli.printing import emit, say
from pipeline.cli.progress import progress
from pipeline.cli.stopping import INTERRUPTED, stop_on_signals

if TYPE_CHECKING:
    from pipeline.synthesis.run import Summary


def import_(
    dataset: Annotated[
        Path, typer.Argument(metavar="DIR", help="A published dataset: its folder, or one file.")
    ],
    layout: Annotated[
        str,
        typer.Option(help="auto, chain-of-focus, deepeyes, mini-o3 or visual-cot."),
    ] = "auto",
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where its pictures are: a folder or a zip file."),
    ] = None,
    shards: Annotated[int, typer.Option(min=1, help="Units the work is cut into.")] = 8,
    limit: Annotated[int | None, typer.Option(min=1, help="Read so many records at most.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Workers [1 here; with Ray one for each CPU].")
    ] = None,
    address: Annotated[
        str, typer.Option(help="none for this process; local, auto or ray://… for Ray.")
    ] = "none",
    json: AsJson = False,
    runs_dir: RunsDir = RUNS_DIR,
) -> None:
    """Read a published zoom dataset into a run. The same command again continues it."""
    from pipeline.synthesis.import_run import import_dataset

    with stop_on_signals() as stop, nullcontext() if json else progress(shards) as on_event:
        summary = import_dataset(
            dataset,
            layout=layout,
            images=images,
            runs_dir=runs_dir,
            shards=shards,
            limit=limit,
            workers=workers,
            address=address,
            on_event=on_event,
            stop=stop,
        )
    emit(summary.as_dict()) if json else _tell(summary)
    if summary.status == "interrupted":
        raise typer.Exit(INTERRUPTED)


def _tell(summary: Summary) -> None:
    """The end of an import for people, and what they may want to do next."""
    name = summary.run_id
    say(f"{name}: {summary.kept} kept, {summary.rejected} rejected.")
    if summary.status != "done":
        say(f"{summary.reason} The same command continues it.".lstrip())
        return
    if summary.rejected:
        why = "select reason, count(*) from rejections group by 1 order by 2 desc"
        say(f'Why: cofpipe sql --run {name} "{why}"')
    say(f"Look at it: cofpipe report {name} -o report.html")
