"""Laws of the Parquet form, on disk and on a filesystem that stands in for the Hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError, SourceError
from pipeline.geometry import Box
from pipeline.sources.base import Asked, Picture, Source
from pipeline.sources.hub import HubSource
from pipeline.sources.specs import open_source
from tests.sources.pictures import encoded

PNG = encoded()


def write(path: Path, columns: dict[str, Any], rows_per_group: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=rows_per_group)
    return path


def pictures(source: Source) -> list[Picture]:
    return [picture for entry in source.entries() for picture in source.pictures(entry)]


def cells(count: int) -> list[dict[str, Any]]:
    return [{"bytes": PNG + bytes([n]), "path": f"{n}.png"} for n in range(count)]


def test_rows_are_planned_by_group_and_read_in_order(tmp_path: Path) -> None:
    write(tmp_path / "d" / "b.parquet", {"image": cells(5), "extra": list("abcde")})
    write(tmp_path / "d" / "data" / "a.parquet", {"image": cells(1)})
    source = open_source(str(tmp_path / "d"))
    keys = [entry.key for entry in source.entries()]
    assert keys == ["b.parquet#00000", "b.parquet#00001", "b.parquet#00002", "data/a.parquet#00000"]
    found = pictures(source)
    assert [p.image_id for p in found] == [f"b.parquet#{n}" for n in range(5)] + [
        "data/a.parquet#0"
    ]
    assert [p.data for p in found[:5]] == [PNG + bytes([n]) for n in range(5)]
    assert source.name == "parquet:d"


def test_a_file_and_a_pattern_are_read_too(tmp_path: Path) -> None:
    for name in ("x[1].parquet", "y.parquet", "z.parquet"):
        write(tmp_path / name, {"image": cells(1)})
    one = open_source(str(tmp_path / "x[1].parquet"))
    assert [e.key for e in one.entries()] == ["x[1].parquet#00000"]
    some = open_source(f"parquet:{tmp_path}/[yz].parquet")
    assert [e.key for e in some.entries()] == ["y.parquet#00000", "z.parquet#00000"]


@pytest.mark.parametrize("form", ["struct", "bytes", "path", "list", "struct-path"])
def test_a_picture_has_any_of_its_forms(tmp_path: Path, form: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "p.png").write_bytes(PNG)
    path = "images/p.png"
    cell: Any = {
        "struct": {"bytes": PNG, "path": None},
        "bytes": PNG,
        "path": path,
        "list": [{"bytes": PNG, "path": path}, {"bytes": b"second", "path": ""}],
        "struct-path": {"bytes": None, "path": path},
    }
    write(tmp_path / "t.parquet", {"image": [cell[form]]})
    (picture,) = pictures(open_source(str(tmp_path)))
    assert picture.data == PNG


def test_pictures_are_found_by_type_when_no_name_helps(tmp_path: Path) -> None:
    write(tmp_path / "t.parquet", {"title": ["x"], "scan": cells(1)})
    (picture,) = pictures(open_source(str(tmp_path)))
    assert picture.data == PNG + b"\0"


def test_questions_come_from_guessed_and_from_mapped_columns(tmp_path: Path) -> None:
    columns = {
        "image": cells(2),
        "question": ["Q0 ", "Q1"],
        "answer": ["B", "C"],
        "options": [["x", "y"], ["x", "y", "z"]],
        "bbox": [[[0.0, 0, 4, 4], [1.0, 1, 2, 2]], []],
        "category": ["kind", None],
        "frage": ["F0", ""],
        "antwort": [1, 0],
        "license": ["CC0-1.0", None],
        "name": ["n0", "n1"],
    }
    write(tmp_path / "t.parquet", columns)
    first, second = pictures(open_source(str(tmp_path)))
    boxes = (Box(0, 0, 4, 4), Box(1, 1, 2, 2))
    assert first.asked == (Asked("Q0", "y", ("x", "y"), boxes, "kind"),)
    assert second.asked == (Asked("Q1", "z", ("x", "y", "z"), (), ""),)
    assert (first.license, second.license) == ("CC0-1.0", "")
    chosen = {"question": "frage", "answer": "antwort", "id": "name"}
    first, second = pictures(open_source(str(tmp_path), columns=chosen))
    assert (first.image_id, first.asked[0].question, first.asked[0].answer) == ("n0", "F0", "y")
    assert second.asked == ()


def test_rows_that_cannot_be_used_are_errors_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "secret.png").write_bytes(PNG)
    (tmp_path / "d" / "link.png").symlink_to(tmp_path / "secret.png")
    paths = [None, "", "../secret.png", str(tmp_path / "secret.png"), "gone.png", "link.png"]
    write(tmp_path / "d" / "t.parquet", {"image": pa.array(paths, pa.string())})
    reasons = [p.error.reason for p in pictures(open_source(str(tmp_path / "d"))) if p.error]
    outside = "outside_source"
    assert reasons == ["no_image", "no_image", outside, outside, "source_missing", outside]


def test_a_file_that_changed_or_broke_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {"image": cells(4)})
    source = open_source(str(tmp_path))
    entry, _ = source.entries()
    os.utime(path, ns=(1, 1))
    (picture,) = source.pictures(entry)
    assert picture.error is not None
    assert picture.error.reason == "source_changed"
    path.unlink()
    (picture,) = source.pictures(entry)
    assert picture.error is not None
    assert picture.error.reason == "source_missing"
    path.write_bytes(b"PAR1 no parquet")
    (picture,) = pictures(source)
    assert picture.error is not None
    assert picture.error.reason == "corrupt_parquet"


def test_what_names_no_pictures_is_said(tmp_path: Path) -> None:
    write(tmp_path / "t.parquet", {"text": ["a"], "n": [1]})
    with pytest.raises(SourceError, match="text, n"):
        pictures(open_source(str(tmp_path)))
    with pytest.raises(SourceError, match="'foto'"):
        pictures(open_source(str(tmp_path), columns={"image": "foto"}))
    with pytest.raises(ConfigError, match="question"):
        open_source(str(tmp_path), columns={"qestion": "x"})
    with pytest.raises(ConfigError):
        open_source(str(tmp_path / "no.parquet"))


@pytest.fixture
def hub(tmp_path: Path) -> fsspec.AbstractFileSystem:
    """A filesystem with a dataset, and one that only the Hub's own copy holds as Parquet."""
    datasets = tmp_path / "datasets" / "org"
    write(datasets / "name" / "data" / "train.parquet", {"image": cells(3)})
    write(datasets / "other@refs" / "convert" / "parquet" / "d" / "0.parquet", {"image": cells(3)})
    (datasets / "other").mkdir()
    (datasets / "other" / "data.json").write_bytes(b"{}")
    return fsspec.filesystem("dir", path=str(tmp_path), fs=fsspec.filesystem("file"))


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("//datasets/org/name", "data/train.parquet"),
        ("//datasets/org/name/data", "train.parquet"),
        ("//datasets/org/other", "d/0.parquet"),
    ],
)
def test_a_dataset_on_the_hub_is_streamed_by_group(
    hub: fsspec.AbstractFileSystem, text: str, prefix: str
) -> None:
    entries = list(HubSource(text, {}, hub).entries())
    assert [entry.key for entry in entries] == [f"{prefix}#00000", f"{prefix}#00001"]
    worker = HubSource(text, {}, hub)
    found = [p for entry in entries for p in worker.pictures(entry)]
    assert [p.image_id for p in found] == [f"{prefix}#{n}" for n in range(3)]
    assert found[2].data == PNG + b"\2"


def test_a_dataset_on_the_hub_reads_nothing_beside_itself(
    hub: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    folder = tmp_path / "datasets" / "org" / "evil"
    write(folder / "x.parquet", {"image": ["../other/data.json", "y.bin"]})
    (folder / "y.bin").write_bytes(PNG)
    source = HubSource("//datasets/org/evil", {}, hub)
    bad, good = pictures(source)
    assert bad.error is not None
    assert bad.error.reason == "outside_source"
    assert good.data == PNG


def test_a_hub_that_cannot_be_reached_is_one_sentence() -> None:
    from huggingface_hub import HfFileSystem

    nowhere = HfFileSystem(endpoint="http://127.0.0.1:9", token=False)
    with pytest.raises(SourceError, match="hf://datasets/org/name"):
        list(HubSource("//datasets/org/name", {}, nowhere).entries())


@pytest.mark.parametrize("spec", ["hf://org/name", "hf://datasets/name", "hf://models/a/b", "hf:"])
def test_what_names_no_dataset_is_refused(spec: str) -> None:
    with pytest.raises(ConfigError):
        open_source(spec)
