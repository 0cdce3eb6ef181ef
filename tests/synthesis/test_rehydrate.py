"""Data without pixels comes back bit for bit from the sources, or it does not come back."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from PIL import Image

from pipeline.config import Task, TaskKind
from pipeline.errors import BadImage, CheckFailed, ConfigError
from pipeline.geometry import Box
from pipeline.runner.parts import Part
from pipeline.runner.rundir import Record, publish, write_run
from pipeline.runner.storage import LocalStorage
from pipeline.samples import rng_for
from pipeline.shards import Unit
from pipeline.sources.base import Asked, Entry, Picture
from pipeline.sources.decode import encode
from pipeline.sources.scenes import ScenesSource
from pipeline.synthesis import rows as columns
from pipeline.synthesis.export_files import sealed
from pipeline.synthesis.exports import Export, export, manifest_of
from pipeline.synthesis.licences import closed_by
from pipeline.synthesis.pixel_recipes import (
    Origin,
    PixelRecipe,
    drawing_versions,
    published,
    recipe_of,
)
from pipeline.synthesis.recipe_folder import PICTURES, read_recipes
from pipeline.synthesis.rehydrate import Restored, rehydrate
from pipeline.synthesis.tasks import Prepared, prepare, problems_of
from pipeline.synthesis.worker import schemas
from pipeline.trajectory import FocusStep, Trajectory
from pipeline.views import look_at, whole_at
from tests.scenes.pictures import photograph, with_objects
from tests.scenes.test_surfaces import street
from tests.sources.pictures import encoded
from tests.synthesis.test_puzzles import regions

Row = dict[str, Any]
SEED, BUDGETS = 3, (224,)
SIZE = (400, 320)
SCENES = ScenesSource(2, SEED, (320, 256))
EXPORTS = (("trl", "sft"), ("trl", "rl"), ("llamafactory", "sft"), ("verl", "rl"))


@cache
def file(number: int) -> bytes:
    """A source file: blotches as PNG; the second one a JPEG that says where it was taken."""
    coarse = rng_for(number, "rehydrate").integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC)
    if number != 1:
        return encoded(image)
    exif = Image.Exif()
    exif.get_ifd(0x8825)[1] = "N"
    exif[0x8825] = exif.get_ifd(0x8825)
    return encoded(image, "JPEG", exif=exif)


def prepared_of(picture: Picture, kind: TaskKind, segmenter: Any = None) -> Prepared:
    """A picture as a run publishes it; `written` with a question, as a model would write it."""
    ready = prepare(picture, Task(kind=(kind,), budgets=BUDGETS), SEED, segmenter)
    if kind != "written":
        return ready
    asked = [Asked("What colour is it?", "blue", boxes=(Box(90, 80, 200, 170),), task="written")]
    return replace(ready, problems=problems_of(picture.image_id, ready.image, asked))


def row(picture: Picture, kind: TaskKind, segmenter: Any = None, **changes: Any) -> Row:
    """The row of a path with one look at the picture's first question."""
    ready = prepared_of(picture, kind, segmenter)
    problem = ready.problems[0]
    size, box = ready.image.size, problem.truth.target_boxes[0]
    look = FocusStep("Closer.", (box,), (True,), observation=look_at(size, box, BUDGETS[0], 0))
    told = Trajectory(
        sample_id=problem.sample.sample_id,
        resolution=BUDGETS[0],
        rollout=0,
        view=whole_at(size, BUDGETS[0]),
        steps=(look,),
        final_thought="It can be read.",
        answer=problem.truth.target,
        finish="answered",
        policy="test",
        verified=True,
    )
    made = columns.trajectory_row(
        told, problem, ready, picture, prompt_sha256="", same_view_as=None, crops=[None]
    )
    return made | changes


def commit(root: Path, rows: Sequence[Row], **told: Any) -> Path:
    """The rows as a run that says what its pictures follow from."""
    storage = LocalStorage(root)
    config = {"source": "scenes:2@320x256", "task": {"budgets": list(BUDGETS)}}
    run = {"run_id": "run", "kind": "trajectories", "seed": SEED, "config": config}
    write_run(storage, run | {"drawn_with": dict(drawing_versions())} | told)
    stamp = {"shard": 0, "part": 0, "attempt": "a0"}
    schema = {"trajectories": schemas()["trajectories"]}
    part = Part(storage, schema, "trajectories", stamp)
    part.add(Unit("p", len(rows), {"trajectories": list(rows)}))
    files, at = part.finish(), datetime(2026, 1, 1, tzinfo=UTC)
    counts = (len(rows), 0, sum(f.bytes for f in files), "", 0.0, "w", at, 0, 0, 1, 0, True)
    assert publish(storage, Record("run", "trajectories", *stamp.values(), files, *counts))
    return root


