"""What an episode knows of the signs in a picture: where writing is, and what was read of it.

Positions are source pixels. Views add to it; nothing here looks or decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from pipeline.agent.glyph_reader import Reading
from pipeline.agent.writing import NOTHING, Meant, Writing, as_code, as_word
from pipeline.errors import InvalidBox
from pipeline.geometry import Box, view_size
from pipeline.scenes.sign_words import FORMS, form_of
from pipeline.views import MAGNIFY, View, crop_region

SURE = 0.35
"""Belief in a word or code from which on it is taken for what the sign says: then about one in
twenty is wrong, at any size."""
SAME = 0.5
"""Share of the smaller box that two views' boxes of one sign have in common."""
FINER = 1.25
"""Times the scale of an earlier view that is worth another look."""
GONE = 1.6
"""Times the scale at which what was taken for writing must be found again."""
LEAST = (7.0, 0.5)
"""Least height of a sign's line in the source, for views from this scale on; and the"""
WIDEST = 0.22
"""width that it has at most, as a share of the picture's shorter side."""
PLAIN_PX = 9.0
"""Height of a line in a view from which on writing that is no sign's is known as such."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A line of a sign as read in one view."""

    meant: Meant
    view: int
    box: Box


@dataclass(eq=False)
class Plate:
    """Writing in one place: a sign, or what may be one."""

    box: Box
    """Around its lines."""
    tall: float
    """Height of its smaller line, source pixels."""
    scale: float
    """View pixels per source pixel where it was seen best."""
    view: int
    """Where that was."""
    lines: int
    """Seen there."""
    chance: float
    """How likely it is a sign by its looks."""
    words: list[Sighting] = field(default_factory=list)
    codes: list[Sighting] = field(default_factory=list)
    tries: int = 0
    """Looks at it alone."""
    is_read: bool = False

    @property
    def word(self) -> Sighting:
        return _best(self.words, self)

    @property
    def code(self) -> Sighting:
        return _best(self.codes, self)

    @property
    def is_sign(self) -> bool:
        """Whether its lines are a sign's."""
        pair = self.lines > 1
        return self.word.meant.belief >= SURE or (pair and self.code.meant.belief >= SURE)

    @property
    def is_settled(self) -> bool:
        """Whether it is known to be a sign or none."""
        return self.word.meant.belief >= SURE or (
            self.is_read and self.tall * self.scale >= PLAIN_PX
        )


def _best(sightings: Iterable[Sighting], plate: Plate) -> Sighting:
    """The reading that all views together speak for: others lower its belief."""
    against: dict[str, float] = {}
    best: dict[str, Sighting] = {}
    for one in sightings:
        text, belief = one.meant.text, one.meant.belief
        against[text] = 1 - (1 - against.get(text, 0.0)) * (1 - belief)
        if text not in best or belief >= best[text].meant.belief:
            best[text] = one
    if not best:
        return Sighting(NOTHING, plate.view, plate.box)
    order = sorted(against, key=lambda text: -against[text])
    rival = against[order[1]] if len(order) > 1 else 0.0
    told = best[order[0]]
    return Sighting(Meant(order[0], against[order[0]] * (1 - 0.6 * rival)), told.view, told.box)


