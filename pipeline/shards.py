"""Units of work: how a listing is cut, what a worker is granted, and what it gives back.

Knows nothing of files, threads or Ray. A listing is cut into shards by row ranges, whatever the
number of workers; the kept rows asked for are split over the shards by a rule that depends on
what was kept and on nothing else, so a run's rows do not depend on who made them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

MEGABYTE = 1_000_000

SET_ASIDE = "balance"
"""Stage of rejections that are no failures: rows of which there are enough."""

Status = Literal["done", "interrupted", "budget"]


@dataclass(frozen=True, slots=True)
class Unit:
    """Everything one source image yielded; never split over two parts."""

    key: str
    """The image's id."""
    kept: int
    """Rows that count towards the rows asked for: those of the run's main kind."""
    tables: Mapping[str, list[dict[str, Any]]]
    """Rows by table name."""
    tally: Mapping[str, int] = field(default_factory=dict)
    """Counts that a worker wants to be told of when it goes on with the shard: sums over units."""


@dataclass(frozen=True, slots=True)
class Passed:
    """Follows the last unit of a listing row, or stands alone for a row without units."""

    entry: int
    """The listing row."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What model calls have cost; calls without a price count as tokens only."""

    usd: float = 0.0
    tokens: int = 0
    """In and out together."""

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.usd + other.usd, self.tokens + other.tokens)


@dataclass(frozen=True, slots=True)
class Slice:
    """What an attempt may spend of the run's budgets; None is no limit."""

    usd: float | None = None
    tokens: int | None = None
    until: float | None = None
    """Seconds since 1970."""

    def covers(self, spent: Spent) -> bool:
        """Whether something is left of the money and of the tokens."""
        usd = self.usd is None or spent.usd < self.usd
        return usd and (self.tokens is None or spent.tokens < self.tokens)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a worker may do now: one attempt at the rest of one shard."""

    shard: int
    start: int
    """First listing row that is not wholly committed."""
    stop: int
    """One past the shard's last listing row."""
    attempt: str
    """Names this attempt and no other: 8 hex digits."""
    rows_left: int | None
    """Kept rows this shard may still add; None is no limit."""
    crashed: frozenset[str] = frozenset()
    """Units at which two workers died or more: to be rejected as `crashed_worker`."""
    doubted: frozenset[str] = frozenset()
    """Units that were open when a worker died, one of them perhaps to blame."""
    skip: int = 0
    """Units of row `start` that are committed already."""
    part: int = 0
    """Number of the next part to commit."""
    kept: int = 0
    """Rows of the shard that were committed before."""
    tally: Mapping[str, int] = field(default_factory=dict)
    """Of the shard's units that were committed before."""
    attempted: bool = False
    """Whether there was an attempt before: its finished model calls are not made again."""
    budget: Slice = Slice()


class Ledger(Protocol):
    """The model calls of a shard: what was paid for is kept, found again, and counted.

    All of it may be called from any thread and returns at once, the event loop's included.
    """

    def find(self, key: str) -> dict[str, Any] | None:
        """The finished call of that key, made in this or any earlier attempt at the shard."""

    def add(self, key: str, call: Mapping[str, Any]) -> None:
        """Keep a call that has just finished.

        `call` is whatever JSON holds and a replay needs, and by these names what is counted:
        sample_id, resolution, rollout, turn, role, model, status, tries, latency_s, tokens_in,
        tokens_out, cost_usd (None without a price).
        """

    def replayed(self, key: str, call: Mapping[str, Any]) -> None:
        """Note that a call which was found was used instead of being made."""

    def check(self) -> None:
        """Raise `BudgetReached` when this attempt may pay for nothing more: ask before a call."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker is to do now: the rest of one shard."""

    shard: int
    entries: range
    """Listing rows."""
    ledger: Ledger
    started: Callable[[str], None]
    """Called with a unit's key before work on it begins."""
    skip: int = 0
    """Units of the first row to leave out."""
    rows_left: int | None = None
    """Rows that all units together may keep; None is no limit."""
    crashed: frozenset[str] = frozenset()
    """Units to be yielded as rejections."""
    careful: bool = False
    """One unit at a time, begun when the one before it has been yielded."""
    tally: Mapping[str, int] = field(default_factory=dict)
    """Sums over the shard's units before these."""


