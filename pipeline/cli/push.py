"""A run, or exports of it, as a dataset on the Hugging Face Hub: `push`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.places import DATASETS, RUNS_DIR, AsJson, RunsDir, find_run
from pipeline.cli.printing import clean, emit, say

if TYPE_CHECKING:
    from pipeline.synthesis.hub import Pushed

MARKS = {"new": "+", "changed": "~", "same": "=", "stale": "-"}

Exports = Annotated[
    list[Path] | None,
    typer.Option("--add", metavar="DIR", help="An export of the run, too; repeatable."),
]
Rejected = Annotated[
    bool, typer.Option("--rejected", help="Paths that failed as well, with their pictures.")
]


def push(
    target: Annotated[str, typer.Argument(metavar="RUN_OR_DIR", help="A run, or an export of it.")],
    repo_id: Annotated[str, typer.Argument(metavar="ORG/NAME", help="The dataset on the Hub.")],
    private: Annotated[bool, typer.Option("--private", help="For those who are let in.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
    license: Annotated[
        str | None, typer.Option("--license", metavar="L", help="Yours to choose; no default.")
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", metavar="NAME", help="An overlap that may stay; repeatable."),
    ] = None,
    allow_source: Annotated[
        list[str] | None,
        typer.Option("--allow-source", metavar="NAME", help="A source that you may pass on."),
    ] = None,
    add: Exports = None,
    rejected: Rejected = False,
    shard_mb: Annotated[float, typer.Option("--shard-mb", min=0.01, help="Of each file.")] = 500,
    json: AsJson = False,
    runs_dir: RunsDir = RUNS_DIR,
) -> None:
    """Push a dataset to the Hub; a push that was stopped goes on, one that was done does nothing.

    Refused without a licence, without `cofpipe decontaminate`, and for pictures whose licence
    forbids it. The token is that of `hf auth login`, or HF_TOKEN.
    """
    from pipeline.shards import MEGABYTE
    from pipeline.synthesis import hub
    from pipeline.synthesis.card import Wording
    from pipeline.synthesis.export_folder import hidden
    from pipeline.synthesis.publish import gathered, shown_of

    run_dir, exports, whole = chosen(target, add, runs_dir)
    with hidden(run_dir.parent / f"{run_dir.name}.push") as scratch:
        publication = gathered(run_dir, scratch, exports, whole=whole, rejected=rejected)
        pushed = hub.push(
            publication,
            hub.Target(repo_id, private, dry_run, int(shard_mb * MEGABYTE)),
            Wording(license, repo_id, tuple(allow or ()), tuple(allow_source or ())),
            shown_of(publication),
            scratch,
            on_file=None if json else _tell,
        )
    if json:
        emit(_told(pushed))
    else:
        _say(pushed, dry_run)
    if pushed.refused:
        raise pushed.refused[0]


def chosen(target: str, add: list[Path] | None, runs_dir: str) -> tuple[Path, list[Path], bool]:
    """The run that is meant, the exports, and whether the run's own rows are meant as well."""
    from pipeline.synthesis.publish import EXPORT, export_of

    folder, exports = Path(target), list(add or ())
    if (folder / EXPORT).is_file() and not (folder / "run.json").is_file():
        return find_run(runs_dir, export_of(folder)), [folder, *exports], False
    return find_run(runs_dir, target, DATASETS), exports, True


def _tell(state: str, path: str, size: int) -> None:
    say(f"{MARKS[state]} {size / 1e6:9.2f} MB  {clean(path)}")


def _told(pushed: Pushed) -> dict[str, object]:
    return {
        "repo_id": pushed.repo_id,
        "created": pushed.created,
        "commits": pushed.commits,
        "sent_bytes": pushed.sent_bytes,
        "files": [
            {"path": path, "state": state, "bytes": size}
            for path, (state, size) in pushed.files.items()
        ],
        "refused": [error.message for error in pushed.refused],
    }


def _say(pushed: Pushed, dry_run: bool) -> None:
    states = [state for state, _ in pushed.files.values()]
    counts = ", ".join(f"{states.count(s)} {s}" for s in MARKS if s in states)
    if dry_run:
        there = "is not there yet" if pushed.created else "is there"
        say(f"{pushed.repo_id} {there}: {counts}. Nothing was sent.")
        for error in pushed.refused[1:]:
            say(f"Refused as well: {clean(error.message)}")
    elif pushed.commits:
        say(f"{pushed.repo_id}: {counts}; {pushed.sent_bytes / 1e6:.1f} MB sent.")
    else:
        say(f"{pushed.repo_id} holds all of it already: {counts}. No commit was made.")
