"""Checkpoints can be listed without fetching or loading anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli.app import main


def test_what_can_be_fetched_is_listed_with_its_digest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["models", "list", "--json", "--folder", str(tmp_path)])
    assert stopped.value.code == 0
    found = {row["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert found["vit_b"]["present"] is False
    assert found["vit_b"]["sha256"].startswith("ec2df627")
    assert found["vit_b"]["bytes"] == 375042383


@pytest.mark.parametrize("action", [["pull", "vit_x"], ["train", "pocket-sma", "-o", "x"]])
def test_an_unknown_name_is_answered_with_the_nearest(
    action: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["models", *action])
    assert stopped.value.code == 2
    assert "Did you mean" in capsys.readouterr().err


def test_listing_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pipeline.cli.app import main\n"
        "try:\n    main(['models', 'list', '--folder', sys.argv[1]])\n"
        "except SystemExit:\n    print(sorted(sys.modules))\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout
    assert "'json'" in out
    assert "'torch'" not in out
