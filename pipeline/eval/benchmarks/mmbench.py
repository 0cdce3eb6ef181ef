"""MMBench: questions with two to four options, as its TSV has them, and the circular count.

In the circular count a question is right only if it is right with its options in every order. The
rows of those orders are in the TSV or made here. A sheet with predictions can be written for the
authors' server; it takes .xlsx, which is left to whoever has a library for it.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.eval.benchmark import (
    CLOSING,
    Benchmark,
    Item,
    benchmark,
    letter,
    part_of,
    with_options,
)
from pipeline.eval.benchmarks.choices import asked_in, options_of
from pipeline.eval.benchmarks.hub import located
from pipeline.eval.benchmarks.tables import read_cell, table_files, table_rows, text_of
from pipeline.eval.scorers import answer_in, match_option, read_option
from pipeline.samples import Score

NAME = "mmbench"
TURN = 1_000_000
"""Rows whose indices are the same modulo this are one question in several orders."""
LEFT_OUT = ("hint", "category", "source", "image", "comment", "l2-category")
"""Columns that a sheet of predictions does not have."""
PREDICTION_AT = 6

_CAPITAL = re.compile(r"\b[A-Z]\b")


def read(
    source: str | None = None,
    *,
    seed: int = 0,
    limit: int | None = None,
    circular: bool = False,
) -> Benchmark:
    """MMBench; of a part, all orders of a question are kept.

    `circular` makes the other orders where the file has one of each. Raises `ConfigError` where it
    is not there or a row cannot be read.
    """
    place = located(NAME, source)
    asked = asked_in(table_files(place, "*.tsv", "*.parquet", "data/dev-*.parquet"))
    cells = {one.item.image_id: one.cell for one in asked}
    items = [one.item for one in asked]
    made = circular and len({_question(item.item_id) for item in items}) == len(items)
    if made:
        items = [turned for item in items for turned in _turned(item)]
    items = part_of(items, limit, seed, group=lambda item: str(_question(item.item_id)))
    labels = {item.item_id: item.label for item in items}
    return benchmark(
        NAME,
        items,
        picture=lambda item: read_cell(cells[item.image_id]),
        ask=lambda item: with_options(item, mark="{}."),
        score=_score,
        protocol={
            **place.told,
            "option_order": "rotated here" if made else "as published",
            "extractor": "rule",
            "closing": CLOSING,
        },
        sizes={key: cell.size for key, cell in cells.items()},
        official=lambda rows: mmbench_scores(
            [{**row, "label": labels[row["item_id"]]} for row in rows]
        ),
    )


def mmbench_scores(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The circular count from rows {item_id, label, said}: the right letter and what was said.

    An answer is the first capital letter that stands alone. `single` is the share of questions
    right in their first row, `circular` in all of them, in percent; `rows` the share of rows. A
    question with an unscored row (`said` None) or without a published answer is left out, and
    counted in `unscored`.
    """
    groups: dict[int, list[bool]] = defaultdict(list)
    gone: set[int] = set()
    matched = 0
    for row in rows:
        question = _question(row["item_id"])
        if row["said"] is None or not row["label"]:
            gone.add(question)
            continue
        found = _CAPITAL.search(answer_in(str(row["said"])))
        matched += found is not None
        groups[question].append(found is not None and found[0] == row["label"])
    counted = [right for question, right in groups.items() if question not in gone]
    told = {"questions": float(len(counted)), "unscored": float(len(gone)), "matched": matched}
    if counted:
        every = [right for group in counted for right in group]
        told["single"] = 100 * sum(group[0] for group in counted) / len(counted)
        told["circular"] = 100 * sum(map(all, counted)) / len(counted)
        told["rows"] = 100 * sum(every) / len(every)
    return {name: float(value) for name, value in told.items()}


def write_submission(path: Path, table: Path, said: Mapping[str, str]) -> int:
    """Write the sheet of predictions, tabs between columns (commas where `path` ends in `.csv`).

    `table` is the benchmark's own file, `said` what was answered by index; a prediction is the
    letter where an option is named, else the answer itself, and empty where there is none. Returns
    the number of rows.
    """
    rows = [row.values for row in table_rows(table)]
    if not rows:
        raise ConfigError(f"There is no row in '{table.name}'.")
    columns = [name for name in rows[0] if name not in LEFT_OUT]
    columns.insert(min(PREDICTION_AT, len(columns)), "prediction")
    with path.open("w", encoding="utf-8", newline="") as file:
        sheet = csv.writer(file, delimiter="," if path.suffix == ".csv" else "\t")
        sheet.writerow(columns)
        for values in rows:
            predicted = _predicted(values, said.get(text_of(values.get("index")), ""))
            told = {**values, "prediction": predicted}
            sheet.writerow(["" if told[name] is None else told[name] for name in columns])
    return len(rows)


def _score(item: Item, said: str) -> Score:
    if not item.label:
        return Score("", "option", None, "no answer is published")
    return match_option(said, item.options, item.label)


def _predicted(values: Mapping[str, Any], said: str) -> str:
    answer = answer_in(said)
    place = read_option(answer, options_of(values)) if answer else None
    return answer if place is None else letter(place)


def _question(index: str) -> int:
    if not index.isdecimal():
        raise ConfigError(f"MMBench has the index '{index}', which is no number.")
    return int(index) % TURN


def _turned(item: Item) -> list[Item]:
    """The question with its options in every order that turns them."""
    index, options = int(item.item_id), item.options
    return [
        replace(item, item_id=str(index + n * TURN), options=options[n:] + options[:n])
        for n in range(len(options))
    ]
