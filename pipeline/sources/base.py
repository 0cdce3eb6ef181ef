"""What every source gives: entries to plan with, and pictures as they were found.

Owns the records and the protocol. It knows nothing of any one form, of shards, or of tasks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from pipeline.errors import BadImage
from pipeline.geometry import Box


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the listing: a name to plan with; no image is read to make it."""

    key: str
    """A relative path, a tar's path, the address of a row group, or a scene's number."""
    size: int
    """Bytes; 0 where unknown."""
    stamp: str
    """Modification time in ns, or an etag; "" where there is none."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that the source itself brings."""

    question: str
    answer: str
    """The answer's text; where there are options, one of them."""
    options: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    """Where the answer can be seen, in pixels of the upright picture."""
    task: str = ""
    """The kind of question, as the source names it."""
    recipe: Mapping[str, Any] | None = None
    """How it was made, where it was made and not found: plain JSON that the truth follows from."""


@dataclass(frozen=True, slots=True)
class Region:
    """A region that the source marks: run lengths or polygons, decoded by `decode_masks` only.

    Its frame is the picture of `height` x `width` pixels that the annotations speak of; whoever
    uses it compares that with the decoded picture.
    """

    height: int
    width: int
    counts: str | tuple[int, ...] | None = None
    """COCO run lengths in column order: compressed text, or plain numbers."""
    polygons: tuple[tuple[float, ...], ...] = ()
    """x0, y0, x1, y1, … in pixels; used when there are no `counts`."""
    box: Box | None = None
    label: str = ""
    score: float | None = None
    """The source's own estimate of quality in [0, 1] (SA-1B: `predicted_iou`)."""
    crowd: bool = False
    """Whether it covers a group and not one object."""
    keypoints: tuple[float, ...] = ()
    """COCO: x, y, visibility of 17 joints."""
    id: int | None = None
    """The annotation's own number, where it has one."""
    area: float | None = None
    """Pixels that the source says it covers; a polygon's own area is no whole number."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One source image as it was found: encoded, or drawn, or why it could not be read."""

    image_id: str
    """The source key: a relative path, `tar#member`, `file#row`."""
    data: bytes | None = None
    """Encoded bytes as found; None for drawn pictures and for errors."""
    image: Image.Image | None = None
    """A drawn picture, RGB."""
    source: str = ""
    """Where from, for the `source` column; never a path of this machine."""
    license: str = ""
    masks: tuple[Region, ...] = ()
    asked: tuple[Asked, ...] = ()
    error: BadImage | None = None


class Source(Protocol):
    """A place that pictures come from."""

    name: str
    """For the `source` column, such as "folder:photos"."""
    skipped: Counter[str]
    """What `entries` left out, by reason; complete once it has been read to its end."""

    def entries(self) -> Iterator[Entry]:
        """Everything there is to do, by ascending key, each key once; reads names only."""
        ...

    def pictures(self, entry: Entry) -> Iterator[Picture]:
        """The pictures of an entry in a stable order, at least one.

        A picture that cannot be read is one with an `error`; `SourceError` means that the source
        as a whole is gone.
        """
        ...
