"""`*.parquet`, a folder of Parquet, or one on a remote filesystem: planned by row group.

A picture is a struct of bytes and path (as `datasets` writes it), plain bytes, or a path relative
to the folder. Footers are read to plan, images never.
"""

from __future__ import annotations

import fnmatch
import glob
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadImage, ConfigError, SourceError
from pipeline.sources.base import Entry, Picture
from pipeline.sources.files import MAX_BYTES, read_below
from pipeline.sources.names import is_harmless, key_of, path_of
from pipeline.sources.questions import (
    GUESSES,
    asked_from,
    check_roles,
    column_for,
    text_of,
)

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from fsspec import AbstractFileSystem

_BATCH = 8
_FOOTER_READERS = 8


def local_parquet(text: str, columns: Mapping[str, str]) -> ParquetSource:
    """The source for a Parquet file, a folder of them, or a pattern."""
    from fsspec.implementations.local import LocalFileSystem

    path = Path(text).expanduser()
    if path.is_dir():
        root, pattern = path, "*.parquet"
    elif path.is_file():
        root, pattern = path.parent, glob.escape(path.name)
    else:
        fixed = re.split(r"[*?\[]", str(path), maxsplit=1)[0]
        root = Path(fixed + "x").parent
        pattern = path.relative_to(root).as_posix()
        if fixed == str(path) or not root.is_dir():
            raise ConfigError(f"There is no Parquet file '{text}'.", "Check the path.")
    name = f"parquet:{root.resolve().name if path.is_dir() else path.name}"
    system = LocalFileSystem()
    return ParquetSource(
        system, str(root.resolve()), columns, name=name, pattern=pattern, local=True
    )


