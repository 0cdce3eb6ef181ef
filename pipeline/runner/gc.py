"""Remove what no record names: files of attempts that were lost, temporary files left by a crash.

Never touches what a live attempt may still commit: a file is left alone while it, or the journal
of the attempt it belongs to, has been written to within the age limit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.runner import journal
from pipeline.runner.rundir import RECORDS, records
from pipeline.runner.storage import Storage, Stored

OLDER_THAN_S = 3600.0

_KEPT = {"manifest/calls", "manifest/events", RECORDS}
"""Folders whose files count without being named: only their temporary files are orphans."""


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed, or would be."""

    paths: tuple[str, ...]
    bytes: int


def gc(
    storage: Storage,
    *,
    dry_run: bool = False,
    older_than_s: float = OLDER_THAN_S,
    temporary_too: bool = True,
) -> Removed:
    """Remove a run's orphans that are older than the limit."""
    limit = time.time() - older_than_s
    live = _live_attempts(storage, limit) if older_than_s > 0 else set()
    chosen = [
        file
        for file in orphans(storage)
        if file.modified <= limit
        and _attempt(file) not in live
        and (temporary_too or not file.temporary)
    ]
    if not dry_run:
        for file in chosen:
            storage.remove(file.path)
    return Removed(tuple(file.path for file in chosen), sum(file.bytes for file in chosen))


def orphans(storage: Storage) -> list[Stored]:
    """Files of data and manifest that no record names."""
    found = list(_candidates(storage))
    named = {file.path for record in records(storage) for file in record.files}
    return [file for file in found if file.path not in named]


def _candidates(storage: Storage) -> Iterator[Stored]:
    """Files that must be named by a record to count, and temporary ones; listed before the records
    are read, so that what is committed meanwhile is no orphan."""
    folders = [f"{top}/{kind}" for top in ("data", "manifest") for kind in storage.folders(top)]
    for folder in folders:
        for file in storage.list(folder):
            if file.temporary or folder not in _KEPT:
                yield file


def _live_attempts(storage: Storage, limit: float) -> set[str]:
    """Attempts whose journal was written to since the limit."""
    recent = [file for file in storage.list(journal.FOLDER) if file.modified > limit]
    return {file.name.split(".")[1] for file in recent}


def _attempt(file: Stored) -> str:
    """The attempt in a part's file name (of a temporary file, too); empty when there is none."""
    pieces = file.name.lstrip(".").split(".")
    return pieces[1] if pieces[0].startswith("shard-") else ""
