"""Rows of the view `scores` by cell and question; their order does not matter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.errors import ConfigError

Row = Mapping[str, Any]


class Key(NamedTuple):
    """Names a cell of the table."""

    subject: str
    benchmark: str
    method: str
    resolution: int
    """The budget R: R² pixels for a view."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One question, by one method, at one budget: its rows by rollout."""

    rows: tuple[Row, ...]

    @property
    def scored(self) -> list[Row]:
        """Its tries that have a verdict."""
        return [row for row in self.rows if row["value"] is not None]

    @property
    def value(self) -> float | None:
        """Mean over its scored tries, in [0, 1]; None where none is scored."""
        return mean_of(self.scored, "value")

    def cost(self, name: str) -> float | None:
        """Mean of a column over the same tries: what could not be asked has cost nothing."""
        return mean_of(self.scored, name)

    @property
    def image_id(self) -> str:
        """The picture; a question whose picture is not named is taken to have its own."""
        return str(self.rows[0].get("image_id") or self.rows[0]["item_id"])


def gathered(rows: Iterable[Row]) -> dict[Key, dict[str, Tried]]:
    """Rows by cell and question, both in order; `direct` before other methods.

    Raises `ConfigError` where a try is there twice, as with two runs or two scorers at once.
    """
    found: dict[Key, dict[str, dict[int, Row]]] = {}
    for row in rows:
        subject, benchmark, method = (str(row[n]) for n in ("subject", "benchmark", "method"))
        key = Key(subject, benchmark, method, int(row["resolution"]))
        tries = found.setdefault(key, {}).setdefault(str(row["item_id"]), {})
        if tries.setdefault(int(row["rollout"]), row) is not row:
            raise ConfigError(
                f"{row['item_id']} has two scores by {key.method} at {key.resolution}, "
                f"rollout {row['rollout']}.",
                "Compare one run of each subject, and one scorer, at a time.",
            )
    order = sorted(found, key=lambda key: (*key[:2], key.method != "direct", *key[2:]))
    return {
        key: {
            item: Tried(tuple(tries[n] for n in sorted(tries)))
            for item, tries in sorted(found[key].items())
        }
        for key in order
    }


def mean_of(rows: Iterable[Row], name: str) -> float | None:
    """Mean of a column where it is known; None where it is not at all."""
    known = [float(row[name]) for row in rows if row.get(name) is not None]
    return sum(known) / len(known) if known else None


def gaps(first: Mapping[str, Tried], second: Mapping[str, Tried]) -> dict[str, float]:
    """Difference of the values on each question that both have scored."""
    both = {item: (first[item].value, second[item].value) for item in first if item in second}
    return {i: a - b for i, (a, b) in both.items() if a is not None and b is not None}
