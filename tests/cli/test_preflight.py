"""`preflight` as people run it: what would break, in words and as JSON, and its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from pipeline.cli.preflight import preflight
from pipeline.errors import CheckFailed, ConfigError
from pipeline.synthesis.exports import Export, export
from tests.models import tiny_qwen
from tests.synthesis.test_exports import BOXES, Write, path, row, sample, write

__all__ = ["write"]  # a fixture

pytestmark = pytest.mark.torch

app = typer.Typer()
app.command()(preflight)


def run(*arguments: str) -> None:
    """The command; what it raises is what `main` turns into an exit code."""
    app(list(arguments), standalone_mode=False)


@pytest.fixture
def asked(write: Write, tmp_path: Path) -> list[str]:
    """The arguments for an export of twelve rows and a tiny model."""
    told = [row(path(n, 224, (BOXES[:1],)), sample(n)) for n in range(12)]
    export(write(*told), tmp_path / "out", Export("llamafactory", split=0))
    tokenizer = tiny_qwen.build_tokenizer()
    tokenizer.save_pretrained(tmp_path / "model")
    tiny_qwen.build_model(tokenizer).config.save_pretrained(tmp_path / "model")
    tiny_qwen.write_image_settings(tmp_path / "model")
    words = ["--trainer", "llamafactory", "--model", str(tmp_path / "model")]
    return [str(tmp_path / "out"), *words]


def test_what_would_break_is_told_by_row_and_by_reason_and_ends_with_5(
    asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(*asked)
    told = capsys.readouterr()
    assert "24 rows, 48 pictures" in told.err and "is ready for llamafactory" in told.err
    assert told.out == ""
    file = tmp_path / "out" / "train.json"
    file.write_text(file.read_text().replace("<image>", "", 11), "utf-8")
    with pytest.raises(CheckFailed, match="6 of 24 rows") as stopped:
        run(*asked)
    assert stopped.value.exit_code == 5
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert sum(line.startswith("✗ no_place: train.json row ") for line in lines) == 6
    assert sum(line.startswith("✗ no_view") for line in lines) == 10 < 11
    assert "11 no_view: a question or a look is not followed by its picture" in told.err


def test_as_json_every_problem_is_a_line_and_the_summary_the_last(
    asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CheckFailed):
        run(*asked, "--max-tokens", "300", "--json")
    *problems, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert len(problems) == summary["reasons"]["too_long"] == summary["broken"] == 24
    assert {p["reason"] for p in problems} == {"too_long"} and not summary["holds"]
    assert {p["row"] for p in problems} == set(range(12))
    assert (summary["rows"], summary["pictures"]) == (24, 48)


def test_another_trainers_export_is_refused(asked: list[str]) -> None:
    asked[2] = "trl"
    with pytest.raises(ConfigError, match="export for llamafactory"):
        run(*asked)
