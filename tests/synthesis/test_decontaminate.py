"""Laws of decontamination: what is shown is found by name, and nothing passes that was not seen."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from PIL import Image

from manifests import tables
from pipeline.cli.decontaminate import decontaminate as command
from pipeline.cli.decontaminate import sets_of
from pipeline.errors import BadImage, CheckFailed, ConfigError
from pipeline.runner.parts import Part
from pipeline.runner.rundir import Record, publish, write_run
from pipeline.runner.storage import LocalStorage
from pipeline.shards import Unit
from pipeline.sources.base import Picture
from pipeline.sources.fingerprints import fingerprint_of
from pipeline.sources.matching import Index
from pipeline.synthesis.decontaminate import (
    FILE,
    Against,
    Overlaps,
    Unreadable,
    decontaminate,
    read_overlaps,
    require_clean,
)
from tests.sources.alterations import WHOLE, drawn, photographs, quarters
from tests.sources.pictures import encoded

Row = dict[str, Any]
Commit = Callable[..., Path]
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
SCHEMA = pa.schema([*tables.TRAJECTORIES, pa.field("image", PICTURE)], tables.TRAJECTORIES.metadata)


@cache
def png(number: int) -> bytes:
    return encoded(drawn(number))


def row(image_id: str, data: bytes, source: bytes | None = None, resolution: int = 224) -> Row:
    """A row about a picture; the source is another file where it was drawn upon."""
    sha256, source_sha256 = (hashlib.sha256(d).hexdigest() for d in (data, source or data))
    return {
        "sample_id": f"{image_id}#0",
        "image_id": image_id,
        "resolution": resolution,
        "rollout": 0,
        "image_sha256": sha256,
        "source_sha256": source_sha256,
        "image": {"bytes": data, "path": image_id},
    }


@pytest.fixture
def commit(tmp_path: Path) -> Commit:
    """Commit rows as the next part of a run."""
    storage, parts = LocalStorage(tmp_path / "run"), iter(range(9))
    write_run(storage, {"run_id": "run", "kind": "trajectories"})

    def add(*rows: Row) -> Path:
        stamp = {"shard": 0, "part": next(parts), "attempt": "a0"}
        part = Part(storage, {"trajectories": SCHEMA}, "trajectories", stamp)
        part.add(Unit("p", len(rows), {"trajectories": list(rows)}))
        files = part.finish()
        at = datetime(2026, 1, 1, tzinfo=UTC)
        counts = (len(rows), 0, sum(f.bytes for f in files), "", 0.0, "w", at, 0, 0, 1, 0, True)
        assert publish(storage, Record("run", "trajectories", *stamp.values(), files, *counts))
        return tmp_path / "run"

    return add


def benchmark(*numbers: int, name: str = "bench") -> Against:
    """A set of drawn pictures, compressed anew, so that no digest is a run's."""
    return Against(name, [Picture(f"{n}.jpg", data=encoded(drawn(n), "JPEG")) for n in numbers])


def found_in(found: Overlaps) -> list[tuple[str, str, str]]:
    return [(one.image_id, one.name, one.how) for one in found.overlaps]


@pytest.mark.timeout(600)
def test_every_altered_photograph_is_found_and_no_part_of_it_is_taken_for_another() -> None:
    images = photographs(640) or [drawn(number) for number in range(4)]
    index = Index([fingerprint_of(image) for image in images])
    for name, alter in WHOLE.items():
        for number, image in enumerate(images):
            found = index.matches(fingerprint_of(alter(image)))
            assert [(m.number, m.how) for m in found] == [(number, "near")], name
    cut = [fingerprint_of(quarter) for image in images[::3] for quarter in quarters(image)]
    parts = Index(cut)
    assert not any(parts.matches(one, before=number) for number, one in enumerate(cut))


def test_a_run_is_compared_picture_by_picture_and_the_record_says_with_what(
    commit: Commit,
) -> None:
    rows = [row(str(n), png(n), resolution=r) for n in range(4) for r in (224, 448)]
    run = commit(*rows)
    found = decontaminate(run, [benchmark(2, 9), benchmark(8, name="other")])
    assert found_in(found) == [("2", "2.jpg", "near")]
    assert (found.pictures, found.plain, found.inside, found.unreadable) == (4, 0, (), ())
    assert [(one.name, one.pictures) for one in found.against] == [("bench", 2), ("other", 1)]
    assert read_overlaps(run) == found
    told = json.loads((run / FILE).read_text())
    assert told["overlaps"][0].keys() == {"image_id", "set", "name", "how", "score"}


