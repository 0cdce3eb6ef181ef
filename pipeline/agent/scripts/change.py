"""What was changed between two pictures, and where? Compare at a glance, then both up close."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from pipeline.agent.actions import Action, Answer, Call, Heard
from pipeline.agent.scripts.differences import Spot, spots
from pipeline.agent.sight import Named, Script, Sight
from pipeline.geometry import Box
from pipeline.scenes.changes import NAMES, QUARTERS, WAYS, WHAT, WHERE, Panes, Side, panes_of
from pipeline.scenes.likeness import small
from pipeline.views import View

_SIDES: dict[str, Side] = {second: side for side, (_, second) in NAMES.items()}


def _pattern(text: str) -> re.Pattern[str]:
    first, _, rest = re.escape(text).partition(re.escape("{second}"))
    rest = rest.replace(re.escape("{second}"), "(?P=second)")
    named = rf"(?P<second>{'|'.join(_SIDES)})"
    return re.compile(first + named + rest.replace(re.escape("{first}"), r"\w+"))


WHERE_PATTERN, WHAT_PATTERN = _pattern(WHERE), _pattern(WHAT)

WORK_PX = 640
"""Longest side at which two pictures are compared."""
GLANCE = 1.25
"""Two pictures in one view are reduced by this much: their pixels do not fall together."""
PAIRS = 2
"""Places that are looked at in both pictures, at most."""
PLAIN = 6000.0
"""Weight of a difference at a glance that needs no closer look, in levels × pixels of the view."""
LEAD = 3.0
"""By which it must outweigh the next one elsewhere."""
WEIGHTY = 250.0
"""Weight of a difference up close from which on something was changed there."""
ECHO = 0.12
"""A second difference up close weighs at least this much of the first, to count."""
BOTH = 0.25
"""What is gone and what is new weigh at least this much of each other where a thing was moved."""
TINT = 1.5
"""Colour over brightness from which on a difference may be one of colour alone."""
LIGHT_KEPT = 0.7
"""Correlation of brightness from which on it is."""

_LOOK_SHARE = 0.11
"""Side of a place that is looked at, as a share of a picture's longer side; a look adds half."""

FIRST = (
    "The two pictures may differ here; I look closer at the {first} one.",
    "Something seems to be different at this place. First I look at it in the {first} picture.",
)
SECOND = "Now the same place in the {second} picture, to compare."
SAYS = "At this place, {quarter} in the picture, the two differ: in the {second} one {what}."
WORDING = (*FIRST, SECOND, SAYS)


@dataclass(frozen=True, slots=True)
class _Difference:
    """A difference and its middle in the first picture, source pixels."""

    spot: Spot
    middle: tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Compared:
    """What was found at one place, and the views it was found in."""

    found: tuple[_Difference, ...]
    views: tuple[int, ...]


def where(sight: Sight, named: Named) -> Script:
    """In which part of the picture was one thing changed?"""
    yield from _script(sight, named, 1)


def what(sight: Sight, named: Named) -> Script:
    """What is different in the lower picture?"""
    yield from _script(sight, named, PAIRS)


def _script(sight: Sight, named: Named, needed: int) -> Script:
    """Compare at a glance; look at the places that differ most until `needed` were seen."""
    view = sight.views[0]
    whole = view.observation.region
    side = _SIDES[named["second"]]
    panes = panes_of((int(whole.x1), int(whole.y1)), side)
    seen = _compared(view, view, panes)
    if _is_plain(seen):
        near = [d for d in seen if d.spot.weight >= ECHO * seen[0].spot.weight]
        sight.keep(_answer(sight, panes, [_Compared(tuple(near), ())]))
        yield from sight.insist()
    compared: list[_Compared] = []
    for place in _places(seen, panes, PAIRS):
        looked = yield from _both(sight, place, panes)
        if looked is None or not looked.found:
            continue
        compared.append(looked)
        sight.keep(_answer(sight, panes, compared))
        if len(compared) == needed:
            break
    yield from sight.insist()


