"""The files of a trainer's folder: which there are, their rows one at a time, whether they load.

Owns `dataset_info.json`, `settings.yaml` and the manifest as far as a trainer depends on them. What
is wrong with a file is a `Problem`, never an exception; no more than a few rows are held.
"""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ConfigError
from pipeline.synthesis.export_files import MANIFEST
from pipeline.synthesis.export_llamafactory import FORMS, IMAGES

Row = Mapping[str, Any]

BATCH_ROWS = 8
CHUNK = 2**18
LONGEST_ROW = 64 * 2**20
"""Characters of JSON in which a row must end."""
MOST_JSON = 64 * 2**20
"""Bytes of a JSON file that `datasets` is still asked to load: it holds such a file whole."""
_NEAR_END = 16
"""Characters before the end of what was read in which an error may only mean that more follows."""
_DEFAULTS = {
    "messages": "conversations",
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}
"""LLaMA-Factory's, where `dataset_info.json` does not say."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that would break a training, and where it is."""

    reason: str
    """One of `preflight_checks.REASONS`."""
    detail: str
    file: str = ""
    """Within the folder; empty where the folder as a whole is meant."""
    row: int | None = None
    """From 0, within the file."""
    name: str = ""
    """The row's own: its sample, or its first picture."""


@dataclass(frozen=True, slots=True)
class Table:
    """A file of rows."""

    path: Path
    file: str
    """Its name within the folder."""
    split: str
    columns: Mapping[str, str]
    """LLaMA-Factory's columns and tags, its defaults filled in; empty for others."""
    pictures: Path
    """Where pictures are that a row names."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What LLaMA-Factory is told beside the data; its own defaults (0.9.5) where it is not."""

    image_max_pixels: int = 768 * 768
    image_min_pixels: int = 32 * 32
    cutoff_len: int = 2048
    template: str = ""
    media_dir: str = "."
    there: bool = False
    """Whether the folder has any."""


@dataclass(frozen=True, slots=True, eq=False)
class Digests:
    """What each picture's bytes were; 16 bytes for a picture."""

    names: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    """uint64 (pictures,), sorted: the beginnings of the names' SHA-256."""
    values: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    """uint64 (pictures,): the beginnings of the pictures' SHA-256."""

    def differ(self, name: str, data: bytes) -> bool:
        """Whether a picture is known by its name, with other bytes."""
        wanted = np.uint64(_short(name.encode()))
        place = int(np.searchsorted(self.names, wanted))
        known = place < len(self.names) and self.names[place] == wanted
        return bool(known and int(self.values[place]) != _short(data))


@dataclass(frozen=True, slots=True)
class Folder:
    """What lies in a trainer's folder."""

    tables: tuple[Table, ...] = ()
    problems: tuple[Problem, ...] = ()
    settings: Settings = field(default_factory=Settings)
    digests: Digests = field(default_factory=Digests)
    """Of loose pictures, by their names in the rows."""


