"""A benchmark of one's own: `questions.jsonl` beside pictures.

A line is `{"image": "a.jpg", "question": …, "answer": …}`, and as wanted `options` (a list; the
answer is one of them or its letter), `category`, `boxes` (XYXY pixels: where the answer can be
seen) and `id`.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.answers import option_index
from pipeline.errors import BadImage, ConfigError, nearest
from pipeline.eval.benchmark import CLOSING, Benchmark, Item, benchmark, part_of, with_options
from pipeline.eval.benchmarks.hub import at_hand
from pipeline.eval.benchmarks.opening import one_of
from pipeline.eval.benchmarks.tables import bad_line, json_lines
from pipeline.eval.scorers import answer_in, match_option, match_words, strict_label
from pipeline.samples import Score
from pipeline.sources.annotations import boxes_from

NAME = "folder"
QUESTIONS = "questions.jsonl"
HOLDS = f"{QUESTIONS} with image, question and answer in each line, beside the pictures"
KEYS = ("image", "question", "answer", "options", "category", "boxes", "id")
WORDS = "Answer the question using a single word or phrase."
YES_NO = "Please answer yes or no."
UNMATCHED = ("wrong", "judge")


def read(
    source: str | None = None,
    *,
    seed: int = 0,
    limit: int | None = None,
    unmatched: str = "wrong",
) -> Benchmark:
    """The questions of a folder, or of a file of JSON lines in one.

    `unmatched`: an answer in words that is not the right one to the letter is "wrong", or left to
    a "judge"; among options, one that names none of them always is. Raises `ConfigError` naming the
    line that cannot be read.
    """
    one_of("unmatched", unmatched, UNMATCHED)
    if source is None:
        raise ConfigError("A benchmark of one's own needs its folder.", f"It holds {HOLDS}.")
    place = at_hand(source, HOLDS)
    path = place.path if place.path.is_file() else place.path / QUESTIONS
    if not path.is_file():
        raise place.lacks(QUESTIONS)
    asked: Counter[str] = Counter()
    items = part_of([_item(path, *line, asked) for line in json_lines(path)], limit, seed)

    return benchmark(
        NAME,
        items,
        picture=lambda item: place.read(place.folder / item.image_id),
        ask=_ask,
        score=partial(_score, unmatched=unmatched),
        protocol={
            **place.told,
            "option_order": "as given",
            "extractor": "rule",
            "unmatched": unmatched,
            "closing": " | ".join((CLOSING, YES_NO, WORDS)),
        },
        sizes={item.image_id: place.size(place.folder / item.image_id) for item in items},
    )


def _ask(item: Item) -> str:
    closing = CLOSING if item.options else YES_NO if item.answer in ("yes", "no") else WORDS
    return with_options(item, "" if item.question.endswith(closing) else closing)


def _score(item: Item, said: str, unmatched: str) -> Score:
    """By rule; what a rule can only call different is left to the judge where one is wanted."""
    told = _by_rule(item, said)
    different = not item.options and told.value == 0.0 and answer_in(said)
    if different and unmatched == "judge":
        return Score("", told.scorer, None, told.explanation)
    return told


def _by_rule(item: Item, said: str) -> Score:
    if item.options:
        return match_option(said, item.options, item.label)
    if item.answer not in ("yes", "no") or not answer_in(said):
        return match_words(said, item.answer)
    read_as = strict_label(answer_in(said))
    return Score("", "yes-no-strict", float(read_as == item.answer), f"read as {read_as}")


def _item(path: Path, number: int, line: dict[str, Any], asked: Counter[str]) -> Item:
    for key in line:
        if key not in KEYS:
            raise bad_line(path, number, f"it has no key '{key}' ({nearest(key, KEYS)[:-1]})")
    texts = [line.get(key) for key in ("image", "question", "answer")]
    if not all(isinstance(text, str | int | float) and str(text).strip() for text in texts):
        raise bad_line(path, number, "image, question and answer are wanted, each a text")
    image, question, answer = (str(text).strip() for text in texts)
    options = line.get("options") or []
    if not isinstance(options, list) or not all(isinstance(o, str | int | float) for o in options):
        raise bad_line(path, number, "its options are no list of texts")
    shown = tuple(str(option).strip() for option in options)
    place = option_index(answer, shown)
    if shown and place is None:
        raise bad_line(path, number, f"the answer {answer!r} is none of the options")
    try:
        boxes = boxes_from(line.get("boxes"))
    except BadImage as error:
        raise bad_line(path, number, error.detail) from error
    again, asked[image] = asked[image], asked[image] + 1
    key = str(line.get("id") or (f"{image}#{again}" if again else image))
    right = shown[place] if place is not None else _folded(answer)
    return Item(key, image, question, right, shown, str(line.get("category") or ""), boxes)


def _folded(answer: str) -> str:
    """The answer; of yes and no, in small letters."""
    return answer.lower() if answer.lower() in ("yes", "no") else answer
