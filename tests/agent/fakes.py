"""Stand-ins for the agent's protocols: a segmenter for flat grounds, a policy that is a list.

`board` draws the pictures that `GroundSegmenter` can outline exactly; nothing here decides
anything that the agent is to decide.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from pipeline.agent.actions import Action, Answer, Heard
from pipeline.geometry import Box, Size
from pipeline.samples import Sample
from pipeline.scenes.needles import Tag
from pipeline.scenes.tags import draw_tag
from pipeline.views import View

GROUND = (128, 128, 128)
"""What `board` is painted with: neither writing nor any colour of a tag."""
PLENTY = 100
"""Actions in a row after which a test's policy counts as stuck."""


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
    """Outlines whatever differs from the ground near the prompt."""

    side = 192
    reach = 1.7
    """A box prompt covers this many times its sides."""
    around = (10.0, 30.0, 90.0)
    """Half sides of the three squares that a point prompt covers, encoder pixels."""

    def __init__(self) -> None:
        self.asked = 0

    def embed(self, image: np.ndarray) -> Flat:
        distance = np.abs(image.astype(np.float32) - np.array(GROUND)).max(axis=2) - 24
        scale = self.side / max(image.shape[:2])
        size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
        small = Image.fromarray(distance.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
        logits = np.full((self.side, self.side), -24.0, np.float32)
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
        """One mask for the only box, or three for the only point."""
        self.asked += 1
        if boxes is not None:
            x0, y0, x1, y1 = (value * embedding.scale for value in boxes[0])
            halves = [(self.reach * (x1 - x0) / 2, self.reach * (y1 - y0) / 2)]
            x, y = (x0 + x1) / 2, (y0 + y1) / 2
        else:
            assert points is not None and multimask
            x, y = (value * embedding.scale for value in points[0])
            halves = [(half, half) for half in self.around]
        logits = np.stack([_within(embedding.logits, x, y, *half) for half in halves])
        return Masks(logits[None], np.full((1, len(halves)), 0.9, np.float32))


def _within(logits: np.ndarray, x: float, y: float, dx: float, dy: float) -> np.ndarray:
    """The logits in a rectangle about (x, y); the ground everywhere else."""
    rows, cols = np.indices(logits.shape) + 0.5
    inside = (np.abs(rows - y) <= dy) & (np.abs(cols - x) <= dx)
    return np.where(inside, logits, np.float32(-24.0))


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

    def begin(self, sample_id: str, question: str, options: Sequence[str]) -> ListPlanner:
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

    def review(self, sample: Sample, answer: Answer, views: Sequence[View]) -> str | None:
        self.reviewed.append(answer)
        return f"I doubt {answer.text}." if self.rule(answer) else None


class Agrees:
    """A critic that never objects."""

    def review(self, sample: Sample, answer: Answer, views: Sequence[View]) -> str | None:
        return None
