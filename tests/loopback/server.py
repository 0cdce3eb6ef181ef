"""A server that speaks enough of the OpenAI protocol, answers from a function, and fails on demand.

    def brain(body: dict[str, Any]) -> str | dict[str, Any] | Fault:
        return "B" if "Which letter" in said(body) else rate_limited(retry_after=0)

    with Loopback(brain, latency_s=0.01, at_once=8) as server:
        ...  # ask server.url
    assert [seen.body["model"] for seen in server.log] == ["loopback"]

It listens on 127.0.0.1 in a thread with an event loop of its own, so it serves sync and async
tests and other processes. The brain is called there, once for each request, in the order in which
they get their place; what it raises is kept in `errors` and raised again when the server closes.
It knows nothing of the client under test.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from types import TracebackType
from typing import Any, Literal

from aiohttp import web

Body = dict[str, Any]
"""A request as JSON was read."""


@dataclass(frozen=True)
class Fault:
    """A way to fail; the names below are those that tests need."""

    kind: Literal["status", "reset", "stall", "truncated", "html", "empty", "utf8", "renamed"]
    status: int = 200
    error: Mapping[str, Any] | None = None
    """What the body says under `error`."""
    retry_after: str | None = None
    """The header, word for word."""


RESET = Fault("reset")
"""The connection is reset before a byte of the response."""
STALL = Fault("stall")
"""Status, headers and half a body; then nothing more, until the client goes away."""
TRUNCATED = Fault("truncated")
"""A whole response that holds half the JSON."""
HTML = Fault("html")
"""A proxy's page, with status 200."""
EMPTY = Fault("empty")
"""`"choices": []`"""
INVALID_UTF8 = Fault("utf8")
RENAMED = Fault("renamed")
"""A good reply in the name of another model."""
OVERFLOW = Fault(
    "status",
    400,
    {
        "message": "This model's maximum context length is 4096 tokens. However, you requested "
        "5000 tokens. Please reduce the length of the messages.",
        "type": "BadRequestError",
        "code": "context_length_exceeded",
    },
)
TOO_LARGE = Fault("status", 413, {"message": "Request entity too large"})
UNAUTHORIZED = Fault("status", 401, {"message": "Incorrect API key", "code": "invalid_api_key"})
NO_MODEL = Fault("status", 404, {"message": "The model does not exist", "code": 404})
LENGTH: Body = {"text": "and then the", "finish_reason": "length"}
"""Not a fault but a reply: it was cut at `max_tokens`."""


def failing(
    status: int, message: str = "", retry_after: float | datetime | str | None = None
) -> Fault:
    """An error response; `retry_after` in seconds, as a date (in UTC), or word for word."""
    if isinstance(retry_after, datetime):
        retry_after = format_datetime(retry_after, usegmt=True)
    header = None if retry_after is None else str(retry_after)
    return Fault("status", status, {"message": message or f"status {status}"}, header)


def rate_limited(retry_after: float | datetime | str | None = None) -> Fault:
    """429, with or without `Retry-After`."""
    return failing(429, "Too many requests", retry_after)


Answer = str | Body | Fault
"""What a brain gives back. A dict holds any of `text`, `tool_calls` (list of `{"name": …,
"arguments": str}`), `finish_reason`, `usage` (None: the server does not count)."""
Brain = Callable[[Body], Answer]

Manner = Literal["vllm", "sglang", "silent"]
"""In whose words a reply says where it stopped; a silent server has none."""

TURN_END = 151645
"""The number of Qwen's token that ends a turn."""
_SPECIAL = re.compile(r"<\|[^|<>\s]+\|>")


@dataclass
class Seen:
    """One chat request; times in s on `time.monotonic`."""

    body: Body
    headers: Mapping[str, str] = field(repr=False)
    copies: int
    """How many identical bodies came so far, this one included."""
    in_s: float
    out_s: float | None = None
    """None while the response is not complete, or when the client went away."""