def test_the_same_pictures_give_the_same_bytes_whatever_the_threads(commit: Commit) -> None:
    run = commit(*(row(str(n), png(n)) for n in range(3)))
    decontaminate(run, [benchmark(0, 1)], threads=1)
    first = (run / FILE).read_bytes()
    decontaminate(run, [benchmark(0, 1)], threads=3)
    assert (run / FILE).read_bytes() == first
    digest = json.loads(first)["against"][0]["digest"]
    assert decontaminate(run, [benchmark(0, 2)]).against[0].digest != digest


def test_a_source_file_is_known_by_its_digest_whatever_was_drawn_on_it(commit: Commit) -> None:
    run = commit(row("a", png(0), source=png(5)), row("b", png(1)))
    found = decontaminate(run, [Against("bench", [Picture("five", data=png(5))])])
    assert found_in(found) == [("a", "five", "exact")]


def test_what_was_found_is_worth_nothing_for_other_data(commit: Commit) -> None:
    run = commit(row("0", png(0)))
    assert read_overlaps(run) is None
    decontaminate(run, [benchmark(9)])
    assert read_overlaps(run) is not None
    commit(row("1", png(1)))
    assert read_overlaps(run) is None
    decontaminate(run, [benchmark(9)])
    (run / FILE).write_text("{}")
    assert read_overlaps(run) is None


def test_only_what_was_looked_at_and_is_clean_or_allowed_by_name_passes(commit: Commit) -> None:
    with pytest.raises(ConfigError, match="Nobody has looked"):
        require_clean(None, ["0"])
    run = commit(*(row(str(n), png(n)) for n in range(3)))
    found = decontaminate(run, [benchmark(0, 1)])
    with pytest.raises(ConfigError, match="2 pictures are those of bench: 0, 1"):
        require_clean(found)
    with pytest.raises(ConfigError, match="1 pictures are those of bench: 1"):
        require_clean(found, ["0"])
    require_clean(found, ["0", "1"])
    require_clean(decontaminate(run, [benchmark(9)]))
    with pytest.raises(ConfigError, match="Nobody has looked"):
        require_clean(replace(found, against=(), overlaps=()))
    unread = replace(found, overlaps=(), unreadable=(Unreadable("bench", "x.jpg", "corrupt"),))
    with pytest.raises(ConfigError, match=r"could not be compared: x\.jpg"):
        require_clean(unread)
    require_clean(unread, ["x.jpg"])


def test_a_look_at_another_set_does_not_forget_the_last_one(commit: Commit) -> None:
    run = commit(row("a", png(1)), row("b", png(2)))
    decontaminate(run, [benchmark(1, name="one")])
    decontaminate(run, [benchmark(7, name="two")])
    known = read_overlaps(run)
    assert known is not None and [one.name for one in known.against] == ["one", "two"]
    with pytest.raises(ConfigError, match="those of one"):
        require_clean(known)
    decontaminate(run, [benchmark(8, name="one")])  # another look at the same set replaces it
    require_clean(read_overlaps(run))


def test_what_cannot_be_compared_is_told_by_name(commit: Commit) -> None:
    run = commit(row("a", png(0)), row("bad", b"\xff\xd8\xff no picture"))
    pictures = [
        Picture("fine", data=png(9)),
        Picture("gone", error=BadImage("source_missing")),
        Picture("torn", data=png(8)[:200]),
    ]
    found = decontaminate(run, [Against("bench", pictures)])
    assert [(u.set, u.name) for u in found.unreadable] == [
        ("bench", "gone"),
        ("bench", "torn"),
        ("", "bad"),
    ]
    assert (found.pictures, found.against[0].pictures) == (1, 1)


def test_nothing_to_compare_is_an_error_and_leaves_no_record(commit: Commit) -> None:
    run = commit(row("a", png(0)))
    with pytest.raises(ConfigError, match="nothing to compare with"):
        decontaminate(run, [])
    with pytest.raises(ConfigError, match="no picture in 'bench'"):
        decontaminate(run, [Against("bench", [Picture("x", data=b"no")])])
    assert not (run / FILE).exists()


def test_pictures_that_are_there_twice_are_one_group(commit: Commit) -> None:
    smaller = encoded(WHOLE["half"](drawn(0)), "JPEG")
    cut = encoded(WHOLE["5 % off every border"](drawn(0)))
    pictures = {"a": png(0), "b": png(1), "c": smaller, "d": cut, "e": png(1)}
    run = commit(*(row(name, data) for name, data in pictures.items()))
    found = decontaminate(run, [benchmark(9)])
    assert found.inside == (("a", "c", "d"), ("b", "e"))
    assert found.pictures == 5


def table(folder: Path, rows: Sequence[Row], name: str = "data/train-00000.parquet") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return folder


