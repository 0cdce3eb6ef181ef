"""Laws of the judge in training: rewards follow its verdicts, and its failure is no reward of 0."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from manifests.database import connect
from pipeline.cli import train_rl as command
from pipeline.errors import ConfigError, ModelError
from pipeline.train.judge import EndpointJudge, judged_together, opened_judge
from pipeline.train.rl import Asked, reward_for, train_rl
from pipeline.train.rl_presets import RL_PRESETS, RlSettings
from tests.loopback.server import RESET, Answer, Body, Loopback, failing, said
from tests.synthesis.test_exports import path, row, sample, write  # noqa: F401

SAME = ("Blue", "azure", "sky-coloured")
"""Answers that the server's model takes for navy."""
ASKED = ((0, "What colour is it?"), (1, "Which colour has the sign?"))


def compared(body: Body) -> dict[str, str]:
    """What a judge was told."""
    told: dict[str, str] = json.loads(said(body).rpartition("\n\n")[2])
    return told


def lenient(body: Body) -> Answer:
    return "1" if compared(body)["answer"].casefold() in map(str.casefold, SAME) else "0"


def turn(answer: str) -> list[dict[str, str]]:
    text = f"<think> It is clear. </think>\n<answer> {answer} </answer>"
    return [{"role": "assistant", "content": text}]


def rewarded(judge: EndpointJudge, answers: Sequence[str], **settings: Any) -> list[float]:
    columns = {"target": ["navy"] * len(answers), "question": ["Which?"] * len(answers)}
    reward = judged_together("answer", judge, **settings)
    return reward([turn(answer) for answer in answers], **columns)


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback(lenient, latency_s=0.2) as running:
        yield running


def test_all_answers_of_a_batch_are_asked_about_at_once_and_each_once(server: Loopback) -> None:
    answers = ["azure", "red", "navy", "azure", "", "Blue"]
    with opened_judge(server.url) as judge:
        assert judge is not None and judge.name == "loopback"
        assert rewarded(judge, answers) == [1.0, 0.0, 1.0, 1.0, 0.0, 1.0]
        told = [compared(seen.body) for seen in server.log]
        assert sorted(one["answer"] for one in told) == ["Blue", "azure", "red"]
        assert {(one["question"], one["right"]) for one in told} == {("Which?", "navy")}
        assert server.most_at_once == 3
        assert rewarded(judge, ["red", "Blue"]) == [0.0, 1.0]
        assert judge("Which?", "navy", "azure") == 1.0
    assert len(server.log) == 3


def test_under_the_rule_judge_it_alone_decides(server: Loopback) -> None:
    with opened_judge(server.url) as judge:
        assert judge is not None
        assert rewarded(judge, ["navy", "azure"], answer_rule="judge") == [0.0, 1.0]


@pytest.mark.parametrize("reply", ["", "yes", "0 or 1", failing(400)])
def test_what_is_no_verdict_is_raised_and_asked_for_again(reply: Answer) -> None:
    replies = {"azure": "1", "red": reply}
    with (
        Loopback(lambda body: replies[compared(body)["answer"]]) as server,
        opened_judge(server.url) as judge,
    ):
        assert judge is not None
        for _ in range(2):
            with pytest.raises(ModelError):
                rewarded(judge, ["azure", "red"])
        replies["red"] = "0"
        assert rewarded(judge, ["azure", "red"]) == [1.0, 0.0]


def test_a_lost_connection_is_tried_again() -> None:
    replies: list[Answer] = ["1", RESET]
    with Loopback(lambda body: replies.pop()) as server, opened_judge(server.url) as judge:
        assert judge is not None and rewarded(judge, ["azure"]) == [1.0]


def test_a_judge_that_cannot_be_is_refused_before_it_is_asked(server: Loopback) -> None:
    with opened_judge("") as judge:
        assert judge is None
    for url, model in (("", "loopback"), ("http://me:secret@host/v1", ""), ("host", "")):
        with pytest.raises(ConfigError) as refused, opened_judge(url, model):
            pass
        assert "secret" not in str(refused.value)
    with opened_judge(server.url) as judge, pytest.raises(ConfigError, match="no answer to judge"):
        reward_for("format", RlSettings(), judge)


def test_the_key_is_the_endpoints_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-judge")
    with Loopback(lenient, key="sk-of-the-judge") as server, opened_judge(server.url) as judge:
        assert judge is not None and rewarded(judge, ["azure"]) == [1.0]


@pytest.fixture
def world(write: Any, tmp_path: Path) -> Any:  # noqa: F811
    """A policy that says "blue", and prompts whose answer is navy and has no options."""
    from tests.train.tiny_policy import make_world

    asked = [replace(sample(number, question), options=()) for number, question in ASKED]
    paths = [path(number, 112) for number, _ in ASKED]
    rows = [row(one, of, target="navy") for one, of in zip(paths, asked, strict=True)]
    return make_world(tmp_path / "world", write(*rows), "qwen2_5_vl")


@pytest.mark.torch
@pytest.mark.xdist_group("rl")
def test_a_failing_judge_ends_a_training_and_rewards_follow_one_that_does_not(
    world: Any, tmp_path: Path
) -> None:
    from pipeline.train.processing import load_processor

    runs, batches = tmp_path / "runs", list[Any]()
    sets = {"turn_tokens": 32, "turns": 1, "max_steps": 1}
    settings = RlSettings.model_validate({**RL_PRESETS["smoke"], **sets})
    with Loopback(lambda body: failing(400)) as server:
        words = ["--data", str(world.rl), "--model", str(world.model), "--preset", "smoke"]
        words += [word for name, value in sets.items() for word in ("--set", f"{name}={value}")]
        words += ["--out", str(tmp_path / "out"), "--runs-dir", str(runs), "--reward", "answer"]
        app = typer.Typer()
        app.command()(command.rl)
        told = CliRunner().invoke(app, [*words, "--judge", server.url])
        assert isinstance(told.exception, ModelError), told.output
    assert [status for _, status in statuses(runs)] == ["failed"]
    first = ASKED[0][1]
    with Loopback(lambda body: str(int(compared(body)["question"] == first))) as server:
        asked = Asked(
            world.rl, str(world.model), tmp_path / "out", settings, "answer", resume=True,
            judge=server.url, judge_model="loopback",
        )  # fmt: skip
        done = train_rl(asked, runs_dir=runs, watch=batches.append)
        judged = {tuple(compared(seen.body).values()) for seen in server.log}
    assert statuses(runs) == [(done.run_id, "done")]
    (batch,) = batches
    decode = load_processor(world.model).tokenizer.batch_decode
    right = []
    for prompt, text in zip(
        decode(batch["prompt_ids"]), decode(batch["completion_ids"]), strict=True
    ):
        answer = re.search(r"<answer>\s*(\S.*?)\s*</answer>", text, re.DOTALL)
        right.append(float(first in prompt and answer is not None))
    assert list(batch["rewards"]) == right
    assert set(right) == {0.0, 1.0}
    assert {(question, "navy", "blue") for _, question in ASKED} <= judged


def statuses(runs: Path) -> list[tuple[str, str]]:
    found: list[tuple[str, str]]
    found = connect(runs).execute("SELECT run_id, status FROM runs").fetchall()
    return found