class Loopback:
    """The server: a context manager; `log`, `most_at_once` and `errors` stay readable after it."""

    def __init__(
        self,
        brain: Brain,
        *,
        latency_s: float | Callable[[Body], float] = 0.0,
        at_once: int | None = None,
        when_full: Literal["queue", "reject"] = "queue",
        models: Sequence[str] = ("loopback",),
        key: str | None = None,
        port: int = 0,
        manner: Manner = "vllm",
    ) -> None:
        """Listen from `__enter__` on.

        latency_s: how long a request holds its place, or a function of its body.
        at_once: requests that are served at a time; the others wait their turn, or get 429.
        models: what `/v1/models` lists; replies name the model that was asked for.
        key: when given, requests without it get 401.
        port: 0 for any; a fixed one lets a test take a server away and bring it back.
        manner: how it tells that a stop string ended a reply; the string itself is always cut off.
        """
        self.log: list[Seen] = []
        self.most_at_once = 0
        """Requests in service at a time, at most."""
        self.errors: list[Exception] = []
        self.port = port
        self._brain = brain
        self._latency_s = latency_s
        self._at_once = at_once
        self._when_full = when_full
        self._models = tuple(models)
        self._key = key
        self._manner: Manner = manner
        self._copies: Counter[str] = Counter()
        self._in_service = 0
        self._places: asyncio.Semaphore | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="loopback", daemon=True)
        self._up = threading.Event()
        self._failure: BaseException | None = None

    @property
    def url(self) -> str:
        """Base URL, ends in `/v1`."""
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Loopback:
        self._thread.start()
        self._up.wait()
        if self._failure:
            raise self._failure
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        if self.errors and error is None:
            raise self.errors[0]

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        runner = web.AppRunner(self._app(), handler_cancellation=True, shutdown_timeout=0.05)
        try:
            self._loop.run_until_complete(self._listen(runner))
        except BaseException as failure:
            self._failure = failure
            return
        finally:
            self._up.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 28)
        app.router.add_get("/v1/models", self._list_models)
        app.router.add_post("/v1/chat/completions", self._chat)
        return app

    async def _listen(self, runner: web.AppRunner) -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port, backlog=1024).start()
        self.port = runner.addresses[0][1]
        self._places = asyncio.Semaphore(self._at_once) if self._at_once else None

    async def _list_models(self, request: web.Request) -> web.StreamResponse:
        if not self._allowed(request):
            return await _fail(request, UNAUTHORIZED, {})
        return web.json_response(
            {"object": "list", "data": [{"id": m, "object": "model"} for m in self._models]}
        )

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        digest = hashlib.sha256(raw).hexdigest()
        self._copies[digest] += 1
        seen = Seen(json.loads(raw), dict(request.headers), self._copies[digest], time.monotonic())
        self.log.append(seen)
        response = await self._served(request, seen.body)
        seen.out_s = time.monotonic()
        return response

    async def _served(self, request: web.Request, body: Body) -> web.StreamResponse:
        """Wait for a place, think, hold the place for the latency, and respond."""
        if not self._allowed(request):
            return await _fail(request, UNAUTHORIZED, body)
        if self._places and self._places.locked() and self._when_full == "reject":
            return await _fail(request, rate_limited(), body)
        async with self._places or contextlib.nullcontext():
            self._in_service += 1
            self.most_at_once = max(self.most_at_once, self._in_service)
            try:
                answer = self._asked(body)
                await asyncio.sleep(self._latency_of(body))
            finally:
                self._in_service -= 1
        if isinstance(answer, Fault):
            return await _fail(request, answer, body)
        return web.json_response(completion(body, answer, self._manner))

    def _asked(self, body: Body) -> Answer:
        try:
            return self._brain(body)
        except Exception as error:
            self.errors.append(error)
            return failing(400, f"the brain raised {error!r}")

    def _latency_of(self, body: Body) -> float:
        return self._latency_s(body) if callable(self._latency_s) else self._latency_s

    def _allowed(self, request: web.Request) -> bool:
        return self._key is None or request.headers.get("Authorization") == f"Bearer {self._key}"


