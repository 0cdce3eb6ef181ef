"""SOURCE as text: every form opens, every mistake is told with its nearest form and a fix."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.sources.folder import FolderSource
from pipeline.sources.hub import HubSource
from pipeline.sources.parquet import ParquetSource
from pipeline.sources.scenes import ScenesSource
from pipeline.sources.specs import open_source
from tests.sources.pictures import encoded


def scenes(spec: str, count: int | None = None) -> int:
    source = open_source(spec, count=count)
    assert isinstance(source, ScenesSource)
    return source.count


def test_scenes_are_counted() -> None:
    assert (scenes("scenes"), scenes("scenes:12"), scenes("scenes", 5)) == (256, 12, 5)
    assert scenes("scenes:12", 5) == 12


def test_scenes_have_the_size_that_is_asked_for() -> None:
    source = open_source("scenes:3@640x480")
    assert isinstance(source, ScenesSource) and source.size == (640, 480)
    (picture,) = source.pictures(next(iter(source.entries())))
    assert picture.image is not None and picture.image.size == (640, 480)


def test_paths_are_folders_or_datasets(tmp_path: Path) -> None:
    assert isinstance(open_source(str(tmp_path)), FolderSource)
    assert isinstance(open_source(f"folder:{tmp_path}"), FolderSource)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.parquet").write_bytes(b"")
    assert isinstance(open_source(str(tmp_path)), ParquetSource)
    assert isinstance(open_source(f"folder:{tmp_path}"), FolderSource)
    assert isinstance(open_source("hf://datasets/org/name@main"), HubSource)


def test_a_folder_named_like_a_form_needs_its_prefix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scenes").mkdir()
    monkeypatch.chdir(tmp_path)
    assert isinstance(open_source("scenes"), ScenesSource)
    assert isinstance(open_source("./scenes"), FolderSource)
    assert isinstance(open_source("folder:scenes"), FolderSource)


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("scens:5", "scenes:N[@WxH]"),
        ("sceness", "scenes:N[@WxH]"),
        ("sa-1b:x.tar", "sa1b:TARS"),
        ("vstr:dir", "vstar:DIR"),
        ("cocoo:a:b", "coco:IMAGES_DIR:ANNOTATIONS.json"),
        ("coco:images", "coco:IMAGES_DIR:ANNOTATIONS.json"),
        ("wds:", "wds:TARS"),
        ("scenes:many", "scenes:1000"),
        ("scenes:0", "1 to 1,000,000"),
        ("scenes:5@4096", "scenes:1000@4096x3072"),
        ("scenes:5@16x16", "32 to 8192"),
        ("s3://bucket/x", "hf://datasets/ORG/NAME"),
        ("no/such/folder", "no/such/folder"),
        ("", "Known"),
    ],
)
def test_mistakes_name_the_nearest_form(spec: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_source(spec)
    assert hint in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("name", "hint"),
    [("a.tar", "wds:"), ("a.jpg", "Give its folder"), ("a.json", "coco:"), ("a.txt", "sa1b:TARS")],
)
def test_a_bare_file_is_told_what_to_write(tmp_path: Path, name: str, hint: str) -> None:
    (tmp_path / name).write_bytes(encoded())
    with pytest.raises(ConfigError) as caught:
        open_source(str(tmp_path / name))
    assert hint in str(caught.value)


def test_columns_are_refused_where_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no columns"):
        open_source(str(tmp_path), columns={"image": "x"})


def test_opening_is_light(tmp_path: Path) -> None:
    code = (
        "import sys; from pipeline.sources.specs import open_source;"
        "open_source('scenes'); open_source(sys.argv[1]);"
        "import pipeline.sources.decode, pipeline.sources.gps, pipeline.sources.listing;"
        "heavy = {'torch', 'ray', 'datasets', 'pycocotools', 'pyarrow', 'huggingface_hub'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"[]\n"
