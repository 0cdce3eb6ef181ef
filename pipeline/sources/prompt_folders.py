"""Folders of visual prompts as published: `{image id:012d}_{step}.jpg`, steps from 0, cumulative.

Beside the steps `{image id:012d}.jpg` may show all objects. An id that is no number is a file's
stem as it is. Knows files and names, nothing of what is drawn.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.errors import ConfigError, SourceError
from pipeline.sources.decode import encode

_STEP = re.compile(r"(?P<stem>.+)_(?P<step>0|[1-9]\d{0,3})", re.ASCII | re.DOTALL)
SUFFIX = ".jpg"
FORBIDDEN = frozenset('/\\\0:*?"<>|')
QUALITY = 95
"""Of 4:4:4 JPEG; the published files are 75 with halved colour, which frays edges."""


def read_prompts(
    folder: Path, *, levels: int | None = None, skipped: Counter[str] | None = None
) -> dict[str, list[Path]]:
    """The frames of each image by its stem, step 0 first, stems in order.

    Images that lack a level are left out and counted in `skipped` as `incomplete_levels`, other
    JPEGs as `not_a_prompt`. `levels` is the most that any image has, unless given; those beyond
    it are left aside. An empty file is none. Raises `SourceError` for a folder that cannot be read.
    """
    found, others = _steps(folder)
    if levels is None:
        levels = max(map(len, found.values()), default=0)
    complete = {
        stem: [steps[step] for step in range(levels)]
        for stem, steps in sorted(found.items())
        if all(step in steps for step in range(levels))
    }
    if skipped is not None:
        skipped["incomplete_levels"] += len(found) - len(complete)
        skipped["not_a_prompt"] += len(others - found.keys())
    return complete


def write_prompts(
    folder: Path,
    image_id: str | int,
    frames: Sequence[np.ndarray | Image.Image],
    *,
    full: bool = False,
    quality: int = QUALITY,
) -> list[Path]:
    """Write the frames of one image, uint8 HWC or PIL, and with `full` the last one as all objects.

    Each file appears whole or not at all. Raises `ConfigError` for an id that is no file name.
    """
    if not frames:
        raise ConfigError(f"Image '{image_id}' has no frames to write.")
    stem = stem_of(image_id)
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{stem}_{step}" for step in range(len(frames))]
    pictures = list(frames)
    if full:
        names, pictures = [*names, stem], [*pictures, frames[-1]]
    return [
        _write(folder / (name + SUFFIX), picture, quality)
        for name, picture in zip(names, pictures, strict=True)
    ]


def stem_of(image_id: str | int) -> str:
    """The file stem of an image id: twelve digits where it is a whole number, else itself."""
    text = str(image_id)
    if text.isascii() and text.isdigit():
        return f"{int(text):012d}"
    if not text or text.startswith(".") or FORBIDDEN & set(text) or not text.isprintable():
        raise ConfigError(f"Image id {text!r} is no file name.", "Give its file's stem.")
    return text


def _steps(folder: Path) -> tuple[dict[str, dict[int, Path]], set[str]]:
    """The step files of each stem, and the stems of the other JPEGs."""
    found: dict[str, dict[int, Path]] = {}
    others = set()
    try:
        paths = [path for path in folder.iterdir() if _is_jpeg(path)]
    except OSError as error:
        raise SourceError(f"The prompts in '{folder}' cannot be read: {error.strerror}.") from error
    stems = {path.stem for path in paths}
    for path in paths:
        match = _STEP.fullmatch(path.stem)
        if match is None or f"{path.stem}_0" in stems:  # `photo_1` shows all of the image `photo_1`
            others.add(path.stem)
        else:
            found.setdefault(match["stem"], {})[int(match["step"])] = path
    return found, others


def _is_jpeg(path: Path) -> bool:
    if path.suffix != SUFFIX or path.name.startswith("."):
        return False
    return path.is_file() and path.stat().st_size > 0


def _write(path: Path, picture: np.ndarray | Image.Image, quality: int) -> Path:
    """Write hidden, then rename."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    hidden = path.with_name(f".{path.name}.{os.getpid()}")
    hidden.write_bytes(encode(image, quality))
    hidden.replace(path)
    return path
