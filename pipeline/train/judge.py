"""A judge of rollouts: a model behind a server, asked about all answers of a batch at once.

Its words and how its reply is read are `agent.verdict`'s. What cannot be asked, and a reply that is
no verdict, are raised: neither is a reward of 0. Of several processes each asks about its own
rollouts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pipeline.agent.chat import ChatModel, Request, Said
from pipeline.agent.endpoint import open_endpoint
from pipeline.agent.verdict import verdict, verdict_prompt
from pipeline.config import config_from
from pipeline.errors import ConfigError, ModelError
from pipeline.runner.stream import Stream
from pipeline.train.rewards import Completion, Reward, named

Compared = tuple[str, str, str]
"""(question, right answer, answer), as a `rewards.Judge` is called with."""


@contextmanager
def opened_judge(url: str, model: str = "") -> Iterator[EndpointJudge | None]:
    """The judge at an address, with the default settings of an endpoint; None where it is empty.

    `model` empty means the only one that the server lists. Raises `ConfigError` for what is no
    address, and for a model without one; `ModelError` where no server answers.
    """
    if not url:
        if model:
            raise ConfigError(f"The judge's model '{model}' has no server.", "Give --judge URL.")
        yield None
        return
    endpoint = config_from({"endpoint": {"urls": [url]}}).endpoint
    stream = Stream(endpoint.in_flight)
    try:
        served = stream.run(open_endpoint(endpoint, model or None))
        try:
            yield EndpointJudge(served, stream)
        finally:
            stream.run(served.close())
    finally:
        stream.close()


class EndpointJudge:
    """A `rewards.Judge` over a chat model on the stream's loop; no verdict is asked for twice."""

    def __init__(self, model: ChatModel, stream: Stream) -> None:
        self._model, self._stream = model, stream
        self._verdicts: dict[Compared, float] = {}

    @property
    def name(self) -> str:
        """The model's name."""
        return self._model.name

    def __call__(self, question: str, right: str, answer: str) -> float:
        """1 where the answer means the right one, else 0; raises as `ask` does."""
        compared = (question, right, answer)
        self.ask([compared])
        return self._verdicts[compared]

    def ask(self, wanted: Iterable[Compared]) -> None:
        """Get the verdicts that are not known yet, all at once.

        Raises `ModelError` where the server fails, as the endpoint does, or gives no verdict.
        """
        unknown = [compared for compared in dict.fromkeys(wanted) if compared not in self._verdicts]
        if unknown:
            verdicts = self._stream.run(self._asked(unknown))
            self._verdicts.update(zip(unknown, verdicts, strict=True))

    async def _asked(self, unknown: Sequence[Compared]) -> list[float]:
        """A verdict on each; where one cannot be had, the others are given up."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._verdict(*compared)) for compared in unknown]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _verdict(self, question: str, right: str, answer: str) -> float:
        said = Said("user", (verdict_prompt(question, right, answer),))
        reply = await self._model.reply(Request("verifier", (said,)))
        value = verdict(reply.text)
        if value is None:
            raise ModelError(
                f"The judge '{self.name}' gave no verdict but {reply.text[:100]!r}.",
                "Choose another judge; the training can be resumed.",
            )
        return value


def judged_together(name: str, judge: EndpointJudge, **settings: Any) -> Reward:
    """`rewards.named` with this judge, who is asked about all answers of a call at once.

    What a judge is asked depends on no verdict: the reward is worked out once to see what it asks,
    and again with the verdicts.
    """
    rewarded = named(name, judge=judge, **settings)

    def reward(completions: Sequence[Completion], **columns: Any) -> list[float]:
        wanted: list[Compared] = []

        def note(question: str, right: str, answer: str) -> bool:
            wanted.append((question, right, answer))
            return False

        named(name, judge=note, **settings)(completions, **columns)
        judge.ask(wanted)
        return rewarded(completions, **columns)

    reward.__name__ = name
    return reward
