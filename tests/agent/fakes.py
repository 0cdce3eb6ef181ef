"""Stand-ins for the agent's protocols: a segmenter for flat grounds, a policy that is a list.

`board` draws the pictures that `GroundSegmenter` can outline exactly; nothing here decides
anything that the agent is to decide.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from pipeline.agent.actions import Action, Answer, Heard
from pipeline.agent.chat import Reply, Request
from pipeline.errors import BudgetReached
from pipeline.geometry import Box, Size
from pipeline.samples import Sample
from pipeline.scenes.needles import Tag
from pipeline.scenes.tags import draw_tag
from pipeline.views import View

GROUND = (128, 128, 128)
"""What `board` is painted with: neither writing nor any colour of a tag."""
THRESHOLD = 24.0
"""Distance from the ground, in grey levels, that is no longer the ground."""
PLENTY = 100
"""Actions after which an episode counts as endless."""


def tag(name: str, code: str, corner: tuple[int, int], side: int) -> Tag:
    """`tag("red star", …)` with its upper left corner and side in source pixels."""
    color, shape = name.split()
    return Tag(shape, color, code, Box(*corner, corner[0] + side, corner[1] + side))


def board(tags: Sequence[Tag], size: Size = (800, 600)) -> Image.Image:
    """A flat picture, RGB, with the tags on it."""
    image = Image.new("RGB", size, GROUND)
    for each in tags:
        drawn = draw_tag(each.shape, each.color, each.code, int(each.box.width))
        image.paste(drawn, (int(each.box.x0), int(each.box.y0)), drawn)
    return image


def sample_of(image: Image.Image, question: str, sample_id: str = "picture#0") -> Sample:
    return Sample(sample_id, sample_id.partition("#")[0], image, image.size, question)


@dataclass(frozen=True)
class Flat:
    """A picture as `GroundSegmenter` holds it: distance from the ground, signed."""

    logits: np.ndarray
    """float32 (side, side); above 0 is not the ground."""
    scale: float
    side: int


@dataclass(frozen=True)
class Masks:
    """What `GroundSegmenter` answers."""

    logits: np.ndarray
    ious: np.ndarray


class GroundSegmenter:
    """Outlines the whole thing that differs from the ground where the prompt is."""

    side = 192

    def embed(self, image: np.ndarray) -> Flat:
        distance = np.abs(image.astype(np.float32) - np.array(GROUND)).max(axis=2) - THRESHOLD
        scale = self.side / max(image.shape[:2])
        size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
        small = Image.fromarray(distance.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
        logits = np.full((self.side, self.side), -THRESHOLD, np.float32)
        logits[: size[1], : size[0]] = np.asarray(small)
        return Flat(logits, scale, self.side)

    def predict(
        self,
        embedding: Flat,
        *,
        points: Sequence[Sequence[float]] | None = None,
        boxes: Sequence[Sequence[float]] | None = None,
        multimask: bool = False,
    ) -> Masks:
        """One mask for the only box or point: here nothing is ambiguous."""
        (prompt,) = boxes if boxes is not None else [[*p, *p] for p in points or ()]
        x0, y0, x1, y1 = (int(np.clip(v * embedding.scale, 0, self.side - 1)) for v in prompt)
        rows, cols = _whole(embedding.logits > 0, slice(y0, y1 + 1), slice(x0, x1 + 1))
        logits = np.full_like(embedding.logits, -THRESHOLD)
        logits[rows, cols] = embedding.logits[rows, cols]
        return Masks(logits[None, None], np.full((1, 1), 0.9, np.float32))


def _whole(mask: np.ndarray, rows: slice, cols: slice) -> tuple[slice, slice]:
    """The rectangle grown until nothing crosses its edges; things lie apart on a board."""
    while True:
        wider = _grown(mask[rows].max(axis=0), cols)
        higher = _grown(mask[:, wider].max(axis=1), rows)
        if (higher, wider) == (rows, cols):
            return rows, cols
        rows, cols = higher, wider


def _grown(profile: np.ndarray, span: slice) -> slice:
    """The span and the runs of the profile that reach over its ends."""
    start, stop = span.start, span.stop
    while start > 0 and profile[start] and profile[start - 1]:
        start -= 1
    while stop < len(profile) and profile[stop - 1] and profile[stop]:
        stop += 1
    return slice(start, stop)


GIVES_UP = Answer("?", "I give up.")


@dataclass
class ListPolicy:
    """Does what its list says, whatever it hears."""

    actions: Sequence[Action] = ()
    last: Action = GIVES_UP
    """Repeated for ever after the list."""
    forced: Action = GIVES_UP
    """Done when the tools are off."""
    heard: list[Heard] = field(default_factory=list)
    """Everything that came back, the opening included."""

    name = "list"
    prompt_sha256 = "0" * 64

    def begin(
        self, sample_id: str, question: str, options: Sequence[str], rollout: int = 0
    ) -> ListPlanner:
        return ListPlanner(self)


class ListPlanner:
    """One episode of a `ListPolicy`."""

    def __init__(self, policy: ListPolicy) -> None:
        self._policy = policy
        self._place = 0

    async def act(self, heard: Heard) -> Action:
        await asyncio.sleep(0)
        policy, place = self._policy, self._place
        assert place < PLENTY, "The episode does not end."
        policy.heard.append(heard)
        self._place += 1
        if heard.kind == "forced":
            return policy.forced
        return policy.actions[place] if place < len(policy.actions) else policy.last


@dataclass
class Objects:
    """A critic that objects for as long as its rule says."""

    rule: Callable[[Answer], bool] = lambda answer: True
    reviewed: list[Answer] = field(default_factory=list)

    async def review(self, sample: Sample, answer: Answer, views: Sequence[View]) -> str | None:
        self.reviewed.append(answer)
        return f"I doubt {answer.text}." if self.rule(answer) else None


class Agrees:
    """A critic that never objects."""

    async def review(self, sample: Sample, answer: Answer, views: Sequence[View]) -> str | None:
        return None


@dataclass
class Paper:
    """A ledger in memory."""

    calls: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    again: list[str] = field(default_factory=list)
    """Keys of calls that were replayed."""
    broke: bool = False

    def find(self, key: str) -> Mapping[str, Any] | None:
        return self.calls.get(key)

    def add(self, key: str, call: Mapping[str, Any]) -> None:
        self.calls[key] = json.loads(json.dumps(call))

    def replayed(self, key: str, call: Mapping[str, Any]) -> None:
        self.again.append(key)

    def check(self) -> None:
        if self.broke:
            raise BudgetReached("Nothing is left.")


@dataclass
class ListModel:
    """Says what its lists say, by role; the last of a list for ever."""

    planner: Sequence[str | Reply] = ("<think> I see. </think><answer> A7K </answer>",)
    others: Mapping[str, str] = field(default_factory=dict)
    asked: list[Request] = field(default_factory=list)

    name = "list"

    async def reply(self, request: Request) -> Reply:
        await asyncio.sleep(0)
        turn = sum(past.role == "planner" for past in self.asked)
        self.asked.append(request)
        if request.role == "planner":
            said = self.planner[min(turn, len(self.planner) - 1)]
        else:
            said = self.others.get(request.role, "unclear")
        if isinstance(said, Reply):
            return said
        return Reply(said, "stop", tokens_in=100, tokens_out=10, latency_s=0.5)

    async def close(self) -> None:
        """Nothing is open."""
