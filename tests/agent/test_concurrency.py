"""Limits find what a server can bear, breakers leave the broken alone, pauses are as asked."""

from __future__ import annotations

import asyncio
import math
import os
import random
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.agent.concurrency import (
    COOLING_S,
    FAILURES,
    FIRST,
    LONGEST_BACKOFF_S,
    LONGEST_RETRY_AFTER_S,
    RISE,
    Breaker,
    Clock,
    Limiter,
    Ticket,
    TryFailed,
    pause_s,
    retry_after_s,
)
from pipeline.agent.upstreams import REREAD_S, Upstreams, Visit, bare
from pipeline.config import Endpoint
from pipeline.errors import ConfigError

DOWN = TryFailed("down")
NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


class FakeTime:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.slept: list[float] = []
        self.clock = Clock(lambda: self.now_s, NOON.timestamp, self.sleep, lambda: 0.5)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(0)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


Server = Callable[[Limiter, list[Ticket]], None]
"""What becomes of the requests of one round trip."""


async def trips(limiter: Limiter, count: int, serve: Server) -> None:
    """So many full round trips: as many requests as the limit allows, and more that wait."""
    for _ in range(count):
        size = limiter.limit
        places = [await limiter.enter() for _ in range(size)]
        more = asyncio.create_task(limiter.enter())
        await asyncio.sleep(0)
        serve(limiter, places)
        for _ in places:
            limiter.leave()
        await more
        limiter.leave()


def rejects_over(most: int) -> Server:
    """A server that refuses what comes while `most` are served."""

    def serve(limiter: Limiter, places: list[Ticket]) -> None:
        for i, ticket in enumerate(places):
            if i < most:
                limiter.succeeded(ticket, 1.0)
            else:
                limiter.overloaded(ticket)

    return serve


def refuses_by_chance(share: float, seed: int) -> Server:
    """A server that refuses a share of whatever it is sent."""
    chance = random.Random(seed)

    def serve(limiter: Limiter, places: list[Ticket]) -> None:
        for ticket in places:
            if chance.random() < share:
                limiter.overloaded(ticket)
            else:
                limiter.succeeded(ticket, 1.0)

    return serve


def queues_over(most: int, factor: float = 1.0) -> Server:
    """A server that lets the others wait: in the steady state all take the longer."""

    def serve(limiter: Limiter, places: list[Ticket]) -> None:
        for ticket in places:
            limiter.succeeded(ticket, factor * max(1.0, len(places) / most))

    return serve


@pytest.mark.parametrize("most", [3, 20, 60])
def test_the_limit_comes_to_what_a_rejecting_server_bears(most: int) -> None:
    async def test() -> None:
        limiter, seen = Limiter(256), []
        await trips(limiter, 20, rejects_over(most))
        for _ in range(30):
            await trips(limiter, 1, rejects_over(most))
            seen.append(limiter.limit)
        assert max(seen) <= 1.1 * most + 1
        assert min(seen) >= int(0.75 * most)

    run(test)


@pytest.mark.parametrize("most", [128, 512])
@pytest.mark.parametrize("share", [0.03, 0.1, 0.3])
def test_refusals_that_sending_less_does_not_help_are_borne(most: int, share: float) -> None:
    async def test() -> None:
        seen = []
        for seed in range(20):
            limiter, server = Limiter(most), refuses_by_chance(share, seed)
            await trips(limiter, 20, server)
            for _ in range(20):
                await trips(limiter, 1, server)
                seen.append(limiter.limit)
        assert sum(seen) / len(seen) >= 0.65 * most

    run(test)


def test_a_server_that_refuses_by_chance_and_then_for_load_is_spared() -> None:
    async def test() -> None:
        limiter, seen = Limiter(256), []
        await trips(limiter, 40, refuses_by_chance(0.1, seed=1))
        await trips(limiter, 20, rejects_over(30))
        for _ in range(30):
            await trips(limiter, 1, rejects_over(30))
            seen.append(limiter.limit)
        assert max(seen) <= 45 and min(seen) >= 22

    run(test)


@pytest.mark.parametrize("most", [4, 20])
def test_the_limit_keeps_a_queueing_server_busy_and_its_queue_short(most: int) -> None:
    async def test() -> None:
        limiter, seen = Limiter(1000), []
        await trips(limiter, 20, queues_over(most))
        for _ in range(80):
            await trips(limiter, 1, queues_over(most))
            seen.append(limiter.limit)
        assert min(seen) >= most
        assert max(seen) <= RISE * max(most, FIRST) + 2

    run(test)


def test_the_limit_never_passes_the_cap_and_grows_only_when_it_is_reached() -> None:
    async def test() -> None:
        limiter = Limiter(32)
        await trips(limiter, 20, rejects_over(1000))
        assert limiter.limit == 32
        idle = Limiter(32)
        for _ in range(100):
            idle.succeeded(await idle.enter(), 1.0)
            idle.leave()
        assert idle.limit == 8

    run(test)


