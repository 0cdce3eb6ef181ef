"""The page of a needle sweep: one chart, a panel for each factor, and the table it was drawn from.

Made from the records that `cofpipe eval needles --json` prints, and from nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log
from pathlib import Path
from typing import Any

from pipeline.report.charts import percent
from pipeline.report.figures import table
from pipeline.report.html import Html, join, tag
from pipeline.report.page import document, put

Record = Mapping[str, Any]

LEFT, RIGHT, TOP, BASE, WIDTH, HEIGHT = 46, 308, 14, 160, 320, 186
"""The drawing's units: edges of the plot, and its box. `TOP` is all read, `BASE` none."""
APART = 5
"""By which the marks of two methods on one name are moved."""

METHODS = {
    "direct": "direct: the whole picture, asked once",
    "zoom": "zoom: as an agent that may look closer",
}
TITLES = {
    "height_px": ("Text height", "pixels of a capital letter, as sent"),
    "contrast": ("Contrast", "of ink and label: (light − dark) / (light + dark)"),
    "clutter": ("Clutter", "what surrounds the label"),
    "tilt_deg": ("Tilt", "degrees of the line of print"),
}


def write_needles(records: Sequence[Record], facts: Record, out: Path) -> Path:
    """Write the page; returns where it is.

    `records` has levels (`level` …) and thresholds (`threshold` …) by `factor` and `method`;
    `facts` says `subject`, `run_id`, `resolution`, `per_level`, `base`.
    """
    return put(render(records, facts), out)


def render(records: Sequence[Record], facts: Record) -> str:
    """The page as text; the same records give the same page."""
    factors = list(dict.fromkeys(str(r["factor"]) for r in records))
    methods = list(dict.fromkeys(str(r["method"]) for r in records))
    panels = [_panel(f, [r for r in records if r["factor"] == f]) for f in factors]
    said = f"{facts['per_level']} pictures a level · R = {facts['resolution']} · {facts['run_id']}"
    main = tag(
        "main",
        tag(
            "header",
            tag("p", "cofpipe eval needles", class_="quiet"),
            tag("h1", str(facts["subject"])),
            tag("p", said, class_="quiet"),
            class_="top",
        ),
        tag(
            "section",
            tag("h2", "Which print is read"),
            tag("ul", *(tag("li", METHODS[m], class_=m) for m in methods), class_="key-lines"),
            tag("div", *panels, class_="panels"),
            tag("p", f"{_NOTE} {facts['base']}", class_="quiet"),
            id="chart",
        ),
        tag("section", tag("h2", "The same in numbers"), _table(records, methods), id="table"),
    )
    return document(f"{facts['subject']} · needles", main, "curves.css")


_NOTE = (
    "Share of three-character codes that were read exactly; bands are 95 % intervals (Wilson). A "
    "ring marks where the curve passes one half, the bar behind it the 95 % interval of that place."
)


def _panel(factor: str, records: Sequence[Record]) -> Html:
    levels = list(dict.fromkeys(r["level"] for r in records if "level" in r))
    passes = [r for r in records if "threshold" in r]
    scale = str(passes[0]["scale"])
    at = _places(levels, scale)
    lines = [
        _drawn(p, [r for r in records if _of(r, p)], at, scale, n) for n, p in enumerate(passes)
    ]
    title, note = TITLES[factor]
    spoken = "; ".join(f"{p['method']}: {p['words']}" for p in passes)
    drawing = tag(
        "svg",
        *_axes(levels, at),
        *lines,
        view_box=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{title}. {spoken}",
    )
    verdicts = [tag("li", tag("b", p["method"]), tag("span", p["words"])) for p in passes]
    caption = tag("figcaption", tag("strong", title), tag("span", note))
    return tag("figure", caption, drawing, tag("ul", *verdicts, class_="verdicts"), class_="chart")


def _of(record: Record, passes: Record) -> bool:
    """Whether a record is a level of the threshold's curve."""
    return "level" in record and record["method"] == passes["method"]


def _places(levels: Sequence[Any], scale: str) -> dict[Any, float]:
    """Where each level stands, in the drawing's units."""
    if scale == "names":
        step = (RIGHT - LEFT) / len(levels)
        return {level: LEFT + step * (n + 0.5) for n, level in enumerate(levels)}
    return {level: _x(float(level), levels, scale) for level in levels}


def _x(value: float, levels: Sequence[Any], scale: str) -> float:
    low, high = float(min(levels)), float(max(levels))
    if scale == "log":
        value, low, high = log(value), log(low), log(high)
    return LEFT + (RIGHT - LEFT) * (value - low) / (high - low)


