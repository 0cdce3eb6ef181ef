"""Policy `oracle`: looks straight at the annotated boxes and says the annotated answer.

It is given the truth, so its trajectories show where to look and prove nothing about finding it;
its name stands in the `policy` column of every row it makes. Nothing blind may be built on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.agent.actions import Action, Answer, Call, Heard
from pipeline.agent.crew import Crew
from pipeline.agent.critic import SecondReading
from pipeline.agent.desk import Ledger, Task
from pipeline.agent.sight import Script
from pipeline.agent.summary import Mechanical
from pipeline.agent.tools import Tools
from pipeline.geometry import Box
from pipeline.samples import Truth
from pipeline.views import View

ENOUGH_PX = 56
"""What is narrower than this in the first view is looked at."""

LOOK = "What the question is about is small here, so I look closer."
NEXT = "The question is about this place, too; I look at it."
PLAIN = "This can be seen in the picture as it is: {answer}."
SAYS = "Up close I can see the answer: {answer}."
_WORDING = (LOOK, NEXT, PLAIN, SAYS)


@dataclass(frozen=True)
class OraclePolicy:
    """Knows one question's truth."""

    truth: Truth
    looks: int
    """Looks that an episode may take."""
    name: str = "oracle"
    prompt_sha256: str = hashlib.sha256("\n".join(_WORDING).encode()).hexdigest()

    def begin(
        self, sample_id: str, question: str, options: Sequence[str], rollout: int = 0
    ) -> OraclePlanner:
        """A planner for the question whose truth this is; raises `ValueError` for another."""
        if sample_id != self.truth.sample_id:
            raise ValueError(f"This is the truth of {self.truth.sample_id}, not of {sample_id}.")
        return OraclePlanner(self.truth, self.looks)


class OraclePlanner:
    """Looks at every annotated box that is small in the first view, then answers."""

    def __init__(self, truth: Truth, looks: int) -> None:
        self._truth = truth
        self._most = looks
        self._numbers: list[int] = []
        self._script: Script | None = None

    async def act(self, heard: Heard) -> Action:
        """The next look, or the answer; the answer at once when the tools are off."""
        if self._script is None:
            assert heard.view is not None
            self._script = self._course(heard.view)
            return next(self._script)
        return self._answer() if heard.kind == "forced" else self._script.send(heard)

    def _course(self, view: View) -> Script:
        for number, box in enumerate(_looked_at(view, self._truth.target_boxes, self._most)):
            heard = yield Call("zoom", 0, NEXT if number else LOOK, box)
            if heard.view is not None:
                self._numbers.append(heard.index)
        while True:
            yield self._answer()

    def _answer(self) -> Answer:
        """The annotated answer, resting on every look."""
        thought = (SAYS if self._numbers else PLAIN).format(answer=self._truth.target)
        last = self._numbers[-1] if self._numbers else 0
        return Answer(self._truth.target, thought, last, support=tuple(self._numbers[:-1]))


def _looked_at(view: View, boxes: Sequence[Box], most: int) -> list[Box]:
    """The boxes that are small in the first view; where they are too many, what encloses them.

    None where the first view shows all that the source has.
    """
    if view.observation.resolved >= 0.99:
        return []  # a look would bring no new source pixels
    region = view.observation.region
    size = (int(region.x1), int(region.y1))
    small = []
    for box in boxes:
        x0, y0, x1, y1 = view.to_view(box)
        if min(x1 - x0, y1 - y0) < ENOUGH_PX:
            small.append(box.clip(size).rounded())
    if len(small) <= most or not most:
        return small[:most]
    return [
        Box(
            min(box.x0 for box in small),
            min(box.y0 for box in small),
            max(box.x1 for box in small),
            max(box.y1 for box in small),
        )
    ]


@dataclass(frozen=True)
class OracleCrews:
    """Crews that are told the truth."""

    looks: int
    in_flight: int = 1
    workers: None = None

    def crew(self, tools: Tools, task: Task, truth: Truth, ledger: Ledger) -> Crew:
        return Crew(OraclePolicy(truth, self.looks), tools, SecondReading(), Mechanical())

    async def close(self) -> None:
        """Nothing is open."""
