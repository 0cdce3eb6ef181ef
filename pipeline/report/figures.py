"""The figures of a run: what was solved at each budget, in how many looks, and what that cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb

from pipeline.report.charts import columns, duration, meter, number, percent, size_of
from pipeline.report.html import Html, join, tag
from pipeline.report.rows import rows

Row = dict[str, Any]


def summary(connection: duckdb.DuckDBPyConnection) -> Html:
    """The few numbers that say how the run went."""
    counts = rows(connection, "counts")[0]
    total = counts["kept"] + counts["rejected"]
    facts = [
        (number(counts["kept"]), "trajectories kept"),
        (number(counts["rejected"]), "rejected"),
        (percent(counts["kept"] / total if total else None), "of all tries kept"),
        (number(counts["questions"]), "questions"),
        (number(counts["images"]), "pictures"),
        (duration(counts["seconds"]), f"of work in {counts['parts']} parts"),
        (size_of(counts["bytes"]), "of Parquet"),
    ]
    return tag(
        "dl",
        *(tag("div", tag("dt", name), tag("dd", value)) for value, name in facts),
        class_="facts",
    )


def budget_figures(connection: duckdb.DuckDBPyConnection) -> Html:
    """Charts over the budgets, and the table they were drawn from."""
    budgets = rows(connection, "budgets")
    if not budgets:
        return tag("p", "No budget has a row yet.", class_="quiet")
    labels = [str(row["resolution"]) for row in budgets]
    charts = tag(
        "div",
        columns(
            "Solved", "share of tries with a verified answer", labels,
            [row["solved"] for row in budgets], [percent(row["solved"]) for row in budgets], full=1,
        ),
        columns(
            "Solved at first sight", "right without a single zoom", labels,
            [row["direct"] for row in budgets], [percent(row["direct"]) for row in budgets], full=1,
        ),
        columns(
            "Looks", "mean number of zooms on a path", labels,
            [row["looks"] for row in budgets], [number(row["looks"], 2) for row in budgets],
        ),
        columns(
            "Visual tokens", "mean of a whole path, all its views", labels,
            [row["tokens"] for row in budgets], [number(row["tokens"]) for row in budgets],
        ),
        class_="charts",
    )  # fmt: skip
    return join(charts, _budget_table(budgets), _savings(connection))


def _budget_table(budgets: Sequence[Row]) -> Html:
    head = (
        "Budget", "Kept", "Rejected", "Solved", "At first sight", "Looks", "Looks, own view",
        "Same view", "Tokens, path", "Tokens, first view", "IoU of last box", "Median time",
    )  # fmt: skip
    body = [
        (
            tag("strong", str(row["resolution"])),
            number(row["kept"]),
            number(row["rejected"]),
            percent(row["solved"]),
            percent(row["direct"]),
            number(row["looks"], 2),
            number(row["looks_own_view"], 2),
            number(row["shared_view"]),
            number(row["tokens"]),
            number(row["view_tokens"]),
            number(row["last_iou"], 2),
            duration(row["seconds"]),
        )
        for row in budgets
    ]
    return join(
        table(head, body),
        tag(
            "p",
            "A budget R allows R² pixels for every view. “Same view” counts rows whose first view "
            "equals that of a smaller budget: they were solved once; “own view” leaves them out.",
            class_="quiet",
        ),
    )


def _savings(connection: duckdb.DuckDBPyConnection) -> Html | None:
    found = rows(connection, "savings")
    if not found:
        return None
    head = ("Budget", "Pairs", "Tokens against one look at everything", "")
    body = [
        (
            tag("strong", str(row["resolution"])),
            number(row["pairs"]),
            percent(row["share"]) + _interval(row["half_width"]),
            meter(min(row["share"], 1.0)),
        )
        for row in found
    ]
    return join(
        tag("h3", "For the same right answer"),
        table(head, body),
        tag(
            "p",
            "Only questions that the largest budget answers rightly without a zoom and that the "
            "smaller budget answers rightly too; mean share of the tokens, 95 % interval.",
            class_="quiet",
        ),
    )


def _interval(half_width: float | None) -> str:
    return "" if half_width is None else f" ± {100 * half_width:.0f}"


def reasons(connection: duckdb.DuckDBPyConnection) -> Html:
    """Why rows were rejected, most frequent first."""
    found = rows(connection, "reasons")
    if not found:
        return tag("p", "Nothing was rejected.", class_="quiet")
    most = max(row["rows"] for row in found)
    body = [
        (row["stage"], tag("code", row["reason"]), number(row["rows"]), meter(row["rows"] / most))
        for row in found
    ]
    return table(("Stage", "Reason", "Rows", ""), body)


def audit(connection: duckdb.DuckDBPyConnection) -> Html:
    """What became of each class of what was tried, and how far that bends the data."""
    head = ("Facet", "Class", "Tried", "Kept", "Set aside", "Rejected", "Retried", "Shift of share")
    body = [
        (
            row["facet"],
            tag("strong", str(row["class"])),
            *(number(row[name]) for name in ("tried", "kept", "set_aside", "rejected", "retried")),
            "" if row["shift"] is None else f"{100 * row['shift']:+.1f} points",
        )
        for row in rows(connection, "audit")
    ]
    note = (
        "“Set aside” are right answers of which the balance had enough, “retried” what the critic "
        "sent back; the shift is a class's share of what is kept less its share of what was tried."
    )
    return join(table(head, body), tag("p", note, class_="quiet"))


def table(head: Sequence[str], body: Sequence[Sequence[Html | str]]) -> Html:
    """A table that scrolls by itself where it is too wide."""
    rows_ = [tag("tr", *(tag("td", cell) for cell in row)) for row in body]
    names = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in head)))
    return tag("div", tag("table", names, tag("tbody", *rows_)), class_="scroll")
