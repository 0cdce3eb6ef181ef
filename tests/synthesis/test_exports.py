"""Exports load as what they are, say what `render` says, and show what the recheck derives."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import Dataset, load_dataset
from datasets.table import InMemoryTable
from PIL import Image

from pipeline.agent.families import FAMILIES
from pipeline.errors import CheckFailed, ConfigError
from pipeline.geometry import Box, Frame
from pipeline.grammar import TOOL_NAME, parse
from pipeline.runner.parts import Part
from pipeline.runner.rundir import Record, publish, write_run
from pipeline.runner.storage import LocalStorage
from pipeline.samples import Sample, Truth, rng_for
from pipeline.shards import Unit
from pipeline.sources.base import Picture
from pipeline.sources.decode import decode, encode
from pipeline.sources.published.chain_of_focus import LAYOUT
from pipeline.synthesis import rows as columns
from pipeline.synthesis.export_rows import split_of
from pipeline.synthesis.exports import Export, Exported, export
from pipeline.synthesis.tasks import Prepared, Problem
from pipeline.synthesis.worker import schemas
from pipeline.trajectory import FocusStep, Trajectory, render
from pipeline.views import first_view, look_at, whole_at, zoomed

Row = dict[str, Any]
Write = Callable[..., Path]
QWEN = FAMILIES["qwen2.5-vl"]
SIZE = (701, 503)
"""(width, height): no multiple of 28, so a view's pixels are not the source's."""
BOXES = (Box(100, 60, 340, 301), Box(611, 402, 650, 447), Box(1, 2, 30, 31))
TRAINERS = ("trl", "llamafactory", "verl")


@cache
def picture(number: int) -> bytes:
    """A published picture: soft blotches, each its own."""
    coarse = rng_for(number, "export").integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return encode(Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC))


def path(number: int = 0, resolution: int = 448, looks: Sequence[Sequence[Box]] = ()) -> Trajectory:
    """A path with a step for each group of boxes, all of them zoomed."""
    steps = tuple(
        FocusStep(
            f"Look {place}.",
            tuple(boxes),
            (True,) * len(boxes),
            label="a sign",
            observation=look_at(SIZE, boxes[-1], resolution, 0),
        )
        for place, boxes in enumerate(looks, start=1)
    )
    return Trajectory(
        sample_id=f"{number:03d}#0",
        resolution=resolution,
        rollout=0,
        view=whole_at(SIZE, resolution),
        steps=steps,
        final_thought="It is blue.",
        answer="blue",
        finish="answered",
        policy="test",
        verified=True,
    )


def sample(number: int = 0, question: str = "What colour is it?") -> Sample:
    image = decode(picture(number))
    return Sample(f"{number:03d}#0", f"{number:03d}", image, SIZE, question, ("blue", "red"))


def row(told: Trajectory, asked: Sample, **changes: Any) -> Row:
    """The row of `trajectories` that the run's own writer makes of a path."""
    number = int(asked.image_id)
    sha256 = hashlib.sha256(picture(number)).hexdigest()
    prepared = Prepared(asked.image, picture(number), sha256, f"source-{number}", (), "needle")
    truth = Truth(asked.sample_id, "blue", (BOXES[1],))
    made = columns.trajectory_row(
        told,
        Problem(asked, truth, "read"),
        prepared,
        Picture(asked.image_id, source="test"),
        prompt_sha256="",
        same_view_as=None,
        crops=[None] * len(told.steps),
    )
    return made | changes


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Commit rows as a run."""

    def commit(*rows: Row) -> Path:
        storage = LocalStorage(tmp_path / "run")
        write_run(storage, {"run_id": "run", "kind": "trajectories"})
        schema = schemas()["trajectories"]
        stamp = {"shard": 0, "part": 0, "attempt": "a0"}
        part = Part(storage, {"trajectories": schema}, "trajectories", stamp)
        part.add(Unit("p", len(rows), {"trajectories": list(rows)}))
        files = part.finish()
        at = datetime(2026, 1, 1, tzinfo=UTC)
        counts = (len(rows), 0, sum(f.bytes for f in files), "", 0.0, "w", at, 0, 0, 1, 0, True)
        assert publish(storage, Record("run", "trajectories", *stamp.values(), files, *counts))
        return tmp_path / "run"

    return commit


def several(
    count: int = 6, looks: Sequence[Sequence[Box]] = ((BOXES[0],), (BOXES[1],))
) -> list[Row]:
    """A row about each of so many pictures at two budgets."""
    budgets = (224, 448)
    return [row(path(n, r, looks), sample(n)) for n in range(count) for r in budgets]


def loaded(out: Path, split: str = "train") -> list[Row]:
    """The rows as `datasets` decodes them by the files' own metadata."""
    files = sorted((out / "data").glob(f"{split}-*.parquet"))
    return list(Dataset(InMemoryTable(pa.concat_tables(map(pq.read_table, files)))))


