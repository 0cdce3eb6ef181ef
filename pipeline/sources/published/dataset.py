"""A published dataset as a whole: its layout, its listing, its records one by one.

A record of a JSON file is an entry of its own, stamped with where it lies and a digest of it and of
what is known of its pictures; a Parquet file is listed by row group, as every other source does.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import BadImage, ConfigError
from pipeline.sources.base import Entry
from pipeline.sources.files import check_unchanged, entry_for
from pipeline.sources.published import files
from pipeline.sources.published.layouts import AUTO, about_layouts, known_layout, layout_of
from pipeline.sources.published.pictures import Pictures
from pipeline.sources.published.records import Layout, Record, unreadable

MOST_NAMED = 8
"""Files that an error names."""


class Dataset:
    """Records of one layout below a folder, or in one file."""

    def __init__(self, root: Path, layout: Layout, keys: tuple[str, ...], images: Path | None):
        folder = root if root.is_dir() else root.parent
        self.layout, self._root, self._folder = layout, root, folder
        self._keys = keys
        self.name = f"{layout.name}:{root.resolve().name}"
        self.pictures = Pictures((*([images] if images else ()), folder))
        self.skipped: Counter[str] = Counter()
        """Files left out, by reason."""

    def entries(self, limit: int | None = None) -> Iterator[Entry]:
        """What there is to do by ascending key, `limit` records at most."""
        left = limit
        for key in self._keys:
            path = files.file_of(self._root, key)
            found = self._groups(key, path, left) if _is_parquet(path) else self._records(key, path)
            for entry, count in found:
                if left is not None and left < count:
                    return
                left = None if left is None else left - count
                yield entry

    def records(self, entry: Entry) -> Iterator[tuple[str, Any]]:
        """(image id, record) of an entry; in place of what cannot be read, a `BadImage`."""
        key, _, number = entry.key.rpartition("#")
        path = files.file_of(self._root, key)
        if not _is_parquet(path):
            yield entry.key, self._record(entry, path)
            return
        _, _, rows = entry.stamp.rpartition(":")
        last = int(number)
        try:
            check_unchanged(self._folder, Entry(key, entry.size, entry.stamp), f":{rows}")
            for last, row in files.read_rows(path, int(number), int(rows)):
                yield f"{key}#{last}", row
        except BadImage as error:
            yield f"{key}#{number}.{last}", error

    def close(self) -> None:
        """Let go of open files."""
        self.pictures.close()

    def _records(self, key: str, path: Path) -> Iterator[tuple[Entry, int]]:
        for place, data in files.places(path):
            stamp = f"{place.offset}:{self._digest(data)}"
            yield Entry(f"{key}#{place.number:08d}", place.size, stamp), 1

    def _groups(self, key: str, path: Path, left: int | None) -> Iterator[tuple[Entry, int]]:
        """Row groups of a file; of the one in which the limit is reached, the rows up to it.

        The size is the file's: with its time it tells whether the file is still the same.
        """
        for group, (rows, _) in enumerate(files.row_groups(path)):
            rows = rows if left is None else min(rows, left)
            left = None if left is None else left - rows
            file = entry_for(self._folder, key, f":{rows}")
            if rows:
                yield Entry(f"{key}#{group:08d}", file.size, file.stamp), rows

    def _record(self, entry: Entry, path: Path) -> Any:
        """A record of a JSON file, or why it cannot be read."""
        offset, _, digest = entry.stamp.partition(":")
        try:
            data = files.read_place(path, int(offset), entry.size)
            if self._digest(data) != digest:
                raise BadImage("source_changed", "the record or its pictures, since it was listed")
            return _object(files.parse_record(data))
        except BadImage as error:
            return error

    def _digest(self, data: bytes) -> str:
        """Digest of a record and of what is known of its pictures without reading them."""
        digest = hashlib.blake2b(data, digest_size=12)
        try:
            path = self.layout.read(_object(files.parse_record(data)))
        except BadImage:
            return digest.hexdigest()
        for cell in path.pictures:
            digest.update(b"\0" + self.pictures.identity(cell).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def open_dataset(root: Path, layout: str = AUTO, images: Path | None = None) -> Dataset:
    """The dataset below a folder, or in a file.

    Raises `ConfigError` when there is none, when it is in no known layout, or in several.
    """
    if not root.exists():
        raise ConfigError(f"There is no folder '{root}'.", "Check the path.")
    if images is not None and not images.exists():
        raise ConfigError(f"There is no folder of pictures '{images}'.", "Check the path.")
    wanted = "" if layout == AUTO else known_layout(layout).name
    found = files.record_files(root)
    kinds = {key: layout_of(files.first_record(path)) for key, path in found.items()}
    present = sorted({kind for kind in kinds.values() if kind})
    if not wanted:
        wanted = _only(root, present, kinds)
    keys = tuple(key for key, kind in kinds.items() if kind == wanted)
    if not keys:
        raise ConfigError(f"'{root}' holds no {wanted} records: {_told(kinds)}.", about_layouts())
    dataset = Dataset(root, known_layout(wanted), keys, images)
    dataset.skipped.update("other_layout" for kind in kinds.values() if kind != wanted)
    return dataset


def _only(root: Path, present: list[str], kinds: dict[str, str]) -> str:
    """The one layout that is there."""
    if not present:
        message = f"'{root}' is in no known layout: {_told(kinds)}."
        raise ConfigError(message, about_layouts())
    if len(present) > 1:
        message = f"'{root}' holds more than one layout: {_told(kinds)}."
        raise ConfigError(message, f"Write --layout {present[0]}, or name one file.")
    return present[0]


def _told(kinds: dict[str, str]) -> str:
    """What was found, as words."""
    if not kinds:
        return "it has no .json, .jsonl or .parquet file"
    told = [f"{key} ({kind or 'unknown'})" for key, kind in list(kinds.items())[:MOST_NAMED]]
    more = len(kinds) - len(told)
    return "found " + ", ".join(told) + (f" and {more} more" if more > 0 else "")


def _object(record: Any) -> Record:
    if not isinstance(record, dict):
        raise unreadable("not_parsed", f"a record is {type(record).__name__}, not an object")
    return record


def _is_parquet(path: Path) -> bool:
    return path.suffix == ".parquet"
