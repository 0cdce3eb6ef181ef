"""Each failure of a server ends in the right place, and the key in none."""

from __future__ import annotations

import asyncio
import gc
import logging
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from pathlib import Path
from typing import Any, TypeVar

import pytest

from pipeline.agent.chat import ChatModel, Picture, Reply, Request, Said, Sampling, ToolUse
from pipeline.agent.concurrency import COOLING_S, FAILURES, Clock
from pipeline.agent.endpoint import EndpointModel, open_endpoint
from pipeline.config import Endpoint
from pipeline.errors import ConfigError, ContextOverflow, ModelError
from tests.loopback.server import (
    EMPTY,
    HTML,
    INVALID_UTF8,
    LENGTH,
    NO_MODEL,
    OVERFLOW,
    RENAMED,
    RESET,
    STALL,
    TOO_LARGE,
    TRUNCATED,
    UNAUTHORIZED,
    Answer,
    Body,
    Brain,
    Fault,
    Loopback,
    failing,
    pictures,
    rate_limited,
    said,
)

T = TypeVar("T")

CANARY = "sk-canary-3f1c"
NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
PASSING = [
    rate_limited(),
    *map(failing, (408, 409, 500, 502, 503, 504)),
    RESET,
    TRUNCATED,
    HTML,
    EMPTY,
    INVALID_UTF8,
]
"""Faults that another try may get over."""
LASTING = [
    (OVERFLOW, ContextOverflow),
    (TOO_LARGE, ContextOverflow),
    (failing(422, "`inputs` tokens + `max_new_tokens` must be <= 4096"), ContextOverflow),
    (UNAUTHORIZED, ConfigError),
    (failing(403), ConfigError),
    (NO_MODEL, ConfigError),
    (failing(400, "temperature must be a number"), ModelError),
]
"""Faults that it would not, and the errors that they are."""


