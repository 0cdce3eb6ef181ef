"""Where one episode's model calls go out: paid once, counted, found again after a restart.

Stands between the roles and a chat model. What a call cost is written to the ledger beside its
reply; a call that the ledger knows already is replayed and costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from pipeline.agent.chat import ChatModel, Reply, Request, ToolUse
from pipeline.config import Price
from pipeline.samples import rng_for
from pipeline.trajectory import Usage

_MILLION = 1_000_000
_HOUR_S = 3600.0


class Ledger(Protocol):
    """The finished calls of a shard: `runner.ledger` keeps one on disk."""

    def find(self, key: str) -> Mapping[str, Any] | None:
        """A finished call, of this attempt or an earlier one."""

    def add(self, key: str, call: Mapping[str, Any]) -> None:
        """Note a finished call."""

    def replayed(self, key: str, call: Mapping[str, Any]) -> None:
        """Note that a finished call was used again."""

    def check(self) -> None:
        """Raise `BudgetReached` when nothing more may be spent."""


@dataclass(frozen=True, slots=True)
class Task:
    """Whose calls they are."""

    sample_id: str
    resolution: int
    rollout: int = 0


@dataclass
class Desk:
    """The calls of one episode."""

    model: ChatModel
    ledger: Ledger
    task: Task
    price: Price | None = None
    turn: int = 0
    """Of the episode; set by whoever asks."""
    seed: int = 0
    """Of the run: draws depend on it, on the task, and on how many calls came before."""
    _tokens: list[tuple[int | None, int | None]] = field(default_factory=list)

    async def ask(self, request: Request) -> Reply:
        """The reply, or the one given before; raises `ModelError`, `BudgetReached`."""
        request = self._seeded(request)
        key = request.key(self.model.name)
        known = self.ledger.find(key)
        if known is not None:
            self.ledger.replayed(key, {**known, **self._place(request)})
            return self._counted(_reply(known["reply"]))
        self.ledger.check()
        reply = await self.model.reply(request)
        cost = cost_usd(reply, self.price)
        self.ledger.add(
            key,
            {
                **self._place(request),
                "model": reply.model or self.model.name,
                "status": "ok",
                "tries": reply.tries,
                "latency_s": reply.latency_s,
                "tokens_in": reply.tokens_in,
                "tokens_out": reply.tokens_out,
                "cost_usd": cost,
                "reply": asdict(reply),
            },
        )
        return self._counted(reply)

    @property
    def usage(self) -> Usage:
        """Tokens of all calls so far; None where a server does not count."""
        return Usage(*(_total(side) for side in zip(*self._tokens, strict=True)))

    def _seeded(self, request: Request) -> Request:
        """The request with a seed of its own, where its reply is drawn."""
        if not request.sampling.temperature:
            return request
        task = self.task
        place = (task.sample_id, task.resolution, task.rollout, len(self._tokens))
        seed = int(rng_for(self.seed, "call", *place).integers(2**31))
        return replace(request, sampling=replace(request.sampling, seed=seed))

    def _place(self, request: Request) -> dict[str, Any]:
        return {**asdict(self.task), "turn": self.turn, "role": request.role}

    def _counted(self, reply: Reply) -> Reply:
        self._tokens.append((reply.tokens_in, reply.tokens_out))
        return reply


def cost_usd(reply: Reply, price: Price | None) -> float | None:
    """What a reply cost; None without a price that tells, never 0.

    GPU hours are shared out by the time a call took, as if it had the server to itself: an upper
    bound.
    """
    if price is None:
        return None
    if price.gpu_hour_usd is not None:
        return reply.latency_s / _HOUR_S * price.gpu_hour_usd * price.gpus
    if None in (price.input_usd, price.output_usd, reply.tokens_in, reply.tokens_out):
        return None
    assert price.input_usd is not None and price.output_usd is not None
    assert reply.tokens_in is not None and reply.tokens_out is not None
    spent = reply.tokens_in * price.input_usd + reply.tokens_out * price.output_usd
    return spent / _MILLION


def _reply(values: Mapping[str, Any]) -> Reply:
    """A reply as the ledger keeps it."""
    tools = tuple(ToolUse(**tool) for tool in values["tools"])
    return Reply(**{**values, "tools": tools})


def _total(counts: tuple[int | None, ...]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
