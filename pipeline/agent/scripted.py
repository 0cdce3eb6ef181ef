"""Policy `scripted`: locate, read, and where it is unclear adjust, zoom and read again.

Works without any model but the segmenter, and for signs the pocket reader: the needle questions of
`scenes/needles.py` here, others in `scripts`. It knows the question's wording and its views; a
question it does not understand is refused.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from pipeline.agent.actions import Action, Answer, Call, Heard, NotUnderstood
from pipeline.agent.locate import Candidate
from pipeline.agent.scripts import change, closeup, count, signs, where
from pipeline.agent.sight import Named, Script, ScriptedPlanner, Sight
from pipeline.geometry import Box
from pipeline.scenes.tags import COLORS, SHAPES

READABLE_PX = 22
"""A tag narrower than this in a view is not worth reading there."""
SURE = 0.5
"""Belief in a shape from which on a candidate is taken for the tag asked for."""
SAME = 0.4
"""IoU from which on what is found in a view is what was zoomed, and not a part of it."""
PLAIN = 0.56
"""Confidence from which on a reading made while searching stands by itself."""

_TAG = rf"(?P<color>{'|'.join(COLORS)}) (?P<shape>{'|'.join(SHAPES)})"
_READ = re.compile(rf"What is written on the {_TAG}\?")
_NEAREST = re.compile(rf"What is written on the tag nearest to the {_TAG}\?")
_AXES = {"leftmost": (0, 1), "rightmost": (0, -1), "topmost": (1, 1), "bottommost": (1, -1)}
_EXTREME = re.compile(rf"What is written on the (?P<side>{'|'.join(_AXES)}) tag\?")

_SMALL = (
    "The {name} is too small to read from here, so I look closer.",
    "I can make out a {name}, but not its writing; a closer look is needed.",
    "There seems to be a {name} here. I zoom in to read it.",
)
_AGAIN = (
    "The writing on the {name} is still unclear; I adjust the box and look again.",
    "Closer, but the code on the {name} is not certain yet. I move the box and zoom again.",
)
_SEARCH = "I do not see the {name} at this size; I search this part of the picture."
_THERE = "There is the {name}; I look straight at it."
_CONFIRM = "To be sure which one is the {name}, I look at it first."

_WORDING = (*_SMALL, *_AGAIN, _SEARCH, _THERE, _CONFIRM)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a look is for."""

    label: str
    color: str
    shape: str | None
    """None: any shape will do."""

    def fits(self, candidate: Candidate) -> bool:
        return candidate.color == self.color and candidate.belief(self.shape) >= SURE


@dataclass(frozen=True, slots=True)
class _Found:
    """A clear reading and where it was made."""

    text: str
    view: int
    box: Box


@dataclass(frozen=True)
class ScriptedPolicy:
    """The embedded default: no key, no server."""

    temperature: float = 0.0
    """How far the tries after the first differ from it, in words and in what they zoom into."""

    name = "scripted"
    prompt_sha256 = hashlib.sha256(
        "\n".join(
            (
                *(*_WORDING, *closeup.WORDING, *where.WORDING, *change.WORDING),
                *(*count.WORDING, *signs.WORDING),
            )
        ).encode()
    ).hexdigest()

    def begin(
        self, sample_id: str, question: str, options: Sequence[str], rollout: int = 0
    ) -> ScriptedPlanner:
        """A planner for a question of known wording; raises `NotUnderstood` for any other."""
        for pattern, script in SCRIPTS:
            match = pattern.fullmatch(question)
            if match:
                sight = Sight(sample_id, options, rollout=rollout, temperature=self.temperature)
                return ScriptedPlanner(sight, script(sight, match.groupdict()))
        raise NotUnderstood(question)


