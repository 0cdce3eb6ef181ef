"""Laws of the recheck: an honest run holds, and every lie about a picture or a box is found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from manifests import tables
from pipeline.geometry import Box, visual_tokens
from pipeline.runner.parts import Part
from pipeline.runner.rundir import Record, part_path, publish, write_run
from pipeline.runner.storage import LocalStorage
from pipeline.samples import rng_for
from pipeline.scenes import closeups
from pipeline.scenes.needles import Tag, plant
from pipeline.scenes.puzzles import Posed
from pipeline.shards import Unit
from pipeline.sources.decode import decode, encode
from pipeline.synthesis.recheck import Report, recheck
from pipeline.views import first_view, zoomed
from tests.scenes.pictures import photograph

Row = dict[str, Any]
Write = Callable[..., Report]

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
SCHEMA = pa.schema([*tables.TRAJECTORIES, pa.field("image", PICTURE)], tables.TRAJECTORIES.metadata)
STAMP = {"shard": 0, "part": 0, "attempt": "a0"}


@cache
def composite(seed: int) -> tuple[bytes, tuple[Tag, ...]]:
    """A published picture and the tags on it."""
    rng = rng_for(seed, "ground")
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    ground = coarse.resize((800, 600), Image.Resampling.BICUBIC)
    picture, tags = plant(ground, rng_for(seed, "tags"), (224, 448))
    return encode(picture), tuple(tags)


def row(seed: int, number: int, resolution: int = 336, *, boxes: tuple[Box, ...] = ()) -> Row:
    """An honest row about a tag: one look for each box, by default one at the tag."""
    data, tags = composite(seed)
    tag, image = tags[number], decode(data)
    boxes = boxes or (tag.box,)
    first = first_view(image, resolution).observation
    looks = [zoomed(image, box, resolution, 0).observation for box in boxes]
    return {
        "sample_id": f"p{seed}#{number}",
        "resolution": resolution,
        "rollout": 0,
        "image_sha256": hashlib.sha256(data).hexdigest(),
        "width": image.width,
        "height": image.height,
        "view_w": first.size[0],
        "view_h": first.size[1],
        "task": "read",
        "target": tag.code,
        "target_boxes": [ints(tag.box)],
        "num_zooms": len(looks),
        "visual_tokens": first.visual_tokens + sum(visual_tokens(look.size) for look in looks),
        "steps": [
            {"boxes": [ints(box)], "zoomed": [True], "magnification": look.magnification}
            for box, look in zip(boxes, looks, strict=True)
        ],
        "image": {"bytes": data, "path": f"p{seed}"},
    }


@cache
def puzzle(number: int) -> tuple[bytes, Posed]:
    """A published close-up puzzle and one of its questions."""
    made = closeups.match(photograph(number), rng_for(number, "recheck"), 2, (224, 448))
    assert made is not None
    return encode(made.picture), made.posed[-1]


def puzzle_row(number: int) -> Row:
    """An honest row about a puzzle: one look at the place."""
    data, question = puzzle(number)
    image = decode(data)
    place = question.boxes[0]
    first = first_view(image, 336).observation
    look = zoomed(image, place, 336, 0).observation
    return {
        "sample_id": f"c{number}#0",
        "resolution": 336,
        "rollout": 0,
        "image_sha256": hashlib.sha256(data).hexdigest(),
        "width": image.width,
        "height": image.height,
        "view_w": first.size[0],
        "view_h": first.size[1],
        "question": question.text,
        "task": "closeup",
        "recipe": json.dumps(question.recipe),
        "target": question.answer,
        "target_boxes": [ints(box) for box in question.boxes],
        "num_zooms": 1,
        "visual_tokens": first.visual_tokens + look.visual_tokens,
        "steps": [{"boxes": [ints(place)], "zoomed": [True], "magnification": look.magnification}],
        "image": {"bytes": data, "path": f"c{number}"},
    }


def ints(box: Box) -> list[int]:
    return [int(value) for value in box.as_list()]


def key(row: Row) -> tuple[str, int, int]:
    return row["sample_id"], row["resolution"], row["rollout"]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Commit rows as a run and recheck it."""

    def run(*rows: Row) -> Report:
        storage = LocalStorage(tmp_path / "run")
        write_run(storage, {"run_id": "run", "kind": "trajectories"})
        part = Part(storage, {"trajectories": SCHEMA}, "trajectories", STAMP)
        part.add(Unit("p", len(rows), {"trajectories": list(rows)}))
        files = part.finish()
        at = datetime(2026, 1, 1, tzinfo=UTC)
        counts = (len(rows), 0, sum(f.bytes for f in files), "", 0.0, "w", at, 0, 0, 1, 0, True)
        assert publish(storage, Record("run", "trajectories", *STAMP.values(), files, *counts))
        return recheck(tmp_path / "run")

    return run


