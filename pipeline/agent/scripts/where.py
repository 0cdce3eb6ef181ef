"""Where in the photograph is what a close-up shows? Search for it, look there, box it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.agent.actions import Answer, Call
from pipeline.agent.scripts.closeup import BESIDE_WORDS, strip_seen
from pipeline.agent.sight import Named, Script, Sight
from pipeline.geometry import Box
from pipeline.scenes.closeups import WHERE
from pipeline.scenes.likeness import correlations, small
from pipeline.scenes.places import MAGNIFIED
from pipeline.scenes.puzzles import LETTERS
from pipeline.views import View, ViewBox

PATTERN = re.compile(
    re.escape(WHERE)
    .replace(re.escape("{beside}"), BESIDE_WORDS)
    .replace(re.escape("{letter}"), f"(?P<letter>[{LETTERS}])")
)

WORK_PX = 384
"""Longest side of the reduced copy that is searched, at most."""
SURE = 0.85
"""Correlation in a look from which on a place is taken for the close-up's."""
GUESS = 0.55
"""Below this a place is not named at all."""
PLAIN = 0.9
"""The same where the first view shows the place at `PLAIN_PX`: it needs no look."""
PLAIN_PX = 40
PLACES = 4
"""Places that are looked at, at most."""

_RATIO = 1.08
_LEAST_PX = 5
_ROOM = 1.3
"""What is zoomed, in sides of the place; the zoom adds half again."""
_CELLS = (40, 12)
"""Most and least pixels that a place has where it is matched in a look."""
_FINE = tuple(1.04**n for n in range(-4, 5))

LOOK = (
    "Close-up {letter} may be from here; I look closer to compare.",
    "This part of the photograph looks like close-up {letter}. I zoom in to make sure.",
)
HERE = "I can see here that this place looks like close-up {letter}: they correlate by {score:.2f}."
SAYS = "Up close this place looks like close-up {letter}: they correlate by {score:.2f}."
WORDING = (*LOOK, HERE, SAYS)


@dataclass(frozen=True, slots=True, order=True)
class _Place:
    """A square that looks like the close-up."""

    score: float
    box: Box
    """Source pixels."""


def script(sight: Sight, named: Named) -> Script:
    """Where in the photograph is what close-up B below it shows?"""
    letter, strip = named["letter"], strip_seen(sight, named)
    view, panel = sight.views[0], strip.panels[LETTERS.index(letter)]
    best: tuple[float, Answer] | None = None
    places = _candidates(view, view.to_view(panel), view.to_view(strip.photo))
    if places and _is_plain(view, places[0]):
        sight.keep(_answer(places[0], 0, HERE, letter))
        yield from sight.insist()
    for place in places:
        region = place.box.enlarge(_ROOM, (int(strip.photo.x1), int(strip.photo.y1)))
        heard = yield Call("zoom", 0, sight.wording(LOOK, letter=letter), region, "place")
        if heard.view is None:
            continue
        found = _refined(view, view.to_view(panel), heard.view, place.box)
        if best is None or found.score > best[0]:
            best = (found.score, _answer(found, heard.index, SAYS, letter))
            if found.score >= GUESS:
                sight.keep(best[1])
        if found.score >= SURE:
            break
    yield from sight.insist()


def _is_plain(view: View, place: _Place) -> bool:
    """Whether the first view shows a place well enough to name it from there."""
    x0, _, x1, _ = view.to_view(place.box)
    return place.score >= PLAIN and x1 - x0 >= PLAIN_PX


def _answer(place: _Place, view: int, wording: str, letter: str) -> Answer:
    text = str([int(v) for v in place.box.as_list()])
    return Answer(text, wording.format(letter=letter, score=min(place.score, 1.0)), view)


def _candidates(view: View, panel: ViewBox, photo: ViewBox) -> list[_Place]:
    """The places of the photograph that look most like a close-up, best first."""
    factor = max(1.0, max(photo[2] - photo[0], photo[3] - photo[1]) / WORK_PX)
    size = (round((photo[2] - photo[0]) / factor), round((photo[3] - photo[1]) / factor))
    reduced = _grey(small(view.pixels, size, photo))
    shown = panel[2] - panel[0]
    side, found = shown / MAGNIFIED[1] / factor, list[_Place]()
    while side <= 1.05 * shown / MAGNIFIED[0] / factor:
        cells = round(side)
        if cells >= _LEAST_PX:
            found += _peaks(view, reduced, _grey(small(view.pixels, cells, panel)), factor)
        side = max(side * _RATIO, side + 1)
    chosen: list[_Place] = []
    for place in sorted(found, reverse=True):
        if not any(place.box.intersection(other.box) > 0 for other in chosen):
            chosen.append(place)
        if len(chosen) == PLACES:
            break
    return chosen


def _peaks(
    view: View, reduced: np.ndarray, template: np.ndarray, factor: float
) -> Iterator[_Place]:
    """The few best places for a close-up at one size, by what correlation is worth there."""
    scores = correlations(reduced, template)
    cells = template.shape[0]
    for _ in range(PLACES):
        if not scores.size:
            return
        y, x = np.unravel_index(int(np.argmax(scores)), scores.shape)
        corner = (int(x) * factor, int(y) * factor)
        box = (*corner, corner[0] + cells * factor, corner[1] + cells * factor)
        yield _Place(_evidence(float(scores[y, x]), cells), view.to_source(box))
        near = max(cells // 2, 1)
        scores[max(y - near, 0) : y + near + 1, max(x - near, 0) : x + near + 1] = -1


def _grey(pixels: np.ndarray) -> np.ndarray:
    """One channel, to search a whole photograph by; what is found is matched in colour."""
    return pixels.mean(2, keepdims=True)


def _evidence(correlation: float, cells: int) -> float:
    """Correlation less what chance would bring with so few pixels."""
    return correlation - 1.5 / math.sqrt(cells * cells)


def _refined(first: View, panel: ViewBox, look: View, box: Box) -> _Place:
    """The place again, matched in a look at it at sizes around the one it was found at."""
    wide = look.to_view(box)
    shrink = max(1.0, (wide[2] - wide[0]) / _CELLS[0])
    height, width = look.pixels.shape[:2]
    size = (max(1, round(width / shrink)), max(1, round(height / shrink)))
    reduced = small(look.pixels, size)
    scale = (width / size[0], height / size[1])
    best = _Place(-1.0, box)
    for ratio in _FINE:
        cells = max(round((wide[2] - wide[0]) / shrink * ratio), _CELLS[1])
        scores = correlations(reduced, small(first.pixels, cells, panel))
        if not scores.size:
            continue
        y, x = np.unravel_index(int(np.argmax(scores)), scores.shape)
        at = (x * scale[0], y * scale[1], (x + cells) * scale[0], (y + cells) * scale[1])
        best = max(best, _Place(float(scores[y, x]), look.to_source(at)))
    return best
