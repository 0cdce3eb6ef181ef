"""What an evaluation came to: its rows, and the totals that a benchmark itself defines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manifests.database import query
from pipeline.errors import ConfigError
from pipeline.eval.benchmark import Benchmark, Item
from pipeline.eval.benchmarks import mme
from pipeline.eval.compare import Cell, Paired, against, table
from pipeline.eval.disagreements import Disagreement, disagreements
from pipeline.eval.saving import Saving, savings
from pipeline.eval.tried import gathered

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Compared:
    """Everything that some runs say of a benchmark."""

    cells: list[Cell]
    pairs: list[Paired]
    """Each method against `direct` at the same budget."""
    savings: list[Saving]
    disagreements: list[Disagreement]
    totals: list[dict[str, Any]]
    """The benchmark's own."""


def compared(benchmark: Benchmark, rows: Sequence[Row], seed: int) -> Compared:
    """The rows of one run or several side by side; raises `ConfigError` as `compare.gathered`."""
    return Compared(
        table(rows, seed=seed),
        against(rows, seed=seed),
        savings(rows, seed=seed, chance=chance(benchmark.items)),
        disagreements(rows),
        totals(benchmark, rows),
    )


def rows_of(runs_dir: Path, run_ids: Iterable[str]) -> list[Row]:
    """Every row of `scores` of some runs."""
    found: list[Row] = []
    for run_id in run_ids:
        found += query(runs_dir, "select * from scores order by all", run_id).to_pylist()
    return found


def beside(benchmark: Benchmark, rows: Iterable[Row]) -> list[Row]:
    """The rows of other runs that are about this benchmark's questions.

    Raises `ConfigError` where a question has another answer there: then it is another question.
    """
    answers = {item.item_id: item.answer for item in benchmark.items}
    shared = [row for row in rows if row["item_id"] in answers]
    for row in shared:
        if row["target"] != answers[row["item_id"]]:
            raise ConfigError(
                f"{row['run_id']} asked something else as {row['item_id']}.",
                "Compare runs of the same benchmark with the same options and seed.",
            )
    return shared


def chance(items: Sequence[Item]) -> float:
    """Share of the questions that guessing among their options gets right."""
    return sum(map(_guessed, items)) / len(items)


def _guessed(item: Item) -> float:
    if item.options:
        return 1 / len(item.options)
    return 0.5 if item.answer.lower() in ("yes", "no") else 0.0


def totals(benchmark: Benchmark, rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The benchmark's own totals of each way of looking, from the first try at each question.

    None of a way that has not come to every question yet: a part of the pairs is no total.
    """
    if benchmark.official is None:
        return []
    told = []
    for key, tries in gathered(rows).items():
        if len(tries) < len(benchmark.items):
            continue
        first = [official_row(tried.rows[0]) for tried in tries.values()]
        told.append({**key._asdict(), **benchmark.official(first)})
    return told


def write_results(benchmark: Benchmark, rows: Iterable[Row], folder: Path) -> int:
    """Write the answers as the authors' script reads them, a folder for each way of looking.

    From the first try at each question; returns how many could not be written. Raises `ConfigError`
    for a benchmark without a layout of its own.
    """
    if benchmark.name != mme.NAME:
        raise ConfigError(f"'{benchmark.name}' has no results folder of its own.", "Only mme has.")
    left_out = 0
    for key, tries in gathered(rows).items():
        first = [official_row(tried.rows[0]) for tried in tries.values()]
        place = folder / f"{key.method}-{key.resolution}"
        left_out += mme.write_results(place, benchmark, first)
    return left_out


def official_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A score as a benchmark's own totals take it; what could not be asked has said nothing."""
    asked = row["value"] is not None or row["finish"] != "unfinished"
    return {
        "item_id": row["item_id"],
        "category": row["category"],
        "image_id": row["image_id"],
        "answer": row["target"],
        "said": row["answer"] if asked else None,
        "value": row["value"],
    }


def pictures_of(benchmark: Benchmark, item_ids: Sequence[str]) -> dict[str, bytes]:
    """Encoded pictures by question, of those that open."""
    from pipeline.errors import BadImage

    wanted, found = set(item_ids), {}
    for item in benchmark.items:
        if item.item_id in wanted:
            try:
                found[item.item_id] = benchmark.picture(item)
            except BadImage:
                continue
    return found