def _both(sight: Sight, place: Box, panes: Panes) -> Generator[Action, Heard, _Compared | None]:
    """Look at a place in both pictures."""
    names = dict(zip(("first", "second"), NAMES[panes.side], strict=True))
    dx, dy = panes.second.x0, panes.second.y0
    other = Box(place.x0 + dx, place.y0 + dy, place.x1 + dx, place.y1 + dy)
    thoughts = (sight.wording(FIRST, **names), SECOND.format(**names))
    looks: list[View] = []
    numbers: list[int] = []
    for box, thought, name in zip((place, other), thoughts, names.values(), strict=True):
        heard = yield Call("zoom", 0, thought, box, f"{name} picture")
        if heard.view is None:
            return None
        looks.append(heard.view)
        numbers.append(heard.index)
    found = _compared(looks[0], looks[1], panes)
    heavy = [d for d in found if d.spot.weight >= max(WEIGHTY, ECHO * found[0].spot.weight)]
    return _Compared(tuple(heavy), tuple(numbers))


def _compared(one: View, other: View, panes: Panes) -> list[_Difference]:
    """Where the first picture, as `one` shows it, differs from the second in `other`."""
    dx, dy = panes.second.x0, panes.second.y0
    a, b = one.observation.region, other.observation.region
    common = (
        max(a.x0, b.x0 - dx, panes.first.x0),
        max(a.y0, b.y0 - dy, panes.first.y0),
        min(a.x1, b.x1 - dx, panes.first.x1),
        min(a.y1, b.y1 - dy, panes.first.y1),
    )
    here = Box(*common)
    there = Box(here.x0 + dx, here.y0 + dy, here.x1 + dx, here.y1 + dy)
    x0, y0, x1, y1 = one.to_view(here)
    shrink = max(1.0, max(x1 - x0, y1 - y0) / WORK_PX) * (GLANCE if one is other else 1.0)
    size = (max(1, round((x1 - x0) / shrink)), max(1, round((y1 - y0) / shrink)))
    first = small(one.pixels, size, (x0, y0, x1, y1))
    second = small(other.pixels, size, other.to_view(there))
    sx, sy = here.width / size[0], here.height / size[1]

    return [
        _Difference(spot, (here.x0 + spot.x * sx, here.y0 + spot.y * sy))
        for spot in spots(first, second)
    ]


def _is_plain(seen: Sequence[_Difference]) -> bool:
    """Whether the first view shows a difference that no other outweighs."""
    if not seen or seen[0].spot.weight < PLAIN:
        return False
    return len(seen) < 2 or seen[0].spot.weight >= LEAD * seen[1].spot.weight


def _places(seen: Sequence[_Difference], panes: Panes, count: int) -> list[Box]:
    """The places in the first picture that are worth a look, apart from one another."""
    side = _LOOK_SHARE * max(panes.first.width, panes.first.height)
    size = (int(panes.first.x1), int(panes.first.y1))
    places: list[Box] = []
    for difference in seen:
        x, y = difference.middle
        if any(_reach(place, 1.5).contains(Box(x, y, x + 1, y + 1)) for place in places):
            continue
        places.append(
            Box(x - side / 2, y - side / 2, x + side / 2, y + side / 2).clip(size).rounded()
        )
        if len(places) == count:
            break
    return places


def _reach(box: Box, factor: float) -> Box:
    (x, y), w, h = box.centre, box.width * factor / 2, box.height * factor / 2
    return Box(x - w, y - h, x + w, y + h)


def _answer(sight: Sight, panes: Panes, compared: Sequence[_Compared]) -> Answer:
    """What follows from all differences seen."""
    found = [difference for one in compared for difference in one.found]
    heaviest = max(found, key=lambda d: d.spot.weight)
    quarter = _quarter(heaviest.middle, panes)
    kind = _way(found, heaviest)
    text = quarter if QUARTERS[0] in sight.options else kind
    thought = SAYS.format(quarter=quarter, second=NAMES[panes.side][1], what=kind)
    views = [view for one in compared for view in one.views] or [0]
    return Answer(text, thought, views[-1], support=tuple(views[:-1]))


def _quarter(place: tuple[float, float], panes: Panes) -> str:
    (x, y), (mx, my) = place, panes.first.centre
    return QUARTERS[2 * (y >= my) + (x >= mx)]


def _way(found: Sequence[_Difference], heaviest: _Difference) -> str:
    """Recoloured, moved (an object here before and there after), gone or new."""
    spot = heaviest.spot
    if spot.color >= TINT * spot.light and spot.light_kept >= LIGHT_KEPT:
        return WAYS["recolored"]
    gone = sum(d.spot.weight for d in found if d.spot.bias < 0)
    new = sum(d.spot.weight for d in found if d.spot.bias >= 0)
    if min(gone, new) >= BOTH * max(gone, new):
        return WAYS["moved"]
    return WAYS["removed"] if gone > new else WAYS["added"]
