"""Training a policy on its own rollouts: `train rl`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.benchmarks import Judge, JudgeModel
from pipeline.cli.places import RUNS_DIR, AsJson, RunsDir
from pipeline.cli.printing import emit, say
from pipeline.cli.stopping import INTERRUPTED, stop_on_signals

if TYPE_CHECKING:
    from pipeline.train.rl import Asked, Reinforced

TOLD = ("loss", "reward", "kl", "rollouts/zoomed", "rollouts/turns", "groups/zero_variance")
"""What a line of progress says of an update."""


class AlgorithmName(StrEnum):
    """What a rollout's reward is held against."""

    grpo = "grpo"
    rloo = "rloo"
    reinforce = "reinforce"
    ppo = "ppo"


def rl(
    data: Annotated[
        str, typer.Option(metavar="RUN|DIR", help="A run, or a folder of `cofpipe export`.")
    ],
    model: Annotated[
        str, typer.Option(metavar="DIR|ORG/NAME", help="A Qwen-VL, best one that was fine-tuned.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where it goes.")],
    algorithm: Annotated[
        AlgorithmName, typer.Option(help="grpo, rloo or reinforce; ppo by verl.")
    ] = AlgorithmName.grpo,
    reward: Annotated[str, typer.Option(help="Its name, such as outcome or agar-paper.")] = (
        "agar-paper"
    ),
    judge: Judge = None,
    judge_model: JudgeModel = None,
    preset: Annotated[str, typer.Option(help="published or smoke.")] = "published",
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="A=B", help="One setting; repeatable.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in the folder.")
    ] = False,
    json: AsJson = False,
    runs_dir: RunsDir = RUNS_DIR,
) -> None:
    """Reinforce a policy that zooms: its rollouts look closer at the source, and are rewarded.

    A run is exported into the folder first. A rollout that comes to no end has no loss. A judge is
    asked where no rule finds an answer right; one that fails ends the training, to be resumed.
    """
    from pipeline.cli.train import data_folder
    from pipeline.train.presets import settings_from
    from pipeline.train.rl import Asked
    from pipeline.train.rl_presets import RL_PRESETS, RlSettings, known_algorithm

    chosen = known_algorithm(algorithm.value)
    settings = settings_from(RlSettings, RL_PRESETS, preset, sets or [])
    folder = data_folder(data, out, model, kind="rl", profile=None, runs_dir=runs_dir)
    asked = Asked(
        folder, model, out, settings, reward, chosen, resume,
        judge=judge or "", judge_model=judge_model or "",
    )  # fmt: skip
    _train(asked, runs_dir, json)


def _train(asked: Asked, runs_dir: str, json: bool) -> None:
    from pipeline.train.rl import train_rl
    from pipeline.train.tracking import is_first_process

    def tell(step: int, logs: Mapping[str, float]) -> None:
        told = {name: logs[name] for name in TOLD if logs.get(name) is not None}
        if told and not json:
            figures = (f"{name.rpartition('/')[2]} {value:.4g}" for name, value in told.items())
            say(f"step {step}: " + ", ".join(figures))

    with stop_on_signals() as stop:
        done = train_rl(asked, runs_dir=runs_dir, stop=stop.is_set, on_log=tell)
    if is_first_process():
        emit(done.as_dict()) if json else _tell(done)
    if done.status == "interrupted":
        raise typer.Exit(INTERRUPTED)


def _tell(done: Reinforced) -> None:
    """The end of a training for people."""
    if done.status == "interrupted":
        say(f"{done.run_id} stopped after {done.steps} updates; the same with --resume goes on.")
        return
    reward = done.figures.get("reward")
    last = "" if reward is None else f", reward {reward:.3f} at last"
    say(f"{done.run_id}: {done.steps} updates on {done.rows} prompts{last}.")
    print(done.model)
