"""Proofs: `fsck` and `gc` for a run, `doctor` for the machine. A check that fails ends with 5."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.places import RUNS_DIR, AsJson, RunName, RunsDir, find_run
from pipeline.cli.printing import clean, emit, say
from pipeline.errors import CheckFailed, ConfigError

MARKS = {"ok": "✓", "warn": "!", "fail": "✗"}


def fsck(
    run: RunName = "latest",
    recheck: Annotated[
        bool, typer.Option("--recheck", help="Crop, read or draw every row again from the Parquet.")
    ] = False,
    json: AsJson = False,
    runs_dir: RunsDir = RUNS_DIR,
) -> None:
    """Prove a run whole: every record, file, digest and row."""
    from pipeline.runner.fsck import fsck as prove

    run_dir = find_run(runs_dir, run)
    found = prove(run_dir)
    if json:
        emit({"run_id": run_dir.name, **asdict(found)})
    else:
        for problem in found.problems:
            print(f"✗ {clean(problem)}")
        left = f"{len(found.unfinished)} shards unfinished, {len(found.orphans)} orphans"
        say(f"{found.parts} parts, {found.files} files, {found.rows} rows; {left}")
    if found.problems:
        raise CheckFailed(f"{run_dir.name} is not whole: {len(found.problems)} problems.")
    if recheck:
        _recheck(run_dir, json)
    say(f"{run_dir.name} is whole.")


def gc(
    run: RunName = "latest",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed.")] = False,
    json: AsJson = False,
    runs_dir: RunsDir = RUNS_DIR,
) -> None:
    """Remove what no commit names: files of lost attempts, an hour old at least."""
    from pipeline.runner.gc import gc as collect
    from pipeline.runner.storage import storage_at

    run_dir = find_run(runs_dir, run)
    removed = collect(storage_at(str(run_dir)), dry_run=dry_run)
    if json:
        emit({"run_id": run_dir.name, "paths": removed.paths, "bytes": removed.bytes})
        return
    for path in removed.paths:
        print(clean(path))
    done = "would be removed" if dry_run else "removed"
    say(f"{len(removed.paths)} files, {removed.bytes / 1e6:.1f} MB {done}.")


def doctor(
    start_ray: Annotated[
        bool, typer.Option("--ray", help="Start and stop a local Ray cluster too (seconds).")
    ] = False,
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Look at this server only: ask it for boxes, name its family."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The server's model, where it has several.")
    ] = None,
    json: AsJson = False,
    runs_dir: RunsDir = RUNS_DIR,
) -> None:
    """Say what works on this machine and what does not, with the fix."""
    from pipeline.cli import doctor as looks

    if model is not None and endpoint is None:
        raise ConfigError("--model says which model of a server.", "Name the server: --endpoint.")
    if endpoint is not None:
        found = [looks.endpoint(endpoint, model)]
    else:
        found = looks.examine(Path(runs_dir), start_ray=start_ray)
    for check in found:
        if json:
            emit(check.as_dict())
            continue
        print(f"{MARKS[check.state]} {check.name:<15} {check.detail}")
        if check.fix:
            print(f"  {'':<15} {check.fix}")
    failed = [check.name for check in found if check.state == "fail"]
    if failed:
        raise CheckFailed(f"Something essential does not work: {', '.join(failed)}.")


def _recheck(run_dir: Path, json: bool) -> None:
    """Look at every published row again; raises `CheckFailed` when too few agree."""
    from pipeline.runner.rundir import read_run
    from pipeline.runner.storage import storage_at
    from pipeline.synthesis.recheck import recheck

    if read_run(storage_at(str(run_dir))).get("kind") == "prompts":
        _recheck_prompts(run_dir, json)
        return
    found = recheck(run_dir)
    if json:
        emit({"run_id": run_dir.name, "agreement": found.agreement, **asdict(found)})
    else:
        for problem in found.problems:
            print(f"✗ {clean(problem)}")
        say(
            f"{found.rows} rows, {found.looked_at} read again: {found.agreement:.2%} agree, "
            f"{len(found.disagreed)} read otherwise, {len(found.unclear)} unclear"
        )
    if not found.holds:
        raise CheckFailed(f"The rows of {run_dir.name} do not show what they say.")


def _recheck_prompts(run_dir: Path, json: bool) -> None:
    """Draw every published prompt again; raises `CheckFailed` when one comes out otherwise."""
    from pipeline.synthesis.prompt_check import recheck

    found = recheck(run_dir)
    if json:
        emit({"run_id": run_dir.name, **asdict(found)})
    else:
        for problem in found.problems:
            print(f"✗ {clean(problem)}")
        say(f"{found.rows} rows, {found.frames} frames drawn again, {found.maps} maps made again.")
    if not found.holds:
        raise CheckFailed(f"The rows of {run_dir.name} do not show what they say.")
