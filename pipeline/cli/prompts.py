"""Visual prompts as folders of frames: `prompts`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.places import RUNS_DIR, AsJson, RunName, RunsDir, find_run
from pipeline.cli.printing import emit, say


class PromptTask(StrEnum):
    """What the prompts show."""

    seg = "seg"
    pose = "pose"


def prompts(
    run: RunName = "latest",
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Where to write the frames.")
    ] = Path("prompts"),
    task: Annotated[PromptTask | None, typer.Option(help="Needed where the run has both.")] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Also write all objects of each image as ID.jpg.")
    ] = False,
    json: AsJson = False,
    runs_dir: RunsDir = RUNS_DIR,
) -> None:
    """Write a run's prompts as published ones lie: DIR/{image id:012d}_{step}.jpg."""
    from pipeline.synthesis.prompt_export import export_prompts

    run_dir = find_run(runs_dir, run, ("prompts",))
    written = export_prompts(run_dir, out, task=task.value if task else None, full=full)
    if json:
        emit({"run_id": run_dir.name, "out": str(out), "prompts": written})
    else:
        say(f"{written} prompts of {run_dir.name} in {out}.")
