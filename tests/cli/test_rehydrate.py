"""`export --recipe-only` and `rehydrate` as people run them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from pipeline.cli.app import main
from pipeline.cli.rehydrate import rehydrate
from pipeline.errors import CheckFailed
from tests.sources.published import datasets as made
from tests.synthesis.test_rehydrate import commit, several


def run(*arguments: str) -> int:
    """A command's exit code."""
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(stopped.value.code or 0)


def restore(*arguments: str) -> None:
    """The command by itself."""
    app = typer.Typer()
    app.command()(rehydrate)
    app(list(arguments), standalone_mode=False)


def test_recipes_are_exported_and_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COFPIPE_RUNS", str(tmp_path / "runs"))
    assert run("import", str(made.deepeyes_results(tmp_path / "eyes"))) == 0
    bare, out = str(tmp_path / "bare"), str(tmp_path / "out")
    asked = ["export", "--trainer", "trl", "--all", "--split", "0", "--out", bare, "--recipe-only"]
    capsys.readouterr()
    assert run(*asked) == 0
    said = capsys.readouterr().err
    assert "Without pixels: " in said and f"cofpipe rehydrate {bare} --source" in said
    assert run(*asked, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["recipe_only"] and told["recipe_bytes"] < told["pixel_bytes"]
    with pytest.raises(CheckFailed, match=r"2 did not come back \(2 missing\)") as failed:
        restore(bare, "--out", out)
    assert failed.value.exit_code == 5 and "--source" in (failed.value.fix or "")
    assert capsys.readouterr().out.startswith("✗ ") and not Path(out).exists()
    restore(bare, "--source", str(tmp_path / "eyes"), "--out", out, "--json")
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert (told["rows"], told["pictures"], told["lost"]) == ({"train": 2}, 2, [])
    assert "is restored, every picture proven: 2 rows in train" in captured.err


def test_pictures_that_may_not_be_passed_on_stay_here_unless_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COFPIPE_RUNS", str(tmp_path / "runs"))
    commit(tmp_path / "runs" / "run", [several()[2] | {"source": "sa1b:tars"}])
    asked = ["export", "run", "--trainer", "trl", "--split", "0", "--out"]
    assert run(*asked, str(tmp_path / "default")) == 0
    said = capsys.readouterr().err
    assert "may not be passed on: sa1b:tars (1 rows). --pixels" in said
    assert not (tmp_path / "default" / "data").exists()
    assert run(*asked, str(tmp_path / "forced"), "--pixels") == 0
    said = capsys.readouterr().err
    assert said.startswith("Warning: pictures may not be passed on: sa1b:tars")
    assert (tmp_path / "forced" / "data").exists()