def _read(sight: Sight, named: Named) -> Script:
    """What is written on the red star?"""
    name = f"{named['color']} {named['shape']}"
    heard = yield Call("locate", 0, phrase=name)
    order = sorted(heard.candidates, key=lambda c: -c.belief(named["shape"]))
    found = yield from _first_clear(sight, order, name, named["shape"])
    if found is None:
        found = yield from _search(sight, name, named["shape"])
    yield from _say(sight, found, name)


def _nearest(sight: Sight, named: Named) -> Script:
    """What is written on the tag nearest to the red star?"""
    name = f"{named['color']} {named['shape']}"
    every = (yield Call("locate", 0, phrase="tag")).candidates
    view = sight.views[0]
    anchor, support = yield from _named(sight, every, _Wanted(name, named["color"], named["shape"]))
    if anchor is None:
        yield from _say(sight, None, name)
        return
    middle = view.to_source(anchor.box).centre
    others = [c for c in every if c is not anchor]
    others.sort(key=lambda c: math.dist(view.to_source(c.box).centre, middle))
    found = yield from _first_clear(sight, others, "tag", None)
    yield from _say(sight, found, f"tag nearest to the {name}", support)


def _named(
    sight: Sight, every: Sequence[Candidate], wanted: _Wanted
) -> Generator[Action, Heard, tuple[Candidate | None, tuple[int, ...]]]:
    """The candidate that is the tag a question names, and the view it took to be sure, if any."""
    alike = [c for c in every if c.color == wanted.color]
    for candidate in sorted(alike, key=lambda c: -c.belief(wanted.shape)):
        if wanted.fits(candidate):
            return candidate, ()
        box = sight.views[0].to_source(candidate.box)
        heard = yield Call("zoom", 0, _CONFIRM.format(name=wanted.label), box, wanted.label)
        if heard.view is None:
            continue
        index = heard.index
        heard = yield Call("locate", index, phrase=wanted.label)
        if any(wanted.fits(seen) for seen in heard.candidates):
            return candidate, (index,)
    return None, ()


def _extreme(sight: Sight, named: Named) -> Script:
    """What is written on the leftmost tag?"""
    axis, sign = _AXES[named["side"]]
    every = (yield Call("locate", 0, phrase="tag")).candidates
    view = sight.views[0]
    order = sorted(every, key=lambda c: sign * view.to_source(c.box).centre[axis])
    found = yield from _first_clear(sight, order, "tag", None)
    yield from _say(sight, found, f"{named['side']} tag")


def _first_clear(
    sight: Sight, order: Sequence[Candidate], name: str, shape: str | None
) -> Generator[Action, Heard, _Found | None]:
    """The first candidate that can be read and is what was asked for."""
    for candidate in order:
        found = yield from _examine(sight, candidate, name, shape)
        if found is not None:
            return found
    return None


def _examine(
    sight: Sight, candidate: Candidate, name: str, shape: str | None
) -> Generator[Action, Heard, _Found | None]:
    """Read a candidate of the first view: from there if that is clear, else up close."""
    box = sight.views[0].to_source(candidate.box)
    if candidate.side >= READABLE_PX and candidate.belief(shape) >= SURE:
        heard = yield Call("read", 0, box=box, phrase=name)
        if heard.reading and heard.reading.clear:
            return _keep(sight, _Found(heard.reading.text, 0, box))
    wanted = _Wanted(name if shape else f"{candidate.color} tag", candidate.color, shape)
    found = yield from _look(sight, 0, box, wanted, sight.wording(_SMALL, name=wanted.label))
    if isinstance(found, Box):
        thought = sight.wording(_AGAIN, name=wanted.label)
        found = yield from _look(sight, len(sight.views) - 1, found, wanted, thought)
    return found if isinstance(found, _Found) else None


