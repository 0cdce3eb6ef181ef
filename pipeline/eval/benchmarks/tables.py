"""Questions as rows: JSON lines, TSV with pictures in base64, Parquet with pictures in a column.

A picture is left where it lies and read when it is asked for; of each only a fingerprint and its
size are kept. Knows nothing of what the columns mean.
"""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import BadImage, ConfigError
from pipeline.eval.benchmarks.hub import Located
from pipeline.sources.annotations import parse_json

PICTURE = "image"
"""The column of pictures."""
_REFERENCE = 64
"""A cell of at most so many characters names the row whose picture it shares."""
_ENDS = 1 << 16
_BATCH = 8
_NOTHING = frozenset({"", "nan", "none", "null"})


@dataclass(frozen=True, slots=True)
class Cell:
    """Where a picture lies in a table."""

    path: Path
    group: int
    """Of Parquet, the row group; -1 for TSV."""
    start: int
    """The row in its group, or the byte that the line begins at."""
    length: int
    """Bytes of the line; 0 for Parquet."""
    key: str
    """A fingerprint of the picture: the same for the same picture."""
    size: int
    """Bytes of the picture as stored, or 0."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row without its picture."""

    values: dict[str, Any]
    cell: Cell | None
    refers: str = ""
    """The `index` of the row that has the picture, where this one has none of its own."""


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, object) of each line with text; raises `ConfigError` naming the line."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"'{path.name}' cannot be read: {error.strerror}.") from error
    for number, line in enumerate(lines, 1):
        if not line.strip(b"\xef\xbb\xbf \t"):
            continue
        try:
            record = parse_json(line.removeprefix(b"\xef\xbb\xbf"))
        except BadImage as error:
            raise bad_line(path, number, error.detail) from error
        if not isinstance(record, dict):
            raise bad_line(path, number, "it is no object")
        yield number, record


def bad_line(path: Path, number: int, why: str) -> ConfigError:
    """What is wrong with a line."""
    return ConfigError(f"Line {number} of '{path.name}' is not a question: {why}.")