def test_the_pictures_of_an_exported_folder_are_those_of_its_columns(tmp_path: Path) -> None:
    def cell(number: int) -> Row:
        return {"bytes": png(number), "path": None}

    chats = [{"image_id": f"p{n}", "images": [cell(n), cell(n + 4)]} for n in (0, 1)]
    folder = table(tmp_path / "out", chats)
    table(folder, [{"sample_id": "q#1", "source_image": cell(2), "images": [cell(3)]}], "x.parquet")
    (folder / "loose.png").write_bytes(png(6))
    found = decontaminate(folder, [benchmark(*range(8))])
    assert [(one.image_id, one.name) for one in found.overlaps] == [
        ("loose.png", "6.jpg"),
        ("p0", "0.jpg"),
        ("p0", "4.jpg"),
        ("p1", "1.jpg"),
        ("p1", "5.jpg"),
        ("q", "2.jpg"),
        ("q", "3.jpg"),
    ]
    assert read_overlaps(folder) == found
    (folder / "loose.png").write_bytes(png(7))
    assert read_overlaps(folder) is None


def test_a_table_of_digests_without_pixels_is_compared_by_them_and_told(tmp_path: Path) -> None:
    lone = {"image_id": "seen", "images": [{"bytes": png(3), "path": None}]}
    folder = table(tmp_path / "out", [lone])
    recipe = {"image_id": "r", "source_sha256": hashlib.sha256(png(5)).hexdigest()}
    table(folder, [recipe], "pictures.parquet")
    found = decontaminate(folder, [Against("bench", [Picture("five", data=png(5))])])
    assert found_in(found) == [("r", "five", "exact")]
    assert found.unreadable == (Unreadable("", "r", "no_pixels"),)


def test_the_command_ends_with_5_where_something_was_found(
    tmp_path: Path, commit: Commit, capsys: pytest.CaptureFixture[str]
) -> None:
    app = typer.Typer()
    app.command()(command)
    run, folder = commit(row("mine", png(0))), tmp_path / "set"
    folder.mkdir()
    drawn(9).save(folder / "other.png")
    asked = [str(run), "--against", str(folder)]
    app(asked, standalone_mode=False)
    assert "1 pictures of run compared with folder:set (1)" in capsys.readouterr().err
    drawn(0).save(folder / "same.jpg", quality=40)
    with pytest.raises(CheckFailed, match="1 pictures of run are those of a benchmark"):
        app([*asked, "--json"], standalone_mode=False)
    told = json.loads(capsys.readouterr().out)
    assert told["overlaps"][0]["name"] == "same.jpg" and told["folder"] == "run"


def test_benchmarks_are_opened_from_their_own_files(tmp_path: Path) -> None:
    (tmp_path / "vstar" / "direct_attributes").mkdir(parents=True)
    drawn(0).save(tmp_path / "vstar" / "direct_attributes" / "sa_1.jpg")
    notes = {"question": "What colour?", "options": ["red", "blue"], "bbox": [[1, 1, 5, 5]]}
    (tmp_path / "vstar" / "direct_attributes" / "sa_1.json").write_text(json.dumps(notes))
    names = ("index", "question", "A", "B", "C", "D", "answer", "category", "cycle_category")
    cells = ("0", "Which?", "a", "b", "c", "d", "A", "single", "0")
    picture = base64.b64encode(png(1)).decode()
    lines = ["\t".join((*names, "image")), "\t".join((*cells, picture))]
    (tmp_path / "hr").mkdir()
    (tmp_path / "hr" / "hr_bench_4k.tsv").write_text("\n".join(lines) + "\n")
    table(tmp_path / "mme", [{"image": {"bytes": png(2), "path": "x"}, "question": "?"}])
    for spec, name in (
        (f"vstar:{tmp_path / 'vstar'}", "vstar"),
        (str(tmp_path / "vstar"), "folder:vstar"),
        (str(tmp_path / "hr"), "hrbench-4k"),
        (f"hrbench:{tmp_path / 'hr'}", "hrbench-4k"),
        (str(tmp_path / "mme"), "parquet:mme"),
    ):
        (one,) = sets_of(spec)
        (told,) = one.pictures
        assert one.name == name and told.error is None and told.data
    with pytest.raises(ConfigError, match="nothing at"):
        list(sets_of("vstar:/nowhere"))
    with pytest.raises(ConfigError):
        list(sets_of("no-such-folder"))


def test_pictures_that_a_walk_leaves_out_could_not_be_compared(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    drawn(9).save(tmp_path / "set" / "fine.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "outside.png")
    (tmp_path / "set" / "link.png").symlink_to(tmp_path / "outside.png")
    (one,) = sets_of(str(tmp_path / "set"))
    assert [p.error and p.error.reason for p in one.pictures] == [None, "link_outside"]