class Board:
    """The writing that the views so far show."""

    def __init__(self, first: View) -> None:
        self.plates: list[Plate] = []
        self.views: list[View] = [first]
        whole = first.observation.region
        self.size = (int(whole.x1), int(whole.y1))
        self.resolution = max(int((first.pixels.shape[0] * first.pixels.shape[1]) ** 0.5), 28)
        """The budget as far as the first view tells."""

    def scale(self, view: int) -> float:
        """View pixels per source pixel."""
        return self.views[view].observation.magnification

    def is_possible(self, view: int, one: Writing) -> bool:
        """Whether writing is of a size that signs have."""
        scale = self.scale(view)
        x0, _, x1, _ = one.box
        large_enough = scale < LEAST[1] or one.tall >= LEAST[0] * scale
        return large_enough and x1 - x0 <= WIDEST * min(self.size) * scale

    def best_scale(self, box: Box) -> float:
        """The scale of a look at a box; 0 where there can be none."""
        region = crop_region(box, self.size)
        edges = (int(region.width), int(region.height))
        try:
            shown = view_size(edges, self.resolution, magnify=MAGNIFY)
        except InvalidBox:
            return 0.0
        return float((shown[0] * shown[1] / region.area) ** 0.5)

    def can_be_finer(self, plate: Plate) -> bool:
        """Whether a look at it alone shows it larger than any so far."""
        return self.best_scale(plate.box) >= FINER * plate.scale

    def enter(self, view: int, writing: Sequence[Writing]) -> list[Plate]:
        """Plates for the writing found in a view, old ones where they are the same."""
        scale = self.scale(view)
        plates = [self._entered(view, scale, one) for one in writing]
        seen = self.views[view].observation.region
        self.plates = [
            plate
            for plate in self.plates
            if plate in plates
            or plate.is_sign
            or not seen.contains(plate.box)
            or scale < GONE * plate.scale
        ]
        return plates

    def _entered(self, view: int, scale: float, one: Writing) -> Plate:
        box = self.views[view].to_source(one.box)
        tall = one.tall / scale * (0.5 if one.is_blob else 1.0)
        same = [p for p in self.plates if _same(p.box, box)]
        for plate in same[1:]:
            same[0].words += plate.words
            same[0].codes += plate.codes
            self.plates.remove(plate)
        if not same:
            self.plates.append(Plate(box, tall, scale, view, len(one.lines), one.chance))
            return self.plates[-1]
        plate = same[0]
        if scale > plate.scale or len(one.lines) > plate.lines:
            plate.box, plate.tall, plate.scale = box, tall, scale
            plate.view, plate.lines, plate.chance = view, len(one.lines), one.chance
            plate.is_read = False
        return plate

    def note(self, plate: Plate, view: int, one: Writing, heard: Sequence[Reading]) -> None:
        """What was read of a plate's lines in a view."""
        to_source = self.views[view].to_source
        boxes = [to_source(line.box) for line in one.lines]
        plate.is_read = plate.is_read or view == plate.view
        if len(heard) == 1 and len(boxes) == 1:
            word, code = as_word(heard[0]), as_code(heard[0])
            if word.belief >= code.belief:
                _add(plate.words, Sighting(word, view, boxes[0]))
            else:
                _add(plate.codes, Sighting(code, view, boxes[0]))
            return
        pairs = [(as_word(a), as_code(b)) for a, b in pairwise(heard)]
        if not pairs:
            return
        word, code = max(pairs, key=lambda pair: pair[0].belief + pair[1].belief)
        _add(plate.words, Sighting(word, view, boxes[0]))
        _add(plate.codes, Sighting(code, view, boxes[-1]))

    def join(self) -> None:
        """Make one plate of a word and the code that stands right below it."""
        for upper in [p for p in self.plates if p.word.meant.belief >= SURE and not p.codes]:
            near = [p for p in self.plates if not p.words and _is_below(upper, p)]
            if near:
                lower = min(near, key=lambda p: p.box.y0)
                upper.codes += lower.codes
                upper.box = around([upper.box, lower.box])
                upper.lines = 2
                self.plates.remove(lower)

    @property
    def form(self) -> str | None:
        """The form of most codes that are read: all signs of a picture have one."""
        votes: dict[str, float] = {}
        for plate in self.plates:
            code = plate.code.meant
            if plate.is_sign and code.belief >= SURE and form_of(code.text) in FORMS:
                form = form_of(code.text)
                votes[form] = votes.get(form, 0.0) + code.belief
        return max(votes, key=lambda form: votes[form], default=None)

    @property
    def signs(self) -> list[Plate]:
        return [plate for plate in self.plates if plate.is_sign]

    def named(self, word: str) -> Plate | None:
        """The sign that says a word."""
        found = [
            p for p in self.plates if p.word.meant.text == word and p.word.meant.belief >= SURE
        ]
        return max(found, key=lambda p: p.word.meant.belief, default=None)


def around(boxes: Sequence[Box]) -> Box:
    """The box around some boxes."""
    return Box(
        min(b.x0 for b in boxes), min(b.y0 for b in boxes),
        max(b.x1 for b in boxes), max(b.y1 for b in boxes),
    )  # fmt: skip


def _is_below(upper: Plate, lower: Plate) -> bool:
    """Whether a code stands where that of a word does."""
    if upper is lower or lower.code.meant.belief < SURE:
        return False
    down = lower.box.y0 - upper.box.y1
    aside = abs(lower.box.centre[0] - upper.box.centre[0])
    return -0.3 * upper.tall <= down <= 2.2 * upper.tall and aside <= 0.5 * upper.box.width


def _add(sightings: list[Sighting], one: Sighting) -> None:
    if one.meant.text:
        sightings.append(one)


def _same(one: Box, other: Box) -> bool:
    return one.intersection(other) >= SAME * min(one.area, other.area)