def said(body: Body, speaker: str = "user") -> str:
    """The text of the last message by `speaker`, pictures left out; empty where there is none."""
    for message in reversed(body["messages"]):
        if message["role"] == speaker:
            content = message["content"]
            if isinstance(content, str):
                return content
            return "".join(part["text"] for part in content if part["type"] == "text")
    return ""


def pictures(body: Body) -> list[bytes]:
    """All pictures of a request, as the bytes that were sent, in order."""
    parts = [p for m in body["messages"] if isinstance(m["content"], list) for p in m["content"]]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return [base64.b64decode(url.partition("base64,")[2], validate=True) for url in urls]


def completion(body: Body, answer: str | Body, manner: Manner = "vllm") -> Body:
    """A brain's answer as the protocol writes it.

    As on real servers, special tokens are dropped unless they are asked for, and the text ends
    before the first stop string.
    """
    given = {"text": answer} if isinstance(answer, str) else answer
    text, calls = given.get("text") or "", given.get("tool_calls", ())
    if body.get("skip_special_tokens", True):
        text = _SPECIAL.sub("", text)
    cuts = [(text.find(word), word) for word in body.get("stop", ()) if word in text]
    at, stopped = min(cuts, default=(len(text), None))
    text = text[:at]
    message: Body = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [
            {"id": f"call_{i}", "type": "function", "function": dict(call)}
            for i, call in enumerate(calls)
        ]
    finish = given.get("finish_reason", "tool_calls" if calls else "stop")
    choice = {"index": 0, "message": message, "finish_reason": "stop" if stopped else finish}
    if manner == "vllm":
        choice["stop_reason"] = stopped
    elif manner == "sglang" and choice["finish_reason"] == "stop":
        choice["matched_stop"] = stopped or TURN_END
    whole: Body = {
        "id": "chatcmpl-loopback",
        "object": "chat.completion",
        "created": 0,
        "model": body.get("model", ""),
        "choices": [choice],
    }
    usage = given.get("usage", _usage(body, text))
    return whole | ({"usage": usage} if usage else {})


def _usage(body: Body, text: str) -> Body:
    """A count that grows with what was said: four characters, or a hundredth of a picture."""
    words = sum(len(said({"messages": [m]}, m["role"])) for m in body["messages"])
    tokens_in, tokens_out = words // 4 + 100 * len(pictures(body)), len(text) // 4 + 1
    return {
        "prompt_tokens": tokens_in,
        "completion_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
    }


async def _fail(request: web.Request, fault: Fault, body: Body) -> web.StreamResponse:
    good = json.dumps(completion(body, "good") if body else {})
    if fault.kind == "status":
        headers = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
        return web.json_response({"error": fault.error}, status=fault.status, headers=headers)
    if fault.kind == "reset":
        return _reset(request)
    if fault.kind == "stall":
        return await _stall(request, good)
    if fault.kind == "html":
        return web.Response(text="<html><body>Back soon</body></html>", content_type="text/html")
    content = {
        "truncated": good[: len(good) // 2].encode(),
        "empty": json.dumps({**json.loads(good), "choices": []}).encode(),
        "utf8": good.encode().replace(b'"good"', b'"go\xff\xfed"'),
        "renamed": json.dumps({**json.loads(good), "model": "another-model"}).encode(),
    }[fault.kind]
    return web.Response(body=content, content_type="application/json")


def _reset(request: web.Request) -> web.StreamResponse:
    transport = request.transport
    assert transport is not None
    found = transport.get_extra_info("socket")
    # Lingering for 0 s sends a reset instead of an orderly end.
    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    return web.Response()


async def _stall(request: web.Request, good: str) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.content_length = len(good)
    await response.prepare(request)
    await response.write(good[: len(good) // 2].encode())
    await asyncio.sleep(3600)
    return response
