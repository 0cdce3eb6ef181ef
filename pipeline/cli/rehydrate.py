"""Pixels from recipes: `rehydrate`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.places import AsJson
from pipeline.cli.printing import clean, emit, say
from pipeline.errors import CheckFailed


def rehydrate(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="What export --recipe-only has written.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DATA", help="A folder to be made.")],
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source",
            "-s",
            metavar="SOURCE",
            help="Where your copy of the pictures is: a folder, tars, or as for synthesize. "
            "Several may be given.",
        ),
    ] = None,
    other_versions: Annotated[
        bool,
        typer.Option(
            "--other-versions",
            help="Try drawings whose codecs are others here; what is not bit for bit still fails.",
        ),
    ] = False,
    json: AsJson = False,
) -> None:
    """Restore a data set's pixels from your own copy of its sources, bit for bit."""
    from pipeline.synthesis.rehydrate import rehydrate as restore

    done = restore(folder, source or (), out, other_versions=other_versions)
    if json:
        emit({"out": str(out), **asdict(done), "reasons": done.reasons})
    if done.lost:
        for one in () if json else done.lost:
            print(f"✗ {clean(one.image_id)}: {one.reason} {clean(one.detail)}".rstrip())
        why = ", ".join(f"{count} {reason}" for reason, count in done.reasons.items())
        fix = None if source else "Say where the pictures are: --source FOLDER_OR_TARS"
        raise CheckFailed(f"{len(done.lost)} did not come back ({why}): nothing is written.", fix)
    rows = ", ".join(f"{count} rows in {name}" for name, count in done.rows.items())
    state = "was there already" if done.stood else "is restored, every picture proven"
    say(f"{out} {state}: {rows} of {done.run_id}, {done.pictures} pictures.")
    if done.encoded_otherwise:
        say(f"Pixels are the recorded ones, files are not: {done.encoded_otherwise}.")