class FakeTime:
    """A clock that moves when the client sleeps, so that no test waits for it."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slept: list[float] = []
        self.clock = Clock(lambda: self.now_s, NOON.timestamp, self._sleep, lambda: 0.5)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(0)


def answers(*given: Answer) -> Brain:
    """A brain that gives these in turn, and the last one for ever."""
    following: Iterator[Answer] = chain(given, repeat(given[-1]))
    return lambda body: next(following)


def ask(text: str = "What is it?", *shown: Picture, **more: Any) -> Request:
    return Request("read", (Said("user", (text, *shown)),), **more)


def picture(number: int) -> Picture:
    return Picture(b"\xff\xd8 %d" % number, (8, 8))


def use(
    urls: str | Sequence[str],
    do: Callable[[EndpointModel], Awaitable[T]],
    *,
    model: str | None = "loopback",
    clock: Clock | None = None,
    **settings: Any,
) -> T:
    """What `do` makes of a model at these URLs, which is closed afterwards."""

    async def used() -> T:
        given = {"urls": urls, "deadline_s": 20.0, "tries": 3, **settings}
        opened = await open_endpoint(Endpoint(**given), model, clock=clock or FakeTime().clock)
        try:
            return await do(opened)
        finally:
            await opened.close()

    return asyncio.run(used())


def one(request: Request) -> Callable[[ChatModel], Awaitable[Reply]]:
    return lambda model: model.reply(request)


def test_a_request_is_sent_as_the_protocol_writes_it() -> None:
    tool = {"type": "function", "function": {"name": "zoom", "parameters": {}}}
    request = Request(
        "planner",
        (
            Said("system", ("You look", " closely.")),
            Said("user", ("Here:", picture(1), "and", picture(2))),
        ),
        Sampling(0.5, 0.9, 77, ("</s>",), 3),
        (tool,),
        ("<think>",),
    )
    with Loopback(answers("I see.")) as server:
        reply = use(server.url, one(request))
    (seen,) = server.log
    assert {k: v for k, v in seen.body.items() if k != "messages"} == {
        "model": "loopback",
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 77,
        "stop": ["</s>"],
        "seed": 3,
        "tools": [tool],
        "continue_final_message": True,
        "add_generation_prompt": False,
    }
    assert seen.body["messages"][0] == {"role": "system", "content": "You look closely."}
    assert [part["type"] for part in seen.body["messages"][1]["content"]] == [
        *("text", "image_url", "text", "image_url")
    ]
    assert pictures(seen.body) == [picture(1).jpeg, picture(2).jpeg]
    assert seen.body["messages"][2] == {"role": "assistant", "content": "<think>"}
    assert (reply.text, reply.finish, reply.model, reply.tries) == ("I see.", "stop", "loopback", 1)
    assert reply.tokens_in and reply.tokens_out


def test_nothing_is_sent_that_was_not_asked_for() -> None:
    with Loopback(answers("yes")) as server:
        use(server.url, one(ask()))
    assert {"stop", "seed", "tools", "continue_final_message"}.isdisjoint(server.log[0].body)


def test_replies_are_read_in_all_their_forms() -> None:
    call = {"name": "zoom", "arguments": '{"box": [1, 2]}'}
    brain = answers(
        LENGTH, {"text": None, "tool_calls": [call]}, {"text": "a \ud83d", "usage": None}
    )

    async def do(model: ChatModel) -> list[Reply]:
        return [await model.reply(ask()) for _ in range(3)]

    with Loopback(brain) as server:
        cut, called, halved = use(server.url, do)
    assert cut.finish == "length"
    assert (called.text, called.finish) == ("", "tool_calls")
    assert called.tools == (ToolUse("zoom", '{"box": [1, 2]}'),)
    assert halved.text == "a ?"
    assert halved.tokens_out is None


@pytest.mark.parametrize("fault", PASSING, ids=lambda f: f"{f.kind}-{f.status}")
def test_a_passing_fault_costs_a_try_and_a_lasting_one_all_of_them(fault: Fault) -> None:
    with Loopback(answers(fault, "yes", fault)) as server:

        async def do(model: ChatModel) -> Reply:
            reply = await model.reply(ask("first"))
            with pytest.raises(ModelError, match=r"127\.0\.0\.1:\d+/v1 .*3 tries: .*\(3×\)"):
                await model.reply(ask("second"))
            return reply

        reply = use(server.url, do)
    assert (reply.text, reply.tries) == ("yes", 2)
    assert [seen.copies for seen in server.log] == [1, 2, 1, 2, 3]


@pytest.mark.parametrize(("fault", "kind"), LASTING, ids=lambda x: getattr(x, "status", None))
def test_what_another_try_would_not_change_is_not_tried_again(
    fault: Fault, kind: type[Exception]
) -> None:
    with Loopback(answers(fault)) as server, pytest.raises((ModelError, ConfigError)) as caught:
        use(server.url, one(ask()))
    assert type(caught.value) is kind
    assert len(server.log) == 1


def test_a_refused_key_is_answered_with_where_the_key_comes_from(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("wrong")
    with Loopback(answers("yes"), key="right") as server:
        with pytest.raises(ConfigError, match="MY_KEY"):
            use(server.url, one(ask()), key_env="MY_KEY")
        with pytest.raises(ConfigError, match=str(path)):
            use(server.url, one(ask()), key_file=str(path))


def test_a_body_that_stalls_ends_at_the_deadline() -> None:
    with Loopback(answers(STALL)) as server:
        with pytest.raises(ModelError, match=r"no reply within 0\.2 s \(2×\)"):
            use(server.url, one(ask()), deadline_s=0.2, tries=2)
        assert len(server.log) == 2


def test_a_server_that_is_not_there_is_a_model_error() -> None:
    with Loopback(answers("yes")) as server:
        url = server.url
    for model in ("loopback", None):
        with pytest.raises(ModelError, match=r"127\.0\.0\.1"):
            use(url, one(ask()), model=model)


@pytest.mark.parametrize(
    ("asked", "slept_s"),
    [
        (7, 7.0),
        ("0.5", 0.5),
        (NOON + timedelta(seconds=30), 30.0),
        (NOON - timedelta(days=1), 0.0),
        (1e6, 120.0),
        ("later", 0.25),
        (None, 0.25),
    ],
)
def test_a_pause_is_what_retry_after_asks_for_and_no_longer(asked: Any, slept_s: float) -> None:
    time = FakeTime()
    with Loopback(answers(rate_limited(asked), "yes")) as server:
        use(server.url, one(ask()), clock=time.clock)
    assert time.slept == [slept_s]


def test_another_server_is_not_kept_waiting_by_what_one_asks_for() -> None:
    time = FakeTime()
    with Loopback(answers(rate_limited(60))) as busy, Loopback(answers("yes")) as free:
        for number in range(8):
            request = ask("?", picture(number))
            assert use([busy.url, free.url], one(request), clock=time.clock).text == "yes"
    assert busy.log
    assert max(time.slept) < 1


def test_a_model_that_changes_its_name_while_the_run_goes_on_is_an_error() -> None:
    async def do(model: ChatModel) -> None:
        await model.reply(ask())
        with pytest.raises(ModelError, match="another-model"):
            await model.reply(ask())

    with Loopback(answers("yes", RENAMED)) as server:
        use(server.url, do)
    assert len(server.log) == 2


def test_a_server_may_name_the_model_in_its_own_way() -> None:
    async def do(model: ChatModel) -> None:
        for _ in range(3):
            await model.reply(ask())

    with Loopback(answers(RENAMED)) as server:
        use(server.url, do)


def test_without_a_model_the_only_one_is_taken() -> None:
    async def name(model: ChatModel) -> str:
        return model.name

    for models, taken in {("only",): "only", (): "default"}.items():
        with Loopback(answers("yes"), models=models) as server:
            assert use(server.url, name, model=None) == taken
    with Loopback(answers("yes"), models=("one", "two")) as server:
        with pytest.raises(ConfigError, match="one, two"):
            use(server.url, name, model=None)
        assert use(server.url, name, model="two") == "two"


def test_the_key_of_the_file_goes_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key"
    path.write_text(f"{CANARY}\n")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with Loopback(answers("yes")) as server:
        use(server.url, one(ask()))
        monkeypatch.setenv("OPENAI_API_KEY", "environment")
        use(server.url, one(ask()))
        use(server.url, one(ask()), key_file=str(path))
    sent = [seen.headers["Authorization"] for seen in server.log]
    assert sent == ["Bearer EMPTY", "Bearer environment", f"Bearer {CANARY}"]


@pytest.mark.parametrize("key", [f"{CANARY}\nmore", f"{CANARY} more", f"{CANARY}é"])
def test_what_cannot_be_a_key_is_refused_without_being_shown(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ConfigError) as caught:
        use("http://127.0.0.1:9/v1", one(ask()))
    assert CANARY not in everything(caught.value)


def everything(error: BaseException | None) -> str:
    """All that a report of an error may show: its chain as well, even where that is not printed."""
    shown = ""
    while error:
        lines = traceback.TracebackException.from_exception(error, capture_locals=False).format()
        shown += f"{error!r} {vars(error)} {''.join(lines)}"
        request = getattr(error, "request", None)
        shown += str(getattr(request, "headers", "")) + repr(getattr(request, "url", ""))
        shown += str(request.headers.raw) if request else ""
        error = error.__cause__ or error.__context__
    return shown


@pytest.mark.parametrize(
    "fault",
    [
        *PASSING,
        *(fault for fault, _ in LASTING),
        STALL,
        failing(401, f"Bearer {CANARY} is not a key"),
        failing(400, f"unknown header Authorization: Bearer {CANARY}"),
    ],
    ids=lambda f: f"{f.kind}-{f.status}",
)
def test_the_key_is_in_no_error_no_log_and_no_repr(
    fault: Fault,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name in ("", "openai", "aiohttp", "asyncio"):
        caplog.set_level(logging.DEBUG, name or None)
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    shown: list[str] = []

    async def do(model: EndpointModel) -> None:
        shown.extend([repr(model), str(model), repr(vars(model))])
        await model.reply(ask())

    with Loopback(answers(fault)) as server, pytest.raises((ModelError, ConfigError)) as caught:
        use(server.url, do, tries=2, deadline_s=0.5 if fault is STALL else 20.0)
    assert server.log[0].headers["Authorization"] == f"Bearer {CANARY}"
    shown += [everything(caught.value), caplog.text, *capfd.readouterr()]
    assert CANARY not in "".join(shown)


def test_a_key_in_a_url_is_refused_without_being_shown(tmp_path: Path) -> None:
    path = tmp_path / "urls"
    for url in (f"http://user:{CANARY}@127.0.0.1:9/v1", f"http://127.0.0.1:9/v1?key={CANARY}"):
        path.write_text(url)
        with pytest.raises(ConfigError) as caught:
            use((), one(ask()), urls_file=str(path))
        assert CANARY not in everything(caught.value)


def test_requests_on_one_picture_go_to_one_server_and_every_server_gets_some() -> None:
    async def do(model: ChatModel) -> None:
        for _ in range(2):
            await asyncio.gather(*(model.reply(ask("Look", picture(i))) for i in range(24)))

    with Loopback(answers("a")) as a, Loopback(answers("b")) as b:
        use((a.url, b.url), do)
    seen = [{pictures(s.body)[0] for s in server.log} for server in (a, b)]
    assert seen[0] and seen[1]
    assert seen[0].isdisjoint(seen[1])


def test_another_server_takes_over_and_the_broken_one_is_left_alone() -> None:
    async def do(model: ChatModel) -> list[Reply]:
        return [await model.reply(ask("Look", picture(i))) for i in range(40)]

    with Loopback(answers(RESET)) as broken, Loopback(answers("yes")) as works:
        replies = use((broken.url, works.url), do, clock=replace(FakeTime().clock, now=lambda: 0.0))
    assert [reply.text for reply in replies] == ["yes"] * 40
    assert len(broken.log) == FAILURES


def test_a_server_that_comes_back_is_found_by_one_probe() -> None:
    time = FakeTime()
    with Loopback(answers("yes")) as server:
        url, port = server.url, server.port

    async def do(model: ChatModel) -> int:
        with pytest.raises(ModelError):
            await model.reply(ask())
        time.slept.clear()
        async with AsyncExitStack() as stack:
            back = stack.enter_context(Loopback(answers("yes"), port=port))
            await asyncio.gather(*(model.reply(ask(str(i))) for i in range(10)))
            first = back.log[0]
            assert all(seen.in_s >= (first.out_s or 0) for seen in back.log[1:])
            return len(back.log)

    assert use(url, do, clock=time.clock, tries=FAILURES) == 10
    assert sum(time.slept[:5]) == pytest.approx(COOLING_S)


def test_a_server_that_joins_the_file_of_urls_is_asked_and_one_that_leaves_finishes(
    tmp_path: Path,
) -> None:
    path, time = tmp_path / "urls", FakeTime()

    async def do(model: ChatModel) -> list[str]:
        slow = asyncio.create_task(model.reply(ask("slow")))
        while not old.log:
            await asyncio.sleep(0.005)
        path.write_text(f"{new.url}\n# the old one is gone\n")
        time.now_s += 1.0
        quick = await model.reply(ask("quick"))
        return [quick.text, (await slow).text]

    with Loopback(answers("old"), latency_s=0.2) as old, Loopback(answers("new")) as new:
        path.write_text(old.url)
        assert use((), do, urls_file=str(path), clock=time.clock) == ["new", "old"]


def test_no_more_requests_are_under_way_than_the_settings_allow() -> None:
    async def do(model: ChatModel) -> None:
        await asyncio.gather(*(model.reply(ask(str(i))) for i in range(12)))

    with Loopback(answers("yes"), latency_s=0.01) as server:
        use(server.url, do, in_flight=3)
    assert server.most_at_once == 3


def test_a_server_that_takes_little_at_once_is_not_overrun() -> None:
    async def do(model: ChatModel) -> None:
        await asyncio.gather(*(model.reply(ask(str(i))) for i in range(80)))

    with Loopback(answers("yes"), latency_s=0.01, at_once=4, when_full="reject") as server:
        use(server.url, do, clock=Clock(fraction=lambda: 0.02), tries=20)
    rejected = len(server.log) - 80
    assert 0 < rejected < 80
    assert server.most_at_once == 4


def test_a_request_that_is_cancelled_gives_its_place_back() -> None:
    def latency_s(body: Body) -> float:
        return 60.0 if said(body) == "slow" else 0.0

    async def do(model: ChatModel) -> Reply:
        slow = asyncio.create_task(model.reply(ask("slow")))
        while not server.log:
            await asyncio.sleep(0.005)
        slow.cancel()
        return await asyncio.wait_for(model.reply(ask("quick")), 5)

    with Loopback(answers("yes"), latency_s=latency_s) as server:
        assert use(server.url, do, in_flight=1).text == "yes"


def test_closing_leaves_no_connection_behind(caplog: pytest.LogCaptureFixture) -> None:
    with Loopback(answers("yes"), models=("one", "two")) as server:
        use(server.url, one(ask()))
        with pytest.raises(ConfigError):
            use(server.url, one(ask()), model=None)
        gc.collect()
    assert "Unclosed" not in caplog.text
