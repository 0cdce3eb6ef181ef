"""What a model says in one turn, whatever the text it says it in.

Boxes are four numbers in the model's own frame; what they mean in a picture is `geometry`'s
business, how they read is `grammar`'s.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import GrammarError, InvalidBox
from pipeline.geometry import four_numbers

FrameBox = tuple[float, float, float, float]
"""(left, top, right, bottom) in the numbers of a model's own frame; ints stay ints."""


class Mark(enum.Enum):
    """A special token of `cof-v1` that stands by itself."""

    ZOOMIN = "<|image_zoomin|>"


Segment = str | FrameBox | Mark
"""A piece of a `cof-v1` thought: words, a box that is named, or the mark that zooms."""


@dataclass(frozen=True, slots=True)
class ZoomCall:
    """One region that a model asks to see enlarged."""

    box: FrameBox
    label: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "box", _box(self.box))


@dataclass(frozen=True, slots=True)
class Turn:
    """A thought, and then calls or an answer.

    White space around texts carries no meaning and is dropped. In `cof-v1` the thought is made of
    `segments`, from which `thought` (their words) and `calls` (the boxes zoomed) follow.
    """

    thought: str = ""
    calls: tuple[ZoomCall, ...] = ()
    answer: str | None = None
    segments: tuple[Segment, ...] = ()
    """Empty when the thought is words only."""

    def __post_init__(self) -> None:
        thought, calls, segments = self.thought.strip(), tuple(self.calls), tidy(self.segments)
        if segments:
            words, zoomed = _words(segments), zoomed_boxes(segments)
            if (thought or words, calls or zoomed) != (words, zoomed):
                raise GrammarError("A turn's thought and calls differ from those of its segments.")
            thought, calls = words, zoomed
        if all(isinstance(segment, str) for segment in segments):
            segments = ()
        object.__setattr__(self, "thought", thought)
        object.__setattr__(self, "calls", calls)
        object.__setattr__(self, "segments", segments)
        object.__setattr__(self, "answer", None if self.answer is None else self.answer.strip())


def zoomed_boxes(segments: Sequence[Segment]) -> tuple[ZoomCall, ...]:
    """The boxes that `<|image_zoomin|>` marks apply to, in the order they are named."""
    zoomed: list[ZoomCall] = []
    named: list[ZoomCall] = []
    for segment in segments:
        if isinstance(segment, tuple):
            named.append(ZoomCall(segment))
        elif segment is Mark.ZOOMIN:
            if not named:
                raise GrammarError(f"{segment.value} follows no box named since the last one.")
            zoomed, named = zoomed + named, []
    return tuple(zoomed)


def tidy(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """The same segments with neighbouring words joined, and no white space at either end."""
    joined: list[Segment] = []
    for segment in segments:
        last = joined[-1] if joined else None
        if isinstance(segment, str) and isinstance(last, str):
            joined[-1] = last + segment
        else:
            joined.append(segment if isinstance(segment, (str, Mark)) else _box(segment))
    first, last = (joined[0], joined[-1]) if joined else (None, None)
    if isinstance(last, str):
        joined[-1] = last.rstrip()
    if isinstance(first, str):
        joined[0] = first.strip() if len(joined) == 1 else first.lstrip()
    return tuple(segment for segment in joined if segment != "")


def _words(segments: Sequence[Segment]) -> str:
    """The words of a thought without its boxes and marks."""
    spoken = (segment.strip() for segment in segments if isinstance(segment, str))
    return " ".join(words for words in spoken if words)


def _box(values: Any) -> FrameBox:
    try:
        return four_numbers(values)
    except InvalidBox as error:
        raise GrammarError(error.message) from error
