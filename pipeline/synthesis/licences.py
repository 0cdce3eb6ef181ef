"""Which pictures may not be passed on, by what a run has recorded of its sources.

Decides a default and words a warning; it is no legal advice, and knows no more than two columns.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import pyarrow as pa

from pipeline.errors import CheckFailed
from pipeline.runner.storage import Storage
from pipeline.synthesis.stored import stored_rows

CLOSED_SOURCES = ("sa1b:",)
"""SA-1B may be used for research; its licence does not let its pictures be passed on."""
CLOSED_TERMS = re.compile(
    r"sa-?1b|no[- ]?deriv|\bnd\b|all rights reserved|no redistribution", re.IGNORECASE
)
"""Crops and composites are derivatives, so a licence without them closes a picture as well."""
_BATCH_ROWS = 4096


def closed(storage: Storage, paths: Iterable[str]) -> dict[str, int]:
    """Rows of these files whose pictures may not be passed on, by source or licence.

    Raises `CheckFailed` for a file that cannot be read.
    """
    found = Counter[str]()
    for path in paths:
        try:
            for row in stored_rows(storage, path, _BATCH_ROWS, ("source", "license")):
                if why := closed_by(row["source"] or "", row["license"] or ""):
                    found[why] += 1
        except (OSError, pa.ArrowException) as error:
            fix = "Look with: cofpipe fsck RUN"
            raise CheckFailed(f"{path} cannot be read: {error}.", fix) from error
    return dict(sorted(found.items()))


def closed_by(source: str, license: str) -> str:
    """The source or the licence that forbids to pass a picture on; "" where neither does."""
    if source.startswith(CLOSED_SOURCES):
        return source
    return license if CLOSED_TERMS.search(license) else ""
