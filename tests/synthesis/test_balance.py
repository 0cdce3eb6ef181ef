"""Laws of a balanced run: the shares come out, nothing is lost, and stopping changes nothing."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manifests.database import query
from pipeline.config import Balance, config_from
from pipeline.runner.fsck import fsck as prove
from pipeline.shards import SET_ASIDE, Passed, Unit
from pipeline.synthesis.balance import Scale, balanced, first_kind, kept_before
from pipeline.synthesis.run import synthesize

PLAN = Balance(
    kind={"needles": 1, "signs": 1, "count": 1},
    resolution={"224": 1, "448": 1, "1024": 1},
    looks={"0": 2, "1": 2, "2+": 1},
)


def row(n: int, kind: str, resolution: int, looks: int) -> dict[str, Any]:
    about = {"sample_id": f"{n:04d}#0", "image_id": f"{n:04d}", "rollout": 0}
    return about | {"kind": kind, "resolution": resolution, "num_zooms": looks}


def offered(count: int, seed: int = 0) -> list[Unit | Passed]:
    """Units of three rows each: few looks, most of them at the low budgets, as in real runs."""
    rng = np.random.default_rng(seed)
    units: list[Unit | Passed] = []
    for n in range(count):
        kind = str(rng.choice(["needles", "signs", "count"], p=[0.4, 0.35, 0.25]))
        rows = [
            row(n, kind, budget, int(rng.choice(4, p=odds)))
            for budget, odds in [
                (224, [0.3, 0.4, 0.2, 0.1]),
                (448, [0.4, 0.4, 0.1, 0.1]),
                (1024, [0.55, 0.3, 0.1, 0.05]),
            ]
        ]
        steps = [{**r, "step": 1} for r in rows]
        units += [Unit(f"{n:04d}", 3, {"trajectories": rows, "steps": steps}), Passed(n)]
    return units


def rows_of(units: list[Unit | Passed], table: str) -> list[dict[str, Any]]:
    return [r for unit in units if isinstance(unit, Unit) for r in unit.tables.get(table, ())]


@pytest.mark.parametrize("wanted", [30, 93, 300])
@pytest.mark.parametrize("shard", [0, 1, 2])
def test_every_class_gets_its_share_within_the_tolerance(wanted: int, shard: int) -> None:
    done = list(balanced(offered(2000), PLAN, Scale(PLAN, wanted, shard, {})))
    kept = rows_of(done, "trajectories")
    assert len(kept) == wanted == sum(u.kept for u in done if isinstance(u, Unit))
    for family, shares in PLAN.families.items():
        name = {"kind": "kind", "resolution": "resolution", "looks": "num_zooms"}[family]
        found = Counter(str(r[name]) if r[name] not in (2, 3) else "2+" for r in kept)
        for one, share in shares.items():
            exact = wanted * share / sum(shares.values())
            assert abs(found[one] - exact) <= PLAN.tolerance * exact + 1, (family, one)


def test_classes_that_do_not_occur_together_cost_some_of_the_balance_and_never_the_end() -> None:
    units = [
        Unit(f"{n:04d}", 1, {"trajectories": [row(n, "needles" if n % 2 else "signs", 224, n % 2)]})
        for n in range(2000)
    ]
    plan = Balance(kind={"needles": 1, "signs": 1}, looks={"0": 3, "1": 2})
    kept = rows_of(list(balanced(units, plan, Scale(plan, 100, 0, {}))), "trajectories")
    assert len(kept) == 100 and 48 <= sum(r["num_zooms"] == 0 for r in kept) <= 60


def test_over_the_shards_of_a_run_whole_numbers_even_out() -> None:
    found: Counter[int] = Counter()
    for shard in range(6):
        done = list(balanced(offered(400, shard), PLAN, Scale(PLAN, 20, shard, {})))
        found.update(r["resolution"] for r in rows_of(done, "trajectories"))
    assert found == {224: 40, 448: 40, 1024: 40}


def test_what_is_not_taken_is_set_aside_with_the_reason_and_nothing_is_lost() -> None:
    units = offered(400)
    done = list(balanced(units, PLAN, Scale(PLAN, 90, 0, {})))
    kept, aside = rows_of(done, "trajectories"), rows_of(done, "rejected")
    told = rows_of(done, "rejections")
    assert aside and len(aside) == len(told)
    assert {r["stage"] for r in told} == {SET_ASIDE} and all("enough" in r["detail"] for r in told)
    before = rows_of(units[: len(done)], "trajectories")
    last = {r["sample_id"] for r in before[-3:]}  # the picture during which it was full
    keys = {(r["sample_id"], r["resolution"]) for r in kept + aside}
    assert {(r["sample_id"], r["resolution"]) for r in before if r["sample_id"] not in last} <= keys
    assert {(r["sample_id"], r["resolution"]) for r in rows_of(done, "steps")} == keys


@pytest.mark.parametrize("cut", [1, 7, 20, 41])
def test_a_shard_that_goes_on_elsewhere_keeps_the_same_rows(cut: int) -> None:
    units = offered(400)
    whole = list(balanced(units, PLAN, Scale(PLAN, 90, 3, {})))
    first = whole[:cut]
    tally: Counter[str] = Counter()
    for unit in first:
        if isinstance(unit, Unit):
            tally.update(unit.tally)
    assert kept_before(PLAN, tally) == len(rows_of(first, "trajectories"))
    rest = list(balanced(units[cut:], PLAN, Scale(PLAN, 90, 3, tally)))
    assert rows_of(first + rest, "trajectories") == rows_of(whole, "trajectories")


@pytest.mark.parametrize("began", [0, 1200])
def test_kinds_of_task_come_first_as_often_as_the_balance_wants_them(began: int) -> None:
    kinds = ("needles", "count", "signs")
    balance = Balance(kind={"needles": 4, "signs": 3, "count": 1})
    first = Counter(first_kind(kinds, balance, began + n) for n in range(160))
    assert all(abs(first[n] - share) <= 3 for n, share in enumerate((80, 20, 60)))
    evenly = Counter(first_kind(kinds, Balance(), n) for n in range(30))
    assert evenly == {0: 10, 1: 10, 2: 10}


def test_a_class_that_never_occurs_is_not_waited_for() -> None:
    plan = PLAN.model_copy(update={"resolution": {"224": 1, "448": 1, "1024": 1, "3840": 1}})
    done = list(balanced(offered(2000), plan, Scale(plan, 90, 0, {})))
    found = Counter(r["resolution"] for r in rows_of(done, "trajectories"))
    assert found.total() == 90 and all(28 <= found[r] <= 32 for r in (224, 448, 1024))


def test_a_class_that_the_plan_leaves_out_is_set_aside() -> None:
    plan = Balance(kind={"needles": 1, "signs": 1})
    done = list(balanced(offered(400), plan, Scale(plan, 150, 0, {})))
    assert {r["kind"] for r in rows_of(done, "trajectories")} == {"needles", "signs"}
    assert "count" in {r["kind"] for r in rows_of(done, "rejected")}


@pytest.mark.torch
def test_a_balanced_run_that_was_stopped_ends_with_the_rows_of_one_that_was_not(
    tmp_path: Path,
) -> None:
    def run(place: str, stop: threading.Event | None = None) -> Any:
        settings = {
            "source": "scenes:60@640x480",
            "rows": 24,
            "shards": 2,
            "task": {"budgets": [224, 448], "per_image": 2, "repeats": False},
            "balance": {"resolution": {"224": 1, "448": 1}, "looks": {"0": 2, "1": 1}},
            "run": {"dir": str(tmp_path / place), "part_rows": 4},
        }

        def on_event(event: dict[str, Any]) -> None:
            if stop is not None and event["event"] == "committed":
                stop.set()

        return synthesize(config_from(settings), address="none", on_event=on_event, stop=stop)

    def kept(place: str) -> list[dict[str, Any]]:
        told = "SELECT * EXCLUDE (run_id, shard, seconds) FROM trajectories ORDER BY ALL"
        return query(tmp_path / place, told).to_pylist()

    whole = run("whole")
    assert whole.status == "done" and whole.kept == 24
    proved = prove(Path(whole.run_dir))
    assert not proved.problems and not proved.unfinished, "the listing goes on, the run is done"
    assert run("stopped", threading.Event()).status == "interrupted"
    assert run("stopped").kept == 24
    assert kept("stopped") == kept("whole")
    found = Counter(row["resolution"] for row in kept("whole"))
    assert abs(found[224] - 12) <= 1
    assert 15 <= Counter(row["num_zooms"] for row in kept("whole"))[0] <= 17
