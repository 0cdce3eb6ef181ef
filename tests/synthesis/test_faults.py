"""Every fault of a server or a model ends in the right place: `docs/faults.md` is the table."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from manifests.database import query
from pipeline.config import Config, config_from
from pipeline.errors import CofpipeError
from pipeline.synthesis.run import synthesize
from tests.loopback import server as faults
from tests.loopback.perfect import PerfectModel
from tests.loopback.server import Answer, Body, Loopback

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("faults")]

TABLE = Path(__file__).parents[2] / "docs" / "faults.md"
TASK = {"budgets": [224, 672], "per_image": 2}
ROWS = 4

TRANSIENT = {
    "429 with `Retry-After` in seconds": faults.rate_limited(0),
    "429 without `Retry-After`": faults.rate_limited(),
    "500": faults.failing(500),
    "502": faults.failing(502),
    "503": faults.failing(503),
    "connection reset": faults.RESET,
    "body that stalls": faults.STALL,
    "truncated JSON": faults.TRUNCATED,
    "HTML with status 200": faults.HTML,
    "no choices": faults.EMPTY,
    "invalid UTF-8": faults.INVALID_UTF8,
}
"""Seen once for every request, then never again."""


def _zoom(box: object) -> str:
    call = {"name": "zoom", "arguments": {"box": box}}
    return f"<think> Look. </think><tool_call>{json.dumps(call)}</tool_call>"


MISTAKES: dict[str, Answer] = {
    "cut off at its length": faults.LENGTH,
    "box with NaN": _zoom([float("nan"), 1, 50, 60]),
    "corners swapped": _zoom([50, 60, 10, 20]),
    "box outside the picture": _zoom([0, 0, 99999, 99999]),
    "unknown tool": '<tool_call>{"name": "shell", "arguments": {"command": "ls"}}</tool_call>',
    "unclosed tag": "<think> I will look <answer> A7K </answer>",
    "empty answer": "<answer> </answer>",
    "no text at all": "",
}
"""Said once in every episode, then the model does better."""

STUBBORN: dict[str, tuple[Answer, str]] = {
    "context overflow": (faults.OVERFLOW, "context_overflow"),
    "request too large (413)": (faults.TOO_LARGE, "context_overflow"),
    "turns that never take the form": ("Hm.", "malformed"),
    "endless tool loop": (_zoom([20, 20, 120, 120]), "no_answer"),
}
"""All that is said about one question; the others are answered."""

FATAL = {
    "model renamed during the run": faults.RENAMED,
    "wrong key (401)": faults.UNAUTHORIZED,
    "model gone (404)": faults.NO_MODEL,
    "server that only fails": faults.failing(500),
}
"""From the third request on: no score, no rejection, the run stops and can be continued."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    grain = np.random.default_rng(0).integers(90, 140, (672, 1008, 3), np.uint8)
    Image.fromarray(grain).resize((1008, 672)).save(folder / "a.png")
    return folder


@pytest.fixture(scope="module")
def perfect(photos: Path) -> PerfectModel:
    return PerfectModel(config_from({"source": str(photos), "task": TASK}))


@pytest.fixture(scope="module")
def table() -> Iterator[dict[str, str]]:
    """What became of each fault; written when all of them were tried."""
    told: dict[str, str] = {}
    yield told
    every = [*TRANSIENT, *MISTAKES, *STUBBORN, *FATAL]
    if list(told) != every:
        return
    lines = [f"| {name} | {told[name]} |" for name in every]
    head = (
        "# Faults\n\nWhat becomes of a trajectory when its server or its model fails: written by "
        "`tests/synthesis/test_faults.py`,\nwhich runs the whole agent against a loopback server "
        "for each of them. No row is lost in any.\n\n| fault | ends as |\n|---|---|\n"
    )
    TABLE.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


class Flawed:
    """The perfect model with a flaw: what it says instead, given a request's JSON."""

    def __init__(self, perfect: PerfectModel, instead: Callable[[Body], Answer | None]) -> None:
        self._perfect, self._instead = perfect, instead

    def __call__(self, body: Body) -> Answer:
        flaw = self._instead(body)
        return self._perfect(body) if flaw is None else flaw


def settings(photos: Path, runs: Path, url: str) -> Config:
    return config_from(
        {
            "source": str(photos),
            "task": TASK,
            "policy": {"kind": "endpoint", "model": "loopback", "family": "qwen2.5-vl"},
            "endpoint": {"urls": [url], "tries": 3, "deadline_s": 2},
            "run": {"dir": str(runs)},
        }
    )


