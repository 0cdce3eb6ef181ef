"""What a benchmark is: questions, their pictures, how they are put, and how answers are scored.

Owns the records, their digest and the choice of a part of them. Knows no benchmark in particular.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from pipeline.errors import ConfigError
from pipeline.geometry import Box
from pipeline.samples import Score, rng_for

CLOSING = "Answer with the option's letter from the given choices directly."
"""How a question with options ends."""
Row = Mapping[str, Any]
"""`item_id, category, image_id, answer, said, value`; `said` and `value` None: unscored."""


@dataclass(frozen=True, slots=True)
class Item:
    """One question."""

    item_id: str
    """Its key in the benchmark, the same wherever the files lie."""
    image_id: str
    """The picture's key: questions about one picture share it."""
    question: str
    """As it is put, without options and without the closing instruction."""
    answer: str
    """The right one: "yes" or "no", an option's text, or a word; empty where none is published."""
    options: tuple[str, ...] = ()
    """In the order shown."""
    category: str = ""
    boxes: tuple[Box, ...] = ()
    """Where the answer can be seen, in source pixels: for controls only."""

    @property
    def label(self) -> str:
        """The letter of the right option; "" where there is none."""
        return letter(self.options.index(self.answer)) if self.answer in self.options else ""


@dataclass(frozen=True)
class Benchmark:
    """Questions with everything that is needed to put and to score them."""

    name: str
    items: tuple[Item, ...]
    picture: Callable[[Item], bytes]
    """Encoded bytes as stored; raises `BadImage`."""
    ask: Callable[[Item], str]
    """The text put to a model: question, options by letter, closing instruction."""
    score: Callable[[Item, str], Score]
    """By rule; a value of None needs a judge, the explanation says what was read."""
    protocol: Mapping[str, str | int | float | bool]
    """Extractor, order of options, prompt protocol, revision: what a score depends on."""
    digest: str
    """SHA-256 (hex) over questions, protocol, and names and sizes of the pictures."""
    official: Callable[[Sequence[Row]], dict[str, float]] | None = None
    """The benchmark's own totals, from one row for each question of one try."""


def benchmark(
    name: str,
    items: Sequence[Item],
    *,
    picture: Callable[[Item], bytes],
    ask: Callable[[Item], str],
    score: Callable[[Item, str], Score],
    protocol: Mapping[str, str | int | float | bool],
    sizes: Mapping[str, int],
    official: Callable[[Sequence[Row]], dict[str, float]] | None = None,
) -> Benchmark:
    """A benchmark of these questions; `sizes` are bytes by picture, 0 where there is no file.

    Raises `ConfigError` where there are none, or where two have one key.
    """
    if not items:
        raise ConfigError(f"There is no question in this '{name}'.", "Check its folder.")
    seen: set[str] = set()
    for item in items:
        if item.item_id in seen:
            raise ConfigError(f"Two questions of '{name}' have the key '{item.item_id}'.")
        seen.add(item.item_id)
    kept = {item.image_id: sizes.get(item.image_id, 0) for item in items}
    digest = digest_of(items, protocol, kept)
    return Benchmark(name, tuple(items), picture, ask, score, dict(protocol), digest, official)


def digest_of(
    items: Iterable[Item],
    protocol: Mapping[str, str | int | float | bool],
    sizes: Mapping[str, int],
) -> str:
    """SHA-256 (hex) of questions, protocol and picture sizes."""
    rows = [
        [
            *(i.item_id, i.image_id, i.question, i.answer, list(i.options), i.category),
            [box.as_list() for box in i.boxes],
        ]
        for i in items
    ]
    text = json.dumps([rows, dict(protocol), dict(sizes)], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def part_of(
    items: Sequence[Item],
    limit: int | None,
    seed: int,
    group: Callable[[Item], str] = lambda item: item.image_id,
) -> list[Item]:
    """About `limit` of the questions, in their order; groups stay whole, categories take turns.

    The seed alone decides which. At least one group is taken, and none that would exceed `limit`.
    """
    if limit is None or limit >= len(items):
        return list(items)
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[group(item)].append(item)
    piles: dict[str, list[str]] = defaultdict(list)
    for key, members in groups.items():
        piles[members[0].category].append(key)
    for category, keys in piles.items():
        rng_for(seed, "benchmark-part", category).shuffle(keys)
    chosen: set[str] = set()
    count = 0
    for key in (k for turn in zip_longest(*piles.values()) for k in turn if k is not None):
        if count + len(groups[key]) <= limit or not chosen:
            chosen.add(key)
            count += len(groups[key])
    return [item for item in items if group(item) in chosen]


def letter(place: int) -> str:
    """The letter of the option at a place from 0."""
    return chr(ord("A") + place)


def with_options(item: Item, closing: str = CLOSING, mark: str = "({})") -> str:
    """The question, a line for each option, and the closing instruction."""
    lines = [f"{mark.format(letter(n))} {text}" for n, text in enumerate(item.options)]
    return "\n".join([item.question, *lines, *([closing] if closing else [])])