def test_the_limit_is_decreased_once_in_a_round_trip_and_never_below_one() -> None:
    async def test() -> None:
        limiter = Limiter(64)
        places = [await limiter.enter() for _ in range(8)]
        for ticket in places:
            limiter.overloaded(ticket)
            limiter.leave()
        assert limiter.limit == 6
        for _ in range(50):
            limiter.overloaded(await limiter.enter())
            limiter.leave()
        assert limiter.limit == 1

    run(test)


def test_a_server_that_is_slower_for_good_is_not_starved() -> None:
    async def test() -> None:
        limiter = Limiter(64)
        await trips(limiter, 10, queues_over(1000))
        await trips(limiter, 15, queues_over(1000, factor=10))
        assert limiter.limit >= 45

    run(test)


def test_places_are_given_in_order_and_a_cancelled_wait_takes_none() -> None:
    async def test() -> None:
        limiter, order = Limiter(1), []

        async def visit(name: str) -> None:
            await limiter.enter()
            order.append(name)
            await asyncio.sleep(0)
            limiter.leave()

        await limiter.enter()
        tasks = {name: asyncio.create_task(visit(name)) for name in "abcd"}
        await settled()
        tasks["a"].cancel()
        limiter.leave()
        tasks["b"].cancel()  # its place has just been given
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        assert order == ["c", "d"]
        assert limiter.load == 0

    run(test)


def test_a_breaker_opens_after_consecutive_failures_and_lets_one_request_find_out() -> None:
    async def test() -> None:
        time = FakeTime()
        breaker = Breaker(time.clock.now)
        for _ in range(FAILURES - 1):
            breaker.failed(breaker.enter())
        breaker.succeeded()
        for _ in range(FAILURES):
            assert breaker.ready_in_s == 0
            breaker.failed(breaker.enter())
        assert breaker.ready_in_s == COOLING_S
        breaker.failed(False)  # late news
        time.now_s += COOLING_S
        assert breaker.ready_in_s == 0
        assert breaker.enter()
        assert breaker.ready_in_s == math.inf
        breaker.failed(True)
        breaker.leave(True)
        assert breaker.ready_in_s == 2 * COOLING_S
        time.now_s += 2 * COOLING_S
        assert breaker.enter()
        breaker.succeeded()
        breaker.leave(True)
        assert breaker.ready_in_s == 0
        assert not breaker.enter()

    run(test)


def test_a_probe_that_is_given_up_is_left_to_the_next() -> None:
    async def test() -> None:
        time = FakeTime()
        breaker = Breaker(time.clock.now)
        for _ in range(FAILURES):
            breaker.failed(False)
        time.now_s += COOLING_S
        breaker.leave(breaker.enter())
        assert breaker.ready_in_s == 0

    run(test)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0.25", 0.25),
        ("-3", 0.0),
        ("99999", LONGEST_RETRY_AFTER_S),
        ("inf", LONGEST_RETRY_AFTER_S),
        ("nan", None),
        ("soon", None),
        ("", None),
        (None, None),
        (format_datetime(NOON.replace(second=30), usegmt=True), 30.0),
        (format_datetime(NOON.replace(hour=11), usegmt=True), 0.0),
        (format_datetime(NOON.replace(hour=13), usegmt=True), LONGEST_RETRY_AFTER_S),
        ("Fri, 99 Jan 2026 12:00:00 GMT", None),
    ],
)
def test_retry_after_is_read_in_both_forms(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, NOON.timestamp()) == seconds


def test_pauses_double_up_to_a_limit_and_are_full_jitter() -> None:
    assert [pause_s(n, 1.0) for n in (1, 2, 3)] == [0.5, 1.0, 2.0]
    assert pause_s(1000, 1.0) == LONGEST_BACKOFF_S
    assert pause_s(3, 0.0) == 0.0


def upstreams(time: FakeTime, *names: str, file: Path | None = None) -> Upstreams:
    urls = tuple(f"http://{name}/v1" for name in names)
    return Upstreams(Endpoint(urls=urls, urls_file=str(file) if file else None), time.clock)


def ended(visit: Visit, failure: TryFailed | None = None) -> str:
    """The host that was visited."""
    if failure:
        visit.failed(failure)
    else:
        visit.succeeded(1.0)
    visit.leave()
    return visit.upstream.url.split("/")[2]


def test_equal_affinities_meet_and_only_a_lost_servers_pictures_move() -> None:
    async def test() -> None:
        time = FakeTime()
        three, two = upstreams(time, "a", "b", "c"), upstreams(time, "c", "a")
        pictures = [f"picture {i}" for i in range(60)]
        first = {p: ended(await three.enter(p)) for p in pictures}
        assert first == {p: ended(await three.enter(p)) for p in pictures}
        assert min(sum(host == name for host in first.values()) for name in "abc") >= 8
        after = {p: ended(await two.enter(p)) for p in pictures}
        assert all(after[p] == host for p, host in first.items() if host != "b")

    run(test)


