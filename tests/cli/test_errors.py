"""What an error becomes: one sentence, a fix, an exit code, and no traceback unless asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli.app import main


def end(*arguments: str) -> int:
    """The exit code of `cofpipe ARGUMENTS`."""
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    code = stopped.value.code
    return code if isinstance(code, int) else 0


def test_an_expected_error_is_one_sentence_and_its_fix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert end("report", "--runs-dir", str(tmp_path)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[0] == f"Error: There are no runs in '{tmp_path}'."
    assert lines[1].startswith("Make one with: cofpipe synthesize")
    assert len(lines) == 2


def test_debug_shows_the_traceback_and_keeps_the_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert end("report", "--runs-dir", str(tmp_path), "--debug") == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["sql"],
        ["synthesize", "--shards", "0"],
        ["synthesize", "--kind", "videos"],
        ["synthesize", "--max-reject-rate", "1.5"],
        ["synthesize", "--resume", "perhaps"],
    ],
)
def test_wrong_usage_ends_with_two(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert end(*arguments) == 2
    assert "Traceback" not in capsys.readouterr().err
