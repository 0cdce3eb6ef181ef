"""Proofs end with 5 when they do not hold, and with nothing removed that counts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipeline.cli.app import main
from tests.cli.workers import make_run


def end(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return stopped.value.code


@pytest.fixture
def runs_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_run(tmp_path, "only")
    monkeypatch.setenv("COFPIPE_RUNS", str(tmp_path))
    return tmp_path


def test_a_whole_run_is_proved_whole(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert end("fsck", "only") == 0
    assert "only is whole" in capsys.readouterr().err


def test_one_flipped_bit_is_found(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = next((runs_dir / "only" / "data" / "trajectories").glob("*.parquet"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert end("fsck", "only", "--json") == 5
    captured = capsys.readouterr()
    assert file.name in json.loads(captured.out)["problems"][0]
    assert "not whole" in captured.err


def test_rows_that_do_not_show_what_they_say_fail_the_recheck(
    runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """This run is whole, but its rows give no digest of their pictures."""
    assert end("fsck", "only", "--recheck", "--json") == 5
    captured = capsys.readouterr()
    whole, rechecked = map(json.loads, captured.out.splitlines())
    assert whole["problems"] == []
    assert "image_sha256" in rechecked["problems"][0]
    assert "do not show what they say" in captured.err


def test_an_orphan_is_removed_and_what_counts_is_not(
    runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = runs_dir / "only" / "data" / "trajectories"
    before = sorted(folder.iterdir())
    orphan = folder / "shard-00000.deadbeef.part-000.parquet"
    orphan.write_bytes(b"x" * 1000)
    os.utime(orphan, (0, 0))
    assert end("gc", "only", "--dry-run", "--json") == 0
    assert orphan.exists()
    assert json.loads(capsys.readouterr().out)["bytes"] == 1000
    assert end("gc", "only") == 0
    assert sorted(folder.iterdir()) == before
    assert end("fsck", "only") == 0