def _look(
    sight: Sight, view: int, box: Box, wanted: _Wanted, thought: str, *, search: bool = False
) -> Generator[Action, Heard, _Found | Box | None]:
    """Zoom and read: what was found, or a better box when the writing is unclear, or nothing.

    Where only fragments are found, the box that was zoomed is read; not so in a `search`, where
    the box is a part of the picture and no tag.
    """
    heard = yield Call("zoom", view, thought, box, wanted.label)
    if heard.view is None:
        return None
    seen, index = heard.view, heard.index
    heard = yield Call("locate", index, phrase=wanted.label)
    fitting = [c for c in heard.candidates if wanted.fits(c)]
    if fitting:
        tight = seen.to_source(max(fitting, key=lambda c: c.belief(wanted.shape) * c.side).box)
    elif search or any(seen.to_source(c.box).iou(box) >= SAME for c in heard.candidates):
        return None
    else:
        tight = box
    heard = yield Call("read", index, box=tight, phrase=wanted.label)
    if heard.reading and heard.reading.clear:
        found = _Found(heard.reading.text, index, tight)
        plain = not search or heard.reading.confidence >= PLAIN
        return _keep(sight, found) if plain else found
    adjusted = yield Call("adjust_box", index, box=tight, instruction="fit")
    return adjusted.box


def _search(sight: Sight, name: str, shape: str) -> Generator[Action, Heard, _Found | None]:
    """Look at the quarters of the picture one after another, then straight at what one shows.

    What cannot be read again from that closer look is found only if there is no look left for it.
    """
    wanted = _Wanted(name, name.split()[0], shape)
    for quarter in _quarters(sight.views[0].observation.region):
        thought = _SEARCH.format(name=name)
        seen = yield from _look(sight, 0, quarter, wanted, thought, search=True)
        if seen is None:
            continue
        if isinstance(seen, _Found):
            box, thought = seen.box, _THERE.format(name=name)
        else:
            box, thought = seen, sight.wording(_SMALL, name=name)
        closer = yield from _look(sight, len(sight.views) - 1, box, wanted, thought)
        if isinstance(closer, _Found):
            return closer
    return None


def _say(sight: Sight, found: _Found | None, name: str, support: tuple[int, ...] = ()) -> Script:
    """Answer; when the critic objects, look once more and answer again."""
    while found is not None:
        how = f"Up close the {name} can be read" if found.view else f"I can read the {name} here"
        thought = f"{how}: it says {found.text}."
        heard = yield Answer(found.text, thought, found.view, found.box, support)
        thought = f"{heard.text} I look at the {name} once more."
        heard = yield Call("zoom", found.view, thought, found.box, name)
        if heard.view is None:
            break
        index = heard.index
        heard = yield Call("read", index, box=found.box, phrase=name)
        clear = heard.reading is not None and heard.reading.clear
        found = _Found(heard.reading.text, index, found.box) if clear and heard.reading else None
    yield from sight.insist()  # the critic may object to this as well


def _keep(sight: Sight, found: _Found) -> _Found:
    """Remember a clear reading for when the tools are off."""
    sight.keep(Answer(found.text, "This is the clearest I could read.", found.view, found.box))
    return found


def _quarters(region: Box) -> list[Box]:
    x, y = region.centre
    corners = ((region.x0, region.y0), (x, region.y0), (region.x0, y), (x, y))
    w, h = region.width / 2, region.height / 2
    return [Box(a, b, a + w, b + h).rounded() for a, b in corners]


SCRIPTS: tuple[tuple[re.Pattern[str], Callable[[Sight, Named], Script]], ...] = (
    (_READ, _read),
    (_NEAREST, _nearest),
    (_EXTREME, _extreme),
    (closeup.PATTERN, closeup.script),
    (where.PATTERN, where.script),
    (change.WHERE_PATTERN, change.where),
    (change.WHAT_PATTERN, change.what),
    (count.PATTERN, count.script),
    *signs.SCRIPTS,
)
"""A question's wording, and what to do about it."""

COMPARING = (
    *(closeup.PATTERN, where.PATTERN, change.WHERE_PATTERN, change.WHAT_PATTERN, count.PATTERN),
)
"""Wordings of questions about how several places compare: no one place has the answer."""
