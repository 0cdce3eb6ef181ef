"""`train` as people run it: from a run to a model, told in words and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from manifests.database import query
from pipeline.cli.printing import say
from pipeline.errors import CofpipeError

pytestmark = pytest.mark.torch

pytest.importorskip("trl")

from pipeline.cli.train import app  # noqa: E402
from tests.train import tiny_training  # noqa: E402

SMOKE = ["--preset", "smoke", "--set", "max_steps=1", "--set", "batch_size=1"]


def run(*arguments: str) -> int:
    """A command's exit code, errors told as the command line does."""
    try:
        typer.main.get_command(app)(list(arguments), standalone_mode=False)
    except CofpipeError as error:
        say(str(error))
        return error.exit_code
    return 0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of 4 rows, and a model."""
    folder = tmp_path_factory.mktemp("place")
    tiny_training.make_run(folder, 1)
    tiny_training.checkpoint(folder / "tiny", "qwen2_5_vl")
    return folder


@pytest.fixture
def asked(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("COFPIPE_RUNS", str(place / "runs"))
    return ["sft", "--model", str(place / "tiny"), "--out", str(tmp_path / "out")]


def test_a_run_is_exported_and_trained_on_and_is_a_parent(
    place: Path, asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source,) = query(place / "runs", "select run_id from runs").to_pylist()
    assert run(*asked, "--data", source["run_id"][:9], *SMOKE, "--json") == 0
    out = capsys.readouterr().out
    told = json.loads(out)
    assert (told["status"], told["steps"]) == ("done", 1) and out.count("\n") == 1
    assert told["model"] == str(tmp_path / "out" / "model")
    assert (tmp_path / "out" / "data" / "manifest.json").is_file()
    where = f"select parents from runs where run_id = '{told['run_id']}'"
    (row,) = query(place / "runs", where).to_pylist()
    assert json.loads(row["parents"])[0] == source["run_id"]
    exported = str(tmp_path / "out" / "data")
    assert run(*asked, "--data", exported, *SMOKE) == 2
    assert "--resume" in capsys.readouterr().err
    again = [*asked[:4], str(tmp_path / "again")]
    assert run(*again, "--data", exported, *SMOKE) == 0
    said = capsys.readouterr()
    assert said.out == f"{tmp_path / 'again' / 'model'}\n" and "step 1: loss" in said.err
    assert run(*again, "--data", exported, "--profile", "cof-v1", *SMOKE) == 2
    assert "turns of cof-v2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--preset", "smok"], "Did you mean 'smoke'?"),
        (["--set", "epoch=1"], "Did you mean 'epochs'?"),
        (["--merge", "--set", "lora_rank=0"], "Nothing is to be merged"),
    ],
)
def test_what_cannot_be_asked_ends_with_2_and_trains_nothing(
    more: list[str],
    why: str,
    asked: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(*asked, "--data", "needles", *more) == 2
    assert why in capsys.readouterr().err
    assert not (tmp_path / "out" / "model").exists()
