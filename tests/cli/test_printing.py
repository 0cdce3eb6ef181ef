"""Results are for programs, words for people, and neither tells a terminal what to do."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime

import pytest

from pipeline.cli.printing import cell, clean, emit, print_csv, print_table


def test_a_result_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"a": "line\nbreak", "at": datetime(2026, 11, 20), "image": b"123"})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {
        "a": "line\nbreak",
        "at": "2026-11-20T00:00:00",
        "image": "<3 bytes>",
    }


def test_a_table_is_aligned_with_numbers_to_the_right() -> None:
    out = io.StringIO()
    print_table(["name", "rows"], [("a", 5), ("long name", 12345)], out)
    assert out.getvalue().splitlines() == [
        "name        rows",
        "─────────  ─────",
        "a              5",
        "long name  12345",
    ]


def test_an_empty_table_has_its_names() -> None:
    out = io.StringIO()
    print_table(["name", "rows"], [], out)
    assert out.getvalue().splitlines()[0] == "name  rows"


def test_csv_can_be_read_back() -> None:
    out = io.StringIO()
    print_csv(["a", "b"], [('comma, "quote"', [1, 2]), (None, b"xy")], out)
    rows = list(csv.reader(io.StringIO(out.getvalue())))
    assert rows == [["a", "b"], ['comma, "quote"', "[1, 2]"], ["", '"<2 bytes>"']]


@pytest.mark.parametrize("text", ["\x1b[31mred", "a\nb", "x\u202eexe.jpg", "\x07", "\x9b2J"])
def test_no_terminal_is_told_what_to_do(text: str) -> None:
    shown = clean(text)
    assert shown.isprintable()
    assert len(shown) == len(text)


def test_long_cells_are_cut_and_numbers_are_short() -> None:
    assert len(cell("x" * 500)) == 60
    assert cell(0.123456) == "0.1235"
    assert cell(None) == ""
    assert cell({"a": [1]}) == '{"a": [1]}'
