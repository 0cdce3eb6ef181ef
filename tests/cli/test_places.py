"""Which run is meant."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.cli.places import find_run, run_ids
from pipeline.errors import ConfigError


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    """Three runs; the alphabetically first is the newest."""
    for age, name in enumerate(["aaa-1", "zzz-1", "zzz-2"]):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")
        os.utime(tmp_path / name / "run.json", (1000 - age, 1000 - age))
    (tmp_path / "no-run").mkdir()
    return tmp_path


def test_runs_are_listed_oldest_first_and_other_folders_are_not(runs_dir: Path) -> None:
    assert run_ids(str(runs_dir)) == ["zzz-2", "zzz-1", "aaa-1"]


@pytest.mark.parametrize(
    ("asked", "meant"), [("latest", "aaa-1"), ("zzz-2", "zzz-2"), ("a", "aaa-1")]
)
def test_a_run_is_found_by_name_start_or_age(runs_dir: Path, asked: str, meant: str) -> None:
    assert find_run(str(runs_dir), asked) == runs_dir / meant


def test_a_run_is_found_by_its_folder(runs_dir: Path, tmp_path: Path) -> None:
    assert find_run(str(tmp_path / "elsewhere"), str(runs_dir / "zzz-1")) == runs_dir / "zzz-1"


@pytest.mark.parametrize(
    ("asked", "words"), [("zzz", "could be any of"), ("zzz-9", "Did you mean 'zzz-")]
)
def test_what_cannot_be_told_is_said(runs_dir: Path, asked: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        find_run(str(runs_dir), asked)
    assert words in str(error.value)


def test_where_there_are_no_runs_the_fix_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cofpipe synthesize"):
        find_run(str(tmp_path), "latest")


def test_latest_is_the_last_run_of_the_kinds_that_are_meant(runs_dir: Path) -> None:
    (runs_dir / "zzz-1" / "run.json").write_text('{"kind": "trajectories"}')
    os.utime(runs_dir / "zzz-1" / "run.json", (900, 900))
    assert find_run(str(runs_dir), "latest") == runs_dir / "aaa-1"
    assert find_run(str(runs_dir), "latest", ("trajectories",)) == runs_dir / "zzz-1"
    with pytest.raises(ConfigError, match="is of prompts"):
        find_run(str(runs_dir), "latest", ("prompts",))
