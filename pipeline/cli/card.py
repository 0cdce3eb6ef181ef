"""The card of a dataset, written from a run or held against what was published: `card`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.places import RUNS_DIR, AsJson, RunsDir
from pipeline.cli.printing import clean, emit, say
from pipeline.cli.push import Exports, Rejected, chosen
from pipeline.errors import CheckFailed, ConfigError

if TYPE_CHECKING:
    from pipeline.synthesis.card_examples import Shown

HUB = "hf://datasets/"


def card(
    target: Annotated[
        str, typer.Argument(metavar="RUN_DIR_OR_REPO", help="A run; to check, a dataset as well.")
    ] = "latest",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Not into the run; - is stdout."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Count every figure of the card again in the Parquet.")
    ] = False,
    license: Annotated[
        str | None, typer.Option("--license", metavar="L", help="Yours to choose; no default.")
    ] = None,
    repo_id: Annotated[str, typer.Option("--repo", help="Its name on the Hub.")] = "ORG/NAME",
    add: Exports = None,
    rejected: Rejected = False,
    json: AsJson = False,
    runs_dir: RunsDir = RUNS_DIR,
) -> None:
    """Write the card that a push gives a dataset, or prove that a card is right.

    With --check: ORG/NAME or a folder that holds a pushed dataset; a run, whose card was written.
    """
    if check and (place := _published(target)):
        from pipeline.synthesis.card_check import check as held
        from pipeline.synthesis.published_dataset import open_dataset

        wrong = held(open_dataset(place))
    else:
        wrong = _of_run(target, out, check, license, repo_id, add, rejected, runs_dir)
    if not check:
        return
    for line in wrong:
        emit({"differs": line}) if json else print(f"✗ {clean(line)}")
    if wrong:
        raise CheckFailed(f"{len(wrong)} figures of the card are not what the files hold.")
    say("Every figure of the card is what the files hold.")


def _of_run(
    target: str,
    out: Path | None,
    check: bool,
    license: str | None,
    repo_id: str,
    add: list[Path] | None,
    rejected: bool,
    runs_dir: str,
) -> list[str]:
    """Write a run's card, or hold the one that was written against what would be published."""
    from pipeline.synthesis.card import FILE, Wording, card_of, facts_of
    from pipeline.synthesis.dataset_statistics import numbers_of
    from pipeline.synthesis.export_folder import hidden
    from pipeline.synthesis.publish import gathered, shown_of
    from pipeline.synthesis.published_files import planned, write

    run_dir, exports, whole = chosen(target, add, runs_dir)
    file = out or run_dir / FILE
    if check and not file.is_file():
        raise ConfigError(f"There is no card '{file}'.", f"Write it: cofpipe card {run_dir.name}")
    with hidden(run_dir.parent / f"{run_dir.name}.card") as scratch:
        publication = gathered(run_dir, scratch, exports, whole=whole, rejected=rejected)
        counts = numbers_of(publication.tables)
        files = [write(plan, scratch / "shard.parquet") for plan in planned(publication.tables)]
    if check:
        from pipeline.synthesis.card_check import compared

        text = file.read_text("utf-8", "replace")
        return compared(text, files, counts, publication.overlaps)
    shown = shown_of(publication) if str(file) != "-" else []
    wording = Wording(license, repo_id)
    text = card_of(publication, facts_of(files, counts), wording, shown)
    _write(file, text, shown)
    return []


def _write(file: Path, text: str, shown: Sequence[Shown]) -> None:
    """Write a card with its pictures beside it, or to stdout without them."""
    if str(file) == "-":
        sys.stdout.write(text)
        return
    file.write_text(text, "utf-8")
    for one in shown:
        (file.parent / one.path).parent.mkdir(exist_ok=True)
        (file.parent / one.path).write_bytes(one.picture)
    say(str(file))


def _published(target: str) -> str | None:
    """Where a published dataset lies; None where a run is meant."""
    folder = Path(target)
    if target.startswith(HUB):
        return target
    if (folder / "run.json").is_file():
        return None
    if (folder / "README.md").is_file():
        return target
    return f"{HUB}{target}" if target.count("/") == 1 and not folder.exists() else None
