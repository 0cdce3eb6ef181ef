"""Workers that look ahead make what a worker makes that does one thing after the other."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest

from manifests import database
from pipeline.runner.attempt import Attempt, Progress, Result
from pipeline.runner.storage import LocalStorage
from pipeline.shards import Grant, Passed, Plan, Unit
from tests.runner.conftest import (
    Bench,
    attempt,
    digests,
    expected,
    rejected,
    samples,
    stop_after,
    whole,
)
from tests.runner.workers import Numbers


@pytest.mark.parametrize(
    ("changes", "settings"),
    [
        ({}, {}),
        ({"rows": 35, "entries": 21, "shards": 5}, {"per_unit": 3}),
        ({"entries": 4, "shards": 2, "part_rows": 4}, {"units_per_entry": 6}),
    ],
)
def test_parts_do_not_depend_on_how_far_a_worker_looks_ahead(
    bench: Bench, changes: dict[str, Any], settings: dict[str, Any]
) -> None:
    calm = Bench("local", bench.folder / "calm")
    one_by_one = calm.plan(**changes)
    calm.run(one_by_one, workers=1, **settings)
    plan = bench.plan(**changes)
    late = {"delay_s": {"e0": 0.2, "e5": 0.1}}
    assert bench.run(plan, workers=2, ahead=5, **settings, **late).status == "done"
    assert digests(plan) == digests(one_by_one)
    assert samples(bench) == samples(calm)
    assert whole(plan)


def test_a_worker_that_looks_ahead_is_stopped_and_continued(local: Bench) -> None:
    plan = local.plan(entries=3, shards=1, part_rows=4)
    settings = {"units_per_entry": 9, "ahead": 4, "calls": 2, "mark": str(local.folder)}
    stop, listen = stop_after(2)
    local.run(plan, workers=1, pause_s=0.1, stop=stop, on_event=listen, **settings)
    assert 0 < len(samples(local)) < 54
    local.run(plan, workers=1, **settings)
    assert len(set(samples(local))) == len(samples(local)) == 54
    paid = [line.split()[0] for line in (local.folder / "paid").read_text().splitlines()]
    assert len(paid) == len(set(paid)) == 54
    counts = "SELECT replayed, count(*) AS n FROM calls GROUP BY ALL ORDER BY ALL"
    told = {row["replayed"]: row["n"] for row in database.query(local.runs_dir, counts).to_pylist()}
    assert told[False] == 54
    assert 0 < told[True] <= 8
    assert whole(plan)


def test_with_a_doubt_one_picture_is_in_work_at_a_time_until_it_is_gone(local: Bench) -> None:
    plan = local.plan(shards=1)
    grant = Grant(0, 0, 24, "0" * 8, None, doubted=frozenset({"e4", "e9"}))
    attempt(plan, grant, LocalStorage(plan.run_dir), ahead=6)
    journal = LocalStorage(plan.run_dir).read("journal/shard-00000.00000000.jsonl").decode()
    most, now = [], 0
    for line in journal.splitlines():
        now += ('"start"' in line) - ('"end"' in line)
        most.append(now)
        if '"end": "e9"' in line:
            assert max(most) == 1
            most = []
    assert 1 < max(most) <= 6
    local.run(plan)
    assert samples(local) == expected(24)


@pytest.mark.slow
def test_of_many_pictures_in_work_the_one_that_kills_is_found(bench: Bench) -> None:
    plan = bench.plan(shards=2)
    outcome = bench.run_until_done(plan, poison=["e6"], ahead=6)
    assert outcome.status == "done"
    assert rejected(bench)["e6#0"] == "crashed_worker"
    assert samples(bench) == expected(24, without=(6,))
    assert whole(plan)


@pytest.mark.slow
def test_killed_workers_pay_for_nothing_twice_but_what_was_in_flight(bench: Bench) -> None:
    plan = bench.plan()
    settings = {"kill_once": ["e5", "e16"], "ahead": 4, "calls": 3, "call_s": 0.01}
    bench.run_until_done(plan, mark=str(bench.folder), pause_s=0.1, **settings)
    assert samples(bench) == expected(24)
    paid = [line.split()[0] for line in (bench.folder / "paid").read_text().splitlines()]
    assert len(set(paid)) == 3 * 24
    assert len(paid) - len(set(paid)) <= 2 * 2 * 4
    query = "SELECT count(*) AS n, sum(cost_usd) AS usd FROM calls WHERE NOT replayed"
    (told,) = database.query(bench.runs_dir, query).to_pylist()
    assert 72 <= told["n"] <= len(paid)
    assert told["usd"] == 0.5 * told["n"]
    assert whole(plan)


class Scripted(Numbers):
    """Yields what it is told to."""

    def __init__(self, steps: list[Unit | Passed]) -> None:
        super().__init__({})
        self._steps = steps

    def units(self, *args: Any, **rest: Any) -> Generator[Unit | Passed, None, None]:
        yield from self._steps


def _attempt(plan: Plan, *steps: Unit | Passed) -> Result:
    grant = Grant(0, 0, plan.entries, "0" * 8, None)
    rest: Any = {"progress": Progress(), "stopping": lambda: False, "runner": "local"}
    return Attempt(plan, grant, Scripted(list(steps)), LocalStorage(plan.run_dir), **rest).run()


UNIT = Unit("e0", 0, {})


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([UNIT, Passed(1)], "passed row 1 when row 0"),
        ([Passed(0), UNIT], "ended at row 1, not 2"),
        ([Passed(0), Passed(1), UNIT], "after the last row"),
        ([], "ended at row 0, not 2"),
    ],
)
def test_a_worker_that_loses_its_place_is_an_error(
    local: Bench, steps: list[Unit | Passed], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        _attempt(replace(local.plan(), entries=2, shards=1), *steps)
