"""Settings of supervised fine-tuning: closed, frozen, and two sets of them by name.

Knows nothing of trainers; every name is said once, here.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pipeline.errors import ConfigError, nearest


class SftSettings(BaseModel):
    """What determines a fine-tuning beside its data and its model.

    The defaults are the published recipe for Qwen2.5-VL-7B (its configs/sft_lora-7b.yaml; DeepSpeed
    ZeRO-3 there is a matter of the launcher here). Its smallest view of 112² pixels is left out:
    whoever loads a checkpoint sees small views as the checkpoint's own processor does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    lora_rank: int = Field(32, ge=0)
    """Of the adapters on all linear layers that are trained; 0 trains the weights themselves."""
    lora_alpha: int = Field(64, ge=1)
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    freeze_vision: bool = True
    """Keep the vision tower as it is; its merger is `tune_merger`'s matter."""
    tune_merger: bool = True
    """Train what carries the tower's features into the language model."""
    epochs: float = Field(3.0, gt=0)
    max_steps: int = Field(-1, ge=-1)
    """Updates in all, in place of `epochs`; -1: as many as those take."""
    learning_rate: float = Field(1e-5, gt=0)
    schedule: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    warmup_ratio: float = Field(0.1, ge=0, lt=1)
    """Share of the updates over which the rate rises."""
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    batch_size: int = Field(2, ge=1)
    """Rows at a time on each device."""
    accumulation: int = Field(2, ge=1)
    """Batches of an update."""
    max_tokens: int = Field(81_920, ge=1)
    """Of a row, visual tokens included; a longer one is refused, none is cut."""
    max_pixels: int | None = Field(14_745_600, ge=1)
    """Area at which a picture is seen at most (3840²); None: the checkpoint's own."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Of the arithmetic; weights that are trained themselves are kept in float32."""
    gradient_checkpointing: bool = True
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Of the networks; the published run used flash attention, which is a package of its own."""
    seed: int = 0
    device: Literal["auto", "cpu"] = "auto"
    workers: int = Field(0, ge=0)
    """Processes that decode and cut pictures beside each device's."""
    log_steps: int = Field(1, ge=1)
    save_steps: int = Field(100, ge=1)
    keep: int = Field(50, ge=1)
    """Checkpoints that are kept, the latest ones."""
    eval_steps: int = Field(0, ge=0)
    """Updates between losses on the held-out rows; 0: none."""
    report_to: tuple[str, ...] = ()
    """Beside TensorBoard: wandb, mlflow, trackio."""

    @field_validator("report_to", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """`wandb,mlflow` as well as a list."""
        return tuple(filter(None, value.split(","))) if isinstance(value, str) else value


SFT_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "published": {},
    "smoke": {
        "lora_rank": 0,
        "freeze_vision": False,
        "max_steps": 8,
        "learning_rate": 1e-3,
        "max_tokens": 8192,
        "max_pixels": None,
        "dtype": "float32",
        "gradient_checkpointing": False,
        "device": "cpu",
        "save_steps": 4,
    },
}
"""What differs from the published recipe. `smoke` shows that all parts work, on a CPU."""

Settings = TypeVar("Settings", bound=BaseModel)


def settings_from(
    kind: type[Settings],
    presets: Mapping[str, Mapping[str, Any]],
    preset: str,
    sets: Sequence[str] = (),
) -> Settings:
    """Settings of a `kind`: a preset by name, then `name=value` strings over it.

    Raises `ConfigError` for what is no preset, no setting or not allowed, naming the nearest one.
    """
    if preset not in presets:
        raise ConfigError(f"There is no preset '{preset}'.", nearest(preset, presets))
    values = dict(presets[preset])
    for text in sets:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"'--set {text}' has no value.", "Write --set name=value.")
        values[name.strip()] = _literal(value)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        wrong = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            fix = nearest(wrong, kind.model_fields)
            raise ConfigError(f"There is no setting '{wrong}'.", fix) from error
        raise ConfigError(f"Setting '{wrong}': {first['msg']}.") from error


def _literal(text: str) -> Any:
    """A TOML value where the text is one, None for `none`, else the text without blanks."""
    if text.strip().lower() == "none":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def check_device(device: str, dtype: str) -> None:
    """Raise `ConfigError` for numbers of half the bits where there is no GPU."""
    import torch

    if device == "auto" and dtype != "float32" and not torch.accelerator.is_available():
        raise ConfigError(f"There is no GPU here for {dtype}.", "Try --preset smoke.")
