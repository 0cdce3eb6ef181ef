"""Doing things side by side and handing them out in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def in_order(
    makers: AsyncIterable[Callable[[], Awaitable[T]]], limit: int, grace_s: float = 0.0
) -> AsyncGenerator[T, None]:
    """Results in the order of their makers, of which up to `limit` are under way at a time.

    With a limit of 1 nothing is begun before it is asked for. What is still under way when the
    generator is closed, or when one of them raises, is given `grace_s` to end by itself and then
    cancelled.
    """
    waiting: deque[asyncio.Future[T]] = deque()
    rest = aiter(makers)
    more = True
    try:
        while True:
            while more and len(waiting) < limit:
                try:
                    maker = await anext(rest)
                except StopAsyncIteration:
                    more = False
                else:
                    waiting.append(asyncio.ensure_future(maker()))
            if not waiting:
                return
            yield await waiting[0]
            waiting.popleft()
    finally:
        await _ended(waiting, grace_s)


async def _ended(tasks: deque[asyncio.Future[T]], grace_s: float) -> None:
    """Wait until the tasks have ended; their errors are of no interest any more."""
    if grace_s and tasks:
        await asyncio.wait(tasks, timeout=grace_s)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
