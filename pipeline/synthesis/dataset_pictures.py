"""The pictures that a dataset shows, each once: of a run, or of a folder that was written from one.

A folder's pictures stand in Parquet, or lie below it as files. Knows nothing of what they are
wanted for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import BadImage, CheckFailed
from pipeline.runner.rundir import RUN, records
from pipeline.runner.storage import LocalStorage, Storage
from pipeline.sources.files import is_image_name, read_below
from pipeline.sources.names import key_of
from pipeline.synthesis.export_folder import sha256_of
from pipeline.synthesis.stored import stored_rows

KINDS = ("trajectories", "rejected", "prompts")
"""A run's tables with pictures."""
COLUMNS = ("source_image", "image", "images")
"""Of a folder's Parquet: the whole picture first, then views."""
BATCH_ROWS = 8

_NAMES = ("image_id", "sample_id", "source_sha256", "image_sha256")
_BELOW = "extra_info"
"""Where verl's rows keep their names."""
_LOOSE_VIEWS = "dataset_info.json"
"""LLaMA-Factory's: the loose pictures beside it are views, several of one source."""


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A picture of the dataset."""

    image_id: str
    """The source's key where the row has it, else file and row."""
    source_sha256: str
    """Of the source file's bytes; empty where it is not told."""
    data: bytes
    """Encoded; empty where there are no pixels."""
    whole: bool = True
    """Whether it stands for its source: a later view of a row is a part of the first."""
    error: str = ""
    """Why there are no pixels."""


def pictures_of(folder: Path) -> Iterator[Shown]:
    """Every picture of a run's or of a dataset's folder, once for each name it goes by.

    Memory grows by a digest for each. Raises `CheckFailed` for a file that cannot be read.
    """
    seen: set[bytes] = set()
    for shown in _all(folder):
        digest = hashlib.blake2b(shown.data, digest_size=16)
        digest.update(f"{shown.source_sha256}:{shown.image_id}".encode("utf-8", "surrogatepass"))
        if digest.digest() not in seen:
            seen.add(digest.digest())
            yield shown


def data_digest(folder: Path) -> str:
    """SHA-256 (hex) over the files that `pictures_of` reads: another one for other data."""
    digest = hashlib.sha256()
    if (folder / RUN).is_file():
        for _, sha256 in _committed(LocalStorage(folder)):
            digest.update(f"{sha256}\n".encode())
    else:
        for file in [*_tables(folder), *_loose(folder)]:
            name = file.relative_to(folder).as_posix()
            digest.update(f"{sha256_of(file)} {name}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _all(folder: Path) -> Iterator[Shown]:
    storage = LocalStorage(folder)
    if (folder / RUN).is_file():
        for path, _ in _committed(storage):
            yield from _of_table(storage, path, folder)
        return
    for table in _tables(folder):
        yield from _of_table(storage, table.relative_to(folder).as_posix(), folder)
    whole = not (folder / _LOOSE_VIEWS).is_file()
    for file in _loose(folder):
        name = file.relative_to(folder).as_posix()
        try:
            yield Shown(name, "", read_below(folder, key_of(name)), whole)
        except BadImage as error:
            yield Shown(name, "", b"", whole, error.reason)


def _committed(storage: Storage) -> Iterator[tuple[str, str]]:
    """(path, digest) of a run's files with pictures."""
    for record in records(storage):
        yield from ((f.path, f.sha256) for f in record.files if f.kind in KINDS)


def _tables(folder: Path) -> list[Path]:
    return _below(folder, lambda name: name.endswith(".parquet"))


def _loose(folder: Path) -> list[Path]:
    return _below(folder, is_image_name)


def _below(folder: Path, wanted: Callable[[str], bool]) -> list[Path]:
    """Files below a folder in the order of their names, hidden ones left out."""
    found = (path for path in folder.rglob("*") if wanted(path.name) and path.is_file())
    parts = ((path.relative_to(folder).parts, path) for path in found)
    return [path for names, path in sorted(parts) if not any(n.startswith(".") for n in names)]


def _of_table(storage: Storage, path: str, folder: Path) -> Iterator[Shown]:
    """The pictures of a Parquet file, row by row; none of a file that tells of no picture."""
    try:
        with storage.open(path) as stream:
            there = pq.ParquetFile(stream).schema_arrow
        columns = _read_of(there)
        if not columns:
            return
        for number, row in enumerate(stored_rows(storage, path, BATCH_ROWS, columns)):
            yield from _of_row(row, f"{path}#{number}", folder)
    except (OSError, pa.ArrowException) as error:
        raise CheckFailed(f"{path} cannot be read: {error}.") from error


def _read_of(schema: pa.Schema) -> tuple[str, ...]:
    """What to read of a table; nothing where it has neither pictures nor digests of them."""
    telling = [name for name in (*COLUMNS, "source_sha256") if name in schema.names]
    named = [name for name in (*_NAMES, _BELOW) if name in schema.names]
    if _BELOW in named:
        named[named.index(_BELOW)] = f"{_BELOW}.image_id"
    return tuple(dict.fromkeys([*telling, *named])) if telling else ()


def _of_row(row: Mapping[str, Any], place: str, folder: Path) -> Iterator[Shown]:
    """The pictures of a row; of one with digests only, what is lacking."""
    name = row.get("image_id") or (row.get(_BELOW) or {}).get("image_id")
    name = name or (row.get("sample_id") or "").rpartition("#")[0] or place
    source, first = row.get("source_sha256") or "", True
    for column in COLUMNS:
        value = row.get(column)
        for cell in value if isinstance(value, list) else [value] * (value is not None):
            try:
                yield Shown(name, source, _bytes(cell, folder), first)
            except BadImage as error:
                yield Shown(name, source, b"", first, error.reason)
            first = False
    if first:
        yield Shown(name, source, b"", error="no_pixels")


def _bytes(cell: Any, folder: Path) -> bytes:
    """Encoded bytes of a cell, or of the file below the folder that it names."""
    if isinstance(cell, dict) and cell.get("bytes"):
        cell = cell["bytes"]
    if isinstance(cell, bytes):
        return cell
    path = cell.get("path") if isinstance(cell, dict) else cell
    if not isinstance(path, str) or not path:
        raise BadImage("no_pixels")
    return read_below(folder, key_of(path))