class ParquetSource:
    """Parquet files below `root` on a filesystem; a key is `file#group`."""

    def __init__(
        self,
        filesystem: AbstractFileSystem,
        root: str,
        columns: Mapping[str, str],
        *,
        name: str,
        pattern: str = "*.parquet",
        local: bool = False,
    ) -> None:
        check_roles(columns)
        self.filesystem, self.root, self.columns = filesystem, root.rstrip("/"), dict(columns)
        self.name, self.pattern, self.local = name, pattern, local
        self.skipped: Counter[str] = Counter()

    def entries(self) -> Iterator[Entry]:
        """One entry for each row group, with its bytes and the stamp of its file."""
        self.skipped.clear()
        files = self._files()
        with ThreadPoolExecutor(_FOOTER_READERS) as readers:
            footers = list(readers.map(self._group_sizes, files))
        entries = [
            Entry(f"{key}#{group:05d}", size, files[key])
            for key, sizes in zip(files, footers, strict=True)
            for group, size in enumerate(sizes)
        ]
        yield from sorted(entries, key=lambda entry: entry.key)

    def pictures(self, entry: Entry) -> Iterator[Picture]:
        """The pictures of a row group, row by row."""
        key, _, group = entry.key.rpartition("#")
        try:
            self._check_unchanged(key, entry)
            with self._open(key) as file:
                yield from self._rows(file, key, int(group))
        except BadImage as error:
            yield Picture(entry.key, source=self.name, error=error)
        except self._broken_file() as error:
            broken = BadImage("corrupt_parquet", str(error)[:200])
            yield Picture(entry.key, source=self.name, error=broken)

    def _files(self) -> dict[str, str]:
        """Stamps of the Parquet files by key; `SourceError` when there are none."""
        found = self.filesystem.find(self.root, detail=True)
        below = len(self.root) + 1
        files = {
            key_of(path[below:]): _stamp(about)
            for path, about in sorted(found.items())
            if fnmatch.fnmatchcase(path[below:], self.pattern) and not _is_hidden(path[below:])
        }
        if not files:
            raise SourceError(f"There is no Parquet file in '{self.name}'.")
        return files

    def _broken_file(self) -> tuple[type[Exception], ...]:
        """What a damaged file raises; everything else is a damaged source."""
        import pyarrow as pa

        return (OSError, pa.ArrowException) if self.local else (pa.ArrowInvalid,)

    @contextmanager
    def _open(self, key: str) -> Iterator[pq.ParquetFile]:
        import pyarrow.parquet as pq

        with self.filesystem.open(self._path(key), "rb") as raw, pq.ParquetFile(raw) as file:
            yield file

    def _path(self, key: str) -> str:
        return f"{self.root}/{path_of(key)}"

    def _group_sizes(self, key: str) -> list[int]:
        """Bytes of each row group; one group of 0 where the footer cannot be read."""
        import pyarrow as pa

        try:
            with self._open(key) as file:
                footer = file.metadata
                return [footer.row_group(g).total_byte_size for g in range(footer.num_row_groups)]
        except pa.ArrowInvalid:
            return [0]

    def _check_unchanged(self, key: str, entry: Entry) -> None:
        try:
            stamp = _stamp(self.filesystem.info(self._path(key)))
        except FileNotFoundError as error:
            if not self.filesystem.exists(self.root):
                raise SourceError(f"The source '{self.name}' is gone.") from error
            raise BadImage("source_missing", key) from error
        if stamp != entry.stamp:
            raise BadImage("source_changed", "modified since it was listed")

    def _rows(self, file: pq.ParquetFile, key: str, group: int) -> Iterator[Picture]:
        """Pictures of one row group; a row is numbered within its file."""
        if group >= file.metadata.num_row_groups:
            raise BadImage("source_changed", f"no row group {group}")
        image = self._image_column(file.schema_arrow)
        present = file.schema_arrow.names
        roles = (column_for(role, self.columns, present) for role in GUESSES if role != "image")
        wanted = {image, *(column for column in roles if column in present)}
        number = sum(file.metadata.row_group(g).num_rows for g in range(group))
        batches = file.iter_batches(
            _BATCH, row_groups=[group], columns=[c for c in present if c in wanted]
        )
        for batch in batches:
            for row in batch.to_pylist():
                yield self._picture(row, image, f"{key}#{number}")
                number += 1

    def _image_column(self, schema: pa.Schema) -> str:
        """The column that holds the pictures: mapped, guessed by name, or the first of its type."""
        wanted = column_for("image", self.columns, schema.names)
        if wanted is not None and wanted in schema.names:
            return wanted
        typed = next((field.name for field in schema if _holds_images(field.type)), None)
        if wanted is None and typed is not None:
            return str(typed)
        missing = f"column '{wanted}'" if wanted else "column of pictures"
        columns = ", ".join(schema.names)
        fix = f"Map one with image=COLUMN; there are: {columns}."
        raise SourceError(f"There is no {missing} in '{self.name}'.", fix)

    def _picture(self, row: Mapping[str, Any], image: str, row_id: str) -> Picture:
        image_id = text_of(row, "id", self.columns) or row_id
        try:
            data = self._bytes(row[image])
            asked = asked_from({k: v for k, v in row.items() if k != image}, self.columns)
        except BadImage as error:
            return Picture(image_id, source=self.name, error=error)
        terms = text_of(row, "license", self.columns)
        return Picture(image_id, data=data, source=self.name, license=terms, asked=asked)

    def _bytes(self, value: Any) -> bytes:
        """Encoded bytes of a cell; of a list of pictures, the first."""
        if isinstance(value, list):
            value = value[0] if value else None
        path = value if isinstance(value, str) else None
        if isinstance(value, dict):
            value, path = value.get("bytes"), value.get("path")
        if isinstance(value, bytes):
            return value
        if not path:
            raise BadImage("no_image", "the cell is empty")
        return self._read_beside(path)

    def _read_beside(self, path: str) -> bytes:
        """The file that a cell names relative to the folder."""
        if not is_harmless(key_of(path)):
            raise BadImage("outside_source", path)
        if self.local:
            return read_below(Path(self.root), key_of(path))
        full = f"{self.root}/{path}"
        try:
            if (size := self.filesystem.size(full) or 0) > MAX_BYTES:
                raise BadImage("too_large", f"{size} bytes, at most {MAX_BYTES}")
            data: bytes = self.filesystem.cat_file(full)
        except FileNotFoundError as error:
            raise BadImage("source_missing", path) from error
        return data


def _holds_images(kind: pa.DataType) -> bool:
    """Whether a column's type is that of pictures: bytes, or a struct that has `bytes`."""
    import pyarrow as pa

    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _stamp(about: Mapping[str, Any]) -> str:
    """Whatever a filesystem knows that changes with a file: a content id, an etag, a time."""
    for name in ("blob_id", "etag", "ETag", "mtime", "LastModified", "created"):
        if about.get(name):
            return str(about[name])
    return ""


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))
