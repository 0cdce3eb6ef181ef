"""A budget ends a run that can be continued: overshoot is what was in flight, no row is lost."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from manifests import database
from pipeline.errors import ConfigError
from pipeline.runner.budget import Purse
from pipeline.shards import Plan, Slice, Spent
from tests.runner.conftest import Bench, expected, samples, stop_after, whole


def _purse(*, workers: int = 3, spent: Spent | None = None, **budgets: Any) -> Purse:
    purse = Purse(Plan("d", "r", "k", entries=9, shards=3, **budgets))
    purse.open(workers, spent or Spent(), 0.0)
    return purse


@pytest.mark.parametrize("seed", range(20))
def test_slices_never_add_up_to_more_than_is_left(seed: int) -> None:
    rng = random.Random(seed)
    purse = _purse(workers=rng.randint(1, 9), budget_usd=10.0, budget_tokens=1000)
    held: dict[str, Slice] = {}
    usd, tokens, grants = 0.0, 0, 0
    while not purse.over():
        grants += 1
        if (one := purse.hold(str(grants))) is not None:
            assert one.usd
            assert one.tokens
            held[str(grants)] = one
        assert usd + sum(s.usd or 0 for s in held.values()) <= 10 + 1e-9
        assert tokens + sum(s.tokens or 0 for s in held.values()) <= 1000
        if one is None or rng.random() < 0.4:
            attempt, back = held.popitem()
            spent = Spent((back.usd or 0) * rng.choice([0.5, 1]), back.tokens or 0)
            usd, tokens = usd + spent.usd, tokens + spent.tokens
            purse.settle(attempt, spent, "The slice is spent.")
    assert grants < 2000
    assert tokens == 1000 or usd >= 10 - 1e-9


def test_without_budgets_nothing_is_ever_over() -> None:
    purse = _purse(spent=Spent(1e9, 10**12))
    assert purse.hold("a") == Slice()
    purse.settle("a", Spent(5.0, 5))
    assert purse.over() == ""


def test_what_was_spent_before_counts() -> None:
    purse = _purse(spent=Spent(1.0, 0), budget_usd=1.0)
    assert purse.hold("a") is None
    assert purse.over() == "The budget of 1 USD is spent."


def test_money_is_not_over_while_somebody_may_bring_some_back() -> None:
    purse = _purse(workers=1, budget_tokens=1)
    assert purse.hold("a") == Slice(tokens=1)
    assert purse.hold("b") is None
    assert purse.over() == ""
    purse.settle("a", Spent())
    assert purse.hold("b") == Slice(tokens=1)
    purse.settle("b", Spent(0, 2), "spent")
    assert purse.over() == "The budget of 1 tokens is spent."


def test_a_worker_that_gives_up_with_money_left_ends_the_run() -> None:
    purse = _purse(budget_tokens=100)
    purse.hold("a")
    purse.settle("a", Spent(0, 1), "The account is empty.")
    assert purse.over() == "The account is empty."


def test_a_negative_budget_is_refused() -> None:
    with pytest.raises(ConfigError, match="negative"):
        _purse(budget_usd=-1.0)


def _paid(bench: Bench) -> list[str]:
    """Calls as the workers made them."""
    path = bench.folder / "paid"
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def _cost(bench: Bench) -> tuple[float | None, int | None, str]:
    (row,) = database.query(
        bench.runs_dir, "SELECT cost_usd, tokens_in + tokens_out AS tokens, status FROM runs"
    ).to_pylist()
    return row["cost_usd"], row["tokens"], row["status"]


CALLS = 2 * 24


@pytest.mark.parametrize("ahead", [1, 4])
def test_a_run_stops_at_its_budget_and_continues_with_a_higher_one(
    bench: Bench, ahead: int
) -> None:
    settings = {"calls": 2, "ahead": ahead, "mark": str(bench.folder)}
    plan = bench.plan(budget_tokens=60)
    outcome = bench.run(plan, **settings)
    assert outcome.status == "budget"
    assert outcome.reason == "The budget of 60 tokens is spent."
    in_flight = 2 * ahead
    assert 60 <= 3 * len(_paid(bench)) <= 60 + 3 * in_flight * 4
    assert _cost(bench) == (0.5 * len(_paid(bench)), 3 * len(_paid(bench)), "budget")
    assert len(samples(bench)) == outcome.kept
    assert whole(plan)
    before = _paid(bench)
    again = bench.run(plan, **settings)
    assert (again.status, again.kept) == ("budget", outcome.kept)
    assert _paid(bench) == before
    more = replace(plan, budget_tokens=None, budget_usd=0.5 * CALLS + 1)
    assert bench.run(more, **settings).status == "done"
    assert samples(bench) == expected(24)
    assert len(_paid(bench)) == len(set(_paid(bench))) == CALLS
    assert _cost(bench) == (0.5 * CALLS, 3 * CALLS, "done")
    assert whole(plan)


@pytest.mark.parametrize("ahead", [1, 5])
def test_the_overshoot_of_one_worker_is_what_was_in_flight(local: Bench, ahead: int) -> None:
    plan = local.plan(shards=1, budget_usd=6.0)
    settings = {"calls": 3, "call_s": 0.002, "ahead": ahead, "mark": str(local.folder)}
    assert local.run(plan, workers=1, **settings).status == "budget"
    assert 12 <= len(_paid(local)) <= 12 + ahead


def test_a_budget_that_suffices_changes_nothing(local: Bench) -> None:
    plan = local.plan(budget_usd=0.5 * CALLS, budget_hours=1.0)
    assert local.run(plan, calls=2, ahead=3).status == "done"
    assert samples(local) == expected(24)


def test_without_a_price_there_is_no_cost_and_no_end_to_the_money(local: Bench) -> None:
    plan = local.plan(budget_usd=0.01)
    assert local.run(plan, unpriced=True).status == "done"
    assert _cost(local) == (None, 3 * 24, "done")


def test_hours_are_counted_over_all_sessions(local: Bench) -> None:
    plan = local.plan(part_rows=2)
    stop, listen = stop_after(3)
    local.run(plan, pause_s=0.05, stop=stop, on_event=listen)
    kept = len(samples(local))
    late = replace(plan, budget_hours=0.02 / 3600)
    outcome = local.run(late, broken=False)
    assert (outcome.status, outcome.kept) == ("budget", kept)
    assert "hours" in outcome.reason
    assert local.run(replace(plan, budget_hours=1.0)).status == "done"
    assert samples(local) == expected(24)


@pytest.mark.slow
def test_the_calls_of_killed_workers_count_against_the_budget(bench: Bench) -> None:
    mark = str(bench.folder)
    settings: dict[str, Any] = {"calls": 2, "kill_once": ["e2", "e16"], "mark": mark}
    settings["delay_s"] = {"e2": 1.0, "e16": 1.0}  # what was paid is on disk by then
    plan = bench.plan(budget_tokens=3 * CALLS)
    outcome = bench.run_until_done(plan, workers=1, **settings)
    assert outcome.status == "done"
    assert samples(bench) == expected(24)
    assert _cost(bench)[1] == 3 * len(_paid(bench))
    assert len(_paid(bench)) == len(set(_paid(bench))) == CALLS
    assert Path(mark, "once-e16").exists()
