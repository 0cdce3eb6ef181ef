"""What a script of policy `scripted` has to work with: the views so far, and its best answer."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from pipeline.agent.actions import Action, Answer, Heard
from pipeline.samples import rng_for
from pipeline.views import View

UNKNOWN = "unknown"

Script = Generator[Action, Heard, None]
Named = dict[str, str]
"""What a question's wording gives, such as `color` and `shape`."""


class Sight:
    """What one episode has seen so far."""

    def __init__(self, sample_id: str, options: Sequence[str] = ()) -> None:
        self.views: list[View] = []
        self.options = tuple(options)
        self._rng = rng_for(0, sample_id, "wording")
        self._kept: Answer | None = None

    def keep(self, answer: Answer) -> None:
        """Give this answer when the tools are off."""
        self._kept = answer

    def wording(self, variants: Sequence[str], **names: str) -> str:
        """One of several ways to say it."""
        return variants[int(self._rng.integers(len(variants)))].format(**names)

    def best(self) -> Answer:
        """The answer when there is nothing more to try."""
        if self._kept is None:
            return Answer(UNKNOWN, "I could not find anything that answers the question.")
        return self._kept

    def insist(self) -> Script:
        """The best answer, whatever is said against it."""
        while True:
            yield self.best()
