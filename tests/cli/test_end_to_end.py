"""`synthesize` as people run it: to its end, past a limit, and through a signal.

Weights are random, so nothing is solved; what is asked here does not depend on it.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """`cofpipe synthesize` in this process's interpreter with small, untrained weights."""
    from safetensors.torch import save_file

    from pipeline.models import sam

    file = tmp_path_factory.mktemp("weights") / "pocket_sam.safetensors"
    state = {name: tensor.contiguous() for name, tensor in sam.build("pocket").state_dict().items()}
    save_file(state, file)
    settings = [f"segmenter.checkpoint={file}", "segmenter.variant=pocket", "task.budgets=224"]
    start = [sys.executable, "-c", "from pipeline.cli.app import main; main()", "synthesize"]
    return [*start, "--address", "none", *(word for s in settings for word in ("--set", s))]


def test_a_run_ends_and_the_same_command_finds_it_done(command: list[str], tmp_path: Path) -> None:
    asked = [*command, "scenes:2", "--shards", "2", "--json", "--runs-dir", str(tmp_path)]
    first = subprocess.run(asked, capture_output=True, text=True, check=True)
    told = json.loads(first.stdout)
    assert (told["status"], told["continued"], told["shards_done"]) == ("done", False, 2)
    assert told["kept"] + told["rejected"] == 2
    again = subprocess.run([*asked, "--max-reject-rate", "0"], capture_output=True, text=True)
    assert again.returncode == 3, "nothing is solved with these weights"
    assert json.loads(again.stdout) == told | {"continued": True}


def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    command: list[str], tmp_path: Path
) -> None:
    asked = [*command, "scenes:5", "--shards", "3", "--dry-run", "--runs-dir", str(tmp_path)]
    told = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert "is new: 5 images in 3 shards" in told.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_signal_saves_the_state_and_the_same_command_goes_on(
    command: list[str], tmp_path: Path
) -> None:
    asked = [*command, "scenes:4", "--shards", "4", "--runs-dir", str(tmp_path)]
    child = subprocess.Popen(asked, stderr=subprocess.PIPE, text=True)
    assert child.stderr
    assert child.stderr.readline().endswith("begins.\n")
    child.send_signal(signal.SIGTERM)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "The same command continues it." in said
    ended = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert ended.stderr.splitlines()[0].endswith("continues.")
    assert "4 of 4 shards" in ended.stderr
    assert len([run for run in tmp_path.iterdir() if (run / "run.json").exists()]) == 1
