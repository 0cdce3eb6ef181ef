"""A focus path: what was looked at, why, what was seen, and the answer it led to.

Boxes are in source pixels throughout; only `render` turns them into a model's own numbers. How a
single turn reads as text is `grammar`'s business, offered here too as `render_turn` and `parse`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypedDict

from pipeline.answers import written_in
from pipeline.geometry import Box, Frame, Size, visual_tokens
from pipeline.grammar import Profile, known_profile, parse, refuse_control, render_turn
from pipeline.instructions import instructions
from pipeline.samples import Sample
from pipeline.turns import Mark, Segment, Turn, ZoomCall

__all__ = [
    "Finish",
    "FocusStep",
    "ImageBlock",
    "Message",
    "Observation",
    "Profile",
    "TextBlock",
    "TraceTurn",
    "Trajectory",
    "Turn",
    "Usage",
    "ZoomCall",
    "parse",
    "question_text",
    "render",
    "render_turn",
]

Finish = Literal["answered", "forced", "rejected"]


@dataclass(frozen=True, slots=True)
class Observation:
    """One view that a tool or a model was given."""

    region: Box
    """What of the source it shows."""
    size: Size
    """(width, height) of the view in pixels."""
    parent: int | None = None
    """Index of the observation it was zoomed from; None for the first view."""

    @property
    def visual_tokens(self) -> int:
        return visual_tokens(self.size)

    @property
    def magnification(self) -> float:
        """View pixels per source pixel (geometric mean of both axes); over 1 is interpolation."""
        return float((self.size[0] * self.size[1] / self.region.area) ** 0.5)

    @property
    def resolved(self) -> float:
        """Share of the source's resolution that the view shows, in (0, 1]."""
        return min(self.magnification, 1.0)

    def gains_on(self, seen: Sequence[Observation]) -> bool:
        """Whether this view brings source pixels that no view in `seen` showed as finely.

        `seen` begins with the first view, of the whole image.

        The whole image again, or a crop of what was already seen at source resolution, brings none.
        """
        if seen and self.region.contains(seen[0].region):
            return False
        known = [o.resolved for o in seen if o.region.contains(self.region)]
        return not known or self.resolved > max(known) * 1.01


@dataclass(frozen=True, slots=True)
class FocusStep:
    """One look: a thought, the boxes it names, which were zoomed, and what came back."""

    thought: str
    boxes: tuple[Box, ...]
    """As asked for, in source pixels, before enlargement."""
    zoomed: tuple[bool, ...]
    label: str = ""
    tool: str = "zoom"
    observation: Observation | None = None
    """What the last zoomed box showed."""
    checks: Mapping[str, float | bool | None] = field(default_factory=dict)
    """Machine checks by name: `confidence`, `no_gain`, `target_iou`, `mask_iou`, …"""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a trajectory cost; None where nothing was counted."""

    tokens_in: int | None = None
    tokens_out: int | None = None


@dataclass(frozen=True, slots=True)
class TraceTurn:
    """One raw turn of an episode, dead ends included: a row of `traces`."""

    role: Literal["policy", "tool", "critic"]
    text: str
    tool: str = ""
    result: str = ""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """Ordered steps and the answer they led to."""

    sample_id: str
    resolution: int
    """The budget R: no view has more than R² pixels."""
    rollout: int
    view: Observation
    """The first view, of the whole image."""
    steps: tuple[FocusStep, ...]
    final_thought: str
    answer: str
    finish: Finish
    policy: str
    verified: bool | None = None
    """Whether the answer is the target; None before the verifier has seen it."""
    usage: Usage = Usage()

    @property
    def num_zooms(self) -> int:
        return sum(sum(step.zoomed) for step in self.steps)

    @property
    def visual_tokens(self) -> int:
        """Tokens of every view on the path, the first one included."""
        looks = [step.observation for step in self.steps if step.observation is not None]
        return self.view.visual_tokens + sum(look.visual_tokens for look in looks)


class TextBlock(TypedDict):
    """Words of a message."""

    type: Literal["text"]
    text: str


class ImageBlock(TypedDict):
    """A picture's place in a message; whoever needs its pixels cuts them from the source."""

    type: Literal["image"]
    index: int
    """0 for the first view, then one more for each zoomed box."""
    box: list[float] | None
    """The box that was asked for, source pixels; None for the first view."""
    region: list[float] | None
    """What of the source it shows, source pixels; None where the trajectory kept no view."""
    size: list[int] | None
    """(width, height) of the view; None with `region`."""


class Message(TypedDict):
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: list[TextBlock | ImageBlock]


