"""The page of a comparison: accuracy against visual tokens, the table, and who disagrees on what.

Made from the records that `cofpipe eval … --compare --json` prints (cells, pairs, savings with
their verdicts, disagreements), and from nothing else but the pictures that are handed in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.report.charts import number
from pipeline.report.differ import cards
from pipeline.report.figures import table
from pipeline.report.html import Html, tag
from pipeline.report.page import document, put
from pipeline.report.scatter import (
    HEIGHT,
    LEFT,
    WIDTH,
    Record,
    Scale,
    between,
    drawn,
    marks_of,
    plot,
    share,
)


def write_compare(
    cells: Sequence[Record],
    savings: Sequence[Record],
    disagreements: Sequence[Record],
    out: Path,
    *,
    pairs: Sequence[Record] = (),
    pictures: Mapping[str, bytes] | None = None,
) -> Path:
    """Write the page; returns where it is.

    `pictures`: encoded, by `item_id` or by `image_id`, as far as there are any.
    """
    return put(render(cells, savings, disagreements, pairs, pictures or {}), out)


def write_chart(cells: Sequence[Record], out: Path) -> Path:
    """The charts alone, one below the other, as an SVG file; returns where it is."""
    groups = _groups(cells)
    parts = []
    for place, (name, mine) in enumerate(groups.items()):
        head = tag("text", _title(name), x=LEFT, y=28, font_size=16, fill="currentColor")
        drawing = tag("g", *plot(mine), transform="translate(0 40)")
        parts.append(tag("g", head, drawing, transform=f"translate(0 {place * (HEIGHT + 40)})"))
    high = max(len(groups), 1) * (HEIGHT + 40)
    paper = tag("rect", width=WIDTH, height=high, fill="#ffffff")
    shape = {"width": WIDTH, "height": high, "view_box": f"0 0 {WIDTH} {high}", "color": "#1c1d1f"}
    names = {"xmlns": "http://www.w3.org/2000/svg", "font_family": "system-ui, sans-serif"}
    return put(str(tag("svg", paper, *parts, **shape, **names)) + "\n", out)


def render(
    cells: Sequence[Record],
    savings: Sequence[Record],
    disagreements: Sequence[Record],
    pairs: Sequence[Record],
    pictures: Mapping[str, bytes],
) -> str:
    """The page as text; the same records give the same page."""
    groups = _groups(cells)
    title = " · ".join(dict.fromkeys(part for name in groups for part in name))
    many = len(groups) > 1
    head = tag(
        "header",
        tag("p", "cofpipe eval --compare", class_="quiet"),
        tag("h1", title or "Nothing was scored"),
        class_="top",
    )
    main = tag(
        "main",
        head,
        *(_group(n, name, mine, many) for n, (name, mine) in enumerate(groups.items())),
        _savings(savings, many) if savings else None,
        _pairs(pairs, many) if pairs else None,
        _section("differ", "Where they differ", *cards(disagreements, pictures)),
    )
    return document(f"{title} · compared", main)


def _groups(cells: Sequence[Record]) -> dict[tuple[str, str], list[Record]]:
    """Cells by subject and benchmark: what one chart shows."""
    found: dict[tuple[str, str], list[Record]] = {}
    for cell in cells:
        found.setdefault((str(cell["subject"]), str(cell["benchmark"])), []).append(cell)
    return found


def _title(name: tuple[str, str]) -> str:
    return f"{name[1]} · {name[0]}"


def _section(name: str, title: str, *children: Html | str | None) -> Html:
    return tag("section", tag("h2", title), *children, id=name)


def _group(place: int, name: tuple[str, str], cells: Sequence[Record], many: bool) -> Html:
    """Chart and tables of one subject on one benchmark."""
    title = _title(name) if many else "Accuracy against visual tokens"
    spoken = "; ".join(mark.words for mark in marks_of(cells, Scale.of(cells)))
    shape = {"width": WIDTH, "height": HEIGHT, "view_box": f"0 0 {WIDTH} {HEIGHT}", "role": "img"}
    chart = tag("svg", *plot(cells), aria_label=f"{title}. {spoken}", **shape)
    return _section(
        f"c{place}",
        title,
        tag("figure", tag("div", chart, class_="scroll")),
        tag("p", _CHART, *_left_out(cells), class_="quiet"),
        _table(cells),
        tag("p", _TABLE, class_="quiet"),
        *_categories(cells),
        *_outcomes(cells),
        *_protocols(cells),
    )


_CHART = (
    "Each dot is a method at a budget, with its 95 % interval; the number beside it is the budget "
    "R, the side in pixels of the largest square view. Dots that would hide each other stand a "
    "little apart. "
)
_TABLE = (
    "Right is Avg@k: the mean over the tries at a question, then over questions. For the interval "
    "pictures are drawn anew, each with all its questions. What is unscored is not wrong, and is "
    "left out. Tokens read are the model’s own count over all turns, pictures included."
)


def _left_out(cells: Sequence[Record]) -> list[str]:
    known = drawn(cells)
    lost = [f"{c['method']} at {c['resolution']}" for c in cells if c not in known]
    return [f"Not drawn, for want of scores or of token counts: {', '.join(lost)}."] if lost else []


def _table(cells: Sequence[Record]) -> Html:
    """Every cell in numbers."""
    several = any(cell["rollouts"] > 1 for cell in cells)
    head = [
        "Method", "Budget", "Right", "95 %", "of", "pictures", "unscored", "Looks", "Visual tokens",
        "Tokens read", "written", "Seconds", "Invalid calls", "Unfinished",
    ]  # fmt: skip
    head[3:3] = ["of k tries one"] if several else []
    body = []
    for cell in cells:
        right = cell["accuracy"]
        line = [
            tag("strong", str(cell["method"])),
            str(cell["resolution"]),
            share(right and right["value"]) + (f" (k = {cell['rollouts']})" if several else ""),
            *([share(cell["best_of"])] if several else []),
            between(right),
            number(right and right["items"]),
            number(right and right["images"]),
            number(cell["unscored"]) if cell["unscored"] else "–",
            number(cell["looks"], 2),
            *(number(cell[name]) for name in ("visual_tokens", "tokens_in", "tokens_out")),
            number(cell["seconds"], 2),
            share(cell["invalid"]),
            share(cell["unfinished"]),
        ]
        body.append(line)
    return table(head, body)


def _categories(cells: Sequence[Record]) -> list[Html]:
    names = sorted({name for cell in cells for name in cell["categories"]})
    if len(names) < 2:
        return []
    body = []
    for cell in cells:
        found = [cell["categories"].get(name) for name in names]
        shares = [
            f"{share(f['value'])} ({between(f)}) of {f['items']}" if f else "–" for f in found
        ]
        body.append([tag("strong", str(cell["method"])), str(cell["resolution"]), *shares])
    return [tag("h3", "By category"), table(["Method", "Budget", *names], body)]


def _outcomes(cells: Sequence[Record]) -> list[Html]:
    told = [cell for cell in cells if cell["outcomes"]]
    names = sorted({name for cell in told for name in cell["outcomes"]})
    body = [
        [tag("strong", str(cell["method"])), str(cell["resolution"]),
         *(number(cell["outcomes"].get(name, 0)) for name in names)]
        for cell in told
    ]  # fmt: skip
    head = ["Method", "Budget", *names]
    return [tag("h3", "What the first stage found"), table(head, body)] if told else []


def _protocols(cells: Sequence[Record]) -> list[Html]:
    names = dict.fromkeys(name for cell in cells for name in cell["protocols"])
    mixed = [f"{c['method']} at {c['resolution']}" for c in cells if len(c["protocols"]) > 1]
    warning = f"Asked in more than one way: {', '.join(mixed)}." if mixed else None
    told = tag("ul", *(tag("li", tag("code", name)) for name in names))
    return [
        *([tag("p", tag("strong", warning))] if warning else []),
        *([tag("details", tag("summary", "How it was asked"), told)] if names else []),
    ]


def _savings(savings: Sequence[Record], many: bool) -> Html:
    """What each method saves for equal accuracy, with the verdict on the published range."""
    head = [
        "Method",
        "Right, to reach",
        "Questions",
        "Tokens there",
        "Uniform",
        "Saved",
        "95 %",
        "",
    ]
    body = []
    for found in savings:
        least = "at least " if found["at_least"] else ""
        ends = [
            f"{100 * e:.0f}" if e is not None else "open" for e in (found["low"], found["high"])
        ]
        known = found["value"] is not None
        body.append(
            [
                tag("strong", _of(found, found["method"], many)),
                share(found["aim"]),
                number(found["items"]),
                number(found["tokens"]),
                number(found["tokens_against"]),
                least + share(found["value"]),
                " – ".join(ends) if known else "–",
                str(found["verdict"]),
            ]
        )
    largest, margin = savings[0]["against"][3], savings[0]["margin"]
    less = f" less {100 * margin:.1f} points" if margin else ""
    note = (
        "The fewest visual tokens at which a method is as often right as direct at "
        f"{largest}{less}, on questions scored by both at every budget; between budgets the way is "
        "straight, beyond them nothing is supposed. “Open”: on that side the draws leave what was "
        "tried."
    )
    title = "Visual tokens saved for equal accuracy"
    return _section("savings", title, table(head, body), tag("p", note, class_="quiet"))


def _of(record: Record, words: str, many: bool) -> str:
    return f"{words} · {record['benchmark']} · {record['subject']}" if many else words


def _pairs(pairs: Sequence[Record], many: bool) -> Html:
    head = ["Method", "Against", "Questions", "Difference", "95 %", "Better on", "Worse on", "p"]
    body = []
    for pair in pairs:
        (subject, benchmark, method, resolution), other = pair["one"], pair["other"]
        found, named = pair["difference"], {"subject": subject, "benchmark": benchmark}
        body.append(
            [
                tag("strong", _of(named, f"{method} at {resolution}", many)),
                f"{other[2]} at {other[3]}",
                number(found and found["items"]),
                "–" if found is None else f"{100 * found['value']:+.1f} points",
                "–"
                if found is None
                else f"{100 * found['low']:+.1f} to {100 * found['high']:+.1f}",
                number(pair["better"]),
                number(pair["worse"]),
                f"{pair['p']:.3g}",
            ]
        )
    note = "p is that of the exact sign test over questions (McNemar’s, where each has one try)."
    title = "Side by side on the same questions"
    return _section("pairs", title, table(head, body), tag("p", note, class_="quiet"))
