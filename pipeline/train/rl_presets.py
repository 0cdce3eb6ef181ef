"""Settings of reinforcement learning: closed, frozen, two sets of them by name, and TRL's names.

Owns what each algorithm means. Knows nothing of data and models.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipeline.errors import ConfigError, nearest
from pipeline.train.presets import check_device
from pipeline.train.rollouts import Algorithm

LOSSES: Mapping[Algorithm, str] = {"grpo": "bnpo", "rloo": "dr_grpo", "reinforce": "dr_grpo"}
"""How the tokens of rollouts are put together, in TRL's names:

    grpo       the mean over the tokens of a micro-batch, as verl takes it
    rloo       the sum over a rollout's tokens, over a constant: no length is favoured
    reinforce  the same

What a rollout's reward is held against is `rollouts.advantages`; the divergence from the first
policy is in the loss of all three."""

PPO_BY_VERL = (
    "Export with --trainer verl --kind rl; pipeline/train/verl_ppo.yaml tells how verl runs it."
)


class RlSettings(BaseModel):
    """What determines a training by reinforcement beside data, model, algorithm and reward.

    The defaults are the published run for Qwen2.5-VL-7B (arXiv 2505.15436, its slurm_jobs/rl).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    group_size: int = Field(6, ge=2)
    """Rollouts of each prompt."""
    prompts: int = Field(64, ge=1)
    """Of an update, over all processes."""
    micro_batch: int = Field(1, ge=1)
    """Rollouts whose gradient is taken at a time on each device."""
    epochs: float = Field(15.0, gt=0)
    max_steps: int = Field(-1, ge=-1)
    """Updates in all, in place of `epochs`; -1: as many as those take."""
    turns: int = Field(4, ge=1)
    """What the policy says at most; the last turn can only answer."""
    turn_tokens: int = Field(512, ge=1)
    """Of each turn; a longer one is cut, and its rollout has no loss."""
    rollout_tokens: int = Field(32_756, ge=1)
    """Of all turns and views behind the prompt; what does not fit has no loss."""
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    learning_rate: float = Field(1e-6, gt=0)
    schedule: Literal["constant", "constant_with_warmup", "cosine", "linear"] = "constant"
    warmup_ratio: float = Field(0.0, ge=0, lt=1)
    """Share of the updates over which the rate rises."""
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    kl: float = Field(0.001, ge=0)
    """Weight of the divergence from the first policy (k3 estimate); 0 keeps no copy of it."""
    clip: float = Field(0.2, gt=0)
    """How far a token's probability may move in an update, either way, as a share."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Of the arithmetic; the weights are kept in float32."""
    gradient_checkpointing: bool = True
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    seed: int = 0
    device: Literal["auto", "cpu"] = "auto"
    log_steps: int = Field(1, ge=1)
    save_steps: int = Field(2, ge=1)
    keep: int | None = Field(None, ge=1)
    """Checkpoints that are kept, the latest ones; None: all."""
    report_to: tuple[str, ...] = ()
    """Beside TensorBoard: wandb, mlflow, trackio."""

    @field_validator("report_to", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """`wandb,mlflow` as well as a list."""
        return tuple(filter(None, value.split(","))) if isinstance(value, str) else value


RL_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "published": {},
    "smoke": {
        "group_size": 4,
        "prompts": 2,
        "micro_batch": 4,
        "max_steps": 2,
        "turns": 3,
        "turn_tokens": 96,
        "rollout_tokens": 1024,
        "learning_rate": 1e-4,
        "kl": 0.0,
        "dtype": "float32",
        "gradient_checkpointing": False,
        "device": "cpu",
    },
}
"""What differs from the published run. `smoke` shows that all parts work, on a CPU."""


def known_algorithm(name: str) -> Algorithm:
    """The algorithm of that name; raises `ConfigError` with the nearest one, or the way to PPO."""
    for known in LOSSES:
        if name == known:
            return known
    if name == "ppo":
        raise ConfigError("PPO, with its critic, is trained by verl.", PPO_BY_VERL)
    raise ConfigError(f"There is no algorithm '{name}'.", nearest(name, LOSSES))


def trl_arguments(
    settings: RlSettings, algorithm: Algorithm, out: Path, *, unsaid: tuple[int, ...] = ()
) -> Any:
    """The settings as TRL's `GRPOConfig`; `unsaid` are tokens that the policy cannot say.

    Raises `ConfigError` where they make no whole batches, or need a GPU that is not there.
    """
    from trl import GRPOConfig

    s = settings
    check_device(s.device, s.dtype)
    return GRPOConfig(
        output_dir=str(out),
        **_batches(s),
        **_rollouts(s, unsaid),
        loss_type=LOSSES[algorithm],
        scale_rewards="none",  # advantages are `rollouts.advantages`
        mask_truncated_completions=False,  # and masks are `ZoomTrainer`'s
        beta=s.kl,
        use_bias_correction_kl=False,
        epsilon=s.clip,
        learning_rate=s.learning_rate,
        lr_scheduler_type=s.schedule,
        warmup_steps=s.warmup_ratio,  # below 1 it is a share
        weight_decay=s.weight_decay,
        max_grad_norm=s.max_grad_norm,
        gradient_checkpointing=s.gradient_checkpointing,
        bf16=s.dtype == "bfloat16",
        fp16=s.dtype == "float16",
        seed=s.seed,
        use_cpu=s.device == "cpu",
        logging_steps=s.log_steps,
        save_steps=s.save_steps,
        save_total_limit=s.keep,
        report_to=["tensorboard", *s.report_to],
        disable_tqdm=True,
    )


def _rollouts(settings: RlSettings, unsaid: tuple[int, ...]) -> dict[str, Any]:
    """How rollouts are drawn."""
    longest = min(settings.turn_tokens, settings.rollout_tokens)
    return {
        "max_tool_calling_iterations": settings.turns - 1,
        "max_completion_length": settings.rollout_tokens,
        "generation_kwargs": {
            "max_new_tokens": longest,
            "suppress_tokens": sorted(unsaid) or None,
        },
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "top_k": 0,
    }


def _batches(settings: RlSettings) -> dict[str, Any]:
    """How many of them make an update: each process has whole groups."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if settings.prompts % processes:
        raise ConfigError(
            f"{settings.prompts} prompts are not shared out evenly among {processes} processes.",
            "Set prompts to a multiple of the processes: a group is rewarded as a whole.",
        )
    rollouts = settings.prompts // processes * settings.group_size
    if rollouts % settings.micro_batch:
        raise ConfigError(
            f"{rollouts} rollouts of a process are no whole number of {settings.micro_batch}.",
            "Set micro_batch to a divisor of group_size.",
        )
    return {
        "num_generations": settings.group_size,
        "per_device_train_batch_size": settings.micro_batch,
        "gradient_accumulation_steps": rollouts // settings.micro_batch,
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps,
    }
