"""Units of work: how a listing is cut, what a worker is granted, and what it gives back.

Knows nothing of files, threads or Ray. A listing is cut into shards by row ranges, whatever the
number of workers; the kept rows asked for are split over the shards by a rule that depends on
what was kept and on nothing else, so a run's rows do not depend on who made them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

MEGABYTE = 1_000_000

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
    skip: int = 0
    """Units of row `start` that are committed already."""
    part: int = 0
    """Number of the next part to commit."""
    kept: int = 0
    """Rows of the shard that were committed before."""


class ShardWorker(Protocol):
    """What does the work: made once per worker, holds its models."""

    @property
    def main(self) -> str:
        """Name of the main kind, such as `trajectories`."""

    @property
    def schemas(self) -> Mapping[str, pa.Schema]:
        """Data tables by kind, with the metadata their readers need."""

    @property
    def manifest(self) -> Mapping[str, pa.Schema]:
        """Manifest tables by name."""

    def units(
        self,
        index: int,
        *,
        skip: int,
        rows_left: int | None,
        crashed: frozenset[str],
        started: Callable[[str], None],
    ) -> Iterator[Unit]:
        """The units of listing row `index`, in a fixed order, without the first `skip`.

        `started(key)` is called before work on a picture begins. All that is yielded together
        keeps at most `rows_left` rows. A unit in `crashed` is yielded as a rejection.
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
    """Shards granted to a worker at a time: the second waits while the first one ends."""

    def __post_init__(self) -> None:
        if min(self.shards, self.part_rows, self.part_bytes, self.window) < 1:
            raise ConfigError("Shards, part size and window must be at least 1.")
        if self.entries < 0 or (self.rows is not None and self.rows < 0):
            raise ConfigError("Entries and rows cannot be negative.")
        if self.stall_s <= 0:
            raise ConfigError("A worker must be given some seconds before it counts as hung.")

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