def listed(out: Path, name: str = "train") -> list[Row]:
    rows: list[Row] = json.loads((out / f"{name}.json").read_text("utf-8"))
    return rows


def texts(messages: Sequence[Row]) -> list[tuple[str, list[str | None]]]:
    """(role, texts) of a chat, None where a picture stands."""
    return [
        (m["role"], [b["text"] if b["type"] == "text" else None for b in m["content"]])
        for m in messages
    ]


def tree(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


@pytest.mark.parametrize("profile", ["cof-v2", "cof-v1"])
@pytest.mark.parametrize("family", ["qwen2.5-vl", "qwen3-vl"])
def test_the_turns_are_those_of_render_byte_for_byte(
    profile: Any, family: str, write: Write, tmp_path: Path
) -> None:
    told = path(0, 448, [BOXES[:2], BOXES[2:]])
    frame = FAMILIES[family].frame(SIZE, told.view.size)
    chat = render(sample(), told, profile, frame)
    run = write(row(told, sample()))
    asked = Export("trl", profile=profile, family=family, split=0)
    assert export(run, tmp_path / "trl", asked).rows == {"train": 1}
    (shown,) = loaded(tmp_path / "trl")
    assert texts(shown["messages"]) == texts(chat)
    export(run, tmp_path / "lf", replace(asked, trainer="llamafactory"))
    (shown,) = listed(tmp_path / "lf")
    flat = "".join(text or "<image>" for _, said in texts(chat) for text in said)
    assert "".join(turn["content"] for turn in shown["messages"]) == flat
    export(run, tmp_path / "rl", replace(asked, kind="rl"))
    (shown,) = loaded(tmp_path / "rl")
    assert texts(shown["prompt"]) == texts(chat)[:2]


def test_every_picture_is_cut_from_the_source_by_the_observation_law(
    write: Write, tmp_path: Path
) -> None:
    told = path(0, 448, [BOXES[:2], BOXES[2:]])
    export(write(row(told, sample())), tmp_path / "out", Export("trl", split=0))
    ((*shown,),) = [r["images"] for r in loaded(tmp_path / "out")]
    source = decode(picture(0))
    views = [first_view(source, 448), *(zoomed(source, box, 448, 0) for box in BOXES)]
    assert len(shown) == len(views)
    for found, view in zip(shown, views, strict=True):
        assert np.array_equal(np.asarray(found), view.pixels)


@pytest.mark.parametrize("family", ["qwen2-vl", "qwen2.5-vl", "qwen3-vl", "internvl"])
def test_boxes_come_back_within_a_pixel_of_what_the_model_counts_in(
    family: str, write: Write, tmp_path: Path
) -> None:
    boxes = [*BOXES, Box(0, 0, *SIZE), Box(690, 490, *SIZE), Box(400, 250, 401, 251)]
    run = write(row(path(0, 672, [[box] for box in boxes]), sample()))
    export(run, tmp_path / "out", Export("llamafactory", family=family, split=0))
    (shown,) = listed(tmp_path / "out")
    said = [turn["content"] for turn in shown["messages"] if turn["role"] == "assistant"][:-1]
    kind = FAMILIES[family].kind
    seen = Image.open(tmp_path / "out" / "images" / shown["images"][0]).size
    frame = Frame(kind, SIZE, seen if kind == "pixels" else None)
    for text, box in zip(said, boxes, strict=True):
        (call,) = parse(text, "cof-v2").calls
        off = np.subtract(call.box, box.to_frame(frame))
        assert np.abs(off).max() <= 1
        back = np.subtract(Box.from_frame(call.box, frame).as_list(), box.as_list())
        assert np.abs(back).max() <= max(1, *(1 / s for s in frame.axes()[:2]))


def test_a_view_that_the_model_enlarges_has_boxes_of_what_it_then_sees() -> None:
    assert QWEN.frame((400, 300), (28, 28)).view == (56, 56)
    assert QWEN.frame((400, 300), (448, 336)).view == (448, 336)


@pytest.mark.parametrize("profile", ["cof-v2", "cof-v1"])
def test_llamafactory_finds_a_picture_for_every_mark_and_turns_that_alternate(
    profile: Any, write: Write, tmp_path: Path
) -> None:
    run = write(*several(4, (BOXES[:2], BOXES[2:])), row(path(9), sample(9)))
    out = tmp_path / "out"
    done = export(run, out, Export("llamafactory", profile=profile, split=0))
    info = json.loads((out / "dataset_info.json").read_text())
    assert set(info) == {"cofpipe_train", "cofpipe_train_conversations"}
    both = [listed(out, Path(info[name]["file_name"]).stem) for name in sorted(info)]
    pictures = 0
    for by_role, by_speaker in zip(*both, strict=True):
        turns = [turn for turn in by_role["messages"] if turn["role"] != "system"]
        assert [t["role"] for t in turns] == ["user", "assistant"] * (len(turns) // 2)
        assert [t["from"] for t in by_speaker["conversations"]] == ["human", "gpt"] * (
            len(turns) // 2
        )
        assert [t["value"] for t in by_speaker["conversations"]] == [t["content"] for t in turns]
        assert by_speaker["system"] == by_role["messages"][0]["content"]
        assert by_speaker["images"] == by_role["images"]
        assert sum(t["content"].count("<image>") for t in turns) == len(by_role["images"])
        for name in by_role["images"]:
            Image.open(out / "images" / name).verify()
            pictures += 1
    assert pictures == done.pictures == 4 * 2 * 4 + 1
    settings = yaml.safe_load((out / "settings.yaml").read_text())
    areas = [np.prod(Image.open(file).size) for file in (out / "images").rglob("*.png")]
    assert (settings["image_max_pixels"], settings["image_min_pixels"]) == (max(areas), min(areas))
    assert settings["dataset"] in info and settings["template"] == "qwen2_vl"


@pytest.mark.parametrize("profile", ["cof-v2", "cof-v1"])
def test_the_published_layout_reads_back_what_was_exported(
    profile: Any, write: Write, tmp_path: Path
) -> None:
    told = path(0, 448, [BOXES[:1], BOXES[1:2]])
    run = write(row(told, sample()))
    export(run, tmp_path / "out", Export("llamafactory", profile=profile, split=0))
    (record,) = listed(tmp_path / "out")
    if profile == "cof-v1":
        for turn in record["messages"][2:]:
            turn["content"] = turn["content"].replace("<image>", "")
    assert LAYOUT.recognises(record)
    read = LAYOUT.read(record)
    assert (read.question, read.options) == ("What colour is it?", ("blue", "red"))
    assert (read.answer, read.final_thought) == ("blue", "It is blue.")
    frame = QWEN.frame(SIZE, told.view.size)
    assert [tuple(look.boxes[0]) for look in read.looks] == [b.as_written(frame) for b in BOXES[:2]]
    assert len(read.pictures) == 3


def test_verl_is_given_prompts_truth_and_what_its_tool_opens(write: Write, tmp_path: Path) -> None:
    told = path(0, 448, [BOXES[:1]])
    run, out = write(row(told, sample())), tmp_path / "out"
    export(run, out, Export("verl", split=0))
    (shown,) = loaded(out)
    frame = QWEN.frame(SIZE, told.view.size)
    assert [turn["role"] for turn in shown["prompt"]] == ["system", "user"]
    assert shown["prompt"][1]["content"].count("<image>") == len(shown["images"]) == 1
    assert shown["reward_model"] == {"style": "rule", "ground_truth": "blue"}
    assert (shown["agent_name"], shown["ability"]) == ("tool_agent", "vision")
    extra = shown["extra_info"]
    assert (extra["index"], extra["split"], extra["answer"]) == (0, "train", "blue")
    assert extra["target_boxes"] == [list(BOXES[1].as_written(frame))]
    opened = extra["tools_kwargs"][TOOL_NAME]["create_kwargs"]
    data = {name: base64.b64decode(uri.partition(",")[2]) for name, uri in opened.items()}
    assert data["source"] == picture(0)
    view = np.asarray(Image.open(io.BytesIO(data["image"])))
    assert np.array_equal(view, np.asarray(shown["images"][0]))
    (tool,) = yaml.safe_load((out / "tools.yaml").read_text())["tools"]
    assert tool["tool_schema"]["function"]["name"] == TOOL_NAME


def test_an_answer_that_is_a_box_is_rewarded_in_the_models_own_numbers(
    write: Write, tmp_path: Path
) -> None:
    asked = sample(0, "Where is it? Answer with its box.")
    target = json.dumps([int(v) for v in BOXES[1].as_list()])
    told = replace(path(0, 448), answer=target)
    run = write(row(told, asked, target=target))
    export(run, tmp_path / "out", Export("trl", kind="rl", split=0))
    (shown,) = loaded(tmp_path / "out")
    frame = QWEN.frame(SIZE, told.view.size)
    assert json.loads(shown["target"]) == list(BOXES[1].as_written(frame))
    assert json.loads(shown["target"]) == shown["target_boxes"][0] and shown["options"]
    assert np.array_equal(np.asarray(shown["source_image"]), np.asarray(asked.image))


def test_rollouts_and_budgets_of_one_view_share_a_prompt(write: Write, tmp_path: Path) -> None:
    first = row(path(), sample())
    again = row(replace(path(), rollout=1), sample())
    same = first | {"resolution": 672, "same_view_as": 448}
    run = write(first, again, same, row(path(1), sample(1)))
    done = export(run, tmp_path / "rl", Export("trl", kind="rl", split=0))
    assert (done.rows, done.left_out) == ({"train": 2}, {"same_prompt": 2})
    assert export(run, tmp_path / "sft", Export("trl", split=0)).rows == {"train": 4}


def test_what_cannot_be_exported_is_told_row_by_row(write: Write, tmp_path: Path) -> None:
    good = row(path(0, 448, [BOXES[:1]]), sample())
    (step,) = good["steps"]
    bad = {
        "not_verified": good | {"verified": None},
        "weight": good | {"weight": 0.0},
        "picture": good | {"image": {"bytes": picture(0)[:99], "path": "p"}},
        "view": good | {"view_w": 28},
        "box": good | {"steps": [step | {"boxes": [[-90, 0, -10, 60]]}]},
        "box 3": good | {"steps": [step | {"boxes": [[1, 2, 3]]}]},
        "box 0": good | {"steps": [step | {"zoomed": [True, False]}]},
        "not_said": good | {"final_thought": "It says <image>."},
    }
    rows = [r | {"sample_id": f"{name}#0"} for name, r in bad.items()]
    done = export(write(*rows, good), tmp_path / "out", Export("trl", split=0))
    assert done.rows == {"train": 1} and sum(done.left_out.values()) == len(bad)
    lines = (tmp_path / "out" / "left_out.jsonl").read_text().splitlines()
    told = {line["sample_id"]: line["reason"] for line in map(json.loads, lines)}
    assert told == {f"{name}#0": name.split()[0] for name in bad}
    everything = export(
        tmp_path / "run", tmp_path / "all", Export("trl", split=0, only_verified=False)
    )
    assert everything.rows == {"train": 2}
    with pytest.raises(ConfigError, match="Not one row"):
        export(tmp_path / "run", tmp_path / "none", Export("trl", min_weight=2))
    assert not list(tmp_path.glob(".*")) and not (tmp_path / "none").exists()


def test_splits_go_by_source_picture_and_stay_when_rows_are_added(
    write: Write, tmp_path: Path
) -> None:
    run, out = write(*several(12)), tmp_path / "out"
    done = export(run, out, Export("trl", split=0.4))
    assert sum(done.rows.values()) == 24 and min(done.rows.values()) >= 2
    whole = load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    held = [{r["image_id"] for r in whole[split]} for split in ("train", "validation")]
    assert not held[0] & held[1] and len(held[0] | held[1]) == 12
    assert all(split_of(f"source-{int(i)}", 0.4) == "validation" for i in held[1])
    share = sum(split_of(str(n), 0.05) == "validation" for n in range(20_000)) / 20_000
    assert share == pytest.approx(0.05, abs=0.006)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_second_export_is_the_same_to_the_byte_and_a_third_finds_it(
    trainer: Any, write: Write, tmp_path: Path
) -> None:
    run, asked = write(*several(3)), Export(trainer, split=0.4)
    first = export(run, tmp_path / "one", asked)
    assert export(run, tmp_path / "two", asked) == first and not first.stood
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert export(run, tmp_path / "one", asked) == replace(first, stood=True)
    with pytest.raises(ConfigError, match="another export: its split"):
        export(run, tmp_path / "one", replace(asked, split=0.5))
    (damaged, *_) = sorted((tmp_path / "one").rglob("*.p[na]*"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    with pytest.raises(CheckFailed, match="damaged"):
        export(run, tmp_path / "one", asked)


def test_jpeg_pictures_are_smaller_and_nearly_the_same(write: Write, tmp_path: Path) -> None:
    run = write(row(path(0, 672, [BOXES[:1]]), sample()))
    sizes = []
    for kind in ("png", "jpeg"):
        export(run, tmp_path / kind, Export("llamafactory", split=0, pictures=kind))
        files = sorted((tmp_path / kind / "images").rglob("*.[pj]*g"))
        sizes.append(sum(file.stat().st_size for file in files))
        shown = np.asarray(Image.open(files[0]), np.int16)
        assert np.abs(shown - first_view(decode(picture(0)), 672).pixels).mean() < 3
    assert sizes[1] < sizes[0]


def test_an_export_that_is_killed_leaves_nothing_and_the_next_one_tidies_up(
    write: Write, tmp_path: Path
) -> None:
    run, out = write(*several(8)), tmp_path / "made" / "out"
    words = (
        "from pathlib import Path; from pipeline.synthesis.exports import Export, export;"
        f"export({str(run)!r}, Path({str(out)!r}), Export('llamafactory'))"
    )
    child = subprocess.Popen([sys.executable, "-c", words])
    while not list(tmp_path.glob("made/.out.*/images/*/*.png")):
        assert child.poll() is None
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not out.exists() and len(list(out.parent.iterdir())) == 1
    export(run, out, Export("llamafactory"))
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Export("trrl"), "no trainer"),  # type: ignore[arg-type]
        (Export("verl", kind="sft"), "--trainer trl or --trainer llamafactory"),
        (Export("llamafactory", kind="rl"), "--trainer trl or --trainer verl"),
        (Export("trl", split=1), "share"),
        (Export("trl", family="llava"), "taught no boxes"),
        (Export("trl", family="qwen9"), "no family"),
        (Export("trl", profile="cof-v3"), "no profile"),
        (Export("verl", profile="cof-v1"), "special tokens"),
    ],
)
def test_what_no_trainer_can_be_given_is_refused(
    asked: Export, said: str, write: Write, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        export(write(row(path(), sample())), tmp_path / "out", asked)


def test_a_folder_of_something_else_is_left_alone(write: Write, tmp_path: Path) -> None:
    run = write(row(path(), sample()))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(ConfigError, match="not empty"):
        export(run, tmp_path / "mine", Export("trl"))
    (tmp_path / "mine" / "manifest.json").write_text("[]")
    with pytest.raises(ConfigError, match="something else"):
        export(run, tmp_path / "mine", Export("trl"))


@pytest.mark.parametrize(
    ("trainer", "kind"), [("trl", "sft"), ("trl", "rl"), ("llamafactory", "sft"), ("verl", "rl")]
)
def test_every_export_loads_by_itself_and_shows_its_pictures(
    trainer: Any, kind: Any, write: Write, tmp_path: Path
) -> None:
    out, cache_dir = tmp_path / "out", str(tmp_path / "cache")
    done = export(write(*several(2)), out, Export(trainer, kind, split=0))
    if trainer == "llamafactory":
        files = {"train": str(out / "train.json")}
        rows = load_dataset("json", data_files=files, split="train", cache_dir=cache_dir)
        shown = [Image.open(out / "images" / name) for r in rows for name in r["images"]]
    else:
        rows = load_dataset(str(out), split="train", cache_dir=cache_dir)
        shown = [image for r in rows for image in r["images"]]
    assert len(rows) == done.rows["train"] == 4 and len(shown) == done.pictures
    assert all(np.asarray(image).any() and image.mode == "RGB" for image in shown)


@pytest.mark.torch
def test_a_real_run_loads_and_shows_what_its_steps_were_made_of(tmp_path: Path) -> None:
    from manifests.database import query
    from pipeline.config import config_from
    from pipeline.synthesis.recheck import recheck
    from pipeline.synthesis.run import synthesize

    settings = {"source": "scenes:2", "task": {"budgets": [224, 672]}}
    config = config_from({**settings, "run": {"dir": str(tmp_path / "runs")}})
    made = synthesize(config, shards=1, address="none")
    assert recheck(made.run_dir).holds
    done: Exported = export(made.run_dir, tmp_path / "out", Export("trl", split=0))
    assert done.rows == {"train": made.kept} and not done.left_out
    sql = "select sample_id, resolution, step, crop_sha256 from steps where zoomed order by all"
    steps = query(tmp_path / "runs", sql, made.run_id).to_pylist()
    shown: list[tuple[Any, ...]] = []
    found_rows = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "c"))
    for found in found_rows:
        marks = [
            block for m in found["messages"] for block in m["content"] if block["type"] == "image"
        ]
        assert len(marks) == len(found["images"])
        for place, image in enumerate(found["images"][1:], start=1):
            digest = hashlib.sha256(np.asarray(image).tobytes()).hexdigest()
            shown.append((found["sample_id"], found["resolution"], place, digest))
        roles = [m["role"] for m in found["messages"]]
        assert all(a != b for a, b in pairwise(roles)) and roles[-1] == "assistant"
    assert sorted(shown) == [tuple(step.values()) for step in steps] and shown
