"""Which of four close-ups shows the framed place? Find the frame, look, compare pixels."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.agent.actions import Action, Answer, Call, Heard
from pipeline.agent.scripts.frames import SURE, find_frame
from pipeline.agent.sight import Named, Script, Sight
from pipeline.geometry import Box
from pipeline.scenes.closeups import BESIDE, FRAMES, MATCH, OPTIONS
from pipeline.scenes.likeness import shifted_correlation, small
from pipeline.scenes.puzzles import LETTERS
from pipeline.scenes.strips import Side, Strip, strip_of
from pipeline.views import View, ViewBox

SIDES: dict[str, Side] = {words: side for side, words in BESIDE.items()}
"""The strip's side by the question's words for it."""
BESIDE_WORDS = rf"(?P<beside>{'|'.join(SIDES)})"
PATTERN = re.compile(
    re.escape(MATCH)
    .replace(re.escape("{beside}"), BESIDE_WORDS)
    .replace(re.escape("{color}"), rf"(?P<color>{'|'.join(FRAMES)})")
)

ENOUGH_PX = 20
"""A place narrower than this in a view is not compared there."""
ALIKE = 0.8
"""Correlation from which on a close-up is taken for the place."""
LEAD = 0.2
"""By which it must be ahead of the next one."""
GUESS = 0.4
"""Below this nothing is said: no close-up looks like the place."""

_CELLS = 24
_REACH = 2

LOOK = (
    "The place in the {color} frame is too small to compare from here, so I look closer.",
    "I can see the {color} frame but not what is in it; a closer look is needed.",
)
PART = "I do not see a {color} frame at this size; I search this part of the photograph."
PANEL = "Close-up {letter} looks most like it; I look at it to be sure."
SAYS = (
    "The place in the {color} frame looks like close-up {letter}: "
    "they correlate by {best:.2f}, the next one by {next:.2f}."
)
WORDING = (*LOOK, PART, PANEL, SAYS)


@dataclass(frozen=True, slots=True)
class _Seen:
    """The framed place as one view shows it."""

    view: int
    inside: ViewBox


def script(sight: Sight, named: Named) -> Script:
    """Which of the four close-ups below the photograph shows the place in the red frame?"""
    color, strip = named["color"], strip_seen(sight, named)
    seen = yield from _framed(sight, color, strip)
    if seen is not None:
        scores = _scores(sight, seen, dict.fromkeys(range(len(LETTERS)), 0), strip)
        answer = _answer(color, seen, scores, {})
        if max(scores) >= GUESS:
            sight.keep(answer)
        if not _clear(scores):
            yield from _closer(sight, color, seen, scores, strip)
    yield from sight.insist()


def strip_seen(sight: Sight, named: Named) -> Strip:
    """Where photograph and close-ups lie, from the picture's size and the question's wording."""
    whole = sight.views[0].observation.region
    return strip_of((int(whole.x1), int(whole.y1)), SIDES[named["beside"]])


def _framed(sight: Sight, color: str, strip: Strip) -> Generator[Action, Heard, _Seen | None]:
    """The framed place in a view that shows it large enough."""
    first = sight.views[0]
    frame = find_frame(first.pixels, color, first.to_view(strip.photo))
    if frame is None or frame.score < SURE:
        return (yield from _searched(sight, color, strip))
    if frame.inside[2] - frame.inside[0] >= ENOUGH_PX:
        return _Seen(0, frame.inside)
    box = first.to_source(frame.inside)
    return (yield from _looked(sight, box, color, sight.wording(LOOK, color=color)))


def _searched(sight: Sight, color: str, strip: Strip) -> Generator[Action, Heard, _Seen | None]:
    """Look for the frame in the quarters of the photograph, one after another."""
    x, y = (round(v) for v in strip.photo.centre)
    right, low = strip.photo.x1, strip.photo.y1
    for corner in ((0, 0), (x, 0), (0, y), (x, y)):
        part = Box(*corner, right if corner[0] else x, low if corner[1] else y)
        heard = yield Call("zoom", 0, PART.format(color=color), part, "part of the photograph")
        if heard.view is None:
            continue
        index, view = heard.index, heard.view
        frame = find_frame(view.pixels, color, view.to_view(strip.photo))
        if frame is not None and frame.score >= SURE:
            if frame.inside[2] - frame.inside[0] >= ENOUGH_PX:
                return _Seen(index, frame.inside)
            box = view.to_source(frame.inside)
            return (yield from _looked(sight, box, color, sight.wording(LOOK, color=color), index))
    return None


def _looked(
    sight: Sight, box: Box, color: str, thought: str, view: int = 0
) -> Generator[Action, Heard, _Seen | None]:
    """Zoom to a frame and find it again, larger."""
    heard = yield Call("zoom", view, thought, box, f"{color} frame")
    if heard.view is None:
        return None
    near = heard.view.to_view(box)
    side = near[2] - near[0]
    height, width = heard.view.pixels.shape[:2]
    whole = (0.0, 0.0, float(width), float(height))
    frame = find_frame(heard.view.pixels, color, whole, (0.6 * side, 1.4 * side))
    inside = frame.inside if frame is not None and frame.score >= SURE else near
    return _Seen(heard.index, inside)


def _closer(sight: Sight, color: str, seen: _Seen, scores: Sequence[float], strip: Strip) -> Script:
    """Look at the close-ups that come nearest, and at the place itself, and compare again."""
    if seen.view == 0:
        box = sight.views[0].to_source(seen.inside)
        looked = yield from _looked(sight, box, color, sight.wording(LOOK, color=color))
        seen = looked or seen
    views = dict.fromkeys(range(len(LETTERS)), 0)
    scores = _scores(sight, seen, views, strip)
    for place in sorted(views, key=lambda n: -scores[n])[:2]:
        if _clear(scores):
            break
        panel = strip.panels[place]
        inner = Box(
            panel.x0 + panel.width / 6,
            panel.y0 + panel.width / 6,
            panel.x1 - panel.width / 6,
            panel.y1 - panel.width / 6,
        )  # zoomed by half again
        thought = PANEL.format(letter=LETTERS[place])
        heard = yield Call("zoom", 0, thought, inner.rounded(), f"close-up {LETTERS[place]}")
        if heard.view is not None:
            views[place] = heard.index
            scores = _scores(sight, seen, views, strip)
    if max(scores) >= GUESS:
        sight.keep(_answer(color, seen, scores, views))


def _scores(sight: Sight, seen: _Seen, views: dict[int, int], strip: Strip) -> list[float]:
    """How well each close-up, in the view given for it, correlates with the framed place."""
    place = small(sight.views[seen.view].pixels, _CELLS, seen.inside)
    panels = (_panel(sight.views[views[n]], strip.panels[n]) for n in range(len(LETTERS)))
    return [shifted_correlation(place, panel, _REACH) for panel in panels]


def _panel(view: View, panel: Box) -> np.ndarray:
    return small(view.pixels, _CELLS, view.to_view(panel))


def _clear(scores: Sequence[float]) -> bool:
    order = sorted(scores, reverse=True)
    return order[0] >= ALIKE and order[0] - order[1] >= LEAD


def _answer(color: str, seen: _Seen, scores: Sequence[float], views: dict[int, int]) -> Answer:
    order = sorted(range(len(scores)), key=lambda n: -scores[n])
    said = {"letter": LETTERS[order[0]], "best": scores[order[0]], "next": scores[order[1]]}
    support = tuple(sorted({view for view in views.values() if view}))
    return Answer(OPTIONS[order[0]], SAYS.format(color=color, **said), seen.view, support=support)
