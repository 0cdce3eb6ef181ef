"""The laws that both runners keep, tried with small real workers."""

from __future__ import annotations

import random
import threading
from dataclasses import replace

import pytest

from manifests import database
from pipeline.errors import ConfigError
from pipeline.runner.driver import Driver
from pipeline.runner.storage import LocalStorage
from pipeline.shards import Plan
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


@pytest.fixture
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int, str], str]:
    """The data files of the small run as one worker makes them in one go."""
    bench = Bench("local", tmp_path_factory.mktemp("reference"))
    plan = bench.plan()
    bench.run(plan, workers=1)
    return digests(plan)


@pytest.mark.parametrize(("workers", "at_once"), [(1, 1), (2, 1), (4, 1), (1, 2), (2, 3)])
def test_every_entry_is_done_once_and_data_do_not_depend_on_who_made_them(
    bench: Bench, reference: dict[tuple[int, int, str], str], workers: int, at_once: int
) -> None:
    plan = bench.plan()
    outcome = bench.run(plan, workers=workers, at_once=at_once)
    assert (outcome.status, outcome.shards_done) == ("done", 4)
    assert samples(bench) == expected(24)
    assert set(rejected(bench).values()) == {"unlucky"}
    assert (outcome.kept, outcome.rejected) == (len(expected(24)), len(rejected(bench)))
    assert digests(plan) == reference
    assert whole(plan)


@pytest.mark.parametrize("workers", [1, 3])
def test_rows_are_exact_and_do_not_depend_on_workers(bench: Bench, workers: int) -> None:
    plan = bench.plan(rows=35, entries=21, shards=5)
    outcome = bench.run(plan, workers=workers, per_unit=3)
    assert (outcome.status, outcome.kept) == ("done", 35)
    assert len(set(samples(bench))) == 35
    other = Bench("local", bench.folder / "other")
    again = other.plan(rows=35, entries=21, shards=5)
    other.run(again, workers=1, per_unit=3)
    assert digests(again) == digests(plan)
    assert whole(plan)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
def test_killed_workers_lose_no_row_and_double_none(
    bench: Bench, reference: dict[tuple[int, int, str], str], seed: int
) -> None:
    plan = bench.plan()
    unlucky = random.Random(seed).sample([f"e{i}" for i in range(24)], 2)
    outcome = bench.run_until_done(plan, kill_once=unlucky, mark=str(bench.folder))
    assert outcome.workers_lost == (2 if bench.runner == "ray" else 0)
    assert samples(bench) == expected(24)
    assert digests(plan) == reference
    assert whole(plan)


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [1, 2])
def test_a_picture_that_kills_two_workers_is_rejected_and_no_other(
    bench: Bench, at_once: int
) -> None:
    plan = bench.plan()
    others_are_busy = {"e0": 1.0, "e6": 0.4}
    outcome = bench.run_until_done(plan, poison=["e6"], delay_s=others_are_busy, at_once=at_once)
    assert outcome.status == "done"
    crashed = [name for name, reason in rejected(bench).items() if reason == "crashed_worker"]
    assert crashed == ["e6#0"]
    assert samples(bench) == expected(24, without=(6,))
    assert whole(plan)


@pytest.mark.slow
def test_a_worker_that_sleeps_for_ever_is_noticed(bench: Bench) -> None:
    plan = bench.plan(stall_s=1.5)
    outcome = bench.run_until_done(plan, hang=["e8"])
    assert outcome.status == "done"
    assert rejected(bench)["e8#0"] == "crashed_worker"
    assert samples(bench) == expected(24, without=(8,))


def test_a_worker_that_takes_two_begins_the_next_shard_before_the_last_one_ends(
    bench: Bench,
) -> None:
    plan = bench.plan()
    bench.run(plan, workers=1, at_once=2, delay_s={"e5": 2.0})
    ended = {r.shard: r.committed_at for r in bench.records(plan) if r.last}
    assert ended[1] < ended[0]


def test_an_error_of_the_workers_code_ends_the_run_and_is_nobodys_death(bench: Bench) -> None:
    plan = bench.plan()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError, match="a bug at e8") as caught:
            bench.run(plan, bug=["e8"])
        told = "".join(map(str, [caught.value.__cause__, *caught.traceback]))
        assert "_behave" in told
    bench.run(plan)
    assert samples(bench) == expected(24)
    assert set(rejected(bench).values()) == {"unlucky"}


def test_a_worker_that_cannot_be_made_ends_the_run(bench: Bench) -> None:
    with pytest.raises(ZeroDivisionError, match="before the first picture"):
        bench.run(bench.plan(), broken=True)


def test_a_worker_of_another_kind_is_refused(bench: Bench) -> None:
    with pytest.raises(ConfigError, match="the run is of 'prompts'"):
        bench.run(bench.plan(kind="prompts"))


def test_a_run_that_is_done_can_be_asked_for_more_rows(bench: Bench) -> None:
    for rows in (3, 3, 20):
        outcome = bench.run(bench.plan(rows=rows))
        assert (outcome.status, outcome.kept) == ("done", rows)
        assert len(samples(bench)) == rows and whole(bench.plan())
    assert _status(bench) == "done"


