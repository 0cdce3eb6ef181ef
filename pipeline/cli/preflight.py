"""Whether a trainer will take a folder: `preflight`. What would break ends with 5."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.export import KindName, TrainerName
from pipeline.cli.places import AsJson
from pipeline.cli.printing import clean, emit, say
from pipeline.errors import CheckFailed

if TYPE_CHECKING:
    from pipeline.synthesis.preflight_files import Problem

SHOWN = 10
"""Problems of one reason that people are shown; JSON has all."""


def preflight(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What `export` wrote.")],
    trainer: Annotated[TrainerName, typer.Option(help="Who is to read it.")],
    model: Annotated[
        str, typer.Option("--model", metavar="M", help="A Qwen-VL: a folder, or owner/name.")
    ],
    kind: Annotated[KindName | None, typer.Option(help="The export's own unless told.")] = None,
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Most tokens of a row; the model's positions bound it too.")
    ] = 81_920,
    json: AsJson = False,
) -> None:
    """Run the model's own processor and chat template over every row of an export."""
    from pipeline.synthesis.preflight import Preflight
    from pipeline.synthesis.preflight import preflight as check
    from pipeline.synthesis.preflight_checks import REASONS

    shown: Counter[str] = Counter()

    def tell(problem: Problem) -> None:
        shown[problem.reason] += 1
        if json:
            emit(asdict(problem))
        elif shown[problem.reason] <= SHOWN:
            print(f"✗ {clean(_line(problem))}")

    asked = Preflight(trainer.value, model, kind.value if kind else None, max_tokens)
    done = check(folder, asked, tell)
    if json:
        emit({"dir": str(folder), "holds": done.holds, **asdict(done)})
    for reason, count in done.reasons.items():
        say(f"{count:>8} {reason}: {REASONS[reason]}")
    say(f"{done.rows} rows, {done.pictures} pictures; the longest row has {done.longest} tokens.")
    if done.repeated:
        say(f"{done.repeated} rows say and show what another does.")
    for note in done.notes:
        say(note)
    if not done.holds:
        raise CheckFailed(
            f"This would break a training: {done.broken} of {done.rows} rows have faults."
        )
    say(f"{folder} is ready for {trainer.value}.")


def _line(problem: Problem) -> str:
    """What it is, where, and the matter."""
    place = problem.file if problem.row is None else f"{problem.file} row {problem.row}"
    name = f"({problem.name})" if problem.name else ""
    return ": ".join(filter(None, [problem.reason, f"{place} {name}".strip(), problem.detail]))
