"""How many tags of a kind are there? Count at a glance where that will do, else part by part."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipeline.agent.actions import Answer, Call
from pipeline.agent.locate import SPOTS, SPOTS_ANY, Candidate
from pipeline.agent.sight import Named, Script, Sight
from pipeline.geometry import Box
from pipeline.scenes.counts import PATTERN
from pipeline.views import View

__all__ = ["PATTERN", "WORDING", "script"]

LARGE_PX = 18
"""From this side on a tag's shape is told at a glance."""
SURE = 0.5
"""Belief from which on a candidate is of the shape asked for."""
SHAPELY = 0.4
"""The same for having any tag's shape at all."""
SAME = 0.5
"""Two finds whose middles are nearer than this share of the smaller one's side are one tag."""

_EDGE_PX = 2.0

PART = "I count the {kind} in this part of the picture."
GLANCE = "At a glance I can count the {kind}: there are {count}."
SAYS = "In the parts of the picture together I count {count} {kind}."
WORDING = (PART, GLANCE, SAYS)


def script(sight: Sight, named: Named) -> Script:
    """How many red star tags are in the picture?"""
    color, shape = named.get("color"), named.get("shape")
    kind = " ".join(word for word in (color, shape, "tags") if word)
    view = sight.views[0]
    seen = (yield Call("locate", 0, phrase=kind)).candidates
    count = len(_fitting(view, seen, color, shape))
    if count and _is_plain(seen, count, color):
        sight.keep(Answer(str(count), GLANCE.format(kind=kind, count=count), 0))
        yield from sight.insist()
    found = _fitting(view, seen, color, shape)
    looks: list[int] = []
    for part in _parts(view.observation.region):
        heard = yield Call("zoom", 0, PART.format(kind=kind), part, kind)
        if heard.view is None:
            continue
        index, look = heard.index, heard.view
        candidates = (yield Call("locate", index, phrase=kind)).candidates
        looks.append(index)
        found = _merged(found, view, _fitting(look, candidates, color, shape), look)
    count = len(found)
    thought = SAYS.format(kind=kind, count=count)
    sight.keep(Answer(str(count), thought, looks[-1] if looks else 0, support=tuple(looks[:-1])))
    yield from sight.insist()


def _is_plain(seen: Sequence[Candidate], count: int, color: str | None) -> bool:
    """Whether hardly anything can have been missed: all that is seen is large and of the kind
    asked for, and it is less than is looked for."""
    if min(candidate.side for candidate in seen) < LARGE_PX or count < len(seen):
        return False
    if color is not None:
        return len(seen) < SPOTS
    colors = [candidate.color for candidate in seen]
    return all(colors.count(each) < SPOTS_ANY for each in colors)


def _fitting(
    view: View, seen: Sequence[Candidate], color: str | None, shape: str | None
) -> list[Box]:
    """Source boxes of the candidates of a kind, those left out that the view's edge cuts."""
    height, width = view.pixels.shape[:2]
    return [
        view.to_source(c.box)
        for c in seen
        if (color is None or c.color == color)
        and (c.belief(shape) >= SURE if shape else c.agreement * max(c.shapes) >= SHAPELY)
        and min(c.box[0], c.box[1], width - c.box[2], height - c.box[3]) >= _EDGE_PX
    ]


def _merged(found: list[Box], first: View, more: list[Box], look: View) -> list[Box]:
    """What was found so far and in a look; the look knows better about what it shows."""
    region = look.observation.region
    kept = [
        box
        for box in found
        if not _inside(region, box.centre) or any(_is_same(box, other) for other in more)
    ]
    return kept + [box for box in more if not any(_is_same(box, other) for other in kept)]


def _inside(region: Box, place: tuple[float, float]) -> bool:
    """Whether a place lies well inside a region."""
    x, y = region.centre
    return abs(place[0] - x) < 0.46 * region.width and abs(place[1] - y) < 0.46 * region.height


def _is_same(one: Box, other: Box) -> bool:
    return math.dist(one.centre, other.centre) < SAME * min(one.width, other.width)


def _parts(region: Box) -> list[Box]:
    """Four boxes whose looks, half again as large, cover the picture and overlap a little."""
    w, h = region.width, region.height
    return [
        Box(x * w, y * h, (x + 0.37) * w, (y + 0.37) * h).rounded()
        for y in (0.09, 0.54)
        for x in (0.09, 0.54)
    ]
