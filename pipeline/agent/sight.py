"""What a script of policy `scripted` has to work with, and what runs it.

What tells one try at a question from another lives here, too: other words, and boxes a little
beside what was meant. What a script looks for is its own business.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import replace

from pipeline.agent.actions import Action, Answer, Call, Heard
from pipeline.geometry import Box, Size
from pipeline.samples import rng_for
from pipeline.views import View

UNKNOWN = "unknown"
SPREAD = 0.25
"""Standard deviation, at temperature 1, of a box's centre in sides and of the logarithm of its
size."""
LARGEST = 1.5
"""Most by which that logarithm changes, at any temperature."""

Script = Generator[Action, Heard, None]
Named = dict[str, str]
"""What a question's wording gives, such as `color` and `shape`."""


class Sight:
    """What one episode has seen so far.

    The first try, and every one at temperature 0, is the plain one.
    """

    def __init__(
        self,
        sample_id: str,
        options: Sequence[str] = (),
        *,
        rollout: int = 0,
        temperature: float = 0.0,
    ) -> None:
        self.views: list[View] = []
        self.options = tuple(options)
        self._spread = SPREAD * temperature if rollout else 0.0
        key = ("wording", rollout) if self._spread else ("wording",)
        self._rng = rng_for(0, sample_id, *key)
        self._tries = rng_for(0, sample_id, "try", rollout)
        self._kept: Answer | None = None

    def varied(self, box: Box) -> Box:
        """A box as this try names it, in whole pixels inside the picture.

        It keeps the middle of what was meant: a script that looks there sees at least that.
        """
        if not self._spread:
            return box
        right, down, growth = (float(v) for v in self._tries.normal(0, self._spread, 3))
        half = math.exp(min(max(growth, -LARGEST), LARGEST)) / 2
        x = box.centre[0] + min(max(right, -half), half) * box.width
        y = box.centre[1] + min(max(down, -half), half) * box.height
        w, h = half * box.width, half * box.height
        whole = self.views[0].observation.region
        return _inside(Box(x - w, y - h, x + w, y + h), (int(whole.x1), int(whole.y1)))

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


class ScriptedPlanner:
    """Runs one script, one action at a time."""

    def __init__(self, sight: Sight, script: Script) -> None:
        self._sight = sight
        self._script = script
        self._begun = False

    async def act(self, heard: Heard) -> Action:
        """The script's next action; when the tools are off, its best answer so far.

        What it zooms into is as this try names it.
        """
        if heard.view is not None:
            self._sight.views.append(heard.view)
        if heard.kind == "forced":
            return self._sight.best()
        action = self._script.send(heard) if self._begun else next(self._script)
        self._begun = True
        if isinstance(action, Call) and action.tool == "zoom" and action.box is not None:
            return replace(action, box=self._sight.varied(action.box))
        return action


def _inside(box: Box, size: Size) -> Box:
    """The whole-pixel box nearest to one inside a picture of `size`."""
    x0, x1 = _span(box.x0, box.x1, size[0])
    y0, y1 = _span(box.y0, box.y1, size[1])
    return Box(x0, y0, x1, y1)


def _span(low: float, high: float, limit: int) -> tuple[int, int]:
    start = min(max(round(low), 0), limit - 1)
    return start, min(max(round(high), start + 1), limit)