def _y(share: float) -> float:
    return BASE - (BASE - TOP) * share


def _axes(levels: Sequence[Any], at: Mapping[Any, float]) -> list[Html]:
    parts = []
    for share, name in ((0.0, "rule"), (0.5, "half"), (1.0, "rule")):
        y = f"{_y(share):.1f}"
        parts.append(tag("line", x1=LEFT, x2=RIGHT, y1=y, y2=y, class_=name))
        words = percent(share)
        parts.append(tag("text", words, x=LEFT - 8, y=f"{_y(share) + 4:.1f}", class_="scale"))
    for level in levels:
        parts.append(tag("text", str(level), x=f"{at[level]:.1f}", y=HEIGHT - 8, class_="label"))
    return parts


def _drawn(
    passes: Record, points: Sequence[Record], at: Mapping[Any, float], scale: str, place: int
) -> Html:
    """One method's curve with its band, or its marks where levels are names."""
    method = str(passes["method"])
    known = [p for p in points if p["accuracy"] is not None]
    if scale == "names":
        return join(*(_mark(p, at[p["level"]] + APART * (2 * place - 1), method) for p in known))
    curve = [(at[p["level"]], _y(p["accuracy"])) for p in known]
    upper = [(at[p["level"]], _y(p["high"])) for p in known]
    lower = [(at[p["level"]], _y(p["low"])) for p in known]
    return join(
        tag("polygon", points=_points([*upper, *reversed(lower)]), class_=f"band {method}"),
        tag("polyline", points=_points(curve), class_=f"line {method}"),
        *(_dot(x, y, method) for x, y in curve),
        _crossing(passes, list(at), scale, method),
    )


def _mark(point: Record, x: float, method: str) -> Html:
    """A dot with its interval."""
    ends = {"x1": f"{x:.1f}", "x2": f"{x:.1f}"}
    y1, y2 = f"{_y(point['high']):.1f}", f"{_y(point['low']):.1f}"
    whisker = tag("line", **ends, y1=y1, y2=y2, class_=f"reach {method}")
    return join(whisker, _dot(x, _y(point["accuracy"]), method))


def _dot(x: float, y: float, method: str) -> Html:
    return tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=2.6, class_=f"dot {method}")


def _crossing(passes: Record, levels: Sequence[Any], scale: str, method: str) -> Html | None:
    """Where half is read, and how sure that is; ends beyond the levels go to the plot's edge."""
    if passes["threshold"] is None:
        return None
    x = _x(passes["threshold"], levels, scale)
    low = LEFT if passes["low"] is None else _x(passes["low"], levels, scale)
    high = RIGHT if passes["high"] is None else _x(passes["high"], levels, scale)
    y = f"{_y(0.5):.1f}"
    bar = tag("line", x1=f"{low:.1f}", x2=f"{high:.1f}", y1=y, y2=y, class_=f"reach {method}")
    return join(bar, tag("circle", cx=f"{x:.1f}", cy=y, r=4.2, class_=f"crossing {method}"))


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _table(records: Sequence[Record], methods: Sequence[str]) -> Html:
    head = ["Factor", "Level"]
    for method in methods:
        head += [f"{method}: read", "95 %", "of", "looks"]
    head.append("unscored")
    body: list[list[Html | str]] = []
    for factor in dict.fromkeys(str(r["factor"]) for r in records):
        mine = [r for r in records if r["factor"] == factor]
        for level in dict.fromkeys(r["level"] for r in mine if "level" in r):
            body.append(_level(factor, [r for r in mine if r.get("level") == level]))
        passes = [r for r in mine if "threshold" in r]
        if passes[0]["scale"] != "names":
            body.append(_passes(factor, passes))
    return table(head, body)


def _level(factor: str, points: Sequence[Record]) -> list[Html | str]:
    cells: list[Html | str] = [TITLES[factor][0], tag("strong", str(points[0]["level"]))]
    for point in points:
        looks = "–" if point["zooms"] is None else f"{point['zooms']:.1f}"
        ends = f"{100 * point['low']:.0f}–{100 * point['high']:.0f}"
        cells += [percent(point["accuracy"]), ends, str(point["scored"]), looks]
    lost = sum(p["unscored"] + p["missing"] for p in points)
    return [*cells, str(lost) if lost else "–"]


def _passes(factor: str, passes: Sequence[Record]) -> list[Html | str]:
    """The row below a factor's levels: where half is read."""
    cells: list[Html | str] = [TITLES[factor][0], "half at"]
    for record in passes:
        cells += [tag("strong", str(record["at"])), str(record["between"]), "", ""]
    return [*cells, ""]
