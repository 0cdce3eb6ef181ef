"""The figures are the views' numbers, by hand where they can be done by hand."""

from __future__ import annotations

import pytest

from pipeline.report.charts import duration, number, percent, size_of
from pipeline.report.rows import rows
from tests.report.conftest import MakeRun


def test_solved_counts_every_try_at_a_budget(make_run: MakeRun) -> None:
    connection, _ = make_run(3)
    found = {row["resolution"]: row for row in rows(connection, "budgets")}
    assert found[224]["solved"] == pytest.approx(3 / 4)
    assert found[672]["solved"] == 1
    assert [found[r]["direct"] for r in (224, 672, 1024)] == [0, 0, 1]
    assert [found[r]["looks"] for r in (224, 672, 1024)] == [2, 1, 0]


def test_a_wrong_answer_that_was_kept_is_not_solved(make_run: MakeRun) -> None:
    connection, _ = make_run(4)
    connection.execute("UPDATE trajectories SET verified = false WHERE sample_id LIKE '%photo-1%'")
    found = {row["resolution"]: row for row in rows(connection, "budgets")}
    assert found[672]["solved"] == pytest.approx(3 / 4)
    assert found[1024]["direct"] == pytest.approx(3 / 4)


def test_budgets_that_share_a_view_are_counted_apart(make_run: MakeRun) -> None:
    connection, _ = make_run(2)
    found = {row["resolution"]: row for row in rows(connection, "budgets")}
    assert found[1024]["shared_view"] == 2
    assert found[1024]["looks_own_view"] is None
    assert found[224]["looks_own_view"] == 2


def test_the_last_box_alone_is_measured(make_run: MakeRun) -> None:
    connection, _ = make_run(2)
    connection.execute("UPDATE steps SET target_iou = 0 WHERE resolution = 224 AND step = 1")
    found = {row["resolution"]: row for row in rows(connection, "budgets")}
    assert found[224]["last_iou"] == pytest.approx(0.71)


def test_tokens_are_compared_for_equal_right_answers_only(make_run: MakeRun) -> None:
    connection, _ = make_run(3)
    connection.execute("UPDATE trajectories SET visual_tokens = 1000 WHERE resolution = 1024")
    connection.execute(
        "UPDATE trajectories SET verified = false "
        "WHERE resolution = 224 AND sample_id LIKE '%photo-0%'"
    )
    found = {row["resolution"]: row for row in rows(connection, "savings")}
    assert set(found) == {224, 672}
    assert found[224]["pairs"] == 2
    assert found[224]["share"] == pytest.approx(0.134)
    assert found[672]["pairs"] == 3


def test_numbers_are_written_for_people() -> None:
    assert percent(None) == "–"
    assert percent(0.856) == "86 %"
    assert number(12345) == "12\u2009345"
    assert [duration(s) for s in (0.25, 59, 300, 9000)] == ["250 ms", "59 s", "5 min", "2.5 h"]
    assert [size_of(n) for n in (10, 5e3, 2.5e9)] == ["10 bytes", "5 KB", "2.5 GB"]
