"""MME: for each picture one question whose answer is yes and one whose answer is no, in 14 tasks.

A folder as its authors give it (for each task pictures and `.txt` files, together or in `images/`
and `questions_answers_YN/`), or the Parquet copy on the Hub. Answers can be written as, and read
from, the folder of results that the authors' own script scores.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.eval.benchmark import Benchmark, Item, Row, benchmark, part_of
from pipeline.eval.benchmarks.hub import Located, located
from pipeline.eval.benchmarks.opening import one_of
from pipeline.eval.benchmarks.tables import Cell, picture_at, size_at, table_files, table_rows
from pipeline.eval.scorers import (
    COGNITION,
    PERCEPTION,
    answer_in,
    mme_label,
    mme_scores,
    strict_label,
)
from pipeline.samples import Score
from pipeline.sources.files import is_image_name

NAME = "mme"
RELEASE = "MME_Benchmark_release_version"
LABELS = {"official": mme_label, "strict": strict_label}
PROMPTS = ("official", "llava")
SINGLE_WORD = "Answer the question using a single word or phrase."

_TASKS = PERCEPTION + COGNITION
_CLOSING = re.compile(r"\s*Please answer yes or no\.\s*$")
_BREAKS = re.compile(r"[\t\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class _Found:
    """A question, its line as it is written, and where its picture lies."""

    item: Item
    line: str
    picture: Path | Cell | None


def read(
    source: str | None = None,
    *,
    seed: int = 0,
    limit: int | None = None,
    prompt: str = "official",
    labels: str = "official",
) -> Benchmark:
    """MME; of a part, both questions of a picture are kept.

    `prompt`: "official" puts the line as it is written, "llava" asks for a single word instead;
    `labels`: how an answer is read for the rows, "official" or "strict" (`official` totals are
    always read the official way). Raises `ConfigError` for questions that cannot be read.
    """
    one_of("prompt", prompt, PROMPTS)
    label = LABELS[one_of("labels", labels, tuple(LABELS))]
    place = located(NAME, source)
    found = list(_in_folder(place) if _has_tasks(place.path) else _in_tables(place))
    lines = {one.item.item_id: one.line for one in found}
    pictures = {one.item.image_id: one.picture for one in found}
    items = part_of([one.item for one in found], limit, seed)
    mme_scores([row_of(item, "") for item in items])  # pairs that are none are told at once

    def ask(item: Item) -> str:
        return f"{item.question}\n{SINGLE_WORD}" if prompt == "llava" else lines[item.item_id]

    def score(item: Item, said: str) -> Score:
        read_as = label(_bare(said))
        return Score("", f"yes-no-{labels}", float(read_as == item.answer), f"read as {read_as}")

    return benchmark(
        NAME,
        items,
        picture=lambda item: picture_at(place, pictures[item.image_id], item.image_id),
        ask=ask,
        score=score,
        protocol={**place.told, "prompt": prompt, "extractor": labels},
        sizes={key: size_at(place, at) for key, at in pictures.items()},
        official=lambda rows: mme_scores([_read_out(row) for row in rows]),
    )


def row_of(item: Item, said: str | None) -> dict[str, Any]:
    """A row for `mme_scores` and `write_results`."""
    return {
        "item_id": item.item_id,
        "category": item.category,
        "image_id": item.image_id,
        "answer": item.answer,
        "said": said,
        "value": None,
    }


def write_results(folder: Path, asked: Benchmark, rows: Sequence[Row]) -> int:
    """Write `<task>.txt` as the authors' script reads it, one line for each answer.

    A line is picture, question, right answer and response between tabs; tabs and breaks within
    become spaces. Both lines of a picture stand together. A picture with an unscored question is
    left out, as the script knows no such thing. Returns the number of questions left out.
    """
    mme_scores(rows)
    order = {item.item_id: (number, item) for number, item in enumerate(asked.items)}
    gone = {row["image_id"] for row in rows if row["said"] is None}
    kept = [row for row in rows if row["image_id"] not in gone]
    folder.mkdir(parents=True, exist_ok=True)
    lines: dict[str, list[str]] = {}
    first = {item.image_id: number for number, item in reversed(list(order.values()))}
    for row in sorted(kept, key=lambda r: (first[r["image_id"]], order[r["item_id"]][0])):
        item = order[row["item_id"]][1]
        name, gold = item.image_id.partition("/")[2], item.answer.capitalize()
        fields = (name, asked.ask(item), gold, _bare(str(row["said"])))
        line = "\t".join(_BREAKS.sub(" ", field) for field in fields)
        lines.setdefault(item.category, []).append(line + "\n")
    for task, written in lines.items():
        (folder / f"{task}.txt").write_text("".join(written), encoding="utf-8", newline="\n")
    return len(rows) - len(kept)


def read_results(folder: Path) -> list[dict[str, Any]]:
    """Rows for `mme_scores` from a folder of results; raises `ConfigError` naming the line.

    Questions are paired by the picture's name, whatever the order of the lines.
    """
    rows = []
    for task in _TASKS:
        path = folder / f"{task}.txt"
        if not path.is_file():
            continue
        for number, line in enumerate(_lines(path), 1):
            fields = line.split("\t")
            if len(fields) != 4:
                raise _bad_line(path, number, f"it has {len(fields)} fields instead of 4")
            image, _, gold, said = fields
            item = Item(f"{task}/{image}#{number}", f"{task}/{image}", "", gold.lower(), (), task)
            rows.append(row_of(item, said))
    if not rows:
        raise ConfigError(f"'{folder.name}' holds no results of MME.", "It is to hold <task>.txt.")
    return rows


def _read_out(row: Row) -> Mapping[str, Any]:
    """The row with the answer taken out of its tags, where it has any."""
    return row if row["said"] is None else {**row, "said": _bare(str(row["said"]))}


def _bare(said: str) -> str:
    """What the label is read from: leading spaces count, unless there are thoughts or tags."""
    inside = answer_in(said)
    return said if inside == said.strip() else inside


def _has_tasks(path: Path) -> bool:
    return any((root / task).is_dir() for root in (path, path / RELEASE) for task in _TASKS)


def _in_folder(place: Located) -> Iterator[_Found]:
    root = place.path / RELEASE if (place.path / RELEASE).is_dir() else place.path
    for task in _TASKS:
        folder = root / task
        if not folder.is_dir():
            continue
        notes, images = folder / "questions_answers_YN", folder / "images"
        pictures = {
            path.stem: path
            for path in sorted((images if images.is_dir() else folder).iterdir())
            if is_image_name(path.name)
        }
        for path in sorted((notes if notes.is_dir() else folder).glob("*.txt")):
            yield from _in_notes(task, path, pictures.get(path.stem))


def _in_notes(task: str, path: Path, picture: Path | None) -> Iterator[_Found]:
    """The questions of one `.txt`; a picture that is missing is found out when it is asked for."""
    image = f"{task}/{picture.name if picture else path.stem}"
    lines = [(n, line) for n, line in enumerate(_lines(path), 1) if line.strip()]
    for place, (number, line) in enumerate(lines):
        text, tab, gold = line.rpartition("\t")
        if not tab or gold.strip().lower() not in ("yes", "no"):
            raise _bad_line(path, number, "a question, a tab, and Yes or No are wanted")
        yield _found(task, image, f"{image}#{place}", text, gold, picture)


def _in_tables(place: Located) -> Iterator[_Found]:
    """The questions of the Parquet copy: `question_id, question, answer, category, image`."""
    asked: dict[str, int] = {}
    for path in table_files(place, "*.parquet", "data/test-*.parquet"):
        for number, row in enumerate(table_rows(path), 1):
            values = row.values
            try:
                task, image = str(values["category"]), str(values["question_id"])
                text, gold = str(values["question"]), str(values["answer"])
            except KeyError as error:
                raise _bad_line(path, number, f"there is no column {error}") from error
            asked[image] = asked.get(image, -1) + 1
            key = image if image.startswith(f"{task}/") else f"{task}/{image}"
            yield _found(task, key, f"{key}#{asked[image]}", text, gold, row.cell)


def _found(
    task: str, image: str, key: str, text: str, gold: str, picture: Path | Cell | None
) -> _Found:
    question = _CLOSING.sub("", text).strip()
    item = Item(key, image, question, gold.strip().lower(), (), task)
    return _Found(item, text, picture)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        kind = type(error).__name__
        raise ConfigError(f"'{path.name}' cannot be read ({kind}).") from error


def _bad_line(path: Path, number: int, why: str) -> ConfigError:
    return ConfigError(f"Line {number} of '{path.parent.name}/{path.name}' cannot be read: {why}.")
