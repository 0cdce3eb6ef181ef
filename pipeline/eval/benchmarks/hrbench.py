"""HR-Bench: 200 questions about pictures of 4K or 8K, each asked with its options in four orders.

A TSV or Parquet file as its authors publish it: `index, question, A, B, C, D, answer, category,
cycle_category, image`. The official total is the mean over the four orders.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from pipeline.errors import ConfigError
from pipeline.eval.benchmark import CLOSING, Benchmark, Row, benchmark, part_of, with_options
from pipeline.eval.benchmarks.choices import asked_in
from pipeline.eval.benchmarks.hub import located
from pipeline.eval.benchmarks.opening import one_of
from pipeline.eval.benchmarks.tables import read_cell, table_files
from pipeline.eval.scorers import match_option

NAME = "hrbench"
SIZES = ("4k", "8k")


def read(
    source: str | None = None, *, seed: int = 0, limit: int | None = None, size: str = "4k"
) -> Benchmark:
    """HR-Bench at `size`; of a part, all orders of a question are kept.

    Raises `ConfigError` where it is not there or a row cannot be read.
    """
    name = f"{NAME}-{one_of('size', size, SIZES)}"
    place = located(name, source)
    patterns = (f"*{size}.parquet", f"*{size}.tsv", f"*{size}*.parquet", f"data/*{size}*.parquet")
    asked = asked_in(table_files(place, *patterns))
    cycles = {one.item.item_id: str(one.values.get("cycle_category") or "") for one in asked}
    cells = {one.item.image_id: one.cell for one in asked}
    items = part_of([one.item for one in asked], limit, seed)
    return benchmark(
        name,
        items,
        picture=lambda item: read_cell(cells[item.image_id]),
        ask=with_options,
        score=lambda item, said: match_option(said, item.options, item.label),
        protocol={
            **place.told,
            "option_order": "as published",
            "extractor": "rule",
            "closing": CLOSING,
        },
        sizes={key: cell.size for key, cell in cells.items()},
        official=lambda rows: hrbench_scores(rows, cycles),
    )


def hrbench_scores(rows: Sequence[Row], cycles: Mapping[str, str]) -> dict[str, float]:
    """Accuracy in percent by category and over all, meaned over the orders of options.

    `cycles` gives the order of each question by key. Unscored rows are left out and counted.
    """
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    unscored = 0
    for row in rows:
        if row["value"] is None:
            unscored += 1
            continue
        for category in (str(row["category"]), "overall"):
            values[category, cycles.get(row["item_id"], "")].append(float(row["value"]))
    if not values:
        raise ConfigError("There is no answer to score.")
    means: dict[str, list[float]] = defaultdict(list)
    told: dict[str, float] = {}
    for (category, cycle), scores in sorted(values.items()):
        mean = 100 * sum(scores) / len(scores)
        means[category].append(mean)
        told[f"{category}.cycle {cycle}"] = mean
    told |= {category: sum(each) / len(each) for category, each in means.items()}
    return told | {"unscored": float(unscored)}
