"""Who may do what now: the state of a run, read from its records, and the grants that follow.

One driver serves every runner; it hands out grants, takes in records, and never touches a row.
Not thread-safe: a runner calls it from one thread or under one lock.
"""

from __future__ import annotations

import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.runner import calls, journal
from pipeline.runner.attempt import Result
from pipeline.runner.budget import Purse
from pipeline.runner.compact import compact
from pipeline.runner.events import EventLog, any_events, last_event, seconds_worked
from pipeline.runner.gc import gc
from pipeline.runner.rundir import Record, records, records_after
from pipeline.runner.storage import Storage
from pipeline.shards import Grant, Outcome, Plan, Spent, Status, quotas

OnEvent = Callable[[dict[str, Any]], None]
STOPPED = "It was asked to stop."


@dataclass(slots=True)
class _Shard:
    """What the records say about a shard."""

    start: int
    stop: int
    skip: int = 0
    part: int = 0
    kept: int = 0
    rejected: int = 0
    ended: bool = False
    tally: Counter[str] = field(default_factory=Counter)

    def take(self, record: Record) -> None:
        """Go on to where the record leaves off; a record seen before changes nothing."""
        if record.part != self.part:
            return
        self.start, self.skip = record.next_index, record.next_skip
        self.part += 1
        self.kept += record.rows
        self.rejected += record.rejected
        self.tally.update(record.tally)
        self.ended = record.last