def ended(photos: Path, runs: Path, brain: Callable[[Body], Answer]) -> tuple[int, Counter[str]]:
    """Rows kept, and rejections by reason."""
    with Loopback(brain) as server:
        summary = synthesize(settings(photos, runs, server.url), shards=1, address="none")
    assert summary.status == "done"
    found = query(runs, "select reason from rejections", summary.run_id).column(0).to_pylist()
    return summary.kept, Counter(found)


@pytest.mark.parametrize("name", TRANSIENT)
def test_a_passing_fault_costs_a_try_and_nothing_else(
    name: str, photos: Path, perfect: PerfectModel, tmp_path: Path, table: dict[str, str]
) -> None:
    seen: set[str] = set()

    def once(body: Body) -> Answer | None:
        text = json.dumps(body)
        first = text not in seen
        seen.add(text)
        return TRANSIENT[name] if first else None

    kept, rejected = ended(photos, tmp_path, Flawed(perfect, once))
    assert (kept, rejected) == (ROWS, {})
    table[name] = "another try; the row is kept"


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_to_the_model_which_does_better(
    name: str, photos: Path, perfect: PerfectModel, tmp_path: Path, table: dict[str, str]
) -> None:
    def first(body: Body) -> Answer | None:
        planning = body["messages"][0]["role"] == "system"
        return MISTAKES[name] if planning and len(body["messages"]) == 2 else None

    kept, rejected = ended(photos, tmp_path, Flawed(perfect, first))
    assert (kept, rejected) == (ROWS, {})
    table[name] = "the model is told what was wrong, up to `episode.slips` times; the row is kept"


@pytest.mark.parametrize("name", STUBBORN)
def test_what_cannot_be_answered_is_one_rejection_with_its_reason(
    name: str, photos: Path, perfect: PerfectModel, tmp_path: Path, table: dict[str, str]
) -> None:
    answer, reason = STUBBORN[name]
    one: list[str] = []

    def about_one(body: Body) -> Answer | None:
        if body["messages"][0]["role"] != "system":
            return None
        (question,) = re.findall(r'"Question: ([^"]+)"', json.dumps(body))
        one.append(question)
        return answer if question == one[0] else None

    kept, rejected = ended(photos, tmp_path, Flawed(perfect, about_one))
    assert (kept, rejected) == (ROWS - 2, {reason: 2})
    kinds = query(tmp_path, "select distinct stage from rejections").column(0).to_pylist()
    assert kinds == ["agent"]
    table[name] = f"rejection `{reason}`; pictures and turns are kept under `rejected`"


@pytest.mark.parametrize("name", FATAL)
def test_a_broken_server_stops_the_run_which_then_goes_on(
    name: str, photos: Path, perfect: PerfectModel, tmp_path: Path, table: dict[str, str]
) -> None:
    count = 0

    def later(body: Body) -> Answer | None:
        nonlocal count
        count += 1
        return FATAL[name] if count > 2 else None

    with Loopback(Flawed(perfect, later)) as server:
        config = settings(photos, tmp_path, server.url)
        with pytest.raises(CofpipeError) as error:
            synthesize(config, shards=1, address="none")
        port, seen = server.port, [json.dumps(s.body) for s in server.log if s.body]
    assert not query(tmp_path, "select * from rejections").num_rows
    with Loopback(perfect, port=port) as server:
        summary = synthesize(config, shards=1, address="none")
        again = [json.dumps(s.body) for s in server.log]
    assert (summary.status, summary.kept, summary.continued) == ("done", ROWS, True)
    assert len(set(seen[:2]) & set(again)) == 0
    table[name] = f"`{type(error.value).__name__}`: the run stops, and continues where it was"


def test_nothing_said_in_a_picture_or_by_a_model_reaches_beyond_the_tools(
    photos: Path, perfect: PerfectModel, tmp_path: Path
) -> None:
    before = sorted(p.name for p in photos.iterdir())
    shell: Any = '<tool_call>{"name": "zoom", "arguments": {"box": "; rm -rf /"}}</tool_call>'
    kept, rejected = ended(photos, tmp_path, Flawed(perfect, lambda body: shell))
    assert (kept, rejected) == (0, {"malformed": ROWS})
    assert sorted(p.name for p in photos.iterdir()) == before
