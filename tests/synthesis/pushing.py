"""A push as `cofpipe push` makes it, here or in a process that may be killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from pipeline.synthesis.card import Wording
from pipeline.synthesis.export_folder import hidden
from pipeline.synthesis.hub import Pushed, Target, push
from pipeline.synthesis.publish import gathered, shown_of


def push_run(run_dir: Path, api: HfApi | None = None, **target: Any) -> Pushed:
    """Push a run as `cofpipe push` does, to me/data unless told otherwise."""
    with hidden(run_dir.parent / f"{run_dir.name}.push") as scratch:
        publication = gathered(run_dir, scratch)
        wording = Wording("cc-by-4.0", "me/data")
        shown = shown_of(publication)
        return push(
            publication, Target(**{"repo_id": "me/data"} | target), wording, shown, scratch, api=api
        )
