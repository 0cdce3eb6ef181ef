"""Room for pictures: the oldest attempt first, and never more than there is."""

from __future__ import annotations

import asyncio

from pipeline.runner.room import Room


def test_the_earlier_attempt_is_served_first_and_the_later_one_fills_what_is_left() -> None:
    order: list[str] = []

    async def hold(room: Room, rank: int, name: str, done: asyncio.Event) -> None:
        async with room.taken(rank, 1):
            order.append(name)
            await done.wait()

    async def work() -> None:
        room, done = Room(2, 9), asyncio.Event()
        waiting = [hold(room, rank, name, done) for rank, name in ((1, "b0"), (0, "a0"))]
        tasks = [asyncio.create_task(work) for work in waiting]
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(hold(room, 1, "b1", done))]
        tasks += [asyncio.create_task(hold(room, 0, "a1", done))]
        await asyncio.sleep(0.01)
        assert order == ["b0", "a0"]
        done.set()
        await asyncio.gather(*tasks)
        assert order[2:] == ["a1", "b1"]

    asyncio.run(work())


def test_what_is_held_never_exceeds_the_room_and_a_giant_has_it_alone() -> None:
    held = most = 0

    async def hold(room: Room, rank: int, pixels: int) -> None:
        nonlocal held, most
        async with room.taken(rank, pixels):
            held += min(pixels, 10)
            most = max(most, held)
            await asyncio.sleep(0.001)
            held -= min(pixels, 10)

    async def work() -> None:
        room = Room(10, 99)
        await asyncio.gather(*(hold(room, n % 3, (3, 7, 50, 0)[n % 4]) for n in range(40)))

    asyncio.run(work())
    assert most == 10 and held == 0


def test_room_given_to_somebody_who_has_left_is_given_back() -> None:
    async def work() -> None:
        room = Room(1, 9)
        first = room.taken(0, 1)
        await first.__aenter__()
        second = asyncio.create_task(room.taken(0, 1).__aenter__())
        await asyncio.sleep(0)
        second.cancel()
        await first.__aexit__(None, None, None)
        async with asyncio.timeout(1), room.taken(0, 1):
            pass

    asyncio.run(work())


def test_no_more_pictures_than_there_are_places_however_small() -> None:
    held = most = 0

    async def hold(room: Room) -> None:
        nonlocal held, most
        async with room.taken(0, 0):
            held += 1
            most = max(most, held)
            await asyncio.sleep(0)
            held -= 1

    async def work() -> None:
        room = Room(10, 3)
        await asyncio.gather(*(hold(room) for _ in range(20)))

    asyncio.run(work())
    assert most == 3
