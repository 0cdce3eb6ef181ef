"""Which servers there are, and which of them is asked.

Knows base URLs, `urls_file` and who is healthy. Refuses to know what is sent and how.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.agent.concurrency import Breaker, Clock, Limiter, Ticket, TryFailed
from pipeline.config import Endpoint
from pipeline.errors import ConfigError

REREAD_S = 1.0
"""`urls_file` is looked at once in this time, at most."""


class Upstream:
    """One server: its base URL, its limiter and its breaker."""

    def __init__(self, url: str, most: int, now: Callable[[], float]) -> None:
        self.url = url
        self.limiter = Limiter(most)
        self.breaker = Breaker(now)


@dataclass(frozen=True, slots=True)
class Visit:
    """A place at a server, held for one try; `leave` it in any case."""

    upstream: Upstream
    ticket: Ticket
    probing: bool

    def succeeded(self, pace: float) -> None:
        """A reply came."""
        self.upstream.breaker.succeeded()
        self.upstream.limiter.succeeded(self.ticket, pace)

    def failed(self, failure: TryFailed) -> None:
        """No reply came."""
        if failure.alive:
            self.upstream.breaker.succeeded()
        else:
            self.upstream.breaker.failed(self.probing)
        if failure.busy:
            self.upstream.limiter.overloaded(self.ticket)

    def refused(self) -> None:
        """The server works, and would not do what was asked."""
        self.upstream.breaker.succeeded()

    def leave(self) -> None:
        """Give the place back."""
        self.upstream.breaker.leave(self.probing)
        self.upstream.limiter.leave()


class Upstreams:
    """The servers of `settings.urls` and `settings.urls_file`.

    A URL that leaves the file gets no more requests; those it has are waited for. A file that is
    missing, empty or wrong while the run goes on changes nothing.
    """

    def __init__(self, settings: Endpoint, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._known: dict[str, Upstream] = {}
        self._file = Path(settings.urls_file).expanduser() if settings.urls_file else None
        self._stamp = self._stat()
        self._looked = clock.now()
        self._take(self._listed())

    @property
    def urls(self) -> tuple[str, ...]:
        """Base URLs, without a slash at their end."""
        return tuple(self._known)

    async def enter(self, affinity: str, avoid: Collection[str] = ()) -> Visit:
        """Wait for a place at a healthy server, the same for equal affinities.

        URLs in `avoid` come last. Raises `TryFailed` when no server is healthy and those that
        were asked again are still down.
        """
        while True:
            upstream = await self._pick(affinity, avoid)
            ticket = await upstream.limiter.enter()
            known = self._known.get(upstream.url) is upstream
            if known and upstream.breaker.ready_in_s == 0:
                return Visit(upstream, ticket, upstream.breaker.enter())
            upstream.limiter.leave()

    async def _pick(self, affinity: str, avoid: Collection[str]) -> Upstream:
        while True:
            self._reread()
            healthy = [u for u in self._known.values() if u.breaker.ready_in_s == 0]
            if healthy:
                return _preferred([u for u in healthy if u.url not in avoid] or healthy, affinity)
            await self._recovery()

    async def _recovery(self) -> None:
        """Wait for the soonest breaker, or for what a probe finds out."""
        breakers = [u.breaker for u in self._known.values()]
        soonest_s = min(b.ready_in_s for b in breakers)
        if soonest_s < math.inf:
            await self._clock.sleep(min(soonest_s, REREAD_S))
            return
        probes = [b.probe for b in breakers if b.probe]
        await asyncio.wait(probes, return_when=asyncio.FIRST_COMPLETED)
        if all(b.ready_in_s > 0 for b in breakers):
            raise TryFailed("still down", wait_s=0.0)

    def _reread(self) -> None:
        if self._file is None or self._clock.now() < self._looked + REREAD_S:
            return
        self._looked = self._clock.now()
        stamp = self._stat()
        if stamp is None or stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._take(self._listed())
        except ConfigError:
            return

    def _stat(self) -> tuple[int, int] | None:
        """Modification time (ns) and size of the file, where there is one."""
        try:
            found = self._file.stat() if self._file else None
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_size) if found else None

    def _listed(self) -> list[str]:
        """All URLs, each once; raises `ConfigError` when there is none or one is none."""
        lines = [*self._settings.urls]
        if self._file:
            try:
                lines += self._file.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError):
                raise ConfigError(f"endpoint.urls_file '{self._file}' is not readable.") from None
        urls = [line.strip().rstrip("/") for line in lines]
        urls = [url for url in dict.fromkeys(urls) if url and not url.startswith("#")]
        if not urls:
            raise ConfigError(
                "There is no endpoint to ask.", "Set endpoint.urls=http://127.0.0.1:8000/v1."
            )
        for url in urls:
            if not _is_base(url):
                raise ConfigError(
                    f"'{bare(url)}' is not the URL of an endpoint.",
                    "It looks like http://127.0.0.1:8000/v1; no key goes into it.",
                )
        return urls

    def _take(self, urls: list[str]) -> None:
        def new(url: str) -> Upstream:
            return Upstream(url, self._settings.in_flight, self._clock.now)

        self._known = {url: self._known.get(url) or new(url) for url in urls}


def bare(url: str) -> str:
    """The URL as it may be shown: without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "(unreadable)"
    return f"{parts.scheme}://{host}{parts.path}" if host else "(no host)"


def _is_base(url: str) -> bool:
    """Whether it is http(s), with a host, and without anything that could be a secret."""
    try:
        parts = urlsplit(url)
        secrets = parts.username or parts.password or parts.query or parts.fragment
        return parts.scheme in ("http", "https") and bool(parts.hostname) and not secrets
    except ValueError:
        return False


def _preferred(upstreams: list[Upstream], affinity: str) -> Upstream:
    """Rendezvous hashing: when a server comes or goes, only its own pictures move."""
    if not affinity:
        return min(upstreams, key=lambda u: u.limiter.load)
    return max(
        upstreams,
        key=lambda u: hashlib.blake2b(f"{u.url} {affinity}".encode(), digest_size=8).digest(),
    )
