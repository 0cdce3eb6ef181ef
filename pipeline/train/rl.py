"""Reinforcement learning of policies that zoom, on exported prompts, by TRL.

Owns how data, model, reward and settings become a trainer, and what lies where when it ends.
Multi-process by `accelerate launch`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.agent.families import FAMILIES
from pipeline.agent.verdict import PROMPT_SHA256
from pipeline.errors import ConfigError
from pipeline.train.judge import EndpointJudge, judged_together, opened_judge
from pipeline.train.loading import family_of_model, last_checkpoint, load_policy, resumed_weights
from pipeline.train.processing import load_processor, visual_ids
from pipeline.train.rewards import Reward, named
from pipeline.train.rl_presets import RlSettings, trl_arguments
from pipeline.train.rollouts import Algorithm
from pipeline.train.rows import load_rows
from pipeline.train.tracking import (
    Tracked,
    data_digest,
    exported,
    parents_of,
    stamping,
    training,
)

MODEL = "model"
OnLog = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be trained, on what, for what, and where to."""

    data: Path
    """A folder of `cofpipe export --trainer trl --kind rl`."""
    model: str
    """A folder, or a Hub name."""
    out: Path
    """Checkpoints, logs and the trained model go here."""
    settings: RlSettings
    reward: str
    """One of `rewards.REWARDS`."""
    algorithm: Algorithm = "grpo"
    resume: bool = False
    """Go on from the last checkpoint in `out`."""
    judge: str = ""
    """Address of the server whose model judges what no rule finds right; empty: that is wrong."""
    judge_model: str = ""


