"""`import` as people run it, and every command that looks at what came of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from pipeline.cli.app import main
from tests.sources.published import datasets as made
from tests.sources.published.datasets import SIZE


def run(*arguments: str) -> int:
    """A command's exit code."""
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(stopped.value.code or 0)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COFPIPE_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def test_an_imported_run_is_looked_at_like_any_other(
    tmp_path: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = made.mini_o3(tmp_path / "mini", parquet=True)
    assert run("import", str(root), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["status"], told["kept"], told["rejected"]) == ("done", 1, 1)

    assert run("sql", "select policy, num_zooms from trajectories", "--json") == 0
    row = json.loads(capsys.readouterr().out)
    assert row == {"policy": "imported:mini-o3", "num_zooms": 2}

    assert run("fsck", "--recheck") == 0
    assert "is whole" in capsys.readouterr().err

    sample = "data/train-00000.parquet#0#0"
    assert run("show", sample) == 0
    shown = capsys.readouterr().out
    assert "1. zoom [250, 140, 850, 560]  The middle." in shown
    assert "vase  (not verified, answered)" in shown
    assert run("show", "data/train-00000.parquet#1#0") == 0
    assert "answer_missing in import" in capsys.readouterr().out

    drawing = tmp_path / "path.png"
    assert run("show", sample, "--draw", str(drawing)) == 0
    assert Image.open(drawing).width == 1600

    page = tmp_path / "report.html"
    assert run("report", "-o", str(page)) == 0
    text = page.read_text("utf-8")
    assert "What is in the corner?" in text and "answer_missing" in text
    assert text.count("data:image/jpeg") >= 3, "the picture and both crops"


def test_people_are_told_how_it_went_and_the_same_command_finds_it_done(
    tmp_path: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["import", str(made.chain_of_focus(tmp_path / "cof")), "--shards", "1"]
    assert run(*asked) == 0
    first = capsys.readouterr().err
    assert "begins." in first and "2 kept, 0 rejected." in first
    assert run(*asked) == 0
    again = capsys.readouterr().err
    assert "continues." in again and "2 kept, 0 rejected." in again
    assert len(list(runs.glob("*/run.json"))) == 1


def test_an_unknown_folder_ends_with_2_and_names_what_is_known(
    tmp_path: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "odd.json").write_text("[1, 2]")
    assert run("import", str(tmp_path)) == 2
    err = capsys.readouterr().err
    assert "in no known layout: found odd.json (unknown)" in err
    for name in ("chain-of-focus", "deepeyes", "mini-o3", "visual-cot"):
        assert name in err


def test_a_page_shows_the_crop_that_the_tool_made(tmp_path: Path) -> None:
    from pipeline.geometry import Box
    from pipeline.report.pictures import crop_at

    image = Image.new("RGB", SIZE)
    image.paste((255, 0, 0), (300, 300, 400, 400))
    box, view = Box(300, 300, 400, 400), (112, 112)
    plain, enlarged = crop_at(image, box, view, "crop"), crop_at(image, box, view, "zoom")
    assert plain.getextrema() == ((255, 255), (0, 0), (0, 0))
    assert enlarged.getextrema()[0] == (0, 255), "half as much again, black around it"
