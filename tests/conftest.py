"""What every test may rely on: a quiet, offline environment and one worker for the Ray tests.

The markers (torch, ray, work, slow, fuzz, survive, bench) are declared in pyproject.toml.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "OMP_NUM_THREADS": "1",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TOKENIZERS_PARALLELISM": "false",
}
for _name, _value in _QUIET.items():
    os.environ.setdefault(_name, _value)


_HERE = Path(__file__).parent
_AT_WORK = {
    *("runner", "synthesis", "cli", "eval", "scenes", "models"),
    *("test_puzzle_scripts.py", "test_endpoint.py", "test_line_reader.py", "test_sign_script.py"),
    *("test_probes.py", "test_mask_iou.py", "test_flawed.py", "saliency", "train"),
    *("test_page.py", "test_prompts.py", "test_inline.py", "test_documented_queries.py"),
}
"""Folders and files whose tests make runs, draw many pictures or talk to servers: seconds each."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """All Ray tests run in one xdist worker: two clusters would fight for the same cores."""
    parallel = config.pluginmanager.hasplugin("xdist")
    for item in items:
        place = item.path.relative_to(_HERE).parts
        if place[0] in _AT_WORK or place[-1] in _AT_WORK:
            item.add_marker(pytest.mark.work)
        if parallel and item.get_closest_marker("ray"):
            item.add_marker(pytest.mark.xdist_group("ray"))
