"""Where runs are, and which one is meant."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import ConfigError, nearest

RunsDir = Annotated[
    str,
    typer.Option(
        "--runs-dir", envvar="COFPIPE_RUNS", help="Where runs are kept.", show_default=True
    ),
]
RUNS_DIR = "runs"
TRAJECTORIES = ("trajectories",)
"""Kinds of runs that an export is made of."""
DATASETS = (*TRAJECTORIES, "prompts")
"""Kinds of runs that can be published."""
RunName = Annotated[
    str,
    typer.Argument(metavar="RUN", help="A run's name, the start of it, its folder, or 'latest'."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per line on stdout.")]


def run_ids(runs_dir: str) -> list[str]:
    """Names of the runs below a directory, oldest first."""
    found = [path.parent for path in Path(runs_dir).glob("*/run.json")]
    return [path.name for path in sorted(found, key=lambda run: (_started(run), run.name))]


def find_run(runs_dir: str, run: str, kinds: Collection[str] = ()) -> Path:
    """The directory of the run that is meant; raises `ConfigError` naming the nearest one.

    `latest` is the last of these kinds, where any are told.
    """
    if "://" in runs_dir:
        raise ConfigError("This command needs the run on this machine.", "Copy it first.")
    if "/" in run and (Path(run) / "run.json").is_file():
        return Path(run)
    known = run_ids(runs_dir)
    if not known:
        raise ConfigError(
            f"There are no runs in '{runs_dir}'.", "Make one with: cofpipe synthesize --shards 8"
        )
    if run == "latest":
        fitting = [name for name in known if not kinds or _kind(Path(runs_dir) / name) in kinds]
        if not fitting:
            raise ConfigError(f"No run in '{runs_dir}' is of {' or '.join(kinds)}.")
        return Path(runs_dir) / fitting[-1]
    matching = [run] if run in known else [name for name in known if name.startswith(run)]
    if len(matching) > 1:
        raise ConfigError(f"'{run}' could be any of {', '.join(matching)}.", "Write more of it.")
    if not matching:
        raise ConfigError(f"There is no run '{run}' in '{runs_dir}'.", nearest(run, known))
    return Path(runs_dir) / matching[0]


def _kind(run: Path) -> str:
    told: str = json.loads((run / "run.json").read_text("utf-8")).get("kind", "")
    return told


def _started(run: Path) -> int:
    return (run / "run.json").stat().st_mtime_ns