def test_a_server_that_failed_comes_last_and_a_broken_one_is_skipped() -> None:
    async def test() -> None:
        both = upstreams(FakeTime(), "a", "b")
        broken = ended(await both.enter("picture"))
        other = ended(await both.enter("picture", {f"http://{broken}/v1"}))
        assert other != broken
        for _ in range(FAILURES):
            assert ended(await both.enter("picture"), DOWN) == broken
        assert {ended(await both.enter("picture")) for _ in range(10)} == {other}

    run(test)


def test_requests_without_pictures_go_where_there_is_least_to_do() -> None:
    async def test() -> None:
        both = upstreams(FakeTime(), "a", "b")
        visits = [await both.enter("") for _ in range(6)]
        assert sorted(ended(visit) for visit in visits) == [*"aaabbb"]

    run(test)


def test_when_all_are_down_one_probe_speaks_for_everybody() -> None:
    async def test() -> None:
        time = FakeTime()
        one = upstreams(time, "a")
        for _ in range(FAILURES):
            ended(await one.enter(""), DOWN)
        began = time.now_s
        probe = await one.enter("")
        assert time.now_s - began == pytest.approx(COOLING_S)
        others = [asyncio.create_task(one.enter("")) for _ in range(5)]
        await settled()
        ended(probe, DOWN)
        found = await asyncio.gather(*others, return_exceptions=True)
        assert [type(each) for each in found] == [TryFailed] * 5
        probe = await one.enter("")
        others = [asyncio.create_task(one.enter("")) for _ in range(5)]
        await settled()
        assert not any(task.done() for task in others)
        ended(probe)
        assert {ended(visit) for visit in await asyncio.gather(*others)} == {"a"}

    run(test)


def test_a_server_that_is_busy_is_not_a_broken_one() -> None:
    async def test() -> None:
        time = FakeTime()
        one = upstreams(time, "a")
        for _ in range(3 * FAILURES):
            ended(await one.enter(""), TryFailed("HTTP 429", busy=True, alive=True))
        await one.enter("")
        assert time.slept == []

    run(test)


def write(path: Path, text: str, stamp_s: int) -> None:
    path.write_text(text)
    os.utime(path, (stamp_s, stamp_s))


def test_the_file_of_urls_is_read_again_once_a_second_and_faults_in_it_change_nothing(
    tmp_path: Path,
) -> None:
    async def test() -> None:
        time, path = FakeTime(), tmp_path / "urls"
        write(path, "# ours\nhttp://a/v1/\n\n", 1)
        served = upstreams(time, file=path)
        under_way = await served.enter("")
        write(path, "http://b/v1\n", 2)
        assert ended(await served.enter("")) == "a"
        time.now_s += REREAD_S
        assert ended(await served.enter("")) == "b"
        assert ended(under_way) == "a"
        for stamp, text in enumerate(["", "# none\n", "not a url\n"], start=3):
            write(path, text, stamp)
            time.now_s += REREAD_S
            assert ended(await served.enter("")) == "b"
        path.unlink()
        time.now_s += REREAD_S
        assert ended(await served.enter("")) == "b"

    run(test)


def test_who_waits_for_a_server_that_is_taken_away_goes_to_another(tmp_path: Path) -> None:
    async def test() -> None:
        time, path = FakeTime(), tmp_path / "urls"
        write(path, "http://a/v1", 1)
        settings = Endpoint(urls_file=str(path), in_flight=1)
        served = Upstreams(settings, time.clock)
        under_way = await served.enter("")
        waiting = asyncio.create_task(served.enter(""))
        await settled()
        write(path, "http://b/v1", 2)
        time.now_s += REREAD_S
        assert ended(await served.enter("")) == "b"
        assert ended(under_way) == "a"
        assert ended(await waiting) == "b"

    run(test)


@pytest.mark.parametrize("line", ["", "# none", "ftp://a/v1", "localhost:8000/v1", "http://[::1"])
def test_a_file_without_a_url_is_refused_at_the_start(line: str, tmp_path: Path) -> None:
    write(tmp_path / "urls", line, 1)
    with pytest.raises(ConfigError):
        upstreams(FakeTime(), file=tmp_path / "urls")
    with pytest.raises(ConfigError):
        upstreams(FakeTime(), file=tmp_path / "absent")


def test_no_url_at_all_is_refused() -> None:
    with pytest.raises(ConfigError):
        upstreams(FakeTime())


def test_a_shown_url_holds_no_secrets() -> None:
    assert bare("https://user:secret@host:81/v1?key=secret#secret") == "https://host:81/v1"
    assert "secret" not in bare("user:secret@host")
