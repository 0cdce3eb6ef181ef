"""Questions with options in the columns A, B, C, … of a table, as several benchmarks write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.eval.benchmark import Item, letter
from pipeline.eval.benchmarks.tables import Cell, TableRow, table_rows, text_of

_MOST = 26


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of a table, its picture's place, and the row it comes from."""

    item: Item
    cell: Cell
    values: Mapping[str, Any]


def asked_in(paths: Sequence[Path]) -> list[Asked]:
    """The questions of the files in order; a hint stands before its question.

    Rows without a picture of their own share that of the row they name. Raises `ConfigError` naming
    the row that cannot be read.
    """
    rows = [(path, row) for path in paths for row in table_rows(path)]
    cells = {text_of(row.values.get("index")): row.cell for _, row in rows if row.cell is not None}
    return [_asked(path, row, cells) for path, row in rows]


def options_of(values: Mapping[str, Any], answer: str = "") -> tuple[str, ...]:
    """The options of the columns A, B, …, up to the first that is empty.

    Words that tables write for nothing ("None", "nan") are an option where the right one is one of
    them or comes after them.
    """
    options: list[str] = []
    for name in map(letter, range(_MOST)):
        text = text_of(values.get(name))
        if not text and len(answer) == 1 and name <= answer:
            text = str(values.get(name) or "").strip()
        if not text:
            break
        options.append(text)
    return tuple(options)


def _asked(path: Path, row: TableRow, cells: Mapping[str, Cell]) -> Asked:
    values = row.values
    index, question = text_of(values.get("index")), text_of(values.get("question"))
    answer = text_of(values.get("answer"))
    options = options_of(values, answer)
    cell = row.cell or cells.get(text_of(row.refers))
    where = f"Row '{index}' of '{path.name}'"
    if not index or not question or not options:
        raise ConfigError(f"{where} has no index, no question, or no options.")
    if cell is None:
        raise ConfigError(f"{where} has no picture, and no row '{row.refers}' has one.")
    if answer and not ("A" <= answer <= letter(len(options) - 1) and len(answer) == 1):
        raise ConfigError(f"{where} has the answer {answer!r} to {len(options)} options.")
    right = options[ord(answer) - ord("A")] if answer else ""
    hint = text_of(values.get("hint"))
    text = f"{hint}\n{question}" if hint else question
    category = text_of(values.get("category"))
    return Asked(Item(index, cell.key, text, right, options, category), cell, values)