def test_an_honest_run_holds(write: Write) -> None:
    rows = [
        row(seed, number, resolution)
        for seed in (1, 2)
        for number in range(3)
        for resolution in (224, 448)
    ]
    report = write(*rows)
    assert report.holds and report.agreement == 1
    assert (report.rows, report.looked_at, report.agreed) == (len(rows),) * 3


def test_a_tampered_target_is_found(write: Write) -> None:
    lie = row(1, 0) | {"target": composite(1)[1][1].code}
    report = write(lie, row(1, 1))
    assert report.disagreed == (key(lie),) and not report.holds
    assert (report.looked_at, report.agreed) == (2, 1)


def test_a_tampered_pixel_is_found(write: Write) -> None:
    honest = row(1, 0)
    image = decode(honest["image"]["bytes"])
    image.putpixel((5, 5), (0, 255, 0))
    report = write(honest | {"image": {"bytes": encode(image), "path": "p"}})
    assert "image_sha256" in report.problems[0] and not report.holds


def test_a_box_moved_off_the_tag_is_found(write: Write) -> None:
    tag = composite(1)[1][0].box
    aside = Box(tag.x0 + 2 * tag.width, tag.y0, tag.x1 + 2 * tag.width, tag.y1)
    honest = row(1, 0)
    (step,) = honest["steps"]
    report = write(honest | {"steps": [step | {"boxes": [ints(aside.clip((800, 600)))]}]})
    assert not report.holds and report.agreed == 0


def test_a_box_made_larger_is_found(write: Write) -> None:
    honest = row(1, 0)
    (step,) = honest["steps"]
    x0, y0, x1, y1 = step["boxes"][0]
    report = write(honest | {"steps": [step | {"boxes": [[x0 - 4, y0, x1, y1]]}]})
    assert report.agreed == 1 and "magnified" in report.problems[0]


@pytest.mark.parametrize("name", ["width", "view_w", "view_h", "num_zooms", "visual_tokens"])
def test_a_number_that_does_not_follow_is_found(write: Write, name: str) -> None:
    honest = row(1, 0)
    report = write(honest | {name: honest[name] + 28})
    assert not report.holds and report.problems


@pytest.mark.parametrize("box", [[-90, 0, -10, 60], [10, 10, 10, 60], [1, 2, 3]])
def test_a_box_that_names_no_pixels_is_a_problem(write: Write, box: list[int]) -> None:
    honest = row(1, 0)
    (step,) = honest["steps"]
    assert write(honest | {"steps": [step | {"boxes": [box]}]}).problems


def test_bytes_that_are_no_picture_are_a_problem_and_the_next_row_is_looked_at(
    write: Write,
) -> None:
    broken = row(1, 0) | {"image": {"bytes": b"\xff\xd8\xff nothing", "path": "p"}}
    report = write(broken, row(1, 1), row(1, 2) | {"image": None})
    assert len(report.problems) == 2 and report.agreed == 1


def test_rows_without_a_look_or_without_a_code_are_not_read(write: Write) -> None:
    blind = row(1, 0) | {"steps": []}
    first = first_view(decode(blind["image"]["bytes"]), 336).observation
    blind |= {"num_zooms": 0, "visual_tokens": first.visual_tokens}
    report = write(blind, row(1, 1) | {"target": "a red bus"})
    assert report.holds and (report.rows, report.looked_at) == (2, 0)