def test_stop_drains_and_the_same_plan_continues(bench: Bench) -> None:
    plan = bench.plan()
    stop, listen = stop_after(2)
    outcome = bench.run(plan, pause_s=0.4, stop=stop, on_event=listen)
    assert outcome.status == "interrupted"
    assert 0 < outcome.kept < len(expected(24))
    assert len(samples(bench)) == outcome.kept
    assert whole(plan)
    assert _status(bench) == "interrupted"
    before = set(samples(bench))
    assert bench.run(plan).status == "done"
    assert before < set(samples(bench))
    assert samples(bench) == expected(24)
    assert whole(plan)
    assert _status(bench) == "done"


def test_a_run_that_is_stopped_before_it_begins_does_nothing(local: Bench) -> None:
    stop = threading.Event()
    stop.set()
    outcome = local.run(local.plan(), stop=stop)
    assert (outcome.status, outcome.kept) == ("interrupted", 0)


def test_a_finished_run_is_done_at_once(local: Bench) -> None:
    plan = local.plan()
    first = local.run(plan)
    before = digests(plan)
    assert local.run(plan, broken=True) == first
    assert digests(plan) == before


def test_nothing_listed_is_nothing_to_do(bench: Bench) -> None:
    outcome = bench.run(bench.plan(entries=0), broken=True)
    assert (outcome.status, outcome.kept, outcome.shards_total) == ("done", 0, 0)
    assert _status(bench) == "done"


def test_no_rows_wanted_is_nothing_to_do(local: Bench) -> None:
    assert local.run(local.plan(rows=0), broken=True).status == "done"


def test_there_are_never_more_shards_than_entries(local: Bench) -> None:
    outcome = local.run(local.plan(entries=3, shards=64))
    assert (outcome.shards_total, outcome.kept) == (3, 6)


def test_an_entry_with_many_units_is_resumed_inside_it(local: Bench) -> None:
    plan = local.plan(entries=2, shards=1, part_rows=4)
    stop, listen = stop_after(2)
    local.run(plan, workers=1, units_per_entry=9, pause_s=0.02, stop=stop, on_event=listen)
    kept = len(samples(local))
    assert 0 < kept < 36
    local.run(plan, workers=1, units_per_entry=9)
    assert len(set(samples(local))) == len(samples(local)) == 36
    assert whole(plan)


def test_a_unit_that_lies_about_its_rows_is_an_error(local: Bench) -> None:
    with pytest.raises(ValueError, match="says it keeps 5 rows and has 2"):
        local.run(local.plan(), lie=5)


def test_a_column_that_its_table_lacks_is_an_error(local: Bench) -> None:
    with pytest.raises(ValueError, match="no column"):
        local.run(local.plan(), extra={"colour": "red"})


def test_the_loser_of_a_race_for_a_part_takes_up_the_winners_work(local: Bench) -> None:
    plan = local.plan(shards=1)
    first = threading.Thread(target=local.run, args=(plan,), kwargs={"pause_s": 0.004})
    first.start()
    local.run(plan, pause_s=0.005)
    first.join()
    assert samples(local) == expected(24)
    assert whole(plan)


def test_an_attempt_that_comes_second_publishes_nothing_more(local: Bench) -> None:
    plan = local.plan(shards=1)
    storage = LocalStorage(plan.run_dir)
    first, second = (Driver(plan, storage).grant() for _ in range(2))
    assert first and second
    with_other_cuts = replace(plan, part_rows=4)
    assert attempt(with_other_cuts, replace(first, stop=5), storage).ending == "done"
    published = local.records(plan)
    assert attempt(plan, second, storage).ending == "lost"
    assert local.records(plan) == published


@pytest.mark.slow
def test_sql_answers_from_another_process_while_a_run_is_writing(bench: Bench) -> None:
    plan = bench.plan(entries=60)
    kept, said = "(SELECT count(*) FROM trajectories)", "(SELECT sum(rows) FROM shards)"
    query = f"SELECT {kept} AS kept, coalesce({said}, 0)::BIGINT AS said"
    counts = []
    working = bench.spawn(plan, workers=2, pause_s=0.05)
    while working.poll() is None:
        (row,) = database.query(bench.runs_dir, query).to_pylist()
        assert row["kept"] == row["said"]
        counts.append(row["kept"])
    assert working.returncode == 0
    assert counts == sorted(counts)
    assert len(set(counts)) > 3
    assert samples(bench) == expected(60)


def _status(bench: Bench) -> str:
    return str(database.query(bench.runs_dir, "SELECT status FROM runs")["status"][0])


def test_a_plan_that_cannot_be_worked_on_is_refused() -> None:
    plan = Plan("runs/x", "x", "trajectories", entries=1, shards=1)
    for wrong in ({"shards": 0}, {"part_rows": 0}, {"rows": -1}, {"stall_s": 0}):
        with pytest.raises(ConfigError):
            replace(plan, **wrong)
