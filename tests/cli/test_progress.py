"""What people are told while a run works, and how a signal stops it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from pipeline.cli.progress import Tally, progress
from pipeline.cli.stopping import stop_on_signals

COMMIT = {"event": "committed", "shard": 0, "part": 0, "rows": 3, "rejected": 1, "bytes": 9}


def test_commits_add_up_and_a_shard_of_two_parts_is_one_shard() -> None:
    tally = Tally(shards=4)
    for event in (COMMIT, {**COMMIT, "part": 1}, {**COMMIT, "shard": 2}, {"event": "granted"}):
        tally.take(event)
    assert tally.line().startswith("2 of 4 shards, 9 kept, 3 rejected")


def test_a_shard_that_goes_on_is_not_done() -> None:
    tally = Tally(shards=4)
    tally.take({**COMMIT, "last": False})
    assert tally.line().startswith("0 of 4 shards, 3 kept")


def test_a_lost_worker_is_said_at_once_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(4) as on_event:
        on_event(COMMIT)
        on_event({"event": "worker_lost", "detail": "killed"})
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "A worker was lost (killed); its shard goes to another.\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_to_stop_and_is_undone_after(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        os.kill(os.getpid(), number)
        assert stop.wait(5)
    assert signal.getsignal(number) is before


def test_the_second_signal_ends_at_once_with_130() -> None:
    code = (
        "import time\nfrom pipeline.cli.stopping import stop_on_signals\n"
        "with stop_on_signals():\n    print('ready', flush=True)\n    time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout
    child.stdout.readline()
    child.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert child.poll() is None
    child.send_signal(signal.SIGTERM)
    assert child.wait(10) == 130