def render(sample: Sample, trajectory: Trajectory, profile: Profile, frame: Frame) -> list[Message]:
    """The chat that a trajectory reads as: instructions, picture and question, turns, answer.

    `cof-v2` shows a zoomed box as a user message of its own after the turn that asked for it,
    `cof-v1` inside the one assistant message; the texts of an assistant message, joined, are
    `render_turn`'s. What the profile has no mark for — a box that is named but not zoomed — becomes
    plain numbers in the thought; `cof-v1` has no labels at all. A box that is the answer is written
    in the frame. Raises `GrammarError` when a text, or an empty answer, cannot be said.
    """
    if sample.sample_id != trajectory.sample_id or sample.size != frame.size:
        raise ValueError("The sample, the trajectory and the frame belong to different pictures.")
    trajectory = replace(trajectory, answer=written_in(frame, sample.question, trajectory.answer))
    chat = {"cof-v2": _chat_v2, "cof-v1": _chat_v1}[known_profile(profile)]
    question = _text(question_text(sample.question, sample.options))
    opening: list[TextBlock | ImageBlock] = [_image(0, None, trajectory.view), question]
    return [
        Message(role="system", content=[_text(instructions(profile, frame))]),
        Message(role="user", content=opening),
        *chat(trajectory, frame),
    ]


def question_text(question: str, options: Sequence[str]) -> str:
    """The question, and its options as `(A) …` lines; raises `GrammarError` for marks in it."""
    lines = [f"({chr(ord('A') + place)}) {text}" for place, text in enumerate(options)]
    text = "\n".join([f"Question: {question}", *lines])
    refuse_control(text, "The question")
    return text


def _chat_v2(trajectory: Trajectory, frame: Frame) -> Iterator[Message]:
    """One assistant message for each look and one for the answer, with the views between them."""
    index = 0
    thoughts: list[str] = []
    for step in trajectory.steps:
        thoughts += [step.thought, *_in_words(_boxes(step, zoomed=False), frame)]
        looks = _boxes(step, zoomed=True)
        if looks:
            calls = tuple(ZoomCall(box.as_written(frame), step.label) for box in looks)
            yield _says(Turn(_sentence(thoughts), calls))
            thoughts = []
        for image in _views(step, index + 1):
            index += 1
            yield Message(role="user", content=[image])
    yield _says(Turn(_sentence([*thoughts, trajectory.final_thought]), answer=trajectory.answer))


def _says(turn: Turn) -> Message:
    return Message(role="assistant", content=[_text(render_turn(turn, "cof-v2"))])


def _chat_v1(trajectory: Trajectory, frame: Frame) -> Iterator[Message]:
    """One assistant message, cut where a zoom puts its views."""
    turn = Turn(answer=trajectory.answer, segments=_segments(trajectory, frame))
    pieces = render_turn(turn, "cof-v1").split(Mark.ZOOMIN.value)
    content: list[TextBlock | ImageBlock] = []
    index = 0
    for piece, step in zip(pieces, filter(_zooms, trajectory.steps), strict=False):
        content.append(_text(piece + Mark.ZOOMIN.value))
        views = _views(step, index + 1)
        index += len(views)
        content += views
    yield Message(role="assistant", content=[*content, _text(pieces[-1])])


def _segments(trajectory: Trajectory, frame: Frame) -> tuple[Segment, ...]:
    """The one thought of a trajectory in `cof-v1`.

    `<|image_zoomin|>` takes every box named since the last one, so a box that is not zoomed gets
    its mark only where no zoom follows.
    """
    zooms_left = sum(map(_zooms, trajectory.steps))
    segments: list[Segment] = []
    for step in trajectory.steps:
        segments += [step.thought, " "]
        looks = _boxes(step, zoomed=True)
        zooms_left -= bool(looks)
        others = _boxes(step, zoomed=False)
        if zooms_left or looks:
            segments += [f"{words} " for words in _in_words(others, frame)]
            others = []
        for box in looks + others:
            segments += [box.as_written(frame), " "]
        if looks:
            segments += [Mark.ZOOMIN, " "]
    return (*segments, trajectory.final_thought)


def _zooms(step: FocusStep) -> bool:
    return any(step.zoomed)


def _boxes(step: FocusStep, *, zoomed: bool) -> list[Box]:
    """The boxes of a step that were, or were not, zoomed."""
    return [box for box, was in zip(step.boxes, step.zoomed, strict=True) if was is zoomed]


def _in_words(boxes: list[Box], frame: Frame) -> list[str]:
    return [json.dumps(box.as_written(frame)) for box in boxes]


def _sentence(thoughts: list[str]) -> str:
    return " ".join(thought.strip() for thought in thoughts if thought.strip())


def _views(step: FocusStep, index: int) -> list[ImageBlock]:
    """A picture for each zoomed box; a step keeps the view of its last one."""
    looks = _boxes(step, zoomed=True)
    last = len(looks) - 1
    return [
        _image(index + place, box, step.observation if place == last else None)
        for place, box in enumerate(looks)
    ]


def _image(index: int, box: Box | None, view: Observation | None) -> ImageBlock:
    return ImageBlock(
        type="image",
        index=index,
        box=box.as_list() if box else None,
        region=view.region.as_list() if view else None,
        size=list(view.size) if view else None,
    )


def _text(text: str) -> TextBlock:
    return TextBlock(type="text", text=text)