class Driver:
    """The state of one run while a runner works on it."""

    def __init__(self, plan: Plan, storage: Storage, on_event: OnEvent | None = None) -> None:
        self._plan = plan
        self._storage = storage
        self._tell = on_event or (lambda event: None)
        self._log = EventLog(storage, plan.run_id)
        self._shards = [_Shard(start, stop) for start, stop in plan.ranges()]
        self._granted: dict[str, Grant] = {}
        self._pending: deque[int] = deque()
        self._quota: list[int] | None = None
        self._doubts: set[int] = set()
        self._purse = Purse(plan)
        self._lost = 0
        for record in records(storage):
            self._shards[record.shard].take(record)
        self._attempted = journal.shards(storage)
        self._refill()
        self._closed = not self._pending and last_event(storage) == "finished"
        """The run was finished before: nothing is to be noted."""

    def clear_doubts(self) -> None:
        """Grant those shards first in which a picture may have killed the process before."""
        attempted = [n for n in self._pending if n in self._attempted]
        self._doubts = {n for n in attempted if journal.doubted(self._storage, n)}
        self._pending = deque(sorted(self._pending, key=lambda n: n not in self._doubts))

    @property
    def doubtful(self) -> bool:
        """Whether such a picture is still ahead in a shard that is open."""
        return any(self._open(number) for number in self._doubts)

    @property
    def finished(self) -> bool:
        """Whether nobody is at work and nothing is left to do: no shard is open."""
        return not self._pending and not self._granted

    @property
    def waiting(self) -> int:
        """Shards that could be granted now."""
        return len(self._pending)

    @property
    def exhausted(self) -> str:
        """Why the run may spend no more, in one sentence; empty while it may, or has no need to."""
        return "" if self.finished else self._purse.over()

    def begin(self, workers: int = 1) -> None:
        """Note that a driver works on the run, and what it holds and has cost already."""
        calls.salvage(self._storage)
        limited = any(budget is not None for budget in self._plan.budgets)
        self._purse.open(workers, *(self._before() if limited else (Spent(), 0.0)))
        event = "resumed" if any_events(self._storage) else "started"
        self._log.add(event)
        self._tell({"event": event, **asdict(self._outcome("interrupted"))})

    def grant(self) -> Grant | None:
        """The next shard to work on; None when there is none, or no money for it, at present."""
        attempt = secrets.token_hex(4)
        if not self._pending or (budget := self._purse.hold(attempt)) is None:
            return None
        number = self._pending.popleft()
        shard = self._shards[number]
        grant = Grant(
            shard=number,
            start=shard.start,
            stop=shard.stop,
            attempt=attempt,
            rows_left=None if self._quota is None else self._quota[number] - shard.kept,
            crashed=self._crashed(number),
            doubted=self._doubted(number),
            skip=shard.skip,
            part=shard.part,
            kept=shard.kept,
            tally=dict(shard.tally),
            attempted=number in self._attempted,
            budget=budget,
        )
        self._attempted.add(number)
        self._granted[grant.attempt] = grant
        self._tell({"event": "granted", "shard": number, "attempt": grant.attempt})
        return grant

    def take(self, new: Iterable[Record]) -> None:
        """Take in records that a worker says it has published."""
        for record in new:
            self._shards[record.shard].take(record)
            if record.shard in self._doubts and not self._doubted(record.shard):
                self._doubts.discard(record.shard)
            self._tell(
                {
                    "event": "committed",
                    "shard": record.shard,
                    "part": record.part,
                    "rows": record.rows,
                    "rejected": record.rejected,
                    "bytes": record.bytes,
                    "last": not self._open(record.shard),
                }
            )

    def settle(self, attempt: str, result: Result) -> None:
        """An attempt came back: what it left undone is there to be granted again."""
        self._return(attempt, result.spent, result.reason if result.ending == "budget" else "")

    def _return(self, attempt: str, spent: Spent, reason: str = "") -> None:
        self._purse.settle(attempt, spent, reason)
        shard = self._granted.pop(attempt).shard
        for record in records_after(self._storage, shard, self._shards[shard].part):
            self._shards[shard].take(record)
        if self._open(shard):
            self._pending.append(shard)
        self._refill()

    def forsake(self, attempt: str, why: str) -> None:
        """An attempt's worker died or hangs: its shard goes to another."""
        shard = self._granted[attempt].shard
        journal.mark_died(self._storage, shard, attempt, why)
        calls.salvage(self._storage, shard)
        self._tell({"event": "lost", "shard": shard, "attempt": attempt, "why": why})
        self._return(attempt, calls.spent_by(self._storage, shard, attempt))

    def worker_lost(self, why: str) -> None:
        self._lost += 1
        self._note("worker_lost", why)

    def fail(self, why: str) -> None:
        """The run ends with an error."""
        self._note("failed", why)

    def close(self, budget: str) -> Outcome:
        """Note that nobody works any more: all is done, a `budget` is spent, or it was stopped."""
        if self.finished:
            return self.end("done")
        return self.end("budget", budget) if budget else self.end("interrupted", STOPPED)

    def end(self, status: Status, reason: str = "") -> Outcome:
        """Note how the session ended; a finished run is put in order."""
        if status == "done":
            with self._storage.alone():
                calls.salvage(self._storage, for_good=True)
                if all(shard.ended for shard in self._shards):  # else more rows may be asked for
                    compact(self._storage)
                gc(self._storage, older_than_s=0, temporary_too=False)
        if not self._closed:
            self._note("finished" if status == "done" else status, reason)
        return self._outcome(status, reason)

    def _outcome(self, status: Status, reason: str = "") -> Outcome:
        """The run as it is now."""
        return Outcome(
            status=status,
            kept=sum(shard.kept for shard in self._shards),
            rejected=sum(shard.rejected for shard in self._shards),
            shards_done=sum(not self._open(shard) for shard in range(len(self._shards))),
            shards_total=len(self._shards),
            workers_lost=self._lost,
            reason=reason,
        )

    def _open(self, number: int) -> bool:
        """Whether the shard has entries left and may keep more."""
        shard = self._shards[number]
        return not shard.ended and (self._quota is None or shard.kept < self._quota[number])

    def _refill(self) -> None:
        """When nobody is at work: share out the rows that are wanted, and list the open shards."""
        if self._pending or self._granted:
            return
        if self._plan.rows is not None:
            ended = {number for number, shard in enumerate(self._shards) if shard.ended}
            self._quota = quotas(self._plan.rows, [s.kept for s in self._shards], ended)
        self._pending.extend(s for s in range(len(self._shards)) if self._open(s))

    def _before(self) -> tuple[Spent, float]:
        """What sessions before this one have spent, and the seconds they took."""
        commits = [record.committed_at for record in records(self._storage)]
        return calls.total(self._storage), seconds_worked(self._storage, commits)

    def _crashed(self, shard: int) -> frozenset[str]:
        if shard not in self._attempted:
            return frozenset()
        return journal.crashed(self._storage, shard)

    def _doubted(self, shard: int) -> frozenset[str]:
        if shard not in self._attempted:
            return frozenset()
        return journal.doubted(self._storage, shard, living=self._granted)

    def _note(self, event: str, detail: str = "") -> None:
        self._log.add(event, detail)
        self._tell({"event": event, "detail": detail})