def test_a_row_that_was_solved_at_another_budget_is_derived_there(write: Write) -> None:
    wide = Box(100, 60, 560, 480)
    solved = row(1, 0, 1024, boxes=(wide, composite(1)[1][0].box))
    same = solved | {"resolution": 1920, "same_view_as": 1024}
    assert write(solved, same).holds
    alone = zoomed(decode(solved["image"]["bytes"]), wide, 1920, 0).observation
    assert solved["steps"][0]["magnification"] < alone.magnification


def test_a_tag_in_a_part_of_the_picture_that_was_searched_is_read_where_it_is(
    write: Write,
) -> None:
    tag = max(composite(1)[1], key=lambda t: t.box.width)
    quarter = Box(0 if tag.box.x1 < 480 else 320, 0 if tag.box.y1 < 360 else 240, 1, 1)
    quarter = Box(quarter.x0, quarter.y0, quarter.x0 + 480, quarter.y0 + 360)
    assert quarter.contains(tag.box)
    report = write(row(1, composite(1)[1].index(tag), 672, boxes=(quarter,)))
    assert report.holds and report.agreed == 1


def test_a_last_look_at_what_the_question_names_rests_on_the_look_before(write: Write) -> None:
    target, named = composite(1)[1][0].box, composite(1)[1][1].box
    path = row(1, 0, boxes=(target, named))
    assert write(path | {"task": "nearest"}).agreed == 1


def test_a_last_look_at_another_tag_is_found_where_nothing_else_is_named(write: Write) -> None:
    target, other = composite(1)[1][0].box, composite(1)[1][1].box
    path = row(1, 0, boxes=(target, other))
    assert write(path).disagreed == (key(path),)


def test_the_answers_of_puzzles_are_derived_from_their_pictures(write: Write) -> None:
    report = write(puzzle_row(0), puzzle_row(1), row(1, 0))
    assert report.holds and (report.looked_at, report.agreed) == (3, 3)


def test_a_tampered_answer_of_a_puzzle_is_found(write: Write) -> None:
    honest = puzzle_row(0)
    other = next(o for o in puzzle(0)[1].options if o != honest["target"])
    lie = honest | {"target": other}
    report = write(lie, puzzle_row(1))
    assert report.disagreed == (key(lie),) and not report.holds


def test_a_tampered_recipe_and_a_look_that_is_not_there_are_found(write: Write) -> None:
    honest = puzzle_row(0)
    recipe = json.loads(honest["recipe"])
    recipe["places"] = recipe["places"][1:] + recipe["places"][:1]
    lie = honest | {"recipe": json.dumps(recipe)}
    report = write(lie, puzzle_row(1) | {"num_zooms": 2})
    assert report.unclear == (key(lie),) and "num_zooms" in report.problems[0]


def test_a_recipe_of_a_kind_that_is_not_known_is_passed_over(write: Write) -> None:
    report = write(puzzle_row(0) | {"recipe": '{"kind": "riddle"}'}, row(1, 0))
    assert report.holds and report.looked_at == 1


def test_a_file_that_no_record_names_does_not_count(tmp_path: Path, write: Write) -> None:
    write(row(1, 0))
    stray = part_path("trajectories", shard=0, attempt="lost", part=0)
    lie = row(1, 0) | {"target": "AAA"}
    pq.write_table(pa.Table.from_pylist([lie], SCHEMA), tmp_path / "run" / stray)
    report = recheck(tmp_path / "run")
    assert report.holds and report.rows == 1


def test_a_file_that_is_gone_or_damaged_is_a_problem(tmp_path: Path, write: Write) -> None:
    write(row(1, 0))
    (file,) = (tmp_path / "run" / "data" / "trajectories").iterdir()
    file.write_bytes(b"PAR1 and then nothing")
    assert not recheck(tmp_path / "run").holds
    file.unlink()
    assert not recheck(tmp_path / "run").holds
