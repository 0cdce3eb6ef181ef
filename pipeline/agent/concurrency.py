"""How many requests a server gets at once, when it is left alone, and how long a pause is.

Knows how tries ended. Refuses to know who the server is, what was sent and what came back: no
network, and no clock but the one it is handed.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import NamedTuple

FIRST = 8
"""Places that a limiter begins with; it doubles each round trip until the first decrease."""
BACK = 0.8
"""What a decrease leaves of the limit."""
RISE = 3.0
"""A latency so many times the recent minimum is taken for a queue at the server. Batches that are
served well are a good deal slower than single requests: that is no queue yet."""
HELPED = 0.9
"""Where a decrease leaves more of the latency than this, it was not for a queue."""
WINDOW = 16
"""Replies that a judgement of latency rests on, at least."""
CERTAIN = 48
"""Requests that a judgement of refusals rests on, at least, where they are fewer than that."""
CHANCE = 2.0
"""Shares of refusals that differ by no more than this factor may be the same."""
FAILURES = 5
"""Consecutive failures that open a breaker."""
COOLING_S, LONGEST_COOLING_S = 5.0, 60.0
"""How long an open breaker is skipped: at first, and at most after failed probes."""
BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 30.0
LONGEST_RETRY_AFTER_S = 120.0


@dataclass(frozen=True, slots=True)
class Clock:
    """Time and chance, as arguments."""

    now: Callable[[], float] = time.monotonic
    """Seconds from any origin; never goes back."""
    wall: Callable[[], float] = time.time
    """Seconds since 1970, to read dates by."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    fraction: Callable[[], float] = random.random
    """In [0, 1): how much of a pause is taken."""


class TryFailed(Exception):
    """One try came to nothing; another may succeed."""

    def __init__(
        self, what: str, *, busy: bool = False, alive: bool = False, wait_s: float | None = None
    ) -> None:
        super().__init__(what)
        self.what = what
        self.busy = busy
        """The server has too much to do: send it less at once."""
        self.alive = alive
        """The server works: no reason to open the breaker."""
        self.wait_s = wait_s
        """How long to wait before the next try; None: the usual pause."""


def retry_after_s(header: str | None, wall: float) -> float | None:
    """Seconds that a `Retry-After` asks for, in [0, 120]; None where it does not say.

    Both forms are read: seconds, and a date, which is compared with `wall` (s since 1970).
    """
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - wall
        except (ValueError, OverflowError):
            return None
    return None if math.isnan(seconds) else min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S)


def pause_s(failures: int, fraction: float) -> float:
    """Full jitter: a fraction in [0, 1) of a time that doubles with each failure."""
    return fraction * min(LONGEST_BACKOFF_S, BACKOFF_S * 2.0 ** (failures - 1))


class Ticket(NamedTuple):
    """When a request was sent, as its limiter counts."""

    trip: int
    """Round trips begin at a decrease."""
    limit: int
    """The limit that it was sent under."""


class _Cut(NamedTuple):
    """A decrease that is to show whether sending less helps."""

    limit: float
    """Before it."""
    refused: float
    """Share of the requests that were refused then."""

    def as_before(self, refused: float) -> bool:
        """Whether the server refuses by chance: a share like that of before, not one that fell.

        One with places for so many would take, of fewer, a share larger by as much.
        """
        taken = min(1.0, (1 - self.refused) / BACK)
        fell = 1 - refused > (1 - self.refused + taken) / 2
        return not fell and refused <= CHANCE * max(self.refused, 1 / CERTAIN) and refused < 0.5


