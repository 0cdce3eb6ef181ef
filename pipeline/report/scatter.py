"""Accuracy against visual tokens as SVG: a line for each method, a dot for each budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import ceil, floor, log
from typing import Any, NamedTuple

from pipeline.report.charts import number
from pipeline.report.html import Html, join, tag

Record = Mapping[str, Any]
Area = tuple[float, float, float, float]
"""x0, y0, x1, y1 in the drawing's units."""
WIDTH, HEIGHT = 960, 470
LEFT, RIGHT, TOP, BASE = 64, 770, 30, 410
"""The plot inside the drawing; the key stands to its right."""
BESIDE = 5.0
"""By which marks that would hide each other are moved apart."""
SIGN = 6.9
"""Width of a digit of a label."""
COLOURS = {
    "direct": "#3b74c4",
    "zoom": "#d1492e",
    "coarse-to-fine": "#2f9460",
    "uniform": "#6c7a89",
    "grid": "#a8781f",
    "exhaustive": "#8659b5",
    "saliency-crop": "#c2568f",
    "oracle-crop": "#1f97a8",
    "random-crop": "#8a5a3c",
}
"""Readable on light paper and on dark."""
SPARE = "#7a7a7a"
DASHES = {"uniform": "2 4", "oracle-crop": "7 4", "random-crop": "7 4"}
"""More pixels, and the controls, which no method can know."""
_BESIDE = (
    (8, -6, "start"), (-8, -6, "end"), (8, 15, "start"), (-8, 15, "end"),
    (8, 4, "start"), (-8, 4, "end"), (8, -18, "start"), (-8, 27, "end"),
)  # fmt: skip
"""Where a label is tried, from the middle of its dot."""


class Mark(NamedTuple):
    """A cell on the chart, in the drawing's units."""

    method: str
    resolution: int
    x: float
    y: float
    low: float
    high: float
    words: str


class Scale(NamedTuple):
    """What of the numbers the plot shows: tokens from, to; shares from, to."""

    t0: float
    t1: float
    s0: float
    s1: float

    @classmethod
    def of(cls, cells: Sequence[Record]) -> Scale:
        known = drawn(cells)
        tokens = [float(cell["visual_tokens"]) for cell in known] or [100.0, 1000.0]
        room = max((max(tokens) / min(tokens)) ** 0.06, 1.1)
        lows = [float(cell["accuracy"]["low"]) for cell in known] or [0.0]
        highs = [float(cell["accuracy"]["high"]) for cell in known] or [1.0]
        s0, s1 = floor(min(lows) * 10 + 1e-9) / 10, ceil(max(highs) * 10 - 1e-9) / 10
        return cls(min(tokens) / room, max(tokens) * room, s0, max(s1, s0 + 0.1))

    def x(self, tokens: float) -> float:
        return LEFT + (RIGHT - LEFT) * log(tokens / self.t0) / log(self.t1 / self.t0)

    def y(self, share: float) -> float:
        return BASE - (BASE - TOP) * (share - self.s0) / (self.s1 - self.s0)


def plot(cells: Sequence[Record]) -> list[Html]:
    scale = Scale.of(cells)
    marks = marks_of(cells, scale)
    methods = list(dict.fromkeys(str(cell["method"]) for cell in cells))
    lines = {name: sorted((m for m in marks if m.method == name), key=_by) for name in methods}
    return [
        *_axes(scale),
        *(_line(name, mine) for name, mine in lines.items() if mine),
        *_labels(lines),
        *_key(methods),
    ]


def marks_of(cells: Sequence[Record], scale: Scale) -> list[Mark]:
    """The cells' places, those side by side that would hide each other."""
    found = []
    for cell in drawn(cells):
        right, tokens = cell["accuracy"], float(cell["visual_tokens"])
        words = (
            f"{cell['method']} at {cell['resolution']}: {share(right['value'])} "
            f"({between(right)}), {number(tokens)} visual tokens"
        )
        y, low, high = (scale.y(right[name]) for name in ("value", "low", "high"))
        x = scale.x(tokens)
        found.append(Mark(cell["method"], cell["resolution"], x, y, low, high, words))
    return _apart(found)


def drawn(cells: Sequence[Record]) -> list[Record]:
    """Cells that have a place on the chart."""
    return [cell for cell in cells if cell["accuracy"] and (cell["visual_tokens"] or 0) > 0]


def _apart(marks: Sequence[Mark]) -> list[Mark]:
    """The marks, those of (nearly) the same tokens side by side."""
    heaps: list[list[Mark]] = []
    for mark in sorted(marks, key=lambda m: (m.x, m.method, m.resolution)):
        if heaps and mark.x - heaps[-1][0].x < BESIDE / 2:
            heaps[-1].append(mark)
        else:
            heaps.append([mark])
    return [
        mark._replace(x=mark.x + BESIDE * (place - (len(heap) - 1) / 2))
        for heap in heaps
        for place, mark in enumerate(heap)
    ]


def _by(mark: Mark) -> int:
    return mark.resolution


