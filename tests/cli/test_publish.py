"""`card` and `push` as people run them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml
from huggingface_hub import HfApi
from typer.testing import CliRunner, Result

from pipeline.cli.card import card
from pipeline.cli.push import push
from pipeline.errors import CheckFailed, ConfigError
from tests.loopback.hub import LoopbackHub
from tests.synthesis.published_runs import looked, make_run

app = typer.Typer()
app.command()(card)
app.command()(push)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_run(tmp_path_factory.mktemp("runs"), "small", 8, 1)
    looked(made)
    return made


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A Hub that the client takes for the only one; it reads where it is when it is imported."""
    with LoopbackHub(tmp_path / "store") as running:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", running.url)
        addresses = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", addresses)
        monkeypatch.setenv("HF_TOKEN", "hf_thisIsNoToken")
        yield running


def run(run_dir: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--runs-dir", str(run_dir.parent)])


def test_a_push_is_told_and_the_same_again_does_nothing(run_dir: Path, hub: LoopbackHub) -> None:
    assert HfApi().endpoint == hub.url
    asked = ["push", "small", "me/data", "--license", "mit", "--private"]
    done = run(run_dir, *asked, "--json")
    told = json.loads(done.stdout)
    assert (told["commits"], told["created"], told["refused"]) == (1, True, [])
    assert {file["state"] for file in told["files"]} == {"new"}
    again = run(run_dir, *asked)
    assert again.exit_code == 0 and "No commit was made" in again.stderr
    assert "hf_" not in done.output + again.output
    checked = run(run_dir, "card", "hf://datasets/me/data", "--check")
    assert checked.exit_code == 0 and "Every figure" in checked.stderr
    front = yaml.safe_load(hub.content("me/data", "README.md").decode().split("---\n")[1])
    assert front["license"] == "mit" and hub.repositories["me/data"].private


def test_what_is_refused_is_listed_by_a_dry_run_and_nothing_is_sent(
    run_dir: Path, hub: LoopbackHub
) -> None:
    done = run(run_dir, "push", "small", "me/data", "--dry-run", "--json")
    assert isinstance(done.exception, ConfigError) and "licence" in str(done.exception)
    told = json.loads(done.stdout)
    assert len(told["refused"]) == 1 and told["files"]
    assert not hub.repositories
    done = run(run_dir, "push", "small", "me/data")
    assert isinstance(done.exception, ConfigError) and not hub.repositories


def test_a_card_is_written_into_the_run_and_checked_there(run_dir: Path) -> None:
    missing = run(run_dir, "card", "small", "--check")
    assert isinstance(missing.exception, ConfigError)
    assert run(run_dir, "card", "small").exit_code == 0
    assert run(run_dir, "card", "small", "--check").exit_code == 0
    file = run_dir / "README.md"
    assert (run_dir / "examples" / "0.jpg").is_file()
    file.write_text(file.read_text().replace("questions: 7", "questions: 8"))
    wrong = run(run_dir, "card", "small", "--check", "--json")
    assert isinstance(wrong.exception, CheckFailed)
    (line,) = wrong.stdout.splitlines()
    assert "trajectories.questions: the card says 8" in json.loads(line)["differs"]
    assert run(run_dir, "card", "small", "--out", "-").stdout.startswith("---\npretty_name")
