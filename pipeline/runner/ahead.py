"""Doing things side by side and handing them out in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

HELD = 2
"""Results that are held, finished ones included, as a multiple of those that may be under way: one
that takes long keeps the others from being handed out, but not from going on."""


async def in_order(
    makers: AsyncIterable[Callable[[], Awaitable[T]]], limit: int, grace_s: float = 0.0
) -> AsyncGenerator[T, None]:
    """Results in the order of their makers, of which up to `limit` are under way at a time.

    With a limit of 1 nothing is begun before it is asked for. What is still under way when the
    generator is closed, or when one of them raises, is given `grace_s` to end by itself and then
    cancelled.
    """
    most = limit if limit == 1 else HELD * limit
    waiting: deque[asyncio.Future[T]] = deque()
    under_way: set[asyncio.Future[T]] = set()
    one_ended = asyncio.Event()

    def ended(task: asyncio.Future[T]) -> None:
        under_way.discard(task)
        one_ended.set()

    rest = aiter(makers)
    more = True
    try:
        while True:
            while more and len(under_way) < limit and len(waiting) < most:
                try:
                    maker = await anext(rest)
                except StopAsyncIteration:
                    more = False
                else:
                    task = asyncio.ensure_future(maker())
                    task.add_done_callback(ended)
                    under_way.add(task)
                    waiting.append(task)
            if not waiting:
                return
            if waiting[0].done():
                yield await waiting[0]
                waiting.popleft()
            else:
                one_ended.clear()
                await one_ended.wait()
    finally:
        await _ended(waiting, grace_s)


async def _ended(tasks: deque[asyncio.Future[T]], grace_s: float) -> None:
    """Wait until the tasks have ended; their errors are of no interest any more."""
    if grace_s and tasks:
        await asyncio.wait(tasks, timeout=grace_s)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
