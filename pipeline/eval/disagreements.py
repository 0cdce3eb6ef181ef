"""Questions on which ways of looking differ, the most telling first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import log2

from pipeline.eval.tried import Key, Row, Tried, gaps, gathered

APART = 0.5
"""Two ways of looking differ on a question where the means of its tries do, by this much."""


@dataclass(frozen=True, slots=True)
class Said:
    """What one method said at one budget."""

    method: str
    resolution: int
    value: float | None
    answer: str
    """Of the first try."""
    tries: int


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A question on which ways of looking differ."""

    subject: str
    benchmark: str
    item_id: str
    image_id: str
    category: str
    question: str
    """Empty where the rows do not hold it."""
    target: str
    bits: float
    """How telling: -log2 of the share of questions on which a pair differs in that direction,
    summed over the pairs that differ here."""
    tells: str
    """The rarest of these, in words."""
    said: tuple[Said, ...]


def disagreements(rows: Iterable[Row], *, limit: int = 40) -> list[Disagreement]:
    """Questions on which two methods differ at one budget, or a method at two budgets in a row.

    The most telling first: the rarer a difference, in its direction, the more it tells.
    """
    found = gathered(rows)
    told: dict[tuple[str, str, str], list[tuple[float, str]]] = {}
    for one, other in _compared(list(found)):
        between = gaps(found[one], found[other])
        for won, lost, sign in ((one, other, 1), (other, one, -1)):
            apart = [item for item, gap in between.items() if sign * gap >= APART]
            words = f"{_named(won)} is right, {_named(lost)} is not"
            for item in apart:
                bits = log2(len(between) / len(apart))
                told.setdefault((*one[:2], item), []).append((bits, words))
    order = sorted(told, key=lambda name: (-sum(bits for bits, _ in told[name]), name))
    return [_disagreement(found, *name, told[name]) for name in order[:limit]]


def _compared(keys: Sequence[Key]) -> list[tuple[Key, Key]]:
    """Methods at one budget, and budgets in a row of one method; `keys` in order."""
    alike = [
        (one, other)
        for one, other in combinations(keys, 2)
        if one[:2] == other[:2] and one.resolution == other.resolution
    ]
    rows = [(one, other) for one, other in pairwise(keys) if one[:3] == other[:3]]
    return alike + rows


def _named(key: Key) -> str:
    return f"{key.method} at {key.resolution}"


def _disagreement(
    found: Mapping[Key, Mapping[str, Tried]],
    subject: str,
    benchmark: str,
    item: str,
    told: Sequence[tuple[float, str]],
) -> Disagreement:
    here = {key: view[item] for key, view in found.items()
            if key[:2] == (subject, benchmark) and item in view}  # fmt: skip
    first = next(iter(here.values()))
    row = first.rows[0]
    said = tuple(
        Said(key.method, key.resolution, tried.value, str(tried.rows[0].get("answer") or ""),
             len(tried.rows))
        for key, tried in here.items()
    )  # fmt: skip
    return Disagreement(
        subject,
        benchmark,
        item,
        first.image_id,
        category=str(row.get("category") or ""),
        question=str(row.get("question") or ""),
        target=str(row.get("target") or ""),
        bits=sum(bits for bits, _ in told),
        tells=max(told)[1],
        said=said,
    )