@dataclass(frozen=True, slots=True)
class Reinforced:
    """How a training ended."""

    run_id: str
    status: str
    """`done` or `interrupted`."""
    rows: int
    steps: int
    figures: Mapping[str, float]
    """What was logged of the last update: rewards, and what `rollouts.Tally` counts."""
    model: str
    """Folder of the weights; the last checkpoint where it was interrupted."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def train_rl(
    asked: Asked,
    *,
    runs_dir: str | Path,
    stop: Callable[[], bool] = lambda: False,
    on_log: OnLog = lambda step, logs: None,
    watch: Callable[[Mapping[str, Any]], None] | None = None,
) -> Reinforced:
    """Train a policy on its own rollouts; `stop` is asked after each update.

    `watch` is shown every batch of rollouts as the loss will take it: TRL's tensors, `tallies`, and
    `rewards` of all processes. Raises `ConfigError` before any training for data, model or settings
    that do not go together, and for an `out` that holds a training unless it is to be resumed;
    `ModelError` where a picture is lost, or the judge fails or gives no verdict.
    """
    _check(asked, exported(asked.data)["request"])
    with opened_judge(asked.judge, asked.judge_model) as judge:
        reward = reward_for(asked.reward, asked.settings, judge)
        rows = _rows(asked)
        with training(
            runs_dir, "rl", _described(asked, judge), parents_of(asked.data, asked.model),
            out=asked.out, data=data_digest(asked.data), seed=asked.settings.seed,
        ) as tracked:  # fmt: skip
            trainer = _trainer(asked, rows, reward, watch)
            trainer.add_callback(stamping(tracked, stop, on_log))
            last = last_checkpoint(asked.out) if asked.resume else None
            trainer.train(resume_from_checkpoint=last)
            model = _saved(asked, trainer, tracked)
    return Reinforced(
        run_id=tracked.run_id,
        status="interrupted" if tracked.stopped else "done",
        rows=len(rows),
        steps=trainer.state.global_step,
        figures=_figures(trainer.state.log_history),
        model=model,
    )


def reward_for(name: str, settings: RlSettings, judge: EndpointJudge | None = None) -> Reward:
    """The reward of that name, with what it must know of groups, and with the judge.

    Raises `ConfigError` where there is no such reward, or nothing in it to judge.
    """
    told = {"group_size": settings.group_size} if "agar" in name else {}
    if judge is None:
        return named(name, **told)
    if name == "format":
        raise ConfigError("The reward 'format' has no answer to judge.", "Leave out the judge.")
    return judged_together(name, judge, **told)


def _described(asked: Asked, judge: EndpointJudge | None) -> dict[str, Any]:
    """All that determines the training beside its data; of a judge that is no address."""
    told = asked.settings.model_dump(mode="json") | {
        "model": asked.model, "algorithm": asked.algorithm, "reward": asked.reward,
    }  # fmt: skip
    if judge is not None:
        told |= {"judge": judge.name, "judge_prompt": PROMPT_SHA256}
    return told


def _check(asked: Asked, request: Mapping[str, Any]) -> None:
    """Raise `ConfigError` where data, model and folder do not go together."""
    if (request["trainer"], request["kind"]) != ("trl", "rl"):
        made = f"{request['kind']} rows for {request['trainer']}"
        raise ConfigError(f"'{asked.data}' holds {made}.", "Export with --trainer trl --kind rl.")
    if request["profile"] != "cof-v2":
        raise ConfigError(
            f"Rollouts zoom by calls, which {request['profile']} has not.",
            "Export with --profile cof-v2.",
        )
    if (family := family_of_model(asked.model)) != request["family"]:
        raise ConfigError(
            f"Boxes of '{asked.data}' are as {request['family']} writes them, not {family}.",
            f"Export with --family {family}.",
        )
    if (last_checkpoint(asked.out) or (asked.out / MODEL).exists()) and not asked.resume:
        raise ConfigError(
            f"'{asked.out}' holds a training.", "Continue it with --resume, or choose another."
        )


def _rows(asked: Asked) -> Any:
    """The prompts, their source pictures as bytes: few are zoomed into at once."""
    from datasets import Image

    rows = load_rows(asked.data, "train")
    count = 0 if rows is None else len(rows)
    if count < asked.settings.prompts:
        raise ConfigError(
            f"'{asked.data}' has {count} prompts; an update takes {asked.settings.prompts}.",
            "Set prompts to no more than there are.",
        )
    return rows.cast_column("source_image", Image(decode=False))


def _trainer(
    asked: Asked,
    rows: Any,
    reward: Reward,
    watch: Callable[[Mapping[str, Any]], None] | None,
) -> Any:
    """The trainer over our rows, rewards and networks."""
    from transformers.trainer_callback import PrinterCallback

    from pipeline.train.zoom_trainer import ZoomTrainer

    settings = asked.settings
    processor = load_processor(asked.model)
    model = load_policy(asked.model, dtype="float32")
    if anew := resumed_weights(asked.out, asked.resume):  # what it is held against stays the model
        model.load_state_dict(load_policy(anew, dtype="float32").state_dict())
    model.set_attn_implementation(settings.attention)
    unsaid = tuple(visual_ids(processor))
    trainer = ZoomTrainer(
        model=model,
        processor=processor,
        family=FAMILIES[family_of_model(asked.model)],
        rows=rows,
        reward=reward,
        algorithm=asked.algorithm,
        arguments=trl_arguments(settings, asked.algorithm, asked.out, unsaid=unsaid),
        watch=watch,
    )
    trainer.remove_callback(PrinterCallback)  # prints to stdout, where results go
    return trainer


def _saved(asked: Asked, trainer: Any, tracked: Tracked) -> str:
    """Write the trained model: its folder."""
    if tracked.stopped:
        return last_checkpoint(asked.out) or ""
    folder = asked.out / MODEL
    trainer.save_model(str(folder))
    tracked.stamp(folder, trainer.state.global_step)
    return str(folder)


def _figures(history: list[dict[str, Any]]) -> dict[str, float]:
    """What was logged of the last update."""
    logged = [logs for logs in history if "reward" in logs]
    return (
        {name: value for name, value in logged[-1].items() if value is not None} if logged else {}
    )
