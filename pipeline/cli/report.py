"""A run as one HTML page: `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.places import RUNS_DIR, AsJson, RunName, RunsDir, find_run
from pipeline.cli.printing import emit, say


def report(
    run: RunName = "latest",
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE.html", help="Where to write the page.")
    ] = Path("report.html"),
    max_images: Annotated[
        int, typer.Option("--max-images", min=0, help="Questions shown in the gallery.")
    ] = 24,
    json: AsJson = False,
    runs_dir: RunsDir = RUNS_DIR,
) -> None:
    """Write one self-contained page: figures, and trajectories drawn over their pictures."""
    run_dir = find_run(runs_dir, run)
    from manifests.database import connect
    from pipeline.report.page import write_report

    with connect(str(run_dir.parent), run_dir.name) as connection:
        page = write_report(connection, run_dir, out, max_images=max_images)
    if json:
        emit({"run_id": run_dir.name, "report": str(page), "bytes": page.stat().st_size})
    else:
        say(f"{page} ({page.stat().st_size / 1e6:.1f} MB)")
