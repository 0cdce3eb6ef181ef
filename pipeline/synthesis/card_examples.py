"""A few pictures for a dataset's card: small, without metadata, and only of what may be shown.

Which ones follows from names alone, so the same rows show the same pictures.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from pipeline.errors import BadImage
from pipeline.sources.decode import decode
from pipeline.synthesis.dataset_statistics import connection_over, listed, query
from pipeline.synthesis.licences import closed_by

FOLDER = "examples"
COUNT = 3
LONGEST_PX = 560
QUALITY = 80

_OUTLINE = (255, 96, 0)
_PER_GROUP = 8


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture for the card."""

    path: str
    """In the repository."""
    picture: bytes
    """JPEG."""
    told: str
    """What it is of, in a line."""


def examples(kind: str, files: Sequence[Path], count: int = COUNT) -> list[Shown]:
    """Pictures of rows of `trajectories` or `prompts`, of several tasks where there are.

    Pictures that their source does not let one pass on, or that cannot be read, are not shown.
    """
    if not files:
        return []
    paths = [str(file) for file in files]
    with connection_over({kind: paths}) as connection:
        rows = f"read_parquet([{listed(paths)}], union_by_name = true, filename = true, "
        found = connection.execute(
            query(f"shown_{kind}").replace("placed", f"{rows}file_row_number = true)")
        ).fetchall()
    shown = list[Shown]()
    for file, number, source, licence in found:
        if len(shown) == count:
            break
        if not closed_by(source or "", licence or ""):
            row = _row(Path(file), number)
            try:
                picture, told = _trajectory(row) if kind == "trajectories" else _prompt(row)
            except (BadImage, ValueError, TypeError, KeyError):
                continue
            shown.append(Shown(f"{FOLDER}/{len(shown)}.jpg", picture, told))
    return shown


def _row(path: Path, number: int) -> dict[str, Any]:
    """A row of a file by its place in it; no more than its row group is read."""
    file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
    for group in range(file.num_row_groups):
        held = file.metadata.row_group(group).num_rows
        if number >= held:
            number -= held
            continue
        for batch in file.iter_batches(_PER_GROUP, row_groups=[group], use_threads=False):
            if number < batch.num_rows:
                return dict(batch.slice(number, 1).to_pylist()[0])
            number -= batch.num_rows
    raise ValueError(f"{path} has no such row.")


def _trajectory(row: dict[str, Any]) -> tuple[bytes, str]:
    """The picture with the boxes that were looked at, numbered by their order in the caption."""
    image = decode(row["image"]["bytes"]).convert("RGB")
    pen = ImageDraw.Draw(image)
    width = max(2, round(max(image.size) / 200))
    for step in row["steps"] or ():
        for box, zoomed in zip(step["boxes"], step["zoomed"], strict=True):
            if zoomed:
                pen.rectangle([tuple(box[:2]), tuple(box[2:])], outline=_OUTLINE, width=width)
    looks = f"looks: {row['num_zooms']}, budget {row['resolution']}"
    told = f"{row['question']} {row['answer'] or ''} ({looks})"
    return _jpeg(image), told


def _prompt(row: dict[str, Any]) -> tuple[bytes, str]:
    """The picture, and beside it the last frame."""
    image = decode(row["image"]["bytes"]).convert("RGB")
    frame = decode(row["frames"][-1]["bytes"]).convert("RGB").resize(image.size)
    both = Image.new("RGB", (2 * image.width, image.height))
    both.paste(image, (0, 0))
    both.paste(frame, (image.width, 0))
    sizes = ", ".join(map(str, row["level_sizes"]))
    return _jpeg(both), f"{row['num_objects']} objects, shown in levels of {sizes} ({row['task']})"


def _jpeg(image: Image.Image) -> bytes:
    """A small copy made of pixels alone."""
    image.thumbnail((LONGEST_PX, LONGEST_PX), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    Image.frombytes("RGB", image.size, image.tobytes()).save(out, "JPEG", quality=QUALITY)
    return out.getvalue()