def text_of(value: Any) -> str:
    """A cell as text; "" for the many ways in which tables write nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    text = str(value).strip()
    return "" if text.lower() in _NOTHING else text


def table_files(place: Located, *patterns: str) -> list[Path]:
    """The file itself, or those of a folder: of the first pattern that fits any, in order."""
    if place.path.is_file():
        return [place.path]
    for pattern in patterns:
        found = sorted(file for file in place.path.glob(pattern) if file.is_file())
        if found:
            return found
    raise place.lacks(" or ".join(patterns))


def table_rows(path: Path) -> Iterator[TableRow]:
    """The rows of a `.parquet`, or of a `.tsv`; raises `ConfigError` for a file that is neither."""
    return _parquet_rows(path) if path.suffix == ".parquet" else _tsv_rows(path)


def read_cell(cell: Cell) -> bytes:
    """The encoded picture of a cell; raises `BadImage`."""
    try:
        value = _parquet_cell(cell) if cell.group >= 0 else _tsv_cell(cell)
    except (OSError, ValueError, LookupError) as error:
        raise BadImage("unreadable", f"{type(error).__name__}: {error}"[:200]) from error
    return _picture_bytes(value)


def picture_at(place: Located, at: Path | Cell | None, key: str) -> bytes:
    """The encoded picture of a file or of a cell; raises `BadImage`, for None as well."""
    if at is None:
        raise BadImage("source_missing", key)
    return read_cell(at) if isinstance(at, Cell) else place.read(at)


def size_at(place: Located, at: Path | Cell | None) -> int:
    """Bytes of a picture; 0 where there is none."""
    if at is None:
        return 0
    return at.size if isinstance(at, Cell) else place.size(at)


def _tsv_rows(path: Path) -> Iterator[TableRow]:
    header: list[str] | None = None
    for number, (start, length, fields) in enumerate(_tsv_lines(path), 1):
        if header is None:
            header = [name.strip().lstrip("\ufeff") for name in fields]
            continue
        if len(fields) != len(header):
            why = f"it has {len(fields)} fields, the header {len(header)}"
            raise ConfigError(f"Row {number} of '{path.name}' is not whole: {why}.")
        values = dict(zip(header, fields, strict=True))
        picture = values.pop(PICTURE, "").strip()
        if len(picture) <= _REFERENCE:
            yield TableRow(values, None, picture)
        else:
            size = len(picture) // 4 * 3 - picture[-2:].count("=")
            yield TableRow(values, Cell(path, -1, start, length, _fingerprint(picture), size))


def _tsv_lines(path: Path) -> Iterator[tuple[int, int, list[str]]]:
    """(first byte, bytes, fields) of each row; a quoted field may run over several lines."""
    csv.field_size_limit(2**31 - 1)
    at = 0

    def lines() -> Iterator[str]:
        nonlocal at
        for line in file:
            at += len(line)
            yield line.decode("utf-8")

    try:
        with path.open("rb") as file:
            start = 0
            for fields in csv.reader(lines(), delimiter="\t"):
                yield start, at - start, fields
                start = at
    except (OSError, ValueError, csv.Error) as error:
        why = f"{type(error).__name__} after byte {at}"
        raise ConfigError(f"'{path.name}' cannot be read as TSV: {why}.") from error


def _tsv_cell(cell: Cell) -> str:
    csv.field_size_limit(2**31 - 1)
    with cell.path.open("rb") as file:
        header = file.readline().decode("utf-8").lstrip("\ufeff").strip("\r\n").split("\t")
        file.seek(cell.start)
        text = file.read(cell.length).decode("utf-8")
    fields = next(csv.reader(io.StringIO(text, newline=""), delimiter="\t"))
    return fields[[name.strip('" ') for name in header].index(PICTURE)]


def _parquet_rows(path: Path) -> Iterator[TableRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for group in range(file.metadata.num_row_groups):
                number = 0
                for batch in file.iter_batches(_BATCH, row_groups=[group]):
                    for values in batch.to_pylist():
                        picture = values.pop(PICTURE, None)
                        cell = _parquet_place(path, group, number, picture)
                        refers = picture if cell is None and isinstance(picture, str) else ""
                        yield TableRow(values, cell, refers)
                        number += 1
    except (OSError, pa.ArrowException) as error:
        kind = type(error).__name__
        raise ConfigError(f"'{path.name}' cannot be read as Parquet: {kind}.") from error


def _parquet_place(path: Path, group: int, number: int, picture: Any) -> Cell | None:
    data = picture.get("bytes") if isinstance(picture, dict) else picture
    if isinstance(data, str) and len(data) <= _REFERENCE:
        return None
    if not isinstance(data, str | bytes):
        return Cell(path, group, number, 0, f"{path.name}#{group}.{number}", 0)
    return Cell(path, group, number, 0, _fingerprint(data), len(data))


def _parquet_cell(cell: Cell) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    left = cell.start
    try:
        with pq.ParquetFile(cell.path) as file:
            for batch in file.iter_batches(_BATCH, row_groups=[cell.group], columns=[PICTURE]):
                if left < batch.num_rows:
                    return batch.column(0)[left].as_py()
                left -= batch.num_rows
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error
    raise LookupError(f"no row {cell.start}")


def _picture_bytes(value: Any) -> bytes:
    """Encoded bytes of a cell's value: bytes, a struct that has them, or base64."""
    if isinstance(value, dict):
        value = value.get("bytes")
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str) or not value.strip():
        raise BadImage("no_image", "the cell is empty")
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadImage("corrupt", f"no base64: {error}") from error


def _fingerprint(picture: str | bytes) -> str:
    """The same for the same picture; of a large one, its length and its two ends are looked at."""
    ends = picture[:_ENDS], picture[-_ENDS:]
    digest = hashlib.blake2b(str(len(picture)).encode(), digest_size=8)
    for end in ends:
        digest.update(end.encode() if isinstance(end, str) else end)
    return digest.hexdigest()
