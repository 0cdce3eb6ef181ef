"""Files of published records: which there are, where each record lies, and reading one again.

JSON arrays and JSON lines are told apart by their content and listed record by record, with the
byte each begins at; Parquet is listed by row group. A file that breaks off is listed to its break,
and the rest as one record that cannot be read: nothing is lost without being counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import BadImage, SourceError
from pipeline.sources.annotations import parse_json
from pipeline.sources.files import is_inside
from pipeline.sources.names import key_of, path_of
from pipeline.sources.published.records import unreadable

SUFFIXES = (".json", ".jsonl", ".parquet")
HEAD_BYTES = 32 * 2**20
"""What is read to see a file's first record."""
TAIL_BYTES = 2**20
"""Of what follows a break, at most."""
_BATCH = 8
_SPACE = " \t\r\n"
_ESCAPED = "surrogateescape"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record lies in its file."""

    number: int
    offset: int
    size: int
    """Bytes."""


def record_files(root: Path) -> dict[str, Path]:
    """Files that may hold records, by key: the file itself, or those of a folder, one level down
    included."""
    if root.is_file():
        return {key_of(root.name): root}
    found = {}
    for path in sorted([*root.glob("*"), *root.glob("*/*")]):
        below = path.relative_to(root)
        if path.suffix not in SUFFIXES or any(part.startswith(".") for part in below.parts):
            continue
        if path.is_file() and is_inside(str(root.resolve()), str(path)):
            found[key_of(below.as_posix())] = path
    return dict(sorted(found.items(), key=lambda item: f"{item[0]}#"))


def first_record(path: Path) -> Any:
    """The first record of a file, None where it has none or cannot be read."""
    if path.suffix == ".parquet":
        return _first_row(path)
    with path.open("rb") as file:
        text = file.read(HEAD_BYTES).decode("utf-8", "ignore").lstrip("\ufeff" + _SPACE)
    start = _after_space(text, 1) if text.startswith("[") else 0
    try:
        return json.JSONDecoder().raw_decode(text, start)[0]
    except (ValueError, RecursionError):
        return None


def places(path: Path) -> Iterator[tuple[Place, bytes]]:
    """Every record of a JSON file: where it lies, and its bytes."""
    with path.open("rb") as file:
        head = file.read(64).decode("utf-8", "ignore").lstrip("\ufeff" + _SPACE)
    yield from _in_array(path) if head.startswith("[") else _in_lines(path)


def read_place(path: Path, offset: int, size: int) -> bytes:
    """The bytes of a record; raises `BadImage` where the file is gone or shorter."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(size)
    except FileNotFoundError as error:
        if not path.parent.exists():
            raise SourceError(f"The dataset '{path.parent.name}' is gone.") from error
        raise BadImage("source_missing", path.name) from error
    if len(data) != size:
        raise BadImage("source_changed", f"{path.name} is shorter than it was listed")
    return data


def parse_record(data: bytes) -> Any:
    """The record in some JSON; raises `BadImage` `not_parsed`."""
    try:
        return parse_json(data)
    except BadImage as error:
        raise unreadable("not_parsed", error.detail) from error


def row_groups(path: Path) -> list[tuple[int, int]]:
    """(rows, bytes) of each row group of a Parquet file; one group of (1, 0) where the footer
    cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            groups = [file.metadata.row_group(g) for g in range(file.metadata.num_row_groups)]
            return [(group.num_rows, group.total_byte_size) for group in groups]
    except (pa.ArrowException, OSError):
        return [(1, 0)]


def read_rows(path: Path, group: int, rows: int) -> Iterator[tuple[int, Any]]:
    """(number within the file, row) for the first `rows` of a row group; raises `BadImage`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            number = sum(file.metadata.row_group(g).num_rows for g in range(group))
            end = number + rows
            for batch in file.iter_batches(_BATCH, row_groups=[group]):
                for row in batch.to_pylist():
                    if number == end:
                        return
                    yield number, row
                    number += 1
    except (pa.ArrowException, OSError) as error:
        raise BadImage("corrupt_parquet", str(error)[:200]) from error


def file_of(root: Path, key: str) -> Path:
    """The file of that key."""
    return root if root.is_file() else root / path_of(key)


def _first_row(path: Path) -> Any:
    groups = row_groups(path)
    try:
        return next((row for _, row in read_rows(path, 0, 1)), None) if groups else None
    except BadImage:
        return None


def _in_lines(path: Path) -> Iterator[tuple[Place, bytes]]:
    offset = number = 0
    with path.open("rb") as file:
        for line in file:
            if line.strip(b"\xef\xbb\xbf \t\r\n"):
                yield Place(number, offset, len(line)), line
                number += 1
            offset += len(line)


def _in_array(path: Path) -> Iterator[tuple[Place, bytes]]:
    text = path.read_bytes().decode("utf-8", _ESCAPED)
    decode = json.JSONDecoder().raw_decode
    at = _after_space(text, text.index("[") + 1)
    offset, number = len(text[:at].encode("utf-8", _ESCAPED)), 0
    while at < len(text) and text[at] != "]":
        try:
            _, end = decode(text, at)
            after = _after_space(text, end)
            whole = after < len(text) and text[after] in ",]"
        except (ValueError, RecursionError):
            end = after = len(text)
            whole = False
        data = text[at:end].encode("utf-8", _ESCAPED)
        yield Place(number, offset, len(data)), data
        if not whole:
            yield from _break(text, end, offset + len(data), number + 1)
            return
        at = after if text[after] == "]" else _after_space(text, after + 1)
        offset += len(data) + len(text[end:at].encode("utf-8", _ESCAPED))
        number += 1


def _break(text: str, at: int, offset: int, number: int) -> Iterator[tuple[Place, bytes]]:
    """What follows a record that no comma and no end follows, as one record that is none."""
    rest = text[at : at + TAIL_BYTES].encode("utf-8", _ESCAPED)
    if rest.strip():
        yield Place(number, offset, len(rest)), rest


def _after_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at
