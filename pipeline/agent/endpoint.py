"""A chat model behind a server that speaks the OpenAI protocol: what is sent and what comes back.

Owns the connections, and the verdict on each failure: another try, or which error it is. Refuses to
know what the words mean; which server is asked is for `upstreams.py`, the form of what is sent for
`wire.py`. The key is in the client and in nothing that can be shown.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.agent.chat import Reply, Request
from pipeline.agent.concurrency import Clock, TryFailed, pause_s, retry_after_s
from pipeline.agent.upstreams import Upstreams, bare
from pipeline.agent.wire import OVERFLOW, DataUrls, body_of, complaint, parsed, reply_of
from pipeline.config import Endpoint
from pipeline.errors import CofpipeError, ConfigError, ContextOverflow, ModelError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

CONNECT_S, ASK_NAME_S = 10.0, 15.0
KEEP_ALIVE_S = 4.0
"""Shorter than uvicorn's 5 s: a connection is not used at the moment the server closes it."""
CACHED_BYTES = 64 << 20
"""Of encoded pictures: the turns of an episode send the same ones again."""
FIXED_TOKENS, FIXED_S = 16, 0.05
"""What a reply costs besides its tokens; latencies are compared for each token."""
UNNAMED = "default"
"""What a model is called whose server lists none."""


class _Answer(NamedTuple):
    """What a server sent back, whatever its status."""

    status: int
    retry_after: str | None
    content: bytes


async def open_endpoint(
    settings: Endpoint, model: str | None, *, clock: Clock | None = None
) -> EndpointModel:
    """The model behind an endpoint; with `model` None the only one that the server lists.

    Raises `ConfigError` for what the settings have wrong, `ModelError` where no server answers.
    """
    upstreams = Upstreams(settings, clock or Clock())
    client = _client(_key(settings))
    opened = EndpointModel(settings, model or UNNAMED, upstreams, client, clock or Clock())
    try:
        return opened if model else await opened.with_served_name()
    except BaseException:
        await opened.close()
        raise


