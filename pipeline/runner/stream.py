"""Units in work: many at a time, of one attempt or two, handed out in their order.

Owns the event loop on which calls wait, in a thread of its own so that they go on while the runner
writes. What is worked on, and what becomes of it, are arguments.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Iterator
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, Generic, TypeVar

from pipeline.errors import BudgetReached
from pipeline.runner.ahead import in_order
from pipeline.runner.room import Room
from pipeline.shards import Ledger, Passed, Unit

ROOM_PIXELS = 400_000_000
"""Of pictures in work at a time: 1.2 GB when decoded."""
GRACE_S = 30.0
"""Time for calls under way to end when an attempt stops."""

T = TypeVar("T")
Make = Callable[[T, Ledger, int | None], Awaitable[Unit]]
"""The unit of something, with so many rows left to keep; may be asked again and calls nobody
twice."""


class Stream:
    """What one worker has in work: `most` units, whatever is under way for each."""

    def __init__(self, most: int) -> None:
        self._room = Room(ROOM_PIXELS, most)
        self._ranks = count()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loop", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for the work's result on the loop; its errors pass through."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def units(
        self,
        given: Iterator[T | Passed],
        make: Make[T],
        ledger: Ledger,
        *,
        ahead: int,
        rows_left: int | None = None,
        threads: Executor | None = None,
        pixels: Callable[[T], int] = lambda _: 0,
    ) -> Generator[Unit | Passed, None, None]:
        """What `make` gives for each of those given, in their order, with up to `ahead` in work.

        An attempt that began earlier has the room that it can use; a later one fills the rest.
        `threads` are where waiting for the next one given, and `pixels`, may take their time.
        """
        gate = _Gate(ledger)
        attempt = _Attempt(make, gate, self._room, next(self._ranks), ahead, threads, pixels)
        stream = attempt.units(given, rows_left)
        try:
            while (unit := self.run(_next(stream))) is not None:
                yield unit
        finally:
            gate.closed = True
            self.run(stream.aclose())

    def close(self) -> None:
        """End the loop."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass(frozen=True, slots=True)
class _Attempt(Generic[T]):
    """What the units of one attempt have in common."""

    make: Make[T]
    ledger: Ledger
    room: Room
    rank: int
    ahead: int
    threads: Executor | None
    pixels: Callable[[T], int]

    async def units(
        self, given: Iterator[T | Passed], rows_left: int | None
    ) -> AsyncGenerator[Unit | Passed, None]:
        """Units in the order of what is given, cut where `rows_left` are kept."""
        left = rows_left

        async def makers() -> AsyncGenerator[partial[Any], None]:
            while (one := await off_loop(self.threads, next, given, None)) is not None:
                yield partial(self._made, one, left if self.ahead == 1 else None)

        grace_s = GRACE_S if self.ahead > 1 else 0.0
        async with aclosing(in_order(makers(), self.ahead, grace_s)) as done:
            async for one, unit in done:
                if isinstance(unit, Unit) and left is not None:
                    if unit.kept > left:  # worked on ahead: cut by going over its calls again
                        _, unit = await self._made(one, left)
                    left -= unit.kept
                yield unit
                if left == 0 and isinstance(unit, Unit):
                    return

    async def _made(self, one: T | Passed, rows_left: int | None) -> tuple[Any, Any]:
        """What was given, and its unit; the end of a row is its own."""
        if isinstance(one, Passed):
            return one, one
        pixels = await off_loop(self.threads, self.pixels, one)
        async with self.room.taken(self.rank, pixels):
            return one, await self.make(one, self.ledger, rows_left)


class _Gate:
    """A ledger that lets no new call out once it is closed."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.find, self.add, self.replayed = ledger.find, ledger.add, ledger.replayed
        self.closed = False

    def check(self) -> None:
        if self.closed:
            raise BudgetReached("The attempt is ending.")
        self._ledger.check()


async def off_loop(threads: Executor | None, work: Callable[..., T], *args: Any) -> T:
    """Work of milliseconds, kept off the loop where others wait for it."""
    if threads is None:
        return work(*args)
    return await asyncio.get_running_loop().run_in_executor(threads, work, *args)


async def _next(stream: AsyncGenerator[T, None]) -> T | None:
    """The next of a stream, or None at its end."""
    return await anext(stream, None)
