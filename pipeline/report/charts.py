"""Small quiet charts as SVG, coloured by the page's style sheet, and ways to write numbers."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.report.html import Html, join, tag

WIDTH, HEIGHT, BASE, TOP = 320, 150, 122, 26
"""The drawing's units: its box, the line bars stand on, the top of a full bar."""


def columns(
    title: str,
    note: str,
    labels: Sequence[str],
    values: Sequence[float | None],
    shown: Sequence[str],
    *,
    full: float | None = None,
) -> Html:
    """Upright bars, one a label, the value written above; `full` is the top of the scale."""
    scale = full or max((v for v in values if v is not None), default=0) or 1
    step = WIDTH / max(len(labels), 1)
    bars = [
        _column(step * i, step, label, value, text, scale)
        for i, (label, value, text) in enumerate(zip(labels, values, shown, strict=True))
    ]
    line = tag("line", x1=0, x2=WIDTH, y1=BASE, y2=BASE, class_="axis")
    spoken = "; ".join(f"{label}: {text}" for label, text in zip(labels, shown, strict=True))
    drawing = tag(
        "svg",
        *bars,
        line,
        view_box=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{title}. {spoken}",
    )
    caption = tag("figcaption", tag("strong", title), tag("span", note))
    return tag("figure", caption, drawing, class_="chart")


def _column(
    x: float, step: float, label: str, value: float | None, text: str, scale: float
) -> Html:
    middle, width = x + step / 2, min(step * 0.56, 46)
    high = 0.0 if value is None else max(min(value / scale, 1.0), 0.0) * (BASE - TOP)
    bar = tag(
        "rect",
        x=f"{middle - width / 2:.1f}",
        y=f"{BASE - high:.1f}",
        width=f"{width:.1f}",
        height=f"{high:.1f}",
        rx=2,
        class_="bar",
    )
    above = tag("text", text, x=f"{middle:.1f}", y=f"{BASE - high - 7:.1f}", class_="value")
    below = tag("text", label, x=f"{middle:.1f}", y=HEIGHT - 8, class_="label")
    return join(bar, above, below)


def meter(share: float) -> Html:
    """A thin level bar for a share in [0, 1]."""
    full = tag("rect", x=0, y=0, width=100, height=6, rx=3, class_="track")
    part = tag("rect", x=0, y=0, width=f"{100 * share:.1f}", height=6, rx=3, class_="bar")
    return tag(
        "svg", full, part, view_box="0 0 100 6", class_="meter", aria_hidden="true",
        preserve_aspect="none",
    )  # fmt: skip


def percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def number(value: float | None, digits: int = 0) -> str:
    """With thin spaces between thousands."""
    return "–" if value is None else f"{value:,.{digits}f}".replace(",", "\u2009")


def size_of(count: float | None) -> str:
    """Bytes for people."""
    if count is None:
        return "–"
    for unit in ("bytes", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def duration(seconds: float | None) -> str:
    """Seconds for people."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
