"""A run as data for a trainer: `export`."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.places import RUNS_DIR, TRAJECTORIES, AsJson, RunName, RunsDir, find_run
from pipeline.cli.printing import clean, emit, say

if TYPE_CHECKING:
    from pipeline.synthesis.exports import Exported


class TrainerName(StrEnum):
    """Whose data."""

    trl = "trl"
    llamafactory = "llamafactory"
    verl = "verl"


class KindName(StrEnum):
    """What for."""

    sft = "sft"
    rl = "rl"


class Pictures(StrEnum):
    """How views are compressed."""

    png = "png"
    jpeg = "jpeg"


def export(
    trainer: Annotated[TrainerName, typer.Option(help="Who is to read it.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="A folder to be made.")],
    run: RunName = "latest",
    kind: Annotated[KindName | None, typer.Option(help="sft, or rl for verl, unless told.")] = None,
    profile: Annotated[str, typer.Option(help="cof-v2 or cof-v1.")] = "cof-v2",
    family: Annotated[str, typer.Option(help="Whose numbers boxes are in.")] = "qwen2.5-vl",
    split: Annotated[float, typer.Option(help="Share of the pictures held out.")] = 0.05,
    only_verified: Annotated[
        bool, typer.Option("--only-verified/--all", help="Only rows whose answer is proven right.")
    ] = True,
    min_weight: Annotated[float, typer.Option(min=0, help="Leave out rows of less weight.")] = 0.0,
    pictures: Annotated[
        Pictures, typer.Option(help="png keeps every pixel; jpeg is about a quarter of it.")
    ] = Pictures.png,
    pixels: Annotated[
        bool | None,
        typer.Option(
            "--pixels/--recipe-only",
            help="Pictures, or digests and recipes that `rehydrate` makes them from "
            "[pictures, unless a source may not be passed on].",
        ),
    ] = None,
    json: AsJson = False,
    runs_dir: RunsDir = RUNS_DIR,
) -> None:
    """Write trajectories as a trainer reads them, pictures cut again from the published pixels."""
    from pipeline.synthesis.exports import Export
    from pipeline.synthesis.exports import export as write

    asked = Export(
        trainer=trainer.value,
        kind=kind.value if kind else None,
        profile=profile,
        family=family,
        split=split,
        only_verified=only_verified,
        min_weight=min_weight,
        pictures=pictures.value,
        pixels=pixels,
    )
    done = write(find_run(runs_dir, run, TRAJECTORIES), out, asked)
    _tell_of_sources(done, pixels)
    if json:
        emit({"out": str(out), **asdict(done)})
        return
    rows = ", ".join(f"{count} rows in {name}" for name, count in done.rows.items())
    state = "was there already" if done.stood else "is written"
    say(f"{out} {state}: {rows}, {done.pictures} pictures of {done.run_id}.")
    if done.left_out:
        why = ", ".join(f"{count} {reason}" for reason, count in done.left_out.items())
        say(f"Left out: {why} (left_out.jsonl).")
    if done.recipe_only:
        small, large = done.recipe_bytes, done.pixel_bytes
        say(f"Without pixels: {small / 1e6:.2f} MB for {large / 1e6:.2f} MB, {small / large:.2%}.")
        say(f"Pixels again: cofpipe rehydrate {out} --source FOLDER_OR_TARS --out DATA")


def _tell_of_sources(done: Exported, pixels: bool | None) -> None:
    """Say where pictures may not be passed on, and what follows from it."""
    if not done.closed or pixels is False:
        return
    names = ", ".join(f"{clean(why)} ({count} rows)" for why, count in done.closed.items())
    if pixels:
        say(f"Warning: pictures may not be passed on: {names}. Keep this folder to yourself.")
    else:
        say(f"Pictures may not be passed on: {names}. --pixels writes them for your own use.")
