"""An export without pixels: the run's rows as they are, and for each picture how to have it again.

`rows.parquet` and `pictures.parquet` hold what the folder with pixels follows from. That folder is
written once, so that its digests can be promised, and removed: it takes its room for that long.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.tables import TRAJECTORIES
from pipeline.runner.storage import LocalStorage
from pipeline.synthesis.export_files import LEFT_OUT, MANIFEST, README, sealed, write_files
from pipeline.synthesis.export_rows import COLUMNS, Example, LeftOut, Row, Wanted, left_out
from pipeline.synthesis.pixel_recipes import (
    Origin,
    PixelRecipe,
    drawing_versions,
    origin_of,
    recipe_of,
    versions_of,
)
from pipeline.synthesis.stored import stored_rows

RECIPE_ONLY = "recipe_only"
"""In a manifest's request: there are recipes in the place of pixels."""
RECIPE_COLUMNS = ("source", "license", "kind", "recipe")
"""What a recipe is made of, beside an example's columns."""
ROWS, PICTURES = "rows.parquet", "pictures.parquet"
VIEWS = "view_sha256"
UNTOLD = "?"
"""In the place of an answer, which no turn can be without."""
GROUP_ROWS = 4096

Told = tuple[Row, Example | LeftOut]
"""A row of a run, and what it is told as."""

_WHOLE = "whole"
_TEXT = pa.string()
_ROWS = pa.schema(
    [*(TRAJECTORIES.field(name) for name in COLUMNS), pa.field(VIEWS, pa.list_(_TEXT))]
)
_PICTURES = pa.schema(
    [
        *((name, _TEXT) for name in ("image_id", "image_sha256")),
        ("bytes", pa.int64()),
        *((name, _TEXT) for name in ("source_sha256", "source", "license", "way")),
        *((name, _TEXT) for name in ("drawing", "scene")),
    ]
)


def write_recipes(
    folder: Path,
    run: Mapping[str, Any],
    wanted: Wanted,
    request: Mapping[str, Any],
    told: Iterable[Told],
) -> dict[str, Any]:
    """Fill a folder with rows and recipes; its manifest, which tells what they are restored to."""
    whole = folder / _WHOLE
    whole.mkdir()
    recipes = _Recipes(folder, origin_of(run), wanted)
    full = write_files(whole, request["trainer"], wanted, request, recipes.kept(told))
    restored = {
        "bytes": sum(path.stat().st_size for path in whole.rglob("*") if path.is_file()),
        "files": full["files"],
        "written_with": dict(drawing_versions()),
    }
    (whole / LEFT_OUT).rename(folder / LEFT_OUT)
    shutil.rmtree(whole)
    sources = recipes.close()
    (folder / README).write_text(_readme(request, full["rows"], sources), "utf-8")
    manifest = {
        **{name: full[name] for name in ("request", "rows", "pictures", "left_out")},
        "sources": sources,
        "drawn_with": versions_of(run),
        "restored": restored,
    }
    return sealed(folder, manifest)


def read_recipes(folder: Path) -> Iterator[PixelRecipe]:
    """How to have each picture of a folder without pixels."""
    for row in stored_rows(LocalStorage(folder), PICTURES, GROUP_ROWS):
        yield PixelRecipe(**row)


def read_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of a folder without pixels, with the digests of their views."""
    yield from stored_rows(LocalStorage(folder), ROWS, GROUP_ROWS)


def read_left_out(folder: Path) -> Iterator[LeftOut]:
    """What the export had left out."""
    with (folder / LEFT_OUT).open(encoding="utf-8") as lines:
        for line in lines:
            yield LeftOut(**json.loads(line))


class _Recipes:
    """The two files, filled while the examples pass by on their way to the trainer's writer."""

    def __init__(self, folder: Path, origin: Origin, wanted: Wanted) -> None:
        self._origin, self._wanted = origin, wanted
        self._rows = _Table(folder / ROWS, _ROWS)
        self._pictures = _Table(folder / PICTURES, _PICTURES)
        self._known: set[tuple[str, str]] = set()
        self._sources = Counter[str]()

    def kept(self, told: Iterable[Told]) -> Iterator[Example | LeftOut]:
        """The examples whose pictures can be had again, entered; the others as left out."""
        for row, one in told:
            yield one if isinstance(one, LeftOut) else self._entered(row, one)

    def close(self) -> dict[str, int]:
        """End the files; how many pictures come from each source."""
        self._rows.close()
        self._pictures.close()
        return dict(sorted(self._sources.items()))

    def _entered(self, row: Row, example: Example) -> Example | LeftOut:
        key = (row["image_id"], row["image_sha256"])
        if key not in self._known:
            recipe = recipe_of(row, self._origin)
            if recipe is None:
                return left_out(row, "no_recipe", "the run does not say how its picture was made")
            self._known.add(key)
            self._sources[recipe.source] += 1
            self._pictures.add(asdict(recipe))
        told = {name: row[name] for name in COLUMNS}
        if self._wanted.kind == "rl":  # as with pixels: a prompt, not the path
            told |= {"steps": [], "final_thought": "", "answer": UNTOLD}
        self._rows.add({**told, VIEWS: list(example.view_sha256)})
        return example


class _Table:
    """A Parquet file that is written a row group at a time."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._held: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        self._held.append(row)
        if len(self._held) >= GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._held:
            self._writer.write_table(pa.Table.from_pylist(self._held, self._schema))
            self._held = []


def _readme(request: Mapping[str, Any], rows: Mapping[str, int], sources: Any) -> str:
    counts = ", ".join(f"{count} in {split}" for split, count in rows.items())
    needed = "\n".join(f"- {name or 'unnamed'}: {count}" for name, count in sources.items())
    return f"""\
---
configs:
- config_name: rows
  data_files: {ROWS}
- config_name: pictures
  data_files: {PICTURES}
---
# {request["run_id"]} for {request["trainer"]} ({request["kind"]}, {request["profile"]}), no pixels

Rows: {counts}. `{ROWS}` has questions, boxes and answers, `{PICTURES}` the digest of every picture
and of the source it was made from. With a copy of the sources the data set comes back bit for bit:

    cofpipe rehydrate DIR --source FOLDER_OR_TARS --out DATA

Pictures by source:
{needed}

What was left out and why: `{LEFT_OUT}`; digests, of what is restored too: `{MANIFEST}`.
"""