@cache
def found(number: int) -> Picture:
    """A picture as its source gave it: 0 to 2 files, 3 a scene."""
    if number == 3:
        return next(iter(SCENES.pictures(Entry("000001", 0, ""))))
    name = f"{number}.jpg" if number == 1 else f"{number}.png"
    return Picture(name, data=file(number), source="folder:mine")


@cache
def several() -> tuple[Row, ...]:
    """A composite, a file without its GPS, a file as it was, a scene with tags; one is wrong."""
    kinds: tuple[TaskKind, ...] = ("needles", "written", "written", "needles")
    rows = [row(found(n), kind) for n, kind in enumerate(kinds)]
    return (*rows, rows[0] | {"sample_id": "0.png#9", "verified": False})


def copies(root: Path, *numbers: int) -> Path:
    """A user's own copy, where nothing lies or is called as it was."""
    (root / "far" / "down").mkdir(parents=True)
    for number in numbers or range(3):
        (root / "far" / "down" / f"mine-{number}.jpeg").write_bytes(file(number))
    return root


def tree(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def reseal(folder: Path, **changes: Any) -> None:
    """A manifest that fits the folder's files as they are now."""
    told = manifest_of(folder)
    del told["files"]
    (folder / "manifest.json").unlink()
    sealed(folder, {**told, **changes})


def bare(tmp_path: Path, rows: Sequence[Row] | None = None, **told: Any) -> Path:
    """An export of a run without pixels."""
    run = commit(tmp_path / "run", several() if rows is None else rows, **told)
    done = export(run, tmp_path / "bare", Export("trl", pixels=False, split=0))
    assert done.recipe_only and done.closed == {}
    return tmp_path / "bare"


@pytest.mark.parametrize(("trainer", "kind"), EXPORTS)
def test_what_is_restored_is_the_export_with_pixels_to_the_byte(
    trainer: Any, kind: Any, tmp_path: Path
) -> None:
    run, asked = commit(tmp_path / "run", several()), Export(trainer, kind, split=0.4)
    whole = export(run, tmp_path / "whole", asked)
    small = export(run, tmp_path / "bare", replace(asked, pixels=False))
    assert (small.rows, small.pictures) == (whole.rows, whole.pictures)
    assert (small.left_out, whole.left_out) == ({"not_verified": 1}, {"not_verified": 1})
    done = rehydrate(tmp_path / "bare", [str(copies(tmp_path / "mine"))], tmp_path / "again")
    assert done == Restored("run", whole.rows, 4, ())
    assert tree(tmp_path / "again") == tree(tmp_path / "whole")
    assert export(run, tmp_path / "again", asked).stood
    assert rehydrate(tmp_path / "bare", [], tmp_path / "again") == replace(done, stood=True)
    with pytest.raises(ConfigError, match="another export: its recipe_only"):
        export(run, tmp_path / "bare", asked)


def test_no_pixel_lies_in_what_is_exported_without_them(tmp_path: Path) -> None:
    out = bare(tmp_path)
    manifest = manifest_of(out)
    for name in ("rows", "pictures"):
        table = load_dataset(str(out), name, split="train", cache_dir=str(tmp_path / "cache"))
        assert len(table) == 4
        assert not any(pa.types.is_binary(f.type) for f in table.features.arrow_schema)
    assert {r.way for r in read_recipes(out)} == {"as_found", "without_gps", "drawn"}
    assert manifest["sources"] == {"folder:mine": 3, "scenes": 1}
    own = sum(len(data) for data in tree(out).values())
    assert own < 0.2 * manifest["restored"]["bytes"]
    assert sorted(p.name for p in out.iterdir()) == sorted(
        ["README.md", "left_out.jsonl", "manifest.json", "pictures.parquet", "rows.parquet"]
    )


def test_tars_are_searched_like_folders(tmp_path: Path) -> None:
    out, tar = bare(tmp_path), tmp_path / "tars" / "sa_000000.tar"
    tar.parent.mkdir()
    with tarfile.open(tar, "w") as members:
        for name, data in [("sa_1.json", b"[]")] + [(f"sa_{n}.jpg", file(n)) for n in range(3)]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            members.addfile(info, io.BytesIO(data))
    asked = (str(tar.parent), str(tar), f"sa1b:{tar}")
    trees = []
    for place, source in enumerate(asked):
        assert not rehydrate(out, [source], tmp_path / f"{place}").lost
        trees.append(tree(tmp_path / f"{place}"))
    assert trees[0] == trees[1] == trees[2]


def test_sources_that_are_gone_or_changed_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    out, mine = bare(tmp_path), tmp_path / "mine"
    mine.mkdir()
    (mine / "0.png").write_bytes(file(0) + b"!")
    (mine / "1.jpg").write_bytes(file(1))
    done = rehydrate(out, [str(mine)], tmp_path / "again")
    assert {one.image_id: one.reason for one in done.lost} == {
        "0.png": "changed",
        "2.png": "missing",
    }
    assert (done.reasons, done.pictures) == ({"changed": 1, "missing": 1}, 2)
    assert hashlib.sha256(file(2)).hexdigest() in done.lost[1].detail
    assert not (tmp_path / "again").exists() and not list(tmp_path.glob(".again*"))
    assert rehydrate(out, [], tmp_path / "again").reasons == {"missing": 3}


@pytest.mark.parametrize("name", ["pillow", "numpy", "libjpeg", "zlib", "generator"])
def test_drawings_of_other_codecs_fail_by_name(name: str, tmp_path: Path) -> None:
    then = {**drawing_versions(), name: "0.0"}
    out, mine = bare(tmp_path, drawn_with=then), str(copies(tmp_path / "mine"))
    done = rehydrate(out, [mine], tmp_path / "again")
    assert {one.image_id: one.reason for one in done.lost} == dict.fromkeys(
        ("0.png", "000001"), "other_versions"
    )
    assert done.lost[0].detail == f"{name} 0.0 then, {drawing_versions()[name]} now"
    if name == "zlib":
        assert not rehydrate(out, [mine], tmp_path / "again", other_versions=True).lost


def test_older_runs_are_held_to_the_versions_that_they_recorded(tmp_path: Path) -> None:
    told = {"drawn_with": None, "versions": {"pillow": "0.0", "torch": "1"}}
    assert manifest_of(bare(tmp_path, **told))["drawn_with"] == {"pillow": "0.0"}


def test_a_drawing_that_comes_out_otherwise_is_refused(tmp_path: Path) -> None:
    config = {"source": "scenes:2@320x256", "task": {"budgets": [448]}}
    out, mine = bare(tmp_path, config=config), str(copies(tmp_path / "mine"))
    done = rehydrate(out, [mine], tmp_path / "again")
    assert done.reasons == {"not_the_same": 2}
    table = pq.read_table(out / PICTURES).to_pylist()
    bad = ['{"kind": "needles"}', '{"kind": "none"}']
    changed = [r | {"drawing": bad.pop()} if r["way"] == "drawn" else r for r in table]
    pq.write_table(pa.Table.from_pylist(changed, pq.read_schema(out / PICTURES)), out / PICTURES)
    reseal(out)
    assert rehydrate(out, [mine], tmp_path / "again").reasons == {"recipe": 2}


def test_a_view_of_other_pixels_is_refused(tmp_path: Path) -> None:
    out = bare(tmp_path)
    rows = pq.read_table(out / "rows.parquet").to_pylist()
    rows[1]["view_sha256"][1] = "0" * 64
    schema = pq.read_schema(out / "rows.parquet")
    pq.write_table(pa.Table.from_pylist(rows, schema), out / "rows.parquet")
    reseal(out)
    done = rehydrate(out, [str(copies(tmp_path / "mine"))], tmp_path / "again")
    assert [(one.image_id, one.reason) for one in done.lost] == [("1.jpg", "view")]
    assert not (tmp_path / "again").exists()


def test_files_that_another_codec_encodes_are_told_from_other_pixels(tmp_path: Path) -> None:
    out, mine = bare(tmp_path), str(copies(tmp_path / "mine"))
    promised = manifest_of(out)["restored"]
    promised["files"][0]["sha256"] = "0" * 64
    reseal(out, restored=promised)
    with pytest.raises(CheckFailed, match="not those that were recorded"):
        rehydrate(out, [mine], tmp_path / "again")
    promised["written_with"]["zlib"] = "zlib 0"
    reseal(out, restored=promised)
    done = rehydrate(out, [mine], tmp_path / "again")
    assert not done.lost and done.encoded_otherwise.startswith("zlib zlib 0 then")


def test_rows_whose_pictures_have_no_recipe_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [several()[0] | {"kind": None}, *several()[1:3]]
    run, asked = commit(tmp_path / "run", rows), Export("trl", split=0, pixels=False)
    done = export(run, tmp_path / "bare", asked)
    assert (done.rows, done.left_out) == ({"train": 2}, {"no_recipe": 1})
    rehydrate(tmp_path / "bare", [str(copies(tmp_path / "mine"))], tmp_path / "again")
    with pytest.raises(ConfigError, match="its recipe_only"):  # a part is not taken for the whole
        export(run, tmp_path / "again", replace(asked, pixels=True))


def test_pixels_stay_where_they_may_not_be_passed_on(tmp_path: Path) -> None:
    rows = [several()[1], several()[2] | {"source": "sa1b:tars"}]
    run = commit(tmp_path / "run", rows)
    default = export(run, tmp_path / "default", Export("trl", split=0, pixels=None))
    assert (default.recipe_only, default.closed) == (True, {"sa1b:tars": 1})
    forced = export(run, tmp_path / "forced", Export("trl", split=0, pixels=True))
    assert (forced.recipe_only, forced.closed) == (False, {"sa1b:tars": 1})
    free = commit(tmp_path / "free", rows[:1])
    assert not export(free, tmp_path / "out", Export("trl", split=0, pixels=None)).recipe_only


@pytest.mark.parametrize(
    ("license", "is_closed"),
    [
        ("", False),
        ("CC0-1.0", False),
        ("Attribution-NonCommercial License", False),
        ("CC-BY-SA-4.0", False),
        ("Attribution-NonCommercial-NoDerivs License", True),
        ("CC-BY-NC-ND-2.0", True),
        ("All rights reserved", True),
        ("SA-1B Dataset Research License", True),
    ],
)
def test_licences_without_derivatives_close_a_picture(license: str, is_closed: bool) -> None:
    assert (closed_by("folder:mine", license) == license) == (is_closed or not license)


def test_what_is_no_export_without_pixels_is_refused(tmp_path: Path) -> None:
    out = bare(tmp_path)
    with pytest.raises(ConfigError, match="something else"):
        rehydrate(tmp_path, [], tmp_path / "again")
    export(tmp_path / "run", tmp_path / "whole", Export("trl", split=0))
    with pytest.raises(ConfigError, match="no export without pixels"):
        rehydrate(tmp_path / "whole", [], tmp_path / "again")
    with pytest.raises(ConfigError, match="something else"):
        rehydrate(out, [], tmp_path)
    (out / PICTURES).write_bytes((out / PICTURES).read_bytes()[:-1] + b"!")
    with pytest.raises(CheckFailed, match="damaged"):
        rehydrate(out, [], tmp_path / "again")


def recipe(made: Row) -> PixelRecipe:
    told = recipe_of(made, Origin(SEED, BUDGETS, SCENES))
    assert told is not None
    return told


class Walls:
    """A segmenter that sees the street's wall and its doors."""

    def automatic(self, image: np.ndarray, *, limit: int | None = None) -> list[Any]:
        parts = [(200, 240, 1024, 640), (330, 330, 420, 600), (640, 330, 730, 600)]
        masks = []
        for x0, y0, x1, y1 in parts:
            mask = np.zeros(image.shape[:2], bool)
            mask[y0:y1, x0:x1] = True
            masks.append(type("Found", (), {"mask": mask})())
        return masks


@pytest.mark.parametrize("kind", ["signs", "closeup", "where", "change", "count", "annotated"])
def test_every_puzzle_is_drawn_again_from_its_source_and_recipe_alone(kind: Any) -> None:
    image = street() if kind == "signs" else photograph(0)
    masks = regions(0) if kind in ("change", "annotated") else ()
    image = with_objects(0)[0] if masks else image
    source = encoded(image, compress_level=1)
    made = row(Picture("p", data=source, masks=masks), kind, Walls())
    told = recipe(made)
    assert told.way == "drawn" and published(told, source) == made["image"]["bytes"]
    with pytest.raises(BadImage, match="not_the_same"):
        published(told, encode(photograph(1)))


def test_a_file_as_it_was_comes_back_as_it_was(tmp_path: Path) -> None:
    made = row(found(1), "written")
    told = recipe(made)
    assert told.way == "without_gps" and file(1) != made["image"]["bytes"]
    assert published(told, file(1)) == made["image"]["bytes"]
    with pytest.raises(BadImage, match="not_the_same"):
        published(told, file(1) + b" ")
    assert json.loads(recipe(several()[3]).scene or "")["number"] == "000001"


@pytest.mark.torch
def test_a_real_run_is_restored_from_its_folder(tmp_path: Path) -> None:
    from pipeline.config import config_from
    from pipeline.synthesis.run import synthesize

    (tmp_path / "in").mkdir()
    photograph(0, (640, 480)).save(tmp_path / "in" / "a.png")
    settings = {"source": str(tmp_path / "in"), "task": {"budgets": [224, 448]}}
    config = config_from({**settings, "run": {"dir": str(tmp_path / "runs")}})
    made = synthesize(config, shards=1, address="none")
    assert made.kept
    asked = Export("llamafactory", split=0)
    export(made.run_dir, tmp_path / "whole", asked)
    export(made.run_dir, tmp_path / "bare", replace(asked, pixels=False))
    assert manifest_of(tmp_path / "bare")["drawn_with"] == drawing_versions()
    done = rehydrate(tmp_path / "bare", [str(tmp_path / "in")], tmp_path / "again")
    assert not done.lost and tree(tmp_path / "again") == tree(tmp_path / "whole")
