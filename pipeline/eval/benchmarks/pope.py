"""POPE: is there such a thing in the picture? Yes or no, things chosen in three ways.

The authors' files of JSON lines (`question_id, image, text, label`) beside a folder of COCO
pictures, or the Parquet copy on the Hub. The way of choosing is the category.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.eval.benchmark import Benchmark, Item, Row, benchmark, part_of
from pipeline.eval.benchmarks.hub import Located, located
from pipeline.eval.benchmarks.opening import one_of
from pipeline.eval.benchmarks.tables import (
    Cell,
    bad_line,
    json_lines,
    picture_at,
    size_at,
    table_files,
    table_rows,
)
from pipeline.eval.scorers import answer_in, pope_label, strict_label
from pipeline.samples import Score

NAME = "pope"
CATEGORIES = ("random", "popular", "adversarial")
CLOSINGS = {"none": "", "single-word": "Answer the question using a single word or phrase."}
LABELS = {"official": pope_label, "strict": strict_label}
FOLDERS = ("", "images", "val2014")
"""Where pictures are looked for, below the folder."""


@dataclass(frozen=True, slots=True)
class _Found:
    item: Item
    picture: Path | Cell | None


def read(
    source: str | None = None,
    *,
    seed: int = 0,
    limit: int | None = None,
    prompt: str = "none",
    labels: str = "official",
) -> Benchmark:
    """POPE; `prompt` is how a question ends, `labels` how an answer is read.

    Raises `ConfigError` where it is not there or a line cannot be read.
    """
    closing = CLOSINGS[one_of("prompt", prompt, tuple(CLOSINGS))]
    label = LABELS[one_of("labels", labels, tuple(LABELS))]
    place = located(NAME, source)
    found = list(_in_lines(place) or _in_tables(place))
    pictures = {one.item.image_id: one.picture for one in found}
    items = part_of([one.item for one in found], limit, seed, group=lambda item: item.item_id)

    def score(item: Item, said: str) -> Score:
        if not answer_in(said):
            return Score("", f"yes-no-{labels}", 0.0, "no_answer: The answer is empty")
        read_as = label(answer_in(said))
        return Score("", f"yes-no-{labels}", float(read_as == item.answer), f"read as {read_as}")

    return benchmark(
        NAME,
        items,
        picture=lambda item: picture_at(place, pictures[item.image_id], item.image_id),
        ask=lambda item: "\n".join(filter(None, (item.question, closing))),
        score=score,
        protocol={**place.told, "prompt": prompt, "extractor": labels},
        sizes={key: size_at(place, at) for key, at in pictures.items()},
        official=lambda rows: pope_scores(rows, labels),
    )


def pope_scores(rows: Sequence[Row], labels: str = "official") -> dict[str, float]:
    """Accuracy, precision, recall, F1 and the share of "yes", in percent, by category and over all.

    "yes" is the positive answer; anything that is read as neither is a "no". Unscored rows (`said`
    None) are left out and counted.
    """
    read_as = LABELS[labels]
    counts: dict[str, dict[tuple[bool, bool], int]] = defaultdict(lambda: defaultdict(int))
    unscored = 0
    for row in rows:
        if row["said"] is None:
            unscored += 1
            continue
        pair = row["answer"] == "yes", read_as(answer_in(str(row["said"]))) == "yes"
        for name in (str(row["category"]), "overall"):
            counts[name][pair] += 1
    if not counts:
        raise ConfigError("There is no answer to score.")
    told = {
        f"{name}.{what}": 100 * value
        for name, table in counts.items()
        for what, value in _rates(table).items()
    }
    return told | {"unscored": float(unscored)}


def _rates(table: dict[tuple[bool, bool], int]) -> dict[str, float]:
    """Rates of a table by (truth, answer); 0 where nothing is counted."""
    hits, missed = table[True, True], table[True, False]
    false, right = table[False, True], table[False, False]
    total = hits + missed + false + right
    precision = hits / (hits + false) if hits + false else 0.0
    recall = hits / (hits + missed) if hits + missed else 0.0
    both = precision + recall
    return {
        "accuracy": (hits + right) / total,
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / both if both else 0.0,
        "yes_ratio": (hits + false) / total,
    }


def _in_lines(place: Located) -> list[_Found]:
    """The questions of files of JSON lines; none where there is no such file."""
    if place.path.is_file() and place.path.suffix == ".parquet":
        return []
    files = [place.path] if place.path.is_file() else _files(place.path)
    return [found for path in files for found in _in_file(place, path)]


def _files(folder: Path) -> list[Path]:
    named = [p for p in sorted(folder.glob("*.json*")) if any(c in p.name for c in CATEGORIES)]
    return named or sorted(folder.glob("*.jsonl"))


def _in_file(place: Located, path: Path) -> Iterator[_Found]:
    category = next((c for c in CATEGORIES if c in path.name), path.stem)
    for number, line in json_lines(path):
        try:
            image, text = str(line["image"]), str(line["text"]).strip()
            key, answer = str(line["question_id"]), str(line["label"]).strip().lower()
        except KeyError as error:
            raise bad_line(path, number, f"it has no {error}") from error
        if answer not in ("yes", "no") or not text:
            raise bad_line(path, number, f"its label is {answer!r}")
        kind = str(line.get("category") or category)
        item = Item(f"{kind}/{key}", image, text, answer, (), kind)
        places = (place.folder / below / image for below in FOLDERS)
        yield _Found(item, next((p for p in places if p.is_file()), place.folder / image))


def _in_tables(place: Located) -> Iterator[_Found]:
    """The questions of the Parquet copy; a picture is known there by its `image_source`."""
    for path in table_files(place, "*.parquet", "data/test-*.parquet"):
        for number, row in enumerate(table_rows(path), 1):
            values: dict[str, Any] = row.values
            try:
                key, text = str(values["question_id"]), str(values["question"]).strip()
                answer, kind = str(values["answer"]).strip().lower(), str(values["category"])
            except KeyError as error:
                raise bad_line(path, number, f"there is no column {error}") from error
            if answer not in ("yes", "no"):
                raise bad_line(path, number, f"its answer is {answer!r}")
            image = str(values.get("image_source") or (row.cell.key if row.cell else ""))
            yield _Found(Item(f"{kind}/{key}", image, text, answer, (), kind), row.cell)
