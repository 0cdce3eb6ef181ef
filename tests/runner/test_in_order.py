"""Work goes on side by side and is handed out in order; one that is slow holds up nobody's work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial

import pytest

from pipeline.runner.ahead import HELD, in_order


class Work:
    """Numbered pieces of work that end when they are told to, in whatever order."""

    def __init__(self, count: int) -> None:
        self.ends = [asyncio.Event() for _ in range(count)]
        self.begun: list[int] = []
        self.under_way = self.most = 0

    async def do(self, number: int) -> int:
        self.begun.append(number)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.ends[number].wait()
        finally:
            self.under_way -= 1
        return number

    async def makers(self) -> AsyncGenerator[Callable[[], Awaitable[int]], None]:
        for number in range(len(self.ends)):
            yield partial(self.do, number)


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize("order", [range(9), range(8, -1, -1), (3, 0, 7, 1, 8, 2, 6, 4, 5)])
def test_results_come_in_order_and_no_more_than_the_limit_are_under_way(
    order: Sequence[int],
) -> None:
    async def test() -> None:
        work, out = Work(9), []

        async def end() -> None:
            for number in order:
                await settled()
                work.ends[number].set()

        ending = asyncio.create_task(end())
        async for number in in_order(work.makers(), 3):
            out.append(number)
        await ending
        assert out == list(range(9))
        assert work.most <= 3

    asyncio.run(test())


def test_a_slow_one_does_not_keep_others_from_being_begun_until_the_window_is_full() -> None:
    async def test() -> None:
        work = Work(40)
        for number in range(1, 40):
            work.ends[number].set()
        stream = in_order(work.makers(), 4)
        first = asyncio.ensure_future(anext(stream))
        await settled()
        assert work.begun == list(range(HELD * 4))
        work.ends[0].set()
        assert [await first, *[n async for n in stream]] == list(range(40))

    asyncio.run(test())


def test_with_a_limit_of_one_nothing_is_begun_before_it_is_asked_for() -> None:
    async def test() -> None:
        work = Work(3)
        for end in work.ends:
            end.set()
        stream = in_order(work.makers(), 1)
        for number in range(3):
            assert await anext(stream) == number
            await settled()
            assert work.begun == list(range(number + 1))

    asyncio.run(test())


def test_an_error_passes_through_in_its_turn_and_what_is_under_way_is_ended() -> None:
    async def test() -> None:
        work = Work(4)

        async def makers() -> AsyncGenerator[Callable[[], Awaitable[int]], None]:
            yield partial(work.do, 0)
            yield broken
            yield partial(work.do, 1)

        async def broken() -> int:
            raise ZeroDivisionError

        out = []
        work.ends[0].set()
        with pytest.raises(ZeroDivisionError):
            async for number in in_order(makers(), 4):
                out.append(number)
        assert out == [0]
        assert work.begun == [0, 1] and work.under_way == 0

    asyncio.run(test())
