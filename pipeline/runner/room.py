"""Room for pictures in memory, given to the oldest attempt first."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Room:
    """So many pictures, and of so many pixels, may be held at a time; belongs to one event loop.

    Whoever waits longest is not served first, but whoever has the lowest rank: a later attempt
    gets what an earlier one leaves, so it fills the time while the earlier one ends.
    """

    def __init__(self, pixels: int, pictures: int) -> None:
        self._most = self._left = pixels
        self._places = pictures
        self._waiting: list[tuple[int, int, int, asyncio.Future[None]]] = []
        self._number = 0

    @asynccontextmanager
    async def taken(self, rank: int, pixels: int) -> AsyncGenerator[None, None]:
        """Hold room for a picture; one that is larger than all of it gets all of it."""
        cost = min(pixels, self._most)
        await self._enter(rank, cost)
        try:
            yield
        finally:
            self._leave(cost)

    async def _enter(self, rank: int, cost: int) -> None:
        place = asyncio.get_running_loop().create_future()
        self._number += 1
        heapq.heappush(self._waiting, (rank, self._number, cost, place))
        self._admit()
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():  # room was given at the moment it was given up
                self._leave(cost)
            raise

    def _leave(self, cost: int) -> None:
        self._left += cost
        self._places += 1
        self._admit()

    def _admit(self) -> None:
        """Let the first in line in while there is room; nobody overtakes."""
        while self._waiting:
            _, _, cost, place = self._waiting[0]
            if not place.done() and (cost > self._left or not self._places):
                return
            heapq.heappop(self._waiting)
            if not place.done():
                self._left -= cost
                self._places -= 1
                place.set_result(None)
