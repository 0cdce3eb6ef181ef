"""`synthesize` turns its options into settings, and a run's end into an exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.cli.app import main


def end(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as stopped:
        main(["synthesize", *arguments])
    return stopped.value.code


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COFPIPE_RUNS", raising=False)
    monkeypatch.chdir(tmp_path)


def test_settings_come_from_files_then_set_then_flags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "f.toml").write_text("seed = 1\nsource = 'scenes:3'\n[task]\nper_image = 2\n")
    asked = ["--config", "f.toml", "--set", "seed=2", "--set", "task.budgets=672,224"]
    assert end("scenes:9", *asked, "--budget-usd", "1.5", "--print-config") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["seed"], found["source"], found["task"]["per_image"]) == (2, "scenes:9", 2)
    assert found["task"]["budgets"] == [224, 672]
    assert found["budget"]["usd"] == 1.5
    assert list(tmp_path.iterdir()) == [tmp_path / "f.toml"]


def test_where_runs_are_kept_can_be_said_in_three_ways(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def kept(*arguments: str) -> str:
        assert end("--print-config", *arguments) == 0
        return str(json.loads(capsys.readouterr().out)["run"]["dir"])

    assert kept() == "runs"
    monkeypatch.setenv("COFPIPE_RUNS", "from-environment")
    assert kept() == "from-environment"
    assert kept("--set", "run.dir=from-set") == "from-set"
    assert kept("--set", "run.dir=from-set", "--runs-dir", "from-flag") == "from-flag"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "task.per_imge=2"], "Did you mean 'per_image'?"),
        (["--set", "task.per_image=0"], "task.per_image"),
        (["--set", "seed"], "has no value"),
        (["--config", "missing.toml"], "There is no settings file"),
    ],
)
def test_a_setting_that_cannot_be_used_is_said(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert end(*arguments) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert "Traceback" not in captured.err