class Limiter:
    """How many requests one server gets at once: additive increase, multiplicative decrease.

    Each request belongs to a round trip; a decrease begins the next one, and what was sent before
    it says nothing any more: so the limit is decreased once in a round trip at most. A server that
    refuses as large a share of less is not overloaded: the limit goes back to where it was.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(min(most, FIRST))
        self._trip = 0
        self._doubling = True
        self._in_use = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._window: list[tuple[float, int]] = []
        """Pace and limit of the replies that are judged together."""
        self._refused: list[int] = []
        """The limits that those were sent under which were refused meanwhile."""
        self._round = self.limit
        """Requests of the round trip that is judged next."""
        self._cut: _Cut | None = None
        """The last decrease for refusals, until it is known whether it helped."""
        self._usual = 0.0
        """Share that this server refuses however little it is sent."""
        self._best = math.inf
        self._blamed: float | None = None
        """The pace that the last decrease was for, until it is known whether it helped."""

    @property
    def limit(self) -> int:
        """Requests under way at a time, at present."""
        return int(self._limit)

    @property
    def load(self) -> float:
        """Requests under way and waiting, as a multiple of the limit."""
        return (self._in_use + len(self._waiting)) / self._limit

    async def enter(self) -> Ticket:
        """Wait for a place, first come, first served."""
        if self._in_use < self.limit and not self._waiting:
            self._in_use += 1
            return Ticket(self._trip, self.limit)
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():  # the place was given at the moment it was given up
                self._in_use -= 1
            self._admit()
            raise
        return Ticket(self._trip, self.limit)

    def leave(self) -> None:
        """Give the place back."""
        self._in_use -= 1
        self._admit()

    def succeeded(self, ticket: Ticket, pace: float) -> None:
        """A reply came; `pace` is its latency in any unit that replies can be compared by."""
        if ticket.trip != self._trip:
            return
        # A limit that nothing reaches is not to grow, nor one that is doubted or being judged.
        doubted = self._refused and not self._usual and not self._doubling
        if self.load > 0.75 and self._blamed is None and self._cut is None and not doubted:
            step = 1.0 if self._doubling else 1.0 / self._limit
            self._limit = min(self._most, self._limit + step)
        self._window.append((pace, ticket.limit))
        self._judge()
        self._admit()

    def overloaded(self, ticket: Ticket) -> None:
        """The server said, or showed, that it has too much to do."""
        if ticket.trip == self._trip:
            self._refused.append(ticket.limit)
            self._judge()
            self._admit()

    def _judge(self) -> None:
        """Once enough has come back, see what it says."""
        served, refused = len(self._window), len(self._refused)
        if refused:
            if refused >= self._round or served + refused >= max(CERTAIN, self._round):
                self._judge_refusals(refused / (served + refused), served + refused)
        elif served >= max(CERTAIN if self._cut else WINDOW, self._round):
            self._cut, self._usual = None, BACK * self._usual
            self._judge_pace()

    def _judge_refusals(self, share: float, count: int) -> None:
        """Send less for a refused share of `count` requests, unless that has not helped before."""
        cut, self._cut = self._cut, None
        if cut and cut.as_before(share):
            self._usual, self._limit, self._doubling = (share + cut.refused) / 2, cut.limit, True
            self._next_trip()
        elif share <= self._usual + 3 * math.sqrt(self._usual * (1 - self._usual) / count):
            self._begin_round()
        else:
            # The limit may have grown since; what was too much is what they were sent under.
            before = min(self._limit, *self._refused)
            self._cut = _Cut(before, share)
            self._decrease(before)

    def _judge_pace(self) -> None:
        """Compare a window's fastest reply, which waited least, with the recent minimum."""
        fastest, sent_under = min(self._window)
        self._begin_round()
        if fastest <= RISE * self._best:
            self._best, self._blamed = min(self._best, fastest), None
        elif self._blamed is not None and fastest > HELPED * self._blamed:
            # Sending less did not help: the server is slower by itself.
            self._best, self._blamed = fastest, None
        else:
            self._blamed = fastest
            self._decrease(min(self._limit, sent_under))

    def _decrease(self, before: float) -> None:
        self._limit, self._doubling = max(1.0, BACK * int(before)), False
        self._next_trip()

    def _next_trip(self) -> None:
        self._trip += 1
        self._begin_round()

    def _begin_round(self) -> None:
        self._round = self.limit
        self._window.clear()
        self._refused.clear()

    def _admit(self) -> None:
        while self._waiting and self._in_use < self.limit:
            place = self._waiting.popleft()
            if not place.done():
                self._in_use += 1
                place.set_result(None)


class Breaker:
    """Leaves a server alone that keeps failing, then lets one request find out."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._failures = 0
        self._until = 0.0
        self._cooling_s = COOLING_S
        self.probe: asyncio.Future[None] | None = None
        """Done when the request that finds out has ended."""

    @property
    def ready_in_s(self) -> float:
        """Until a request may be sent: 0 now; inf while one finds out."""
        if self._failures < FAILURES:
            return 0.0
        return math.inf if self.probe else max(0.0, self._until - self._now())

    def enter(self) -> bool:
        """Begin a request; True if it is the one that finds out."""
        if self._failures < FAILURES:
            return False
        self.probe = asyncio.get_running_loop().create_future()
        return True

    def succeeded(self) -> None:
        """The server works."""
        self._failures, self._cooling_s = 0, COOLING_S

    def failed(self, probing: bool) -> None:
        """The server does not; late news while the breaker is open change nothing."""
        self._failures += 1
        if probing or self._failures == FAILURES:
            self._until = self._now() + self._cooling_s
            self._cooling_s = min(2 * self._cooling_s, LONGEST_COOLING_S)

    def leave(self, probing: bool) -> None:
        """End a request, however it went."""
        if probing and self.probe:
            self.probe.set_result(None)
            self.probe = None
