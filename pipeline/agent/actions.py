"""What a policy may do and what it hears back: the vocabulary between policy, tools and episode.

Everything a policy learns about a picture comes through a `Heard`; it never holds the picture, and
nothing here holds the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from pipeline.agent.glyph_reader import Reading
from pipeline.agent.locate import Candidate
from pipeline.agent.writing import Writing
from pipeline.geometry import Box
from pipeline.views import View

Tool = Literal["locate", "zoom", "segment", "read", "adjust_box"]


@dataclass(frozen=True, slots=True)
class Call:
    """One use of a tool on one view."""

    tool: Tool
    view: int
    """Index of the view it works on; 0 is the whole picture."""
    thought: str = ""
    box: Box | None = None
    """Source pixels; needed by all tools but `locate`."""
    phrase: str = ""
    """What `locate` looks for, or the label of what `zoom` looks at."""
    instruction: Literal["", "fit", "enlarge", "narrow"] = ""
    """How `adjust_box` changes the box."""

    def __str__(self) -> str:
        parts = [f"view {self.view}", str(self.box.as_list()) if self.box else "", self.phrase]
        return f"{self.tool}({', '.join(p for p in (*parts, self.instruction) if p)})"


@dataclass(frozen=True, slots=True)
class Answer:
    """The end of an episode, unless the critic sends it back."""

    text: str
    thought: str
    evidence: int = 0
    """Index of the view it was read from."""
    box: Box | None = None
    """Where in the source it was read."""
    support: tuple[int, ...] = ()
    """Further views without which the answer would not follow."""


@dataclass(frozen=True, slots=True)
class Slip:
    """A turn, or one call of it, that cannot be understood: answered with an error, and counted."""

    text: str
    why: str


Action = Call | Answer | Slip


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """What comes back: a tool's result, an error, a critique, or that the tools are off."""

    text: str
    kind: Literal["opening", "result", "error", "critique", "forced"] = "result"
    view: View | None = None
    """The new view, after `zoom` and at the opening."""
    index: int = 0
    """Its number."""
    candidates: tuple[Candidate, ...] = ()
    writing: tuple[Writing, ...] = ()
    """What `locate` found that is written, in the view it looked at."""
    reading: Reading | None = None
    lines: tuple[Reading, ...] = ()
    """Of `reading`, from the upper line to the lower one, where lines are read."""
    box: Box | None = None
    """Source pixels."""
    boxes: tuple[Box, ...] = ()
    """What `locate` found, source pixels, where a model looked."""
    relevance: np.ndarray | None = None
    """Float32 (rows, cols) in [0, 1] over the view it looked at."""


class Planner(Protocol):
    """One episode's mind."""

    async def act(self, heard: Heard) -> Action:
        """The next action, given what came back from the last one."""


class Policy(Protocol):
    """Makes planners; holds what they share."""

    @property
    def name(self) -> str:
        """As written to the `policy` column."""

    @property
    def prompt_sha256(self) -> str:
        """Digest of the wording that determines its behaviour."""

    def begin(
        self, sample_id: str, question: str, options: Sequence[str], rollout: int = 0
    ) -> Planner:
        """A planner for one try at a question; raises `NotUnderstood` if it cannot work on it."""


class NotUnderstood(ValueError):
    """A question that a policy has no way to work on: a rejection, not an error."""