def _axes(scale: Scale) -> list[Html]:
    parts = []
    step = 1 if scale.s1 - scale.s0 < 0.65 else 2
    for tenth in range(round(scale.s0 * 10), round(scale.s1 * 10) + 1, step):
        y = f"{scale.y(tenth / 10):.1f}"
        parts.append(_rule(x1=LEFT, x2=RIGHT, y1=y, y2=y))
        parts.append(_text(f"{10 * tenth} %", LEFT - 10, scale.y(tenth / 10) + 4, "end"))
    for power in range(floor(log(scale.t0, 10)), ceil(log(scale.t1, 10)) + 1):
        for tokens in (first * 10.0**power for first in (1, 2, 5)):
            if scale.t0 <= tokens <= scale.t1:
                x = scale.x(tokens)
                parts.append(_rule(x1=f"{x:.1f}", x2=f"{x:.1f}", y1=TOP, y2=BASE))
                parts.append(_text(number(tokens), x, BASE + 20, "middle"))
    name = "visual tokens of a question, all views, logarithmic"
    parts.append(_text("right", LEFT - 10, TOP - 18, "end"))
    return [*parts, _text(name, (LEFT + RIGHT) / 2, BASE + 46, "middle")]


def _rule(**ends: object) -> Html:
    return tag("line", **ends, stroke="currentColor", stroke_opacity=0.14)


def _text(words: str, x: float, y: float, anchor: str, colour: str = "currentColor") -> Html:
    return tag(
        "text", words, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, font_size=12, fill=colour
    )


def _line(method: str, marks: Sequence[Mark]) -> Html:
    """A method's budgets, joined, each with its interval."""
    colour = COLOURS.get(method, SPARE)
    joined = tag(
        "polyline",
        points=" ".join(f"{m.x:.1f},{m.y:.1f}" for m in marks),
        fill="none",
        stroke=colour,
        stroke_width=2,
        stroke_dasharray=DASHES.get(method),
    )
    dots = []
    for m in marks:
        ends = f"M{m.x:.1f} {m.low:.1f}V{m.high:.1f}M{m.x - 3:.1f} {m.low:.1f}h6M{m.x - 3:.1f} "
        reach = tag("path", d=f"{ends}{m.high:.1f}h6", stroke=colour, stroke_opacity=0.55)
        dot = tag(
            "circle", tag("title", m.words), cx=f"{m.x:.1f}", cy=f"{m.y:.1f}", r=4, fill=colour
        )
        dots += [reach, dot]
    return join(joined, *dots)


def _labels(lines: Mapping[str, Sequence[Mark]]) -> list[Html]:
    """The budget beside each dot, where there is room; every dot says it when pointed at."""
    taken = [area for marks in lines.values() for area in _ink(marks)]
    parts = []
    for name, marks in lines.items():
        for mark in marks:
            wide = SIGN * len(str(mark.resolution))
            for dx, dy, anchor in _BESIDE:
                x0 = mark.x + dx - (wide if anchor == "end" else 0)
                area = (x0, mark.y + dy - 9, x0 + wide, mark.y + dy + 1)
                room = area[2] < RIGHT and area[1] > 0 and area[3] < BASE
                if room and not any(_meet(area, other) for other in taken):
                    taken.append(area)
                    words = str(mark.resolution)
                    colour = COLOURS.get(name, SPARE)
                    parts.append(_text(words, mark.x + dx, mark.y + dy, anchor, colour))
                    break
    return parts


def _ink(marks: Sequence[Mark]) -> list[Area]:
    """What a method's dots, whiskers and lines cover, the lines in small pieces."""
    areas: list[Area] = []
    for m in marks:
        areas += [(m.x - 5, m.y - 5, m.x + 5, m.y + 5), (m.x - 1, m.high, m.x + 1, m.low)]
    for one, other in pairwise(marks):
        pieces = max(1, round(max(abs(other.x - one.x), abs(other.y - one.y)) / 6))
        for n in range(pieces + 1):
            x = one.x + (other.x - one.x) * n / pieces
            y = one.y + (other.y - one.y) * n / pieces
            areas.append((x - 1.5, y - 1.5, x + 1.5, y + 1.5))
    return areas


def _meet(one: Area, other: Area) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _key(methods: Sequence[str]) -> list[Html]:
    """The methods by colour and dashes, to the right of the plot."""
    parts = []
    for place, name in enumerate(methods):
        y, colour = TOP + 14 + 24 * place, COLOURS.get(name, SPARE)
        ends = {"x1": RIGHT + 18, "x2": RIGHT + 50, "y1": y, "y2": y}
        dashes = DASHES.get(name)
        parts += [
            tag("line", **ends, stroke=colour, stroke_width=2, stroke_dasharray=dashes),
            tag("circle", cx=RIGHT + 34, cy=y, r=4, fill=colour),
            _text(name, RIGHT + 60, y + 4, "start"),
        ]
    return parts


def share(value: float | None) -> str:
    """With one digit: of V*'s 191 questions one is half a point."""
    return "–" if value is None else f"{round(100 * value, 1) + 0.0:.1f} %"  # never -0.0


def between(found: Record | None) -> str:
    return "–" if found is None else f"{100 * found['low']:.1f} – {100 * found['high']:.1f}"