class EndpointModel:
    """A `ChatModel` over one pool of connections; belongs to one event loop."""

    def __init__(
        self,
        settings: Endpoint,
        model: str,
        upstreams: Upstreams,
        client: AsyncOpenAI,
        clock: Clock,
    ) -> None:
        self.name = model
        self._settings = settings
        self._upstreams = upstreams
        self._client = client
        self._clock = clock
        self._data_urls = DataUrls(CACHED_BYTES)
        self._replies_as: str | None = None

    def __repr__(self) -> str:
        return f"EndpointModel({self.name!r}, {[bare(url) for url in self._upstreams.urls]})"

    async def with_served_name(self) -> EndpointModel:
        """Itself, named after the only model that the first server to answer lists."""
        troubles: list[str] = []
        for url in self._upstreams.urls:
            try:
                answer = await self._send(f"{url}/models", None, ASK_NAME_S)
                self._refuse(answer, url)
                listed = parsed(answer.content).get("data")
            except TryFailed as failure:
                troubles.append(f"{failure.what} at {bare(url)}")
                continue
            self.name = _only(listed if isinstance(listed, list) else [], url)
            return self
        raise ModelError(f"No endpoint answers: {'; '.join(troubles)}.", "Is the server running?")

    async def reply(self, request: Request) -> Reply:
        """The reply; raises `ContextOverflow`, `ModelError` after the last try, `ConfigError`."""
        if request.highlight is not None:
            raise ConfigError(f"A server cannot change what {self.name} attends to.")
        body = json.dumps(body_of(self.name, request, self._data_urls)).encode()
        troubles: Counter[str] = Counter()
        failed_at: set[str] = set()
        for tries in range(1, self._settings.tries + 1):
            try:
                return await self._try(request.affinity, body, tries, failed_at)
            except TryFailed as failure:
                troubles[failure.what] += 1
                wait_s = failure.wait_s
            if tries < self._settings.tries:
                # What one server asks for does not hold for the next try, if that goes elsewhere.
                elsewhere = not failed_at.issuperset(self._upstreams.urls)
                usual_s = pause_s(tries, self._clock.fraction())
                await self._clock.sleep(usual_s if wait_s is None or elsewhere else wait_s)
        times = ", ".join(f"{what} ({count}×)" for what, count in troubles.items())
        where = ", ".join(bare(url) for url in sorted(failed_at) or self._upstreams.urls)
        raise ModelError(
            f"{where} gave no reply in {self._settings.tries} tries: {times}.",
            "The run can be continued once the server works.",
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def _try(self, affinity: str, body: bytes, tries: int, failed_at: set[str]) -> Reply:
        visit = await self._upstreams.enter(affinity, failed_at)
        url, began = visit.upstream.url, self._clock.now()
        try:
            answer = await self._send(f"{url}/chat/completions", body, self._settings.deadline_s)
            latency_s = self._clock.now() - began
            self._refuse(answer, url)
            reply = reply_of(parsed(answer.content), latency_s, tries)
            visit.succeeded((latency_s + FIXED_S) / ((reply.tokens_out or 0) + FIXED_TOKENS))
        except TryFailed as failure:
            failed_at.add(url)
            visit.failed(failure)
            raise
        except CofpipeError:
            visit.refused()
            raise
        finally:
            visit.leave()
        self._same_model(reply.model, url)
        return reply

    async def _send(self, url: str, body: bytes | None, deadline_s: float) -> _Answer:
        """Send and receive within the deadline; raises `TryFailed` where nothing came back."""
        import aiohttp
        import httpx2
        import openai

        failure: TryFailed | None = None
        try:
            async with asyncio.timeout(deadline_s):
                if body is None:
                    response = await self._client.get(url, cast_to=httpx2.Response)
                else:
                    response = await self._client.post(url, cast_to=httpx2.Response, content=body)
        except TimeoutError:
            failure = TryFailed(f"no reply within {deadline_s:g} s", busy=True)
        except openai.APIStatusError as error:
            response = error.response
        except (openai.APIConnectionError, aiohttp.ClientError, OSError) as error:
            failure = TryFailed(f"connection failed or lost ({_root(error)})")
        # Raised out here: what the client raises holds the request, and so the key.
        if failure:
            raise failure
        return _Answer(response.status_code, response.headers.get("retry-after"), response.content)

    def _refuse(self, answer: _Answer, url: str) -> None:
        """Raise what the status stands for, unless it is a success."""
        status = answer.status
        if 200 <= status < 300:
            return
        code, said = complaint(answer.content)
        said = said.replace(self._client.api_key, "***") if self._client.api_key else said
        if status in (408, 409, 429) or status >= 500:
            if code == "insufficient_quota":
                raise ModelError(f"The quota at {bare(url)} is spent (HTTP {status}).")
            raise TryFailed(
                f"HTTP {status}",
                busy=status in (408, 429, 503, 504),
                alive=status in (409, 429),
                wait_s=retry_after_s(answer.retry_after, self._clock.wall()),
            )
        raise self._verdict(status, code, said, bare(url))

    def _verdict(self, status: int, code: str, said: str, where: str) -> CofpipeError:
        """The error for a status that another try would not change."""
        if status in (401, 403):
            source = f"the environment variable {self._settings.key_env}"
            if self._settings.key_file:
                source = f"'{self._settings.key_file}'"
            return ConfigError(f"{where} refuses the key (HTTP {status}).", f"See {source}.")
        if status == 404:
            return ConfigError(
                f"{where} has no model '{self.name}' (HTTP 404).",
                "Set policy.model to one that it lists, and check that the URL ends in /v1.",
            )
        if status == 413 or OVERFLOW.search(f"{code} {said}"):
            return ContextOverflow(f"A request is too long for {where}: {said}")
        return ModelError(f"{where} refuses a request (HTTP {status}): {said}")

    def _same_model(self, name: str, url: str) -> None:
        """Refuse replies of two models under one name; folders and case do not count."""
        base = name.rstrip("/").rpartition("/")[2].lower()
        if not base:
            return
        self._replies_as = self._replies_as or base
        if base != self._replies_as:
            raise ModelError(
                f"The model changed: {bare(url)} replies as '{name}', before it was "
                f"'{self._replies_as}'.",
                "Continue the run with the model it began with.",
            )


def _client(key: str) -> AsyncOpenAI:
    """One pool without a limit of its own, and no retries but ours."""
    import httpx2
    from openai import AsyncOpenAI, DefaultAioHttpClient

    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it writes a line for each request
    timeout = httpx2.Timeout(None, connect=CONNECT_S)
    # 0 is aiohttp's "no limit": that is the limiters' business.
    limits = httpx2.Limits(max_connections=0, keepalive_expiry=KEEP_ALIVE_S)
    http = DefaultAioHttpClient(timeout=timeout, limits=limits)
    return AsyncOpenAI(
        api_key=key, base_url="http://0.0.0.0", max_retries=0, timeout=timeout, http_client=http
    )


def _key(settings: Endpoint) -> str:
    """The key, or what local servers take for one; raises `ConfigError` that never shows it."""
    key, where = os.environ.get(settings.key_env, ""), f"environment variable {settings.key_env}"
    if settings.key_file:
        where = f"file '{settings.key_file}'"
        try:
            key = Path(settings.key_file).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise ConfigError(f"The key {where} is not readable text.") from None
    key = key.strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"What the {where} holds is not a key.", "A key is one word of ASCII.")
    return key or "EMPTY"


def _only(listed: list[Any], url: str) -> str:
    """The name of the only model listed."""
    names = [str(m["id"]) for m in listed if isinstance(m, Mapping) and m.get("id")]
    if len(names) > 1:
        raise ConfigError(
            f"{bare(url)} serves {len(names)} models: {', '.join(names)}.",
            "Choose one with policy.model.",
        )
    return names[0] if names else UNNAMED


def _root(error: BaseException) -> str:
    """The name of what lies at the bottom of an error."""
    while error.__cause__:
        error = error.__cause__
    return type(error).__name__