def request_of(folder: Path) -> Mapping[str, Any]:
    """What was asked of the export; {} for a folder that is none."""
    try:
        told = json.loads((folder / MANIFEST).read_text("utf-8"))["request"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return told if isinstance(told, dict) else {}


def look_into(folder: Path, trainer: str) -> Folder:
    """The files that the trainer would read; raises `ConfigError` where there is no such folder."""
    if not folder.is_dir():
        raise ConfigError(f"There is no folder '{folder}'.", "Make one with: cofpipe export RUN")
    return _llamafactory(folder) if trainer == "llamafactory" else _parquet(folder)


def rows_of(table: Table) -> Iterator[tuple[int, Row | str]]:
    """(number, row, or what is wrong with its text); raises what `BROKEN` names."""
    return parquet_rows(table.path) if table.path.suffix == ".parquet" else json_rows(table.path)


def why_not_loaded(table: Table) -> str:
    """What stops `datasets.load_dataset` from giving a file's first row; empty where nothing does.

    Streamed, so that no copy of the data is made. Too large a JSON file is not tried.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    kind = "parquet" if table.path.suffix == ".parquet" else "json"
    if kind == "json" and table.path.stat().st_size > MOST_JSON:
        return ""
    try:
        rows = load_dataset(kind, data_files=[str(table.path)], split="train", streaming=True)
        for row in rows.decode(False) if kind == "parquet" else rows:
            return "" if row else "its first row is empty"
        return "it has no rows"
    except (*BROKEN, DatasetsError, TypeError, KeyError, RuntimeError) as error:
        return str(error).partition("\n")[0] or type(error).__name__


def _parquet(folder: Path) -> Folder:
    """Files by split, as `load_dataset` finds them."""
    paths = sorted((folder / "data").glob("*.parquet")) or sorted(folder.glob("*.parquet"))
    tables = tuple(
        Table(path, path.relative_to(folder).as_posix(), path.name.partition("-")[0], {}, folder)
        for path in paths
    )
    missing = Problem("file", "There is no Parquet file.")
    return Folder(tables, () if tables else (missing,))


def _llamafactory(folder: Path) -> Folder:
    settings = _settings(folder)
    try:
        info = json.loads((folder / "dataset_info.json").read_text("utf-8"))
        entries = {name: entry for name, entry in info.items() if isinstance(entry, dict)}
    except (OSError, ValueError, AttributeError) as error:
        return Folder((), (Problem("file", f"dataset_info.json: {error}"),), settings)
    tables, problems = [], []
    for name, entry in entries.items():
        file = str(entry.get("file_name") or "")
        if not file or not (folder / file).is_file():
            detail = f"dataset_info.json names '{file}', which is not there."
            problems.append(Problem("file", detail, file, name=name))
        elif entry.get("formatting") != "sharegpt" or "images" not in entry.get("columns", {}):
            detail = "dataset_info.json does not make it sharegpt with a column of images."
            problems.append(Problem("dataset_info", detail, file, name=name))
        else:
            columns = _DEFAULTS | entry["columns"] | entry.get("tags", {})
            split = (folder / file).stem.removesuffix(FORMS[1])
            pictures = folder / settings.media_dir
            tables.append(Table(folder / file, file, split, columns, pictures))
    if not entries:
        problems.append(Problem("dataset_info", "dataset_info.json names no data set."))
    return Folder(tuple(tables), tuple(problems), settings, _digests(folder))


def _settings(folder: Path) -> Settings:
    """Of `settings.yaml`, whose lines are `name: value`."""
    try:
        text = (folder / "settings.yaml").read_text("utf-8")
    except OSError:
        return Settings()
    told = dict(re.findall(r"^(\w+):[ \t]*(\S+)", text, re.MULTILINE))
    plain = Settings()

    def number(name: str, otherwise: int) -> int:
        return int(told[name]) if told.get(name, "").isdigit() else otherwise

    return Settings(
        image_max_pixels=number("image_max_pixels", plain.image_max_pixels),
        image_min_pixels=number("image_min_pixels", plain.image_min_pixels),
        cutoff_len=number("cutoff_len", plain.cutoff_len),
        template=told.get("template", plain.template),
        media_dir=told.get("media_dir", plain.media_dir),
        there=True,
    )


def _digests(folder: Path) -> Digests:
    """Of `images.sha256`, where the folder has one."""
    names, values = array("Q"), array("Q")
    try:
        with (folder / f"{IMAGES}.sha256").open(encoding="utf-8") as lines:
            for line in lines:
                sha256, _, name = line.rstrip("\n").partition("  ")
                names.append(_short(name.removeprefix(f"{IMAGES}/").encode()))
                values.append(int(sha256[:16], 16))
    except (OSError, ValueError):
        return Digests()
    keys = np.frombuffer(names, np.uint64) if names else np.empty(0, np.uint64)
    order = np.argsort(keys)
    return Digests(keys[order], np.array(values, np.uint64)[order])


def parquet_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """(number, row) of a Parquet file; raises `OSError` or `pa.ArrowException`."""
    number = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            for row in batch.to_pylist():
                yield number, row
                number += 1


def json_rows(path: Path) -> Iterator[tuple[int, Row | str]]:
    """(number, row) of a JSON list or of JSON lines, or what is wrong with the row's text.

    After text that is no JSON it goes on with the next line. Raises `OSError` and `UnicodeError`.
    """
    decoder, held, place, number, more = json.JSONDecoder(), "", 0, 0, True
    with path.open(encoding="utf-8") as file:
        while True:
            place = _start(held, place)
            try:
                if place == len(held):
                    raise json.JSONDecodeError("Nothing", held, place)
                row, place = decoder.raw_decode(held, place)
                said: Row | str = row if isinstance(row, dict) else f"{str(row)[:40]} is no row"
            except (json.JSONDecodeError, RecursionError) as error:
                if more and _cut_off(error, held) and len(held) - place < LONGEST_ROW:
                    chunk = file.read(CHUNK)
                    held, place, more = held[place:] + chunk, 0, bool(chunk)
                    continue
                if place == len(held):
                    return
                said = str(error)
                place = (held.find("\n", place) + 1) or len(held)
            yield number, said
            number += 1


def _start(held: str, place: int) -> int:
    """Where the next row begins: behind commas, brackets of the list, and white space."""
    while place < len(held) and held[place] in "[], \t\r\n":
        place += 1
    return place


def _cut_off(error: Exception, held: str) -> bool:
    """Whether the text may only have ended too early."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    return error.msg.startswith("Unterminated") or error.pos >= len(held) - _NEAR_END


def _short(data: bytes) -> int:
    """The first 64 bits of what is hashed."""
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")


BROKEN = (OSError, ValueError, pa.ArrowException)
"""What reading a damaged file raises."""
