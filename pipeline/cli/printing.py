"""Where words go: results to stdout, everything meant for people to stderr.

Text that came from a picture's name or a model is stripped of control characters before a terminal
sees it.
"""

from __future__ import annotations

import csv
import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, TextIO

WIDEST = 60
"""Longest cell of a table for people; JSON and CSV are never cut."""


def say(text: str = "") -> None:
    """A line for people."""
    print(text, file=sys.stderr, flush=True)


def emit(record: object) -> None:
    """A result as one line of JSON."""
    print(json.dumps(record, ensure_ascii=False, default=plain), flush=True)


def plain(value: object) -> object:
    """What JSON has no word for: times as ISO text, bytes as how many there are."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    return str(value)


def print_table(names: Sequence[str], rows: Iterable[Sequence[Any]], out: TextIO) -> None:
    """Aligned columns; numbers to the right, long cells cut."""
    rows = [tuple(row) for row in rows]
    cells = [[cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    right = [all(isinstance(v, int | float | None) for v in col) for col in zip(*rows, strict=True)]
    right = right or [False] * len(names)
    for line in [list(names), ["─" * width for width in widths], *cells]:
        print("  ".join(map(_aligned, line, widths, right)).rstrip(), file=out)


def print_csv(names: Sequence[str], rows: Iterable[Sequence[Any]], out: TextIO) -> None:
    """Comma-separated, lists and structs as JSON."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([_csv_value(value) for value in row])


def cell(value: object) -> str:
    """A value as one short line without control characters."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e6 else f"{value:.0f}"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, bytes | bytearray | list | dict):
        value = json.dumps(value, ensure_ascii=False, default=plain)
    text = clean(str(value))
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def clean(text: str) -> str:
    """Text on one line, with nothing in it that a terminal would obey."""
    return "".join(" " if unicodedata.category(c) in ("Cc", "Cf") else c for c in text)


def for_people() -> bool:
    """Whether stderr is a terminal that wants colour and movement."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and _terminal() != "dumb"


def _terminal() -> str:
    return os.environ.get("TERM", "dumb")


def _aligned(text: str, width: int, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)


def _csv_value(value: object) -> object:
    if isinstance(value, list | dict | bytes | bytearray):
        return json.dumps(value, ensure_ascii=False, default=plain)
    return value
