"""Laws of the folder source: what is listed, in which order, and what a changed file becomes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, SourceError
from pipeline.sources.base import Picture
from pipeline.sources.decode import decode
from pipeline.sources.folder import FolderSource
from tests.sources.pictures import SIZE, encoded

NAMES = [
    "a.jpg",
    "a/z.png",
    "a-b/y.webp",
    "B.GIF",
    "é.tiff",
    "new\nline.bmp",
    "🐈/日本.jpeg",
    "x y.jpg",
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name in NAMES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded())
    return folder


def only(source: FolderSource, key: str) -> Picture:
    (entry,) = [entry for entry in source.entries() if entry.key == key]
    (picture,) = source.pictures(entry)
    return picture


def test_every_picture_is_listed_once_in_the_order_of_its_key(root: Path) -> None:
    entries = list(FolderSource(root).entries())
    assert [entry.key for entry in entries] == sorted(NAMES)
    assert {entry.size for entry in entries} == {len(encoded())}
    assert all(entry.stamp for entry in entries)


def test_a_picture_is_what_the_file_holds(root: Path) -> None:
    picture = only(FolderSource(root), "🐈/日本.jpeg")
    assert picture.data == encoded()
    assert (picture.image_id, picture.source) == ("🐈/日本.jpeg", "folder:photos")
    assert decode(picture.data).size == SIZE


def test_a_name_that_is_no_utf8_is_listed_and_read(root: Path) -> None:
    (root / os.fsdecode(b"caf\xe9.jpg")).write_bytes(encoded())
    assert only(FolderSource(root), "caf%E9.jpg").data == encoded()


def test_a_long_name_is_listed_and_read(root: Path) -> None:
    name = "n" * 251 + ".jpg"
    (root / name).write_bytes(encoded())
    assert only(FolderSource(root), name).data == encoded()


def test_what_is_left_out_is_counted(root: Path, tmp_path: Path) -> None:
    (root / ".hidden.jpg").write_bytes(b"")
    (root / "notes.txt").write_text("no picture")
    (tmp_path / "out.jpg").write_bytes(encoded())
    (root / "link.jpg").symlink_to(tmp_path / "out.jpg")
    (root / "inner.jpg").symlink_to(root / "a.jpg")
    (root / "loop").symlink_to(root)
    (root / "gone.jpg").symlink_to(root / "nothing.jpg")
    os.mkfifo(root / "pipe.jpg")
    source = FolderSource(root)
    keys = [entry.key for entry in source.entries()]
    assert keys == sorted([*NAMES, "inner.jpg"])
    expected = {"hidden": 1, "not_an_image": 1, "link_outside": 1, "folder_link": 1}
    assert source.skipped == {**expected, "not_a_file": 2}


def test_a_file_that_changed_is_an_error_of_that_picture(root: Path) -> None:
    source = FolderSource(root)
    entries = {entry.key: entry for entry in source.entries()}
    (root / "a.jpg").write_bytes(encoded() + b"x")
    os.utime(root / "B.GIF", ns=(1, 1))
    (root / "a/z.png").unlink()
    for key, reason in {
        "a.jpg": "source_changed",
        "B.GIF": "source_changed",
        "a/z.png": "source_missing",
    }.items():
        (picture,) = source.pictures(entries[key])
        assert picture.data is None
        assert picture.error is not None
        assert (picture.image_id, picture.error.reason) == (key, reason)


def test_a_link_that_turns_outside_after_listing_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(encoded())
    source = FolderSource(root)
    entries = {entry.key: entry for entry in source.entries()}
    (root / "a.jpg").unlink()
    (root / "a.jpg").symlink_to(tmp_path / "secret.jpg")
    (picture,) = source.pictures(entries["a.jpg"])
    assert picture.error is not None
    assert picture.error.reason == "outside_source"


def test_a_folder_that_is_gone_is_an_error_of_the_source(root: Path) -> None:
    source = FolderSource(root)
    entry = next(source.entries())
    shutil.rmtree(root)
    with pytest.raises(SourceError):
        list(source.pictures(entry))
    with pytest.raises((SourceError, ConfigError)):
        list(source.entries())


def test_an_empty_file_is_a_picture_that_the_decoder_refuses(root: Path) -> None:
    (root / "empty.jpg").write_bytes(b"")
    picture = only(FolderSource(root), "empty.jpg")
    assert (picture.data, picture.error) == (b"", None)


def test_odd_folders_keep_the_walk_ascending(tmp_path: Path) -> None:
    for name in ["a!/x.jpg", "a/x.jpg", "a.jpg", "a0/x.jpg", "a/b/x.jpg", "a/b.jpg", "a/b!.jpg"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    keys = [entry.key for entry in FolderSource(tmp_path).entries()]
    assert keys == sorted(keys)
    assert len(keys) == 7
