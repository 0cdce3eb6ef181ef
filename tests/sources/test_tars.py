"""Laws of the tar forms: SA-1B pairs, WebDataset samples, hostile members, broken archives."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest

from pipeline.errors import ConfigError
from pipeline.geometry import Box
from pipeline.sources.base import Asked, Picture, Source
from pipeline.sources.decode import decode
from pipeline.sources.masks import decode_masks
from pipeline.sources.specs import open_source
from pipeline.sources.tars import expand_braces
from tests.sources.pictures import SIZE, encoded

JPEG = encoded(kind="JPEG")
NOTES = {
    "image": {"image_id": 1, "width": SIZE[0], "height": SIZE[1], "file_name": "sa_1.jpg"},
    "annotations": [
        {
            "segmentation": {"size": [SIZE[1], SIZE[0]], "counts": [32, 64, 48 * 32 - 96]},
            "bbox": [1, 0, 2, 32],
            "predicted_iou": 0.9,
        }
    ],
}


def write_tar(
    path: Path, members: list[tuple[str, bytes]], mode: Literal["w", "w:gz"] = "w"
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def pictures(source: Source) -> list[Picture]:
    return [picture for entry in source.entries() for picture in source.pictures(entry)]


def reasons(source: Source) -> dict[str, str | None]:
    return {p.image_id: p.error.reason if p.error else None for p in pictures(source)}


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


def test_sa1b_pairs_give_pictures_with_masks(tmp_path: Path) -> None:
    members = [("./sa_1.jpg", JPEG), ("./sa_1.json", as_json(NOTES)), ("./sa_2.jpg", JPEG)]
    write_tar(tmp_path / "sa_000001.tar", members)
    first, second = pictures(open_source(f"sa1b:{tmp_path}"))
    assert (first.image_id, first.data) == ("sa_000001.tar#sa_1.jpg", JPEG)
    (mask,) = decode_masks(first)
    assert mask.shape == (SIZE[1], SIZE[0])
    assert mask.sum() == 64
    assert mask[:, 1:3].all()
    assert first.masks[0].box == Box(1, 0, 3, 32)
    assert first.masks[0].score == 0.9
    assert (second.image_id, second.masks) == ("sa_000001.tar#sa_2.jpg", ())


@pytest.mark.parametrize(
    "notes", [b"not json", b"[]", b"[" * 100_000, as_json({"image": {}, "annotations": 3})]
)
def test_annotations_that_cannot_be_read_reject_their_picture(tmp_path: Path, notes: bytes) -> None:
    write_tar(tmp_path / "a.tar", [("1.json", notes), ("1.jpg", JPEG), ("2.jpg", JPEG)])
    found = reasons(open_source(f"sa1b:{tmp_path}"))
    assert found == {"a.tar#1.jpg": "bad_annotation", "a.tar#2.jpg": None}


def test_annotations_without_a_picture_are_counted(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [("1.json", as_json(NOTES))])
    assert reasons(open_source(f"sa1b:{tmp_path}")) == {"a.tar#1.json": "source_missing"}


def test_webdataset_samples_are_grouped_and_asked(tmp_path: Path) -> None:
    row = {"question": "Which?", "answer": "B", "options": ["cat", "dog"], "bbox": [1, 2, 9, 8]}
    members = [
        ("d/0.jpg", JPEG),
        ("d/0.seg.png", encoded()),
        ("d/0.json", as_json({**row, "license": "CC0-1.0"})),
        ("d/1.PNG", encoded()),
        ("d/1.txt", b"a caption"),
        ("d/2.txt", b"no picture"),
    ]
    write_tar(tmp_path / "w.tar", members)
    first, second = pictures(open_source(f"wds:{tmp_path}/w.tar"))
    assert (first.image_id, first.license, first.data) == ("w.tar#d/0.jpg", "CC0-1.0", JPEG)
    assert first.asked == (Asked("Which?", "dog", ("cat", "dog"), (Box(1, 2, 9, 8),)),)
    assert (second.image_id, second.asked) == ("w.tar#d/1.PNG", ())


def test_webdataset_roles_are_mapped(tmp_path: Path) -> None:
    members = [
        ("0.seg.png", encoded()),
        ("0.jpg", JPEG),
        ("0.txt", b"What is it?"),
        ("0.cls", b"7\n"),
        ("0.json", as_json({"where": [1, 2, 3, 4]})),
    ]
    write_tar(tmp_path / "w.tar", members)
    columns = {"question": "txt", "answer": "cls", "bbox_xywh": "where", "image": "seg.png"}
    (picture,) = pictures(open_source(f"wds:{tmp_path}", columns=columns))
    assert picture.image_id == "w.tar#0.seg.png"
    assert picture.asked == (Asked("What is it?", "7", (), (Box(1, 2, 4, 6),)),)


@pytest.mark.parametrize(
    "row",
    [
        {"question": "Q", "answer": "Z", "options": ["a", "b"]},
        {"question": "Q", "answer": "a", "options": "a or b"},
        {"question": "Q", "answer": "a", "bbox": [4, 4, 1, 1]},
        {"question": "Q", "answer": "a", "bbox": ["x"]},
        {"question": "Q", "answer": "a", "bbox": 5},
        {"question": "Q", "answer": "a", "bbox": {"x": 5}},
        {"question": "Q", "answer": "a", "bbox": [[]]},
        {"question": "half \ud800", "answer": "a"},
    ],
)
def test_questions_that_make_no_sense_are_bad_annotations(
    tmp_path: Path, row: dict[str, Any]
) -> None:
    write_tar(tmp_path / "w.tar", [("0.jpg", JPEG), ("0.json", as_json(row))])
    assert reasons(open_source(f"wds:{tmp_path}")) == {"w.tar#0.jpg": "bad_annotation"}


def test_members_are_names_only_and_doubled_ones_are_told_apart(tmp_path: Path) -> None:
    names = ["../../x.jpg", "/etc/x.jpg", "x.jpg", "./x.jpg"]
    write_tar(tmp_path / "t" / "h.tar", [(name, JPEG) for name in names])
    before = sorted(tmp_path.rglob("*"))
    found = [picture.image_id for picture in pictures(open_source(f"sa1b:{tmp_path}/t"))]
    assert found == ["h.tar#x.jpg", "h.tar#etc/x.jpg", "h.tar#x~2.jpg", "h.tar#x~3.jpg"]
    assert sorted(tmp_path.rglob("*")) == before


def test_links_and_devices_are_left_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "l.tar", "w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"{kind!r}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    assert pictures(open_source(f"sa1b:{tmp_path}")) == []


@pytest.mark.parametrize("form", ["sa1b", "wds"])
@pytest.mark.parametrize("cut", [700, 1030, 2500])
def test_a_cut_tar_gives_what_it_has_and_says_so(tmp_path: Path, cut: int, form: str) -> None:
    path = write_tar(tmp_path / "c.tar", [("0.jpg", JPEG), ("1.jpg", JPEG)])
    path.write_bytes(path.read_bytes()[:cut])
    found = reasons(open_source(f"{form}:{tmp_path}"))
    assert found["c.tar"] == "corrupt_tar"
    assert found.get("c.tar#0.jpg") == (None if cut > 1500 else "truncated")


def test_a_damaged_header_half_way_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "c.tar", [("0.jpg", JPEG), ("1.jpg", JPEG), ("2.jpg", JPEG)])
    data = bytearray(path.read_bytes())
    place = data.index(b"1.jpg")
    data[place + 120] ^= 0xFF
    path.write_bytes(data)
    assert reasons(open_source(f"wds:{tmp_path}")) == {"c.tar#0.jpg": None, "c.tar": "corrupt_tar"}


def test_a_file_that_is_no_tar_is_one_error(tmp_path: Path) -> None:
    for name, data in {"a.tar": b"", "b.tar": b"x" * 2000, "c.tar.gz": b"\x1f\x8b\x08junk"}.items():
        (tmp_path / name).write_bytes(data)
    found = reasons(open_source(f"sa1b:{tmp_path}"))
    assert set(found.values()) == {"corrupt_tar"}
    assert sorted(found) == ["a.tar", "b.tar", "c.tar.gz"]


def test_a_header_that_wants_all_memory_is_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "h.tar", [("n" * 2**21 + ".jpg", JPEG)])
    assert reasons(open_source(f"wds:{tmp_path}")) == {"h.tar": "corrupt_tar"}


def test_gzip_is_read(tmp_path: Path) -> None:
    write_tar(tmp_path / "g.tar.gz", [("0.jpg", JPEG)], "w:gz")
    (picture,) = pictures(open_source(f"wds:{tmp_path}"))
    assert picture.data is not None
    assert decode(picture.data).size == SIZE


def test_a_tar_that_changed_is_one_error(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("0.jpg", JPEG)])
    source = open_source(f"wds:{tmp_path}")
    (entry,) = source.entries()
    before = path.stat().st_mtime_ns
    for data, time_ns in ((path.read_bytes(), 1), (path.read_bytes() + bytes(512), before)):
        path.write_bytes(data)
        os.utime(path, ns=(time_ns, time_ns))
        (picture,) = source.pictures(entry)
        assert picture.error is not None
        assert picture.error.reason == "source_changed"


@pytest.mark.parametrize(
    ("pattern", "keys"),
    [
        ("", ["a/s-00.tar", "a/s-01.tar", "b/s-02.tar"]),
        ("/a/*.tar", ["s-00.tar", "s-01.tar"]),
        ("/*/s-0[02].tar", ["a/s-00.tar", "b/s-02.tar"]),
        ("/a/s-{01..07}.tar", ["s-01.tar"]),
        ("/**/s-01.tar", ["a/s-01.tar"]),
    ],
)
def test_tars_are_found_by_folder_pattern_and_braces(
    tmp_path: Path, pattern: str, keys: list[str]
) -> None:
    for name in ("a/s-00.tar", "a/s-01.tar", "b/s-02.tar"):
        write_tar(tmp_path / name, [])
    assert [entry.key for entry in open_source(f"wds:{tmp_path}{pattern}").entries()] == keys


def test_braces_keep_their_zeros() -> None:
    assert expand_braces("x{008..010}.tar") == ["x008.tar", "x009.tar", "x010.tar"]


@pytest.mark.parametrize(
    ("spec", "columns"), [("wds:nothing-*.tar", {}), ("wds:x{0..99999999}.tar", {})]
)
def test_specifications_without_tars_are_refused(spec: str, columns: Mapping[str, str]) -> None:
    with pytest.raises(ConfigError):
        open_source(spec, columns=columns)