class ShardWorker(Protocol):
    """What does the work: made once per worker, holds its models."""

    @property
    def main(self) -> str:
        """Name of the main kind, such as `trajectories`."""

    @property
    def at_once(self) -> int:
        """Attempts that it works on at a time: `units` is then called from so many threads."""

    @property
    def schemas(self) -> Mapping[str, pa.Schema]:
        """Data tables by kind, with the metadata their readers need."""

    @property
    def manifest(self) -> Mapping[str, pa.Schema]:
        """Manifest tables by name."""

    def units(self, work: Work) -> Generator[Unit | Passed, None, None]:
        """The units of its listing rows in their fixed order, `Passed` after those of each row.

        Many pictures may be in work at a time, but what is yielded does not depend on it. All that
        is yielded together keeps at most `rows_left` rows, cut as if pictures were worked on one by
        one; when they are reached, nothing more is asked for.

        It is closed early when the attempt is to end: what was not yielded is not kept, though
        its calls are. When `ledger.check` raises, all finished units that are next in order may be
        yielded before the error is let through.
        """

    def close(self) -> None:
        """Let go of what the worker holds."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A run: where it lies, what is listed, how it is cut and watched."""

    run_dir: str
    """A local path or a URL that fsspec knows."""
    run_id: str
    kind: str
    """The main kind, the one whose rows are counted."""
    entries: int
    """Rows of the listing."""
    shards: int
    """Asked for; no more are made than there are entries."""
    rows: int | None = None
    """Kept rows to stop at; None is no limit."""
    part_rows: int = 1000
    part_bytes: int = 256 * MEGABYTE
    stall_s: float = 600.0
    """A worker that starts and ends nothing for this long is hung."""
    window: int = 2
    """Shards granted to a worker at a time, at least; as many as it works on at once, if more."""
    budget_usd: float | None = None
    """Where spending stops, earlier sessions included; None is no limit."""
    budget_tokens: int | None = None
    budget_hours: float | None = None
    """Hours by the clock that drivers have worked on the run."""

    def __post_init__(self) -> None:
        if min(self.shards, self.part_rows, self.part_bytes, self.window) < 1:
            raise ConfigError("Shards, part size and window must be at least 1.")
        if self.entries < 0 or (self.rows is not None and self.rows < 0):
            raise ConfigError("Entries and rows cannot be negative.")
        if self.stall_s <= 0:
            raise ConfigError("A worker must be given some seconds before it counts as hung.")
        if any(b is not None and b < 0 for b in self.budgets):
            raise ConfigError("A budget cannot be negative.")

    @property
    def budgets(self) -> tuple[float | None, ...]:
        return self.budget_usd, self.budget_tokens, self.budget_hours

    @property
    def shards_total(self) -> int:
        return min(self.shards, self.entries)

    def ranges(self) -> list[tuple[int, int]]:
        """Listing rows [start, stop) of every shard; sizes differ by one at most."""
        edges = [0]
        for size in split(self.entries, self.shards_total):
            edges.append(edges[-1] + size)
        return list(pairwise(edges))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call of a runner ended, and what the run holds now."""

    status: Status
    kept: int
    rejected: int
    shards_done: int
    shards_total: int
    workers_lost: int = 0
    reason: str = ""
    """Why a run that is not done stopped, in one sentence."""


def split(total: int, ways: int) -> list[int]:
    """`total` as `ways` whole numbers that differ by one at most, the larger ones first."""
    if ways == 0:
        return []
    each, more = divmod(total, ways)
    return [each + (place < more) for place in range(ways)]


def quotas(rows: int, kept: Sequence[int], ended: Collection[int]) -> list[int]:
    """Kept rows each shard may reach now, when `rows` are wanted in all.

    First an even split. Once every shard has reached its quota or its end, what is missing is
    split over those that reached theirs, and again, until nothing is missing or all have ended.
    `kept` is what the shards have committed, `ended` the shards with no entry left. The result is
    the same at whatever moment, and after whatever restart, it is asked for.
    """
    quota = split(rows, len(kept))
    while True:
        if any(kept[s] < quota[s] and s not in ended for s in range(len(kept))):
            return quota
        reached = [s for s in range(len(kept)) if kept[s] >= quota[s]]
        missing = rows - sum(min(kept[s], quota[s]) for s in range(len(kept)))
        if not missing or not reached:
            return quota
        for shard, more in zip(reached, split(missing, len(reached)), strict=True):
            quota[shard] += more
