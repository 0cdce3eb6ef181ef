"""Laws of verified focus: verdicts follow from stored words, and anyone can derive them again."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.database import query
from pipeline.answers import is_right
from pipeline.config import Filters, config_from
from pipeline.geometry import Box
from pipeline.samples import Truth
from pipeline.synthesis import checks
from pipeline.synthesis.recheck import recheck
from pipeline.synthesis.run import Summary, synthesize
from pipeline.trajectory import FocusStep, Observation, Trajectory

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("checks")]

SETTINGS: dict[str, Any] = {
    "source": "scenes:4@1344x1008",
    "task": {"budgets": [224, 672], "per_image": 2, "rollouts": 2, "repeats": False},
    "policy": {"temperature": 1.0},
    "checks": {"probes": True, "masks": True},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    runs = tmp_path_factory.mktemp("runs")
    config = config_from({**SETTINGS, "run": {"dir": str(runs)}})
    return runs, synthesize(config, shards=2, address="none")


def rows(made: tuple[Path, Summary], sql: str) -> list[dict[str, Any]]:
    return query(made[0], sql, made[1].run_id).to_pylist()


def test_every_try_is_a_row_that_is_kept_or_rejected(made: tuple[Path, Summary]) -> None:
    keys = Counter(
        (r["sample_id"], r["resolution"], r["rollout"]) for r in rows(made, "select * from tries")
    )
    assert set(keys.values()) == {1} and len(keys) == 4 * 2 * 2 * 2
    told = rows(made, "select tries, tries_right, kept from questions")
    assert {r["tries"] for r in told} == {2} and all(r["kept"] == r["tries_right"] for r in told)


def test_verdicts_follow_from_the_words_that_are_stored(made: tuple[Path, Summary]) -> None:
    kept = rows(made, "select * from trajectories")
    looked = [r for r in kept if r["num_zooms"]]
    assert looked and len(looked) < len(kept)
    for row in looked:
        boxes = [Box(*values) for values in row["target_boxes"]]
        right = [
            is_right(row[name], row["target"], row["options"], boxes)
            for name in ("unaided_answer", "crop_answer")
        ]
        assert [row["necessary"], row["sufficient"]] == [not right[0], right[1]]
        assert ("unnecessary" in row["flaws"]) is right[0]
        assert row["fewest_looks"] == 0 if right[0] else 0 < row["fewest_looks"] <= row["num_zooms"]
    assert any(r["necessary"] for r in looked) and any(r["sufficient"] for r in looked)
    for row in kept:
        if not row["num_zooms"]:
            assert (row["necessary"], row["sufficient"]) == (None, None)


def test_each_look_has_its_pixels_and_its_mask(made: tuple[Path, Summary]) -> None:
    steps = rows(made, "select * from steps semi join trajectories using (sample_id, resolution)")
    assert steps and all(len(r["crop_sha256"]) == 64 for r in steps if r["crop_sha256"])
    kept = rows(made, "select s.* from steps s join trajectories t using "
                "(sample_id, resolution, rollout)")  # fmt: skip
    assert kept and all(r["crop_sha256"] for r in kept)
    assert all(0 <= r["mask_iou"] <= 1 for r in kept if r["mask_iou"] is not None)


def test_a_run_is_proven_again_from_its_rows_alone(made: tuple[Path, Summary]) -> None:
    report = recheck(made[1].run_dir)
    assert report.holds and report.rows == made[1].kept


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("necessary", None, "necessary is None"),
        ("unaided_answer", "QQQQ", "asked again it is"),
        ("crop_answer", "QQQQ", "asked again it is"),
        ("crop_sha256", "0" * 64, "shows other pixels"),
    ],
)
def test_a_verdict_that_does_not_follow_is_named(
    made: tuple[Path, Summary], tmp_path: Path, column: str, value: Any, said: str
) -> None:
    folder = tmp_path / "run"
    _copied(Path(made[1].run_dir), folder, column, value)
    report = recheck(folder)
    assert not report.holds and any(said in problem for problem in report.problems)


def test_what_the_filters_reject_has_the_flaw_as_its_reason() -> None:
    row = {"flaws": ["unnecessary", "unfaithful"], "tries": 2, "tries_right": 1}
    assert checks.refused(row, Filters(), ("unseen_fact",)) == "unfaithful_unseen_fact"
    kept = Filters(unfaithful="keep", unnecessary="weight")
    assert checks.refused(row, kept, ("unseen_fact",)) == ""
    assert checks.weight_of(row["flaws"], kept) == 0.5
    always = {"flaws": [], "tries": 2, "tries_right": 2}
    assert checks.refused(always, Filters(solved="sometimes"), ()) == "always_solved"


def test_a_look_elsewhere_is_off_target_and_one_that_shows_half_of_it_is_not() -> None:
    whole = Observation(Box(0, 0, 200, 100), (200, 100))
    path = Trajectory("s#0", 224, 0, whole, (), "", "A", "answered", "scripted")
    truth = Truth("s#0", "A", (Box(10, 10, 30, 20),))
    assert checks.off_target(path, truth) is None
    for x, off in ((20, False), (22, True), (100, True)):
        look = Observation(Box(x, 0, x + 50, 50), (100, 100), 0)
        step = FocusStep("", (look.region,), (True,), observation=look)
        assert checks.off_target(replace(path, steps=(step,)), truth) is off


def _copied(run: Path, folder: Path, column: str, value: Any) -> None:
    """The run with a value of each row that has a look replaced, and its records as they were."""
    import shutil

    shutil.copytree(run, folder)
    for path in sorted((folder / "data" / "trajectories").glob("*.parquet")):
        table = pq.read_table(path)
        told = table.to_pylist()
        for row in told:
            if not row["num_zooms"]:
                continue
            if column == "crop_sha256":
                row["steps"][0][column] = value
            else:
                row[column] = value
        pq.write_table(pa.Table.from_pylist(told, table.schema), path)
