"""`vstar:DIR`: V*Bench in either of its forms on disk.

Folders of paired pictures and `.json` files, whose first option is always the right one and is
therefore moved by a keyed shuffle; or `test_questions.jsonl`, whose order is kept, with the boxes
of the paired `.json` where that lies there too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import BadImage, ConfigError, SourceError
from pipeline.geometry import Box
from pipeline.samples import rng_for
from pipeline.sources.annotations import bad_annotation, boxes_from, parse_json
from pipeline.sources.base import Asked, Entry, Picture
from pipeline.sources.files import check_unchanged, entry_for, is_image_name, read_below
from pipeline.sources.names import is_harmless, key_of, member_key, path_of

QUESTIONS = "test_questions.jsonl"
_OPTION = re.compile(r"\(([A-Z])\)[ \t]*([^\n]+)")
_MAX_TEXT = 64 * 2**20


class VstarSource:
    """The pictures of V*Bench with their questions; a key is the path below the folder."""

    def __init__(self, root: Path, seed: int = 0) -> None:
        self.root, self.seed = root, seed
        self.name = "vstar"
        self.skipped: Counter[str] = Counter()
        self._lines = _read_lines(root) if (root / QUESTIONS).is_file() else None
        if self._lines is None and not any(_pairs(root)):
            fix = f"It holds '{QUESTIONS}', or folders of paired .jpg and .json files."
            raise ConfigError(f"'{root}' is not V*Bench.", fix)

    def entries(self) -> Iterator[Entry]:
        """One entry for each picture with a question."""
        keys = _pairs(self.root) if self._lines is None else self._lines
        for key in sorted(keys):
            yield entry_for(self.root, key)

    def pictures(self, entry: Entry) -> Iterator[Picture]:
        """The one picture of a file, with its questions."""
        image_id = member_key(path_of(entry.key))
        try:
            if not is_harmless(entry.key):
                raise BadImage("outside_source", entry.key)
            check_unchanged(self.root, entry)
            asked = self._asked(entry.key)
            data = read_below(self.root, entry.key)
        except BadImage as error:
            yield Picture(image_id, source=self.name, error=error)
        else:
            yield Picture(image_id, data=data, source=self.name, asked=asked)

    def _asked(self, key: str) -> tuple[Asked, ...]:
        """The questions about a picture."""
        notes = key.rpartition(".")[0] + ".json"
        if self._lines is None:
            return (_from_pair(self._pair(notes), key, self.seed),)
        boxes: tuple[Box, ...] = ()
        if (self.root / path_of(notes)).is_file():
            boxes = boxes_from(self._pair(notes).get("bbox"), xywh=True)
        return tuple(_from_line(line, boxes) for line in self._lines.get(key, []))

    def _pair(self, key: str) -> dict[str, Any]:
        """The JSON object beside a picture."""
        record = parse_json(read_below(self.root, key, _MAX_TEXT))
        if not isinstance(record, dict):
            raise bad_annotation(f"{key} holds no object")
        return record


def _pairs(root: Path) -> Iterator[str]:
    """Keys of the pictures one folder down that have a `.json` of their name beside them."""
    for path in root.glob("*/*"):
        if is_image_name(path.name) and path.with_suffix(".json").is_file():
            yield key_of(path.relative_to(root).as_posix())


def _from_pair(record: dict[str, Any], key: str, seed: int) -> Asked:
    """The question of a paired `.json`, options in the keyed order."""
    question, options = record.get("question"), record.get("options")
    if not isinstance(question, str) or not isinstance(options, list) or not options:
        raise bad_annotation("no question or no options")
    order = rng_for(seed, key, "options").permutation(len(options))
    shuffled = tuple(str(options[place]) for place in order)
    boxes = boxes_from(record.get("bbox"), xywh=True)
    return Asked(question, str(options[0]), shuffled, boxes, key.partition("/")[0])


def _from_line(line: dict[str, Any], boxes: tuple[Box, ...]) -> Asked:
    """The question of one line: text, `(A) …` lines, an instruction, and a letter."""
    text, label = line.get("text"), line.get("label")
    if not isinstance(text, str) or not isinstance(label, str):
        raise bad_annotation("no text or no label")
    found = _OPTION.findall(text)
    answers = dict(found)
    letter = label.strip("() .")
    if letter not in answers:
        raise bad_annotation(f"no option is labelled {label!r}")
    first = _OPTION.search(text)
    question = text[: first.start()].strip() if first else text.strip()
    options = tuple(option.strip() for _, option in found)
    return Asked(question, answers[letter].strip(), options, boxes, str(line.get("category", "")))


def _read_lines(root: Path) -> dict[str, list[dict[str, Any]]]:
    """The lines of `test_questions.jsonl` by picture, in file order."""
    lines: dict[str, list[dict[str, Any]]] = {}
    number = 0
    try:
        for text in (root / QUESTIONS).read_bytes().splitlines():
            number += 1
            if text.strip():
                record = parse_json(text)
                lines.setdefault(key_of(record["image"]), []).append(record)
    except (BadImage, OSError, ValueError, TypeError, KeyError) as error:
        raise SourceError(f"Line {number} of '{QUESTIONS}' is not a question: {error}") from error
    return lines
