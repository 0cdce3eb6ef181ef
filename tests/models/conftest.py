"""Tiny Qwen-VLs that the tests of what is read again share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pipeline.models.qwen_vl import QwenVl


@pytest.fixture(scope="session", params=["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def related(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> QwenVl:
    """Each kind of Qwen-VL that is served; nothing is kept."""
    from tests.models.watched_qwen import build

    return build(tmp_path_factory.mktemp("qwen"), request.param)


@pytest.fixture(scope="session")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> QwenVl:
    """A Qwen2.5-VL that keeps nothing."""
    from tests.models.watched_qwen import build

    return build(tmp_path_factory.mktemp("qwen"))


@pytest.fixture
def keeping(forgetful: QwenVl) -> QwenVl:
    """The same weights, keeping what was read."""
    from tests.models.watched_qwen import like

    return like(forgetful)
