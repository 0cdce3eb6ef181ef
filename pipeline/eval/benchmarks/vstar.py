"""V*Bench in both of its forms on disk: 191 questions about small things in large pictures.

Folders of paired pictures and `.json` files, whose first option is always the right one and is
therefore moved by a keyed shuffle; or `test_questions.jsonl`, whose order is kept, with the boxes
of the paired `.json` where that lies there too. A question has the same key in both.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import BadImage, ConfigError
from pipeline.eval.benchmark import (
    CLOSING,
    Benchmark,
    Item,
    benchmark,
    letter,
    part_of,
    with_options,
)
from pipeline.eval.benchmarks.hub import Located, located
from pipeline.eval.benchmarks.tables import bad_line, json_lines
from pipeline.eval.scorers import match_option
from pipeline.geometry import Box
from pipeline.samples import Score, rng_for
from pipeline.sources.annotations import boxes_from, parse_json
from pipeline.sources.files import is_image_name

NAME = "vstar"
QUESTIONS = "test_questions.jsonl"
CATEGORIES = ("direct_attributes", "relative_position")
"""The folders that the 191 questions are in; the repository has others beside them."""

_OPTION = re.compile(r"\(([A-Z])\)[ \t]*([^\n]*?)[ \t]*(?=\n|\([A-Z]\)|$)")


def read(
    source: str | None = None,
    *,
    seed: int = 0,
    limit: int | None = None,
    published: bool = False,
) -> Benchmark:
    """V*Bench; with `published`, answers are read by the rules of the Chain-of-Focus scorer alone.

    Raises `ConfigError` for a folder that is not V*Bench and for a question that cannot be read.
    """
    place = located(NAME, source)
    folder = place.folder
    lettered = (folder / QUESTIONS).is_file()
    items = list(_from_lines(place) if lettered else _from_pairs(place, seed))
    if not items:
        raise place.lacks("question of V*Bench")
    items = part_of(items, limit, seed)

    def score(item: Item, said: str) -> Score:
        return match_option(said, item.options, item.label, published=published)

    return benchmark(
        NAME,
        items,
        picture=lambda item: place.read(folder / item.image_id),
        ask=with_options,
        score=score,
        protocol={
            **place.told,
            "form": "lettered" if lettered else "pairs",
            "option_order": "as published" if lettered else f"shuffled by seed {seed}",
            "extractor": "published" if published else "rule",
            "closing": CLOSING,
        },
        sizes={item.image_id: place.size(folder / item.image_id) for item in items},
    )


def split_options(text: str) -> tuple[str, tuple[str, ...]]:
    """(question, options) of a text with `(A) …` from A on; what follows the last is dropped.

    Raises `ValueError` where the letters are not A, B, C … in order.
    """
    found = list(_OPTION.finditer(text))
    if [match[1] for match in found] != [letter(n) for n in range(len(found))]:
        raise ValueError(f"its options are {', '.join(match[1] for match in found)}")
    question = text[: found[0].start()] if found else text
    return question.strip(), tuple(match[2].strip() for match in found)


def _from_lines(place: Located) -> Iterator[Item]:
    """The questions of `test_questions.jsonl`, boxes from the paired files."""
    path = place.folder / QUESTIONS
    asked: Counter[str] = Counter()
    for number, line in json_lines(path):
        try:
            image, label = str(line["image"]), str(line["label"]).strip("() .")
            question, options = split_options(str(line["text"]))
            right = options[ord(label) - ord("A")] if "A" <= label <= "Z" else None
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise bad_line(path, number, f"{type(error).__name__}: {error}") from error
        if right is None or not question:
            raise bad_line(path, number, f"its label is {label!r}")
        again, asked[image] = asked[image], asked[image] + 1
        category = str(line.get("category") or image.partition("/")[0])
        key = f"{image}#{again}" if again else image
        boxes = _boxes(place, (place.folder / image).with_suffix(".json"))
        yield Item(key, image, question, right, options, category, boxes)


def _from_pairs(place: Located, seed: int) -> Iterator[Item]:
    """The questions of paired `.json` files, options in the keyed order."""
    folder = place.folder
    known = [folder / name for name in CATEGORIES if (folder / name).is_dir()]
    for below in known or sorted(path for path in folder.iterdir() if path.is_dir()):
        for path in sorted(below.iterdir()):
            notes = path.with_suffix(".json")
            if is_image_name(path.name) and notes.is_file():
                yield _from_pair(place, path, notes, seed)


def _from_pair(place: Located, path: Path, notes: Path, seed: int) -> Item:
    try:
        record: Any = parse_json(place.read(notes))
        question, options = record["question"], [str(option) for option in record["options"]]
        boxes = boxes_from(record.get("bbox"), xywh=True)
        right = options[0]
    except (BadImage, LookupError, TypeError, AttributeError) as error:
        name = f"{notes.parent.name}/{notes.name}"
        raise ConfigError(f"'{name}' is not a question: {error}.") from error
    key = path.relative_to(place.folder).as_posix()
    order = rng_for(seed, key).permutation(len(options))
    shuffled = tuple(options[place] for place in order)
    return Item(key, key, str(question).strip(), right, shuffled, path.parent.name, boxes)


def _boxes(place: Located, notes: Path) -> tuple[Box, ...]:
    """The boxes of a paired file; none where it is missing or damaged: only controls need them."""
    if not notes.is_file():
        return ()
    try:
        record = parse_json(place.read(notes))
        return boxes_from(record.get("bbox"), xywh=True) if isinstance(record, dict) else ()
    except BadImage:
        return ()
