"""Runs of visual prompts: the same rows whoever makes them, whole, provable and shown."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from manifests.database import connect
from pipeline.cli.app import main
from pipeline.config import Config, config_from
from pipeline.errors import ConfigError
from pipeline.geometry import Size
from pipeline.runner.fsck import fsck
from pipeline.runner.rundir import read_run, records
from pipeline.runner.storage import storage_at
from pipeline.shards import Passed, Unit, Work
from pipeline.sources.prompt_folders import read_prompts
from pipeline.synthesis.prompt_check import recheck
from pipeline.synthesis.prompt_export import export_prompts
from pipeline.synthesis.prompt_rows import prompt_of, to_png
from pipeline.synthesis.prompts_worker import open_worker
from pipeline.synthesis.run import Summary, synthesize
from pipeline.visual_prompt import levels
from tests.agent.fakes import Paper

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("synthesis")]

Row = dict[str, Any]
SIZE: Size = (120, 90)
JOINTS = [v for n in range(17) for v in (40 + 2 * n, 20 + 3 * n, 2)]


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained weights: nothing here depends on what is salient."""
    import torch
    from safetensors.torch import save_file

    from pipeline.saliency.u2net import build

    torch.manual_seed(1)
    file = tmp_path_factory.mktemp("net") / "untrained.safetensors"
    save_file(build("u2netp").state_dict(), file)
    return file


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four small pictures: polygons and joints, run lengths, nothing marked, broken."""
    folder = tmp_path_factory.mktemp("coco")
    (folder / "images").mkdir()
    grain = np.random.default_rng(3).integers(0, 255, (9, 12, 3), np.uint8)
    image = Image.fromarray(grain).resize(SIZE, Image.Resampling.BICUBIC)
    names = [f"{number:012d}.jpg" for number in range(7, 11)]
    for name in names:
        image.save(folder / "images" / name)
    (folder / "images" / names[3]).write_bytes(b"\xff\xd8\xff\xe0 no picture")
    square = [[10, 10, 60, 10, 60, 70, 10, 70]]
    runs = {"size": [90, 120], "counts": [90 * 80, 90 * 20, 90 * 20]}
    marks = [
        {"image_id": 7, "id": 70, "segmentation": square, "area": 3000, "keypoints": JOINTS},
        {"image_id": 7, "id": 71, "segmentation": runs, "area": 1800, "iscrowd": 1},
        {"image_id": 8, "id": 80, "segmentation": runs, "area": 1800, "iscrowd": 1},
        {"image_id": 10, "id": 90, "segmentation": square, "area": 3000},
    ]
    file = folder / "marks.json"
    said = {
        "images": [
            {"id": n, "file_name": name, "width": SIZE[0], "height": SIZE[1], "license": 1}
            for n, name in enumerate(names, start=7)
        ],
        "annotations": [{**mark, "category_id": 1} for mark in marks],
        "categories": [{"id": 1, "name": "person"}],
        "licenses": [{"id": 1, "name": "CC0-1.0"}],
    }
    file.write_text(json.dumps(said))
    return f"coco:{folder / 'images'}:{file}"


def settings(source: str, runs: Path, net: Path, *, workers: int = 1, **asked: Any) -> Config:
    prompts = {"task": "both", "net": str(net), "propose": False, **asked}
    run = {"dir": str(runs), "workers": workers}
    return config_from({"source": source, "prompts": prompts, "run": run})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def done(coco: str, runs: Path, net: Path) -> Summary:
    return synthesize(settings(coco, runs, net), "prompts", shards=3, address="none")


def ask(runs: Path, query: str) -> list[tuple[Any, ...]]:
    return connect(runs).execute(query).fetchall()


def digests(summary: Summary) -> dict[tuple[int, int], str]:
    return {(r.shard, r.part): r.sha256 for r in records(storage_at(summary.run_dir))}


def rows(summary: Summary) -> list[dict[str, Any]]:
    files = sorted((Path(summary.run_dir) / "data" / "prompts").glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def test_every_picture_and_task_is_a_row_or_a_rejection(done: Summary, runs: Path) -> None:
    assert (done.kept, done.rejected, done.status) == (3, 5, "done")
    kept = ask(runs, "select sample_id, task, num_objects, level_sizes from prompts order by 1")
    assert kept == [
        ("000000000007.jpg#pose", "pose", 1, [1, 1]),
        ("000000000007.jpg#seg", "seg", 2, [1, 2]),
        ("000000000008.jpg#seg", "seg", 1, [1, 1]),
    ]
    lost = ask(runs, "select sample_id, stage, reason from rejections order by 1")
    assert lost == [
        ("000000000008.jpg#pose", "task", "no_keypoints"),
        ("000000000009.jpg#pose", "task", "no_keypoints"),
        ("000000000009.jpg#seg", "task", "no_objects"),
        ("000000000010.jpg#pose", "decode", "truncated"),
        ("000000000010.jpg#seg", "decode", "truncated"),
    ]


def test_the_rows_are_the_same_for_one_and_two_workers(
    done: Summary, coco: str, net: Path, tmp_path: Path
) -> None:
    config = settings(coco, tmp_path, net, workers=2)
    other = synthesize(config, "prompts", shards=3, address="none")
    assert other.run_id == done.run_id
    assert digests(other) == digests(done)


def test_the_view_tells_what_was_drawn_and_how_long_it_took(done: Summary, runs: Path) -> None:
    ((objects, net, took, license_),) = ask(
        runs,
        "select objects, net, seconds, license from prompts where sample_id like '%7.jpg#seg'",
    )
    assert {one["id"] for one in objects} == {70, 71} and len(net) == 64 and took > 0
    assert license_ == "CC0-1.0" and set(objects[0]) == {
        *("id", "category", "bbox", "saliency", "color"),
    }
    assert ask(runs, "select kind, recipe, status, rows from runs") == [
        ("prompts", "prompts", "done", 3)
    ]


def test_the_dataset_loads_with_every_picture(done: Summary) -> None:
    from datasets import load_dataset

    files = str(Path(done.run_dir) / "data" / "prompts" / "*.parquet")
    row = load_dataset("parquet", data_files=files, split="train")[0]
    assert row["image"].size == row["saliency"].size == SIZE
    assert row["saliency"].mode == "L"
    assert [frame.size for frame in row["frames"]] == [SIZE, SIZE]
    assert np.asarray(row["frames"][-1]).any()


def decoded(row: Row, one: Row) -> np.ndarray:
    """An object's mask as COCO's own code reads it."""
    from pycocotools import mask

    found: np.ndarray = mask.decode({"size": [row["height"], row["width"]], "counts": one["rle"]})
    return found


def test_an_outline_is_what_coco_reads(done: Summary) -> None:
    (row,) = (row for row in rows(done) if row["sample_id"] == "000000000008.jpg#seg")
    (found,) = row["objects"]
    assert decoded(row, found).sum() == 1800 and found["bbox"] == [80, 0, 100, 90]


def test_a_sound_run_is_proven(done: Summary) -> None:
    assert not fsck(done.run_dir).problems
    found = recheck(done.run_dir)
    assert found.holds and (found.rows, found.frames, found.maps) == (3, 6, 3)


LIES: dict[str, tuple[Any, str]] = {
    "level_sizes": (lambda row: [2, 2], "level_sizes is"),
    "saliency_scores": (lambda row: [9.0, 1.0], "saliency_scores is"),
    "saliency_peak": (lambda row: row["saliency_peak"] * 2, "the map says"),
    "frames": (lambda row: row["frames"][::-1], "is not what its objects look like"),
    "image_sha256": (lambda row: "0" * 64, "image_sha256 is"),
    "width": (lambda row: 121, "size is"),
    "objects": (lambda row: row["objects"][::-1], "the order of the scores"),
    "num_objects": (lambda row: 3, "num_objects is"),
    "flat_saliency": (lambda row: True, "said to be flat"),
}


def changed(done: Summary, copy: Path, change: Callable[[Row], Row]) -> Path:
    """A copy of the run whose first segmentation is another."""
    shutil.copytree(done.run_dir, copy)
    file = sorted((copy / "data" / "prompts").glob("*.parquet"))[0]
    table = pq.read_table(file)
    rows = table.to_pylist()
    place = next(place for place, row in enumerate(rows) if row["task"] == "seg")
    rows[place] = change(rows[place])
    pq.write_table(table.from_pylist(rows, table.schema), file)
    return copy


@pytest.mark.parametrize("column", LIES)
def test_a_lie_in_any_column_is_found(done: Summary, column: str, tmp_path: Path) -> None:
    lie, said = LIES[column]
    found = recheck(changed(done, tmp_path / "run", lambda row: row | {column: lie(row)}))
    assert not found.holds and any(said in problem for problem in found.problems)


def test_a_map_that_the_network_never_made_is_found(done: Summary, tmp_path: Path) -> None:
    """All that follows from a map follows from this one, too."""

    def even(row: Row) -> Row:
        areas = [float(decoded(row, one).sum()) for one in row["objects"]]
        told = sorted(zip(areas, row["objects"], strict=True), key=lambda pair: -pair[0])
        objects = [one | {"saliency": area * row["saliency_peak"]} for area, one in told]
        frames = levels(prompt_of(row | {"objects": objects}), SIZE)
        return row | {
            "saliency": {"bytes": to_png(np.full(SIZE[::-1], 255, np.uint8)), "path": None},
            "objects": objects,
            "saliency_scores": [one["saliency"] for one in objects],
            "frames": [{"bytes": to_png(frame), "path": None} for frame in frames],
        }

    (problem,) = recheck(changed(done, tmp_path / "run", even)).problems
    assert "what the network says" in problem


def test_only_what_makes_the_rows_names_the_run(
    done: Summary, coco: str, runs: Path, net: Path, tmp_path: Path
) -> None:
    def run_id(config: Config, kind: Any = "prompts") -> str:
        return synthesize(config, kind, shards=3, dry_run=True).run_id

    config = settings(coco, runs, net)
    assert synthesize(config, "prompts", shards=3, dry_run=True).continued
    moved = shutil.copy(net, tmp_path / "elsewhere.safetensors")
    asked = config.model_copy(update={"task": config.task.model_copy(update={"per_image": 3})})
    unseen = settings(coco, runs, Path(moved), grid=9, thin=False)
    assert {run_id(asked), run_id(unseen)} == {done.run_id}
    proposing = [settings(coco, runs, Path(where), propose=True) for where in (net, moved)]
    assert len({run_id(one) for one in proposing}) == 1
    others = [
        settings(coco, runs, net, levels=3),
        settings(coco, runs, net, propose=True),
        config.model_copy(update={"seed": 1}),
        settings(coco, runs, net, role="query"),
    ]
    ids = [run_id(other) for other in others]
    assert len({*ids, done.run_id}) == 5 and ids[-1].startswith("queries-")
    plain = config_from({"source": coco, "run": {"dir": str(runs)}})
    assert run_id(config, "trajectories") == run_id(plain, "trajectories")
    assert config_from({"recipe": "mine"}).recipe == "mine"


def test_a_missing_network_is_said_before_anything_is_made(coco: str, tmp_path: Path) -> None:
    from pipeline.errors import ModelError

    with pytest.raises(ModelError, match="no checkpoint"):
        synthesize(settings(coco, tmp_path, Path("nowhere")), "prompts", address="none")
    assert not list(tmp_path.glob("*/run.json"))


def test_rows_stops_at_exactly_so_many(coco: str, net: Path, tmp_path: Path) -> None:
    config = settings(coco, tmp_path, net)
    summary = synthesize(config, "prompts", shards=1, rows=1, address="none")
    assert summary.kept == 1 == len(rows(summary))


def test_a_picture_that_killed_two_workers_is_rejected_for_each_task(
    done: Summary, coco: str, runs: Path, net: Path
) -> None:
    listing = str(Path(done.run_dir) / "listing")
    config = settings(coco, runs, net).describe()
    worker = open_worker({"config": config, "source": coco, "listing": listing})
    begun: list[str] = []
    crashed = frozenset({"000000000007.jpg"})
    work = Work(0, range(1), ledger=Paper(), started=begun.append, crashed=crashed)
    unit, passed = worker.units(work)
    assert isinstance(unit, Unit) and passed == Passed(0)
    told = [(row["sample_id"], row["reason"]) for row in unit.tables["rejections"]]
    assert told == [(f"000000000007.jpg#{task}", "crashed_worker") for task in ("seg", "pose")]
    assert unit.kept == 0 and not begun


def test_the_frames_come_out_as_published_folders_have_them(done: Summary, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="both tasks"):
        export_prompts(done.run_dir, tmp_path / "none")
    assert export_prompts(done.run_dir, tmp_path / "seg", task="seg", full=True) == 2
    found = read_prompts(tmp_path / "seg")
    assert {stem: len(steps) for stem, steps in found.items()} == {
        "000000000007": 2,
        "000000000008": 2,
    }
    assert (tmp_path / "seg" / "000000000007.jpg").exists()


def test_frames_of_one_name_in_two_folders_are_told_apart(done: Summary, tmp_path: Path) -> None:
    moved = changed(done, tmp_path / "run", lambda row: row | {"image_id": "b/000000000008.jpg"})
    assert export_prompts(moved, tmp_path / "out", task="seg") == 2
    stems = set(read_prompts(tmp_path / "out"))
    assert stems == {"000000000008.jpg", "b-000000000008.jpg"}


def test_queries_are_a_run_of_their_own_and_may_show_nothing(
    coco: str, net: Path, tmp_path: Path
) -> None:
    config = settings(coco, tmp_path, net, task="seg", role="query")
    summary = synthesize(config, "prompts", shards=1, address="none")
    assert (summary.kept, summary.rejected) == (3, 1)
    shown = {row["image_id"]: len(row["frames"]) for row in rows(summary)}
    assert shown == {"000000000007.jpg": 2, "000000000008.jpg": 2, "000000000009.jpg": 0}
    assert {row["role"] for row in rows(summary)} == {"query"}
    assert recheck(summary.run_dir).holds
    assert export_prompts(summary.run_dir, tmp_path / "truth") == 2


def test_drawn_pictures_get_what_the_segmenter_finds(net: Path, tmp_path: Path) -> None:
    config = settings("scenes:1@320x240", tmp_path, net, propose=True, task="seg", grid=8)
    summary = synthesize(config, "prompts", shards=1, address="none")
    assert summary.kept == 1
    (row,) = rows(summary)
    assert row["segmenter"] and row["num_objects"] > 1
    assert recheck(summary.run_dir).holds


def cofpipe(*arguments: str, code: int = 0) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*arguments])
    assert (stopped.value.code or 0) == code


def test_a_prompt_can_be_shown_drawn_and_checked(
    done: Summary, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--runs-dir", str(runs))
    cofpipe("show", "000000000007.jpg#seg", *where)
    assert "marked by the source" in capsys.readouterr().out
    cofpipe("show", "000000000007.jpg#pose", *where, "--draw", str(tmp_path / "strip.png"))
    assert Image.open(tmp_path / "strip.png").width == 1600
    cofpipe("report", *where, "-o", str(tmp_path / "page.html"))
    assert "level 2 of 2: 2 of 2" in (tmp_path / "page.html").read_text()
    cofpipe("fsck", "--recheck", *where)
    assert "6 frames drawn again" in capsys.readouterr().err
    cofpipe("prompts", "--task", "pose", "--out", str(tmp_path / "pose"), *where)
    assert len(list((tmp_path / "pose").glob("*.jpg"))) == 2


def test_both_kinds_are_two_runs_of_one_command(
    net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = [f"prompts.net={net}", "prompts.propose=false", "task.budgets=224", "task.per_image=1"]
    words = [word for one in sets for word in ("--set", one)]
    asked = ["scenes:1@640x480", "--kind", "all", "--shards", "1", "--address", "none"]
    rate = ["--max-reject-rate", "0.5"]
    cofpipe("synthesize", *asked, *words, *rate, "--json", "--runs-dir", str(tmp_path), code=3)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["run_id"].partition("-")[0] for one in told] == ["needles", "prompts"]
    assert (told[1]["kept"], told[1]["rejected"]) == (0, 1)
    kinds = [read_run(storage_at(one["run_dir"]))["kind"] for one in told]
    assert kinds == ["trajectories", "prompts"]
