"""What can be proven of an imported row: its picture, its boxes, its counts.

Its views are its publisher's: no size of ours follows from its budget, and nothing is read again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.crops import region_shown
from pipeline.errors import InvalidBox
from pipeline.geometry import Box, Size
from pipeline.sources.published.paths import POLICY

Row = Mapping[str, Any]


def is_imported(row: Row) -> bool:
    """Whether a row of `trajectories` came with `cofpipe import`."""
    return str(row["policy"] or "").startswith(POLICY)


def imported_problems(row: Row, sha256: str, size: Size) -> Iterator[str]:
    """What a row says that its picture, of this digest and size, contradicts; a sentence each.

    Raises `InvalidBox` for what is no box, or none of this picture.
    """
    steps = row["steps"] or ()
    zooms = sum(sum(map(bool, step["zoomed"])) for step in steps)
    derived = {
        "image_sha256": (row["image_sha256"], sha256),
        "size": ((row["width"], row["height"]), size),
        "num_zooms": (row["num_zooms"], zooms),
    }
    for name, (said, found) in derived.items():
        if said != found:
            yield f"{name} is {said}; it should be {found}."
    if row["view_w"] * row["view_h"] > row["resolution"] ** 2:
        yield f"the view of {row['view_w']} x {row['view_h']} is over its budget."
    for step in steps:
        for values in step["boxes"]:
            if len(values) != 4:
                raise InvalidBox(f"A box has four numbers, not {len(values)}.")
            box = Box(*values)
            if not Box(0, 0, *size).contains(box):
                raise InvalidBox(f"Box {box.as_list()} reaches outside the picture.")
            region_shown(step["tool"], box, size)
