"""`export` as people run it: of an imported run, told in words and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.cli.app import main
from tests.sources.published import datasets as made


def run(*arguments: str) -> int:
    """A command's exit code."""
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(stopped.value.code or 0)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COFPIPE_RUNS", str(tmp_path / "runs"))
    assert run("import", str(made.deepeyes_results(tmp_path / "eyes"))) == 0
    return tmp_path / "runs"


def test_an_imported_run_is_exported_and_found_again(
    tmp_path: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    asked = ["export", "latest", "--trainer", "llamafactory", "--out", str(out), "--all"]
    capsys.readouterr()
    assert run(*asked, "--split", "0", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["left_out"], told["stood"]) == ({"train": 2}, {}, False)
    rows = json.loads((out / "train.json").read_text("utf-8"))
    assert sum(len(row["images"]) for row in rows) == told["pictures"] > 2
    assert run(*asked, "--split", "0") == 0
    assert "was there already: 2 rows in train" in capsys.readouterr().err
    assert run(*asked, "--split", "0.5") == 2
    assert "another export" in capsys.readouterr().err


def test_what_is_left_out_is_said(
    tmp_path: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["export", "--trainer", "verl", "--out", str(tmp_path / "out"), "--split", "0"]
    assert run(*asked) == 0
    said = capsys.readouterr().err
    assert "1 rows in train" in said and "Left out: 1 not_verified (left_out.jsonl)." in said
    assert run("export", "--trainer", "verl", "--out", str(tmp_path / "x"), "--kind", "sft") == 2
    assert "no sft export for verl" in capsys.readouterr().err
