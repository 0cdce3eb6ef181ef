"""Published datasets become runs like any other: counted, whole, found again, asked with SQL."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from manifests.database import connect
from pipeline.errors import ConfigError, SourceError
from pipeline.geometry import Box
from pipeline.runner.fsck import fsck
from pipeline.runner.rundir import records
from pipeline.runner.storage import storage_at
from pipeline.shards import Passed, Unit, Work
from pipeline.synthesis.import_run import import_dataset
from pipeline.synthesis.importing import open_worker
from pipeline.synthesis.recheck import recheck
from pipeline.synthesis.run import Summary
from tests.agent.fakes import Paper
from tests.sources.published import datasets as made
from tests.sources.published.datasets import answer, focus_record, picture, png, turn

Ask = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def ask(runs: Path) -> Ask:
    return lambda query: connect(runs).execute(query).fetchall()


def brought(root: Path, runs: Path, **options: Any) -> Summary:
    return import_dataset(root, runs_dir=str(runs), **options)


def test_chain_of_focus_keeps_thoughts_boxes_and_views(
    tmp_path: Path, runs: Path, ask: Ask
) -> None:
    summary = brought(made.chain_of_focus(tmp_path / "cof"), runs)
    assert (summary.kept, summary.rejected, summary.status) == (2, 0, "done")
    rows = ask(
        "select question, options, answer, final_thought, finish, verified, target, policy, "
        "num_zooms, view_w, view_h, width, height, source from trajectories order by sample_id"
    )
    verdict = ("answered", None, None, "imported:chain-of-focus")
    sizes = (1008, 700, *made.SIZE, "chain-of-focus:cof")
    assert rows == [
        ("What stands left?", ["a cup", "a lamp"], "B", "It is a lamp.", *verdict, 2, *sizes),
        ("What colour is it?", [], "Red", "All of it is red.", *verdict, 0, *sizes),
    ]
    steps = ask(
        "select thought, x0, y0, x1, y1, label, tool, view_w, view_h, parent, no_gain from steps "
        "order by step"
    )
    assert [(s[0], s[5], s[6], s[9]) for s in steps] == [
        ("The left side first.", "the left side", "enlarge", 0),
        ("Not there.", "", "enlarge", 0),
    ]
    for step, (x0, y0, x1, y1) in zip(steps, made.FOCUS_BOXES, strict=True):
        scale = made.SIZE[0] / 1008
        assert Box(*step[1:5]).iou(Box(x0 * scale, y0, x1 * scale, y1)) >= 0.99
    turns = ask("select role, text from traces where turn = 0 order by sample_id")
    assert [role for role, _ in turns] == ["policy", "policy"]
    assert turns[0][1].startswith("<think> The left side first. </think>")


def test_a_zip_gives_the_same_rows_as_a_folder(tmp_path: Path, runs: Path) -> None:
    shown = []
    for zipped in (False, True):
        root = made.chain_of_focus(tmp_path / f"zip-{zipped}" / "cof", zipped=zipped)
        summary = brought(root, runs)
        shown.append({(r.shard, r.part): r.sha256 for r in records(storage_at(summary.run_dir))})
    assert shown[0] == shown[1]


def test_pictures_may_lie_in_a_folder_or_zip_of_their_own(tmp_path: Path, runs: Path) -> None:
    root = made.chain_of_focus(tmp_path / "cof", zipped=True)
    elsewhere = tmp_path / "elsewhere.zip"
    (root / "images.zip").rename(elsewhere)
    assert brought(root, runs).rejected == 2
    assert brought(root, runs, images=elsewhere).rejected == 0


def test_deepeyes_results_are_verified_against_their_answer(
    tmp_path: Path, runs: Path, ask: Ask
) -> None:
    summary = brought(made.deepeyes_results(tmp_path / "eyes"), runs)
    assert (summary.kept, summary.rejected) == (2, 0)
    assert ask("select answer, target, verified from trajectories order by sample_id") == [
        ("A. red", "red", True),
        ("B", "red", False),
    ]
    assert set(ask("select x0, y0, x1, y1, tool from steps")) == {(640, 200, 1000, 500, "crop")}


def test_a_deepeyes_training_row_is_a_path_only_with_turns(
    tmp_path: Path, runs: Path, ask: Ask
) -> None:
    bare = brought(made.deepeyes_rows(tmp_path / "bare", answered=False), runs)
    assert (bare.kept, bare.rejected, bare.entries) == (0, 5, 3)
    assert ask("select distinct stage, reason from rejections") == [("import", "no_path")]
    rolled = brought(made.deepeyes_rows(tmp_path / "rolled", answered=True), runs)
    assert (rolled.kept, rolled.rejected) == (5, 0)
    told = ask("select sample_id, question, verified, task from trajectories order by sample_id")
    assert told[1] == ("data_0.1.2.parquet#1#0", "Which one, 1?", True, "vstar")
    assert [verified for *_, verified, _ in told] == [False, True, False, True, False]


@pytest.mark.parametrize("parquet", [True, False])
def test_mini_o3_zooms_into_its_own_crops(
    parquet: bool, tmp_path: Path, runs: Path, ask: Ask
) -> None:
    summary = brought(made.mini_o3(tmp_path / "mini", parquet=parquet), runs)
    assert (summary.kept, summary.rejected) == (1, 1)
    assert ask("select reason from rejections") == [("answer_missing",)]
    assert ask("select x0, y0, x1, y1, parent, tool from steps order by step") == [
        (250, 140, 850, 560, 0, "crop"),
        (550, 245, 790, 455, 1, "crop"),
    ]
    (told,) = ask("select question, answer, rollout, verified from trajectories")
    assert told == ("What is in the corner?", "vase", 4 if parquet else 0, None)


def test_visual_cot_annotations_look_at_the_box_around_their_boxes(
    tmp_path: Path, runs: Path, ask: Ask
) -> None:
    summary = brought(made.visual_cot_lines(tmp_path / "cot"), runs)
    assert (summary.kept, summary.rejected) == (2, 0)
    steps = ask(
        "select x0, y0, x1, y1, thought, view_w, view_h, tool, target_iou from steps "
        "order by sample_id"
    )
    around, thought = (300, 200, 470, 390), "1. Find the people. 2. Look at them."
    assert [step[:8] for step in steps] == [
        (*around, thought, 336, 336, "square"),
        (*around, "", 336, 336, "square"),
    ]
    boxes = [[list(box) for box in made.COT_BOXES]] * 2
    assert [row[0] for row in ask("select target_boxes from trajectories")] == boxes
    assert all(0 < step[8] < 1 for step in steps)


def test_visual_cot_conversations_are_on_the_padded_square(
    tmp_path: Path, runs: Path, ask: Ask
) -> None:
    summary = brought(made.visual_cot_chats(tmp_path / "cot"), runs)
    assert (summary.kept, summary.rejected) == (1, 0)
    (step,) = ask("select x0, y0, x1, y1 from steps")
    assert Box(*step).iou(Box(*made.COT_BOX)) >= 0.99
    assert ask("select question, answer, target, verified from trajectories") == [
        ("What is the date?", "May 3", "May 3", True)
    ]


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "chain-of-focus": made.chain_of_focus,
    "deepeyes": made.deepeyes_results,
    "deepeyes-rows": lambda root: made.deepeyes_rows(root, answered=True),
    "mini-o3": lambda root: made.mini_o3(root, parquet=True),
    "visual-cot": made.visual_cot_lines,
    "visual-cot-chats": made.visual_cot_chats,
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_import_is_proven_whole_and_loads_with_its_pictures(
    name: str, tmp_path: Path, runs: Path
) -> None:
    summary = brought(LAYOUTS[name](tmp_path / name), runs, shards=2)
    assert not fsck(Path(summary.run_dir)).problems
    assert recheck(summary.run_dir).holds
    files = sorted(Path(summary.run_dir).glob("data/trajectories/*.parquet"))
    row = pq.read_table(files[0]).to_pylist()[0]
    assert row["image"]["bytes"] and row["image_sha256"]


def test_a_row_that_was_altered_fails_the_recheck(tmp_path: Path, runs: Path) -> None:
    summary = brought(made.chain_of_focus(tmp_path / "cof"), runs, shards=1)
    (file,) = Path(summary.run_dir).glob("data/trajectories/*.parquet")
    table = pq.read_table(file)
    rows = table.to_pylist()
    rows[0]["steps"][0]["boxes"][0][2] = 4000
    rows[1]["num_zooms"] = 3
    pq.write_table(table.from_pylist(rows, table.schema), file)
    problems = recheck(summary.run_dir).problems
    assert len(problems) == 2
    assert "reaches outside the picture" in problems[0] and "num_zooms is 3" in problems[1]


def test_the_same_import_is_found_again_and_other_data_is_another_run(
    tmp_path: Path, runs: Path
) -> None:
    root = made.chain_of_focus(tmp_path / "cof")
    first, again = brought(root, runs), brought(root, runs)
    assert (again.run_id, again.continued, again.kept) == (first.run_id, True, first.kept)
    moved = tmp_path / "moved"
    shutil.copytree(root, moved)
    assert brought(moved, runs).run_id == first.run_id, "copied with its times it is the same data"
    assert brought(root, runs, limit=1).run_id != first.run_id
    text = (root / "cof_sft_data.json").read_text()
    (root / "cof_sft_data.json").write_text(text.replace("It is a lamp", "A lamp it is"))
    assert brought(root, runs).run_id != first.run_id


def test_parts_are_the_same_for_one_and_three_workers(tmp_path: Path) -> None:
    root = made.deepeyes_rows(tmp_path / "eyes", answered=True)
    shown = []
    for workers in (1, 3):
        summary = brought(root, tmp_path / f"runs-{workers}", shards=3, workers=workers)
        shown.append({(r.shard, r.part): r.sha256 for r in records(storage_at(summary.run_dir))})
    assert shown[0] == shown[1] and len(shown[0]) == 3


@pytest.mark.parametrize(("limit", "kept"), [(1, 1), (3, 3), (4, 4), (99, 5)])
def test_a_limit_counts_records_of_parquet_too(
    limit: int, kept: int, tmp_path: Path, runs: Path
) -> None:
    root = made.deepeyes_rows(tmp_path / "eyes", answered=True)
    assert brought(root, runs, limit=limit).kept == kept


def one(root: Path, *records: Any) -> Path:
    """A Chain-of-Focus folder of these records with one picture, `a.png`."""
    (root / "images").mkdir(parents=True)
    (root / "images" / "a.png").write_bytes(png(picture(0, (300, 200))))
    (root / "cof_sft_data.json").write_text(json.dumps(list(records)), encoding="utf-8")
    return root


GOOD = focus_record("What?", [answer("Seen.", "red")], ["a.png"])


@pytest.mark.parametrize(
    ("images", "stage", "reason"),
    [
        (["../a.png"], "decode", "outside_source"),
        (["/etc/passwd"], "decode", "outside_source"),
        (["b.png"], "decode", "missing_image"),
        ([7], "decode", "missing_image"),
        ([], "decode", "missing_image"),
        (["a.png", "b.png"], "import", "wrong_images"),
        (["no_picture.png"], "decode", "not_an_image"),
        (["turned.jpg"], "decode", "turned"),
    ],
)
def test_a_picture_that_cannot_be_used_is_a_counted_rejection(
    images: list[Any], stage: str, reason: str, tmp_path: Path, runs: Path, ask: Ask
) -> None:
    root = one(tmp_path / "cof", GOOD, focus_record("What?", [answer("x", "y")], images))
    (root / "images" / "no_picture.png").write_text("text")
    image = picture(0, (300, 200))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(root / "images" / "turned.jpg", exif=exif)
    (tmp_path / "a.png").write_bytes(png(image))
    summary = brought(root, runs)
    assert (summary.kept, summary.rejected) == (1, 1)
    assert ask("select stage, reason from rejections") == [(stage, reason)]


def test_a_link_that_leads_out_of_the_folder_is_not_followed(
    tmp_path: Path, runs: Path, ask: Ask
) -> None:
    root = one(tmp_path / "cof", GOOD)
    outside = tmp_path / "outside.png"
    (root / "images" / "a.png").rename(outside)
    (root / "images" / "a.png").symlink_to(outside)
    assert brought(root, runs).kept == 0
    assert ask("select reason from rejections") == [("outside_source",)]


def test_a_file_that_breaks_off_is_counted_to_its_break(
    tmp_path: Path, runs: Path, ask: Ask
) -> None:
    root = one(tmp_path / "cof", GOOD, GOOD, GOOD)
    whole = (root / "cof_sft_data.json").read_text()
    (root / "cof_sft_data.json").write_text(whole[:-40])
    summary = brought(root, runs)
    assert (summary.kept, summary.rejected) == (2, 1)
    assert ask("select reason from rejections") == [("not_parsed",)]


def test_a_comma_that_is_missing_costs_what_follows_it_and_is_counted(
    tmp_path: Path, runs: Path, ask: Ask
) -> None:
    root = one(tmp_path / "cof")
    record = json.dumps(GOOD)
    (root / "cof_sft_data.json").write_text(f"[{record}, {record} {record}]")
    summary = brought(root, runs)
    assert (summary.kept, summary.rejected) == (2, 1)
    assert ask("select reason from rejections") == [("not_parsed",)]


def test_records_of_another_shape_are_rejected_one_by_one(
    tmp_path: Path, runs: Path, ask: Ask
) -> None:
    look = focus_record("What?", [turn("x", (0, 0, 999, 50)), answer("x", "y")], ["a.png"])
    odd: list[Any] = [GOOD, 7, {"other": 1}, look, [], "é\N{BEAR FACE}\\ud83d", GOOD]
    summary = brought(one(tmp_path / "cof", *odd), runs)
    assert (summary.kept, summary.rejected) == (2, 5)
    assert dict(ask("select reason, count(*) from rejections group by 1")) == {
        "not_parsed": 4,
        "bad_box": 1,
    }


def test_what_changed_since_it_was_listed_is_rejected(tmp_path: Path, runs: Path) -> None:
    root = one(tmp_path / "cof", GOOD, GOOD)
    summary = brought(root, runs, shards=1)
    (root / "images" / "a.png").write_bytes(png(picture(1, (300, 200))))
    listing = f"{summary.run_dir}/listing"
    where = {"dataset": str(root), "layout": "chain-of-focus", "images": None, "listing": listing}
    worker = open_worker(where)
    found = list(
        worker.units(
            Work(
                shard=0,
                entries=range(2),
                crashed=frozenset({"cof_sft_data.json#00000001"}),
                started=lambda key: None,
                ledger=Paper(),
            )
        )
    )
    worker.close()
    assert found[1::2] == [Passed(0), Passed(1)]
    units = [unit for unit in found if isinstance(unit, Unit)]
    reasons = [row["reason"] for unit in units for row in unit.tables["rejections"]]
    assert reasons == ["source_changed", "crashed_worker"]


def test_a_resumed_shard_goes_on_within_a_row_group(tmp_path: Path, runs: Path) -> None:
    root = made.deepeyes_rows(tmp_path / "eyes", answered=True)
    summary = brought(root, runs, shards=1)
    where = {"dataset": str(root), "layout": "deepeyes", "images": None}
    worker = open_worker(where | {"listing": f"{summary.run_dir}/listing"})
    begun: list[str] = []
    rest = worker.units(
        Work(
            shard=0,
            entries=range(1, 3),
            skip=1,
            rows_left=1,
            careful=True,
            started=begun.append,
            ledger=Paper(),
        )
    )
    kept = [unit.key for unit in rest if isinstance(unit, Unit)]
    worker.close()
    assert kept == begun == ["data_0.1.2.parquet#3"]


def test_a_folder_without_records_is_refused_with_what_is_known(tmp_path: Path, runs: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError, match=r"no \.json, \.jsonl or \.parquet") as caught:
        brought(empty, runs)
    assert "chain-of-focus" in str(caught.value.fix) and "visual-cot" in str(caught.value.fix)
    (empty / "odd.json").write_text('{"a": 1}')
    with pytest.raises(ConfigError, match=r"odd\.json \(unknown\)"):
        brought(empty, runs)
    with pytest.raises(ConfigError, match="There is no layout"):
        brought(empty, runs, layout="deepeye")
    with pytest.raises(ConfigError, match="There is no folder"):
        brought(tmp_path / "nowhere", runs)
    assert not any(runs.glob("*/run.json"))


def test_mixed_layouts_must_be_told_apart(tmp_path: Path, runs: Path) -> None:
    root = made.chain_of_focus(tmp_path / "both")
    made.visual_cot_lines(root)
    with pytest.raises(ConfigError, match="more than one layout") as caught:
        brought(root, runs)
    assert "--layout" in str(caught.value.fix)
    summary = brought(root, runs, layout="visual-cot")
    assert summary.kept == 2
    fields = json.loads((Path(summary.run_dir) / "run.json").read_text())
    assert fields["skipped"] == {"other_layout": 2}
    assert brought(root / "cof_sft_data.json", runs).kept == 2, "or by naming one file"


def test_a_zip_that_is_none_is_said_to_be(tmp_path: Path, runs: Path) -> None:
    root = one(tmp_path / "cof", GOOD)
    (root / "images.zip").write_bytes(b"PK no zip")
    with pytest.raises(SourceError, match="not a zip file"):
        brought(root, runs)


@pytest.mark.ray
@pytest.mark.torch
def test_parts_are_the_same_on_ray(tmp_path: Path, runs: Path) -> None:
    root = made.chain_of_focus(tmp_path / "cof")
    here = brought(root, runs, shards=2)
    there = brought(root, tmp_path / "ray", shards=2, workers=2, address="local")
    digests = [
        {(r.shard, r.part): r.sha256 for r in records(storage_at(summary.run_dir))}
        for summary in (here, there)
    ]
    assert here.run_id == there.run_id and digests[0] == digests[1]
