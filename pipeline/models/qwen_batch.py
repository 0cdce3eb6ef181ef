"""Several replies of a Qwen-VL model, drawn in step from one padded batch.

Owns which rows go on and which have ended. A row's reply is what it would be on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.errors import ModelError
from pipeline.models.generation import Draw, Generated, collect, cut
from pipeline.models.qwen_reading import Prompt, Reading
from pipeline.models.qwen_session import Sessions


@dataclass(slots=True)
class Row:
    """One reply, as far as it has come."""

    prompt: Prompt
    draw: Draw
    most: int
    """Tokens that may be drawn, 1 or more."""
    decode: Callable[[list[int]], str]
    ends: Collection[int]
    """Tokens that end the turn."""
    stop: Sequence[str]
    said: list[int] = field(default_factory=list)

    def hear(self, token: int) -> Generated | None:
        """The reply, if this token is its last."""
        self.said.append(token)
        last = token in self.ends or len(self.said) == self.most
        if not last and not self._may_stop():
            return None
        reply = self._whole()
        return reply if last or reply.stopped_at else None

    def _may_stop(self) -> bool:
        """Whether a stop string has just been said, as far as the last few tokens tell."""
        tail = 4 * max(map(len, self.stop), default=0) + 4  # a character has four bytes at most
        return bool(self.stop) and cut(self.decode(self.said[-tail:]), self.stop) is not None

    def _whole(self) -> Generated:
        before, held = self.prompt.ids.shape[1], self.prompt.held
        tokens = iter(self.said)
        said = collect(tokens, before, self.decode, self.ends, self.stop, lambda: False, "")
        return replace(said, tokens_cached=held)


def written_together(
    model: Any, rows: Sequence[Row], sessions: Sessions, halt: Callable[[], bool], name: str
) -> list[Generated]:
    """The replies of all rows, in their order; what was read of each is left to `sessions`.

    `halt` is asked before every step; raises `ModelError` when it says so.
    """
    replies: dict[int, Generated] = {}
    going = list(range(len(rows)))
    reading = Reading(model, [row.prompt for row in rows])
    try:
        logits = None
        drawn: list[int] = []
        while not halt():
            logits = reading.read() if logits is None else reading.go_on(drawn)
            drawn = [rows[row].draw(scores) for row, scores in zip(going, logits, strict=True)]
            heard = [rows[row].hear(token) for row, token in zip(going, drawn, strict=True)]
            ended = {place: said for place, said in enumerate(heard) if said is not None}
            replies |= {going[place]: said for place, said in ended.items()}
            if len(replies) == len(rows):
                return [replies[row] for row in range(len(rows))]
            reading.leave(ended, sessions)
            going = [row for row in going if row not in replies]
            drawn = [token for place, token in enumerate(drawn) if place not in ended]
    finally:
        reading.close(sessions)
    raise ModelError(f"{name} was halted with {len(going)} replies unfinished.")
