"""A balanced dataset: which of the rows that could be kept are, so that the shares come out.

Rows are offered in their fixed order, so the choice does not depend on who made them. What is not
taken goes to `rejected` with all it cost, as stage `balance`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from itertools import accumulate
from math import floor
from typing import Any

from pipeline.config import LOOKS, Balance, TaskKind
from pipeline.samples import Rejection
from pipeline.shards import SET_ASIDE, Passed, Unit
from pipeline.synthesis import rows

Row = rows.Row
MAIN = "trajectories"
STUCK = 64
"""Rows that are set aside in a row before every class may be one row further from its share: what
is still wanted of different families does not occur together."""
OFFERED, LAST_KEPT = "offered", "last kept"
PATIENCE = 100
"""Rows more than are wanted after which a class that has not occurred is not waited for."""
_GOLDEN = (5**0.5 - 1) / 2
OF_A_TRY = ("rejected", "steps", "traces", "timings")
"""Tables whose rows tell of one try."""


def first_kind(kinds: Sequence[TaskKind], balance: Balance, number: int) -> int:
    """Place of the kind of task that is tried first for a picture, by its number in the listing.

    Every run of pictures sees each kind about as often as the balance wants it; a kind without a
    share has the least one. Steps of the golden ratio are the evenest (Weyl's sequence).
    """
    shares = balance.kind or {"": 1.0}
    wanted = [shares.get(kind, min(shares.values())) for kind in kinds]
    place = (number + 0.5) * _GOLDEN % 1 * sum(wanted)
    return bisect_right(list(accumulate(wanted)), place) % len(kinds)


class Scale:
    """Weighs rows against the shares of a plan; one for each attempt at a shard."""

    def __init__(
        self, balance: Balance, rows_wanted: int, shard: int, tally: Mapping[str, int]
    ) -> None:
        self._balance = balance
        self._wanted = rows_wanted
        self._shard = shard
        self._kept = Counter(dict(tally))
        self._total = kept_before(balance, tally)

    @property
    def full(self) -> bool:
        return self._total >= self._wanted

    def offer(self, classes: Mapping[str, str]) -> str:
        """Why there is no room for a row of these classes, by family; "" when it is kept."""
        self._kept[OFFERED] += 1
        for family, name in classes.items():
            self._kept[f"{family}={name}"] += 0  # from now on the class is known to occur
        why = next((f for f, name in classes.items() if not self._room(f, name)), "")
        if not why:
            self._total += 1
            self._kept.update({f"{family}={name}": 1 for family, name in classes.items()})
            self._kept[LAST_KEPT] = self._kept[OFFERED]
        return why

    @property
    def state(self) -> Counter[str]:
        """All that a scale has to know to go on: the next one's `tally`."""
        return Counter(self._kept)

    def targets(self, family: str) -> dict[str, int]:
        """Rows wanted of each class of a family that occurs; whole numbers that add up.

        Until as many rows were offered as are wanted, and some more, every class may still occur.
        """
        shares = self._balance.families[family]
        waiting = self._kept[OFFERED] < self._wanted + PATIENCE
        known = [name for name in shares if waiting or f"{family}={name}" in self._kept]
        whole = sum(shares[name] for name in known)
        exact = {name: shares[name] / whole * self._wanted for name in known}
        target = {name: floor(value) for name, value in exact.items()}
        turn = {name: (place + self._shard) % len(known) for place, name in enumerate(known)}
        by_rest = sorted(known, key=lambda name: (target[name] - exact[name], turn[name]))
        for name in by_rest[: self._wanted - sum(target.values())]:
            target[name] += 1
        return target

    def _room(self, family: str, name: str) -> bool:
        """Whether one more row of a class leaves room for what the others must have."""
        target = self.targets(family)
        if name not in target:
            return False
        stuck = (self._kept[OFFERED] - self._kept[LAST_KEPT]) // STUCK
        slack = {n: floor(self._balance.tolerance * t) + stuck for n, t in target.items()}
        have = {n: self._kept[f"{family}={n}"] for n in target}
        if have[name] < target[name] - slack[name]:
            return True
        owed = sum(max(0, target[n] - slack[n] - have[n]) for n in target)
        free = self._wanted - self._total - owed
        return have[name] < target[name] + slack[name] and free > 0


def classes_of(row: Row, balance: Balance) -> dict[str, str]:
    """The class of a row in each family that is not free."""
    looks = min(row["num_zooms"], len(LOOKS) - 1)
    told = {"kind": row["kind"], "resolution": str(row["resolution"]), "looks": LOOKS[looks]}
    return {family: told[family] for family in balance.families}


def balanced(
    units: Iterable[Unit | Passed], balance: Balance, scale: Scale
) -> Generator[Unit | Passed, None, None]:
    """The units with the rows that are kept, until there are enough."""
    for unit in units:
        yield _weighed(unit, balance, scale) if isinstance(unit, Unit) else unit
        if scale.full:
            return


def _weighed(unit: Unit, balance: Balance, scale: Scale) -> Unit:
    """A unit whose rows are kept, set aside, or, once there are enough, left out."""
    tables: dict[str, list[dict[str, Any]]] = {name: list(r) for name, r in unit.tables.items()}
    before, kept, gone = scale.state, [], set()
    for row in tables.pop(MAIN, []):
        if scale.full:
            gone.add(_key(row))
            continue
        classes = classes_of(row, balance)
        why = scale.offer(classes)
        if not why:
            kept.append(row)
            continue
        detail = f"There are enough with {why} {classes[why]}."
        told = Rejection(*_key(row), SET_ASIDE, "surplus", detail)
        tables.setdefault("rejected", []).append(rows.rejected_row(row, told))
        tables.setdefault("rejections", []).append(rows.rejection_row(told, row["image_id"]))
    for name in tables:
        if gone and name in OF_A_TRY:
            tables[name] = [row for row in tables[name] if _key(row) not in gone]
    if kept:
        tables[MAIN] = kept
    after = scale.state
    return Unit(unit.key, len(kept), tables, {name: after[name] - before[name] for name in after})


def kept_before(balance: Balance, tally: Mapping[str, int]) -> int:
    """Rows kept before, told by any one family."""
    family = next(iter(balance.families))
    return sum(count for name, count in tally.items() if name.startswith(f"{family}="))


def _key(row: Row) -> tuple[str, int, int]:
    return row["sample_id"], row["resolution"], row["rollout"]
