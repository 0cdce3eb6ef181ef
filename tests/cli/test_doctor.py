"""The doctor says what is wrong and never says a secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli import doctor

CANARY = "sk-canary-5f1e"


def test_a_key_is_seen_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    check = doctor.endpoint_key()
    assert "OPENAI_API_KEY is set" in check.detail
    assert CANARY not in str(check)


def test_without_a_key_nothing_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in doctor.KEYS:
        monkeypatch.delenv(name, raising=False)
    assert doctor.endpoint_key().state == "ok"


def test_a_runs_directory_that_cannot_be_written_fails_with_a_fix(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check = doctor.runs_folder(tmp_path / "file")
    assert check.state == "fail"
    assert "COFPIPE_RUNS" in check.fix


def test_looking_at_a_runs_directory_leaves_nothing_there(tmp_path: Path) -> None:
    assert doctor.runs_folder(tmp_path).state == "ok"
    assert doctor.runs_folder(tmp_path / "not-yet").state == "ok"
    assert list(tmp_path.iterdir()) == []


def test_the_packages_of_this_environment_are_in_their_ranges() -> None:
    check = doctor.packages()
    assert check.state == "ok", check.detail


def test_ray_is_above_its_floor() -> None:
    assert doctor.ray_version().state == "ok"


@pytest.mark.parametrize("check", [doctor.memory, doctor.open_files, doctor.python])
def test_every_check_says_what_it_found(check: object) -> None:
    assert callable(check)
    found = check()
    assert found.detail
    assert bool(found.fix) == (found.state != "ok")
