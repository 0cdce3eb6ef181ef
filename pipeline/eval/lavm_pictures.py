"""Where pictures with what is marked in them come from: runs of prompts, folders, drawn scenes.

Takes the committed Parquet by its columns, and folders in the published layout. Knows nothing of
models, choices or scores.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.errors import BadImage, ConfigError
from pipeline.eval.pocket_lavm_scenes import Role, held_out
from pipeline.runner.rundir import read_run, records
from pipeline.runner.storage import storage_at
from pipeline.sources.base import Entry
from pipeline.sources.folder import FolderSource
from pipeline.sources.prompt_folders import read_prompts, stem_of

KIND, SCENES = "prompts", "scenes"
LEVELS = 3
"""Frames of a drawn scene; as many as the pocket LAVM's sentences have at most."""
NAMES = ["image_id", "task", "image_sha256", "level_sizes", "num_objects", "segmenter"]
PIXELS = ["image.bytes", "frames.list.element.bytes", "objects.list.element.keypoints"]
"""Columns of a row of prompts that are read late: they are most of its bytes."""


@dataclass(frozen=True, slots=True)
class Known:
    """A picture before any pixel of it is read."""

    image_id: str
    sha256: str
    """Of the encoded picture."""
    frames: int
    """Levels that show what is marked in it; 0 where nothing is."""
    unsure: str = ""
    """Why its frames are not the truth; empty where they are."""


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A picture and its frames, all encoded; the last frame shows everything."""

    image: bytes
    frames: tuple[bytes, ...]
    people: tuple[tuple[float, ...], ...] = ()
    """COCO's keypoints of each object that has any, in pixels of the picture."""


class Pictures(Protocol):
    """Pictures in a fixed order."""

    @property
    def known(self) -> tuple[Known, ...]:
        """What there is."""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of all of it, whatever its place."""

    @property
    def parent(self) -> str:
        """The run that it is from, else the digest."""

    def read(self, place: int) -> Shown:
        """The picture at a place of the order; raises `BadImage`."""


def is_drawn(place: str) -> bool:
    """Whether a place is `scenes` or `scenes:N`: drawn by the N-th convention that is held out."""
    name, _, number = place.partition(":")
    return name == SCENES and (not number or number.isdecimal())


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's."""
    return (folder / "run.json").is_file()


class RunPictures:
    """Pictures of a run of prompts, in the order of its parts."""

    def __init__(self, run_dir: Path, task: str) -> None:
        self._storage = storage_at(str(run_dir))
        run = read_run(self._storage)
        if run.get("kind") != KIND:
            raise ConfigError(f"'{run_dir.name}' is a run of {run.get('kind')}, not of prompts.")
        self.parent = str(run["run_id"])
        found = records(self._storage)
        paths = [file.path for record in found for file in record.files if file.kind == KIND]
        self.digest = _digest_of(record.sha256 for record in found)
        listed = [row for path in paths for row in self._names(path) if row[1]["task"] == task]
        if not listed:
            raise ConfigError(f"'{run_dir.name}' has no prompts of task '{task}'.")
        self._places = [place for place, _ in listed]
        self.known = tuple(_known(row) for _, row in listed)
        self._held: tuple[tuple[str, int], pa.Table] | None = None

    def read(self, place: int) -> Shown:
        """The picture at a place; neighbours are read with it."""
        path, group, row = self._places[place]
        if self._held is None or self._held[0] != (path, group):
            with self._storage.open(path) as stream:
                table = pq.ParquetFile(stream).read_row_group(group, columns=PIXELS)
            self._held = ((path, group), table)
        (found,) = self._held[1].slice(row, 1).to_pylist()
        frames = tuple(frame["bytes"] for frame in found["frames"] or ())
        people = (tuple(one["keypoints"] or ()) for one in found["objects"] or ())
        return Shown(found["image"]["bytes"], frames, tuple(filter(None, people)))

    def _names(self, path: str) -> Iterator[tuple[tuple[str, int, int], dict[str, Any]]]:
        """Every row of a file without its pixels, and where it lies."""
        with self._storage.open(path) as stream:
            file = pq.ParquetFile(stream)
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=NAMES)
                for number, row in enumerate(table.to_pylist()):
                    yield (path, group, number), row


class FolderPictures:
    """Pictures below a folder, by name, and their frames from another one by the same stems."""

    def __init__(self, images: Path, frames: Path | None) -> None:
        self._source = FolderSource(images)
        self._frames = read_prompts(frames) if frames is not None else {}
        entries = list(self._source.entries())
        if frames is not None:
            _check_stems(entries)
        if not entries:
            raise ConfigError(f"There is no picture in '{images}'.")
        self._entries = entries
        lines = [[entry.key, *self._digests(entry)] for entry in entries]
        self.known = tuple(Known(key, image, len(more)) for key, image, *more in lines)
        self.digest = _digest_of(part for line in lines for part in line)
        self.parent = f"sha256:{self.digest}"

    def read(self, place: int) -> Shown:
        """The picture at a place and its frames."""
        return self._shown(self._entries[place])

    def _shown(self, entry: Entry) -> Shown:
        (picture,) = self._source.pictures(entry)
        if picture.data is None:
            raise picture.error or BadImage("unreadable")
        frames = self._frames.get(_stem(entry.key), []) if self._frames else []
        try:
            return Shown(picture.data, tuple(path.read_bytes() for path in frames))
        except OSError as error:
            raise BadImage("unreadable", error.strerror or type(error).__name__) from error

    def _digests(self, entry: Entry) -> list[str]:
        """SHA-256 of the picture and of each frame; one empty text where a file cannot be read."""
        try:
            shown = self._shown(entry)
        except BadImage:
            return [""]
        return [sha256_of(data) for data in (shown.image, *shown.frames)]


class ScenePictures:
    """Drawn scenes that no pocket model was trained on, all marked by one convention."""

    def __init__(self, place: str, role: Role) -> None:
        number = int(place.partition(":")[2] or 0)
        self._marked = held_out(number, role)
        read = [self.read(place) for place in range(len(self._marked[1]))]
        self.known = tuple(
            Known(f"{role}-{number}-{place:03d}", sha256_of(shown.image), LEVELS)
            for place, shown in enumerate(read)
        )
        self.digest = _digest_of(
            sha256_of(data) for one in read for data in (one.image, *one.frames)
        )
        self.parent = f"sha256:{self.digest}"

    def read(self, place: int) -> Shown:
        """The scene at a place and its frames."""
        convention, scenes = self._marked
        scene = scenes[place]
        image, *frames = map(_png, [scene.image(), *scene.frames(convention, LEVELS)])
        return Shown(image, tuple(frames))


def _known(row: Mapping[str, Any]) -> Known:
    """A row of prompts as it is listed."""
    unsure = "proposed" if row["segmenter"] else ""
    frames = len(row["level_sizes"] or ()) if row["num_objects"] else 0
    return Known(row["image_id"], row["image_sha256"], frames, unsure)


def _check_stems(entries: list[Entry]) -> None:
    """Raise `ConfigError` where two pictures would have the same frames."""
    stems = Counter(_stem(entry.key) for entry in entries)
    twice = [stem for stem, count in stems.items() if count > 1]
    if twice:
        raise ConfigError(f"Two pictures are called '{twice[0]}'.", "Rename one of them.")


def _stem(key: str) -> str:
    """A picture's name as the published layout writes it."""
    return stem_of(PurePosixPath(key).stem)


def _digest_of(parts: Iterator[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _png(pixels: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def sha256_of(data: bytes) -> str:
    """SHA-256 (hex) of bytes."""
    return hashlib.sha256(data).hexdigest()
