"""Supervised fine-tuning on exported trajectories, by TRL.

Owns how data, model and settings become a trainer, and what lies where when it ends. Only what the
assistant says is a target; visual tokens never are. Multi-process by `accelerate launch`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.grammar import BOX_END, BOX_START
from pipeline.train.loading import (
    family_of_model,
    is_sharded,
    last_checkpoint,
    load_policy,
    new_ids,
    resumed_weights,
)
from pipeline.train.presets import SftSettings, check_device
from pipeline.train.processing import load_processor
from pipeline.train.rows import check_rows, collator_for, load_rows
from pipeline.train.tracking import (
    Tracked,
    data_digest,
    exported,
    is_first_process,
    parents_of,
    stamping,
    training,
)
from pipeline.turns import Mark

MODEL = "model"
MERGED = "merged"
SPECIAL_TOKENS: Mapping[str, tuple[str, ...]] = {
    "cof-v2": (),
    "cof-v1": (BOX_START, BOX_END, Mark.ZOOMIN.value),
}
"""What each profile says that a tokenizer may lack; the first two are Qwen's own already."""
TOWER = r"(.*\.)?visual\.(blocks|patch_embed|pos_embed)\b.*"
MERGERS = r"(.*\.)?visual\.(merger|deepstack_merger_list)\b.*"

OnLog = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be trained, on what, and where to."""

    data: Path
    """A folder of `cofpipe export --trainer trl`."""
    model: str
    """A folder, or a Hub name."""
    out: Path
    """Checkpoints, logs and the trained model go here."""
    settings: SftSettings
    resume: bool = False
    """Go on from the last checkpoint in `out`."""
    merge: bool = False
    """Write adapters merged into the weights as well."""


@dataclass(frozen=True, slots=True)
class Trained:
    """How a training ended."""

    run_id: str
    status: str
    """`done` or `interrupted`."""
    rows: int
    longest: int
    """Tokens of the longest row."""
    steps: int
    loss_first: float | None
    loss_last: float | None
    model: str
    """Folder of the weights, or of the adapters; the last checkpoint where it was interrupted."""
    merged: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def train_sft(
    asked: Asked,
    *,
    runs_dir: str | Path,
    stop: Callable[[], bool] = lambda: False,
    on_log: OnLog = lambda step, logs: None,
) -> Trained:
    """Fine-tune a model on exported rows; `stop` is asked after each update.

    Raises `ConfigError` before any training for data, model or settings that do not go together,
    and for an `out` that holds a training unless it is to be resumed.
    """
    settings, request = asked.settings, exported(asked.data)["request"]
    _check(asked, request)
    tokens = SPECIAL_TOKENS[request["profile"]]
    processor = load_processor(asked.model, max_pixels=settings.max_pixels, special_tokens=tokens)
    rows = load_rows(asked.data, "train")
    if rows is None:
        raise ConfigError(f"'{asked.data}' has no rows to train on.")
    longest = check_rows(rows, processor, request["family"], settings.max_tokens)
    parents = parents_of(asked.data, asked.model)
    described = settings.model_dump(mode="json") | {"model": asked.model}
    with training(
        runs_dir, "sft", described, parents, out=asked.out, data=data_digest(asked.data),
        seed=settings.seed,
    ) as tracked:  # fmt: skip
        trainer = _trainer(asked, rows, processor, tokens)
        trainer.add_callback(stamping(tracked, stop, on_log))
        trainer.train(resume_from_checkpoint=last_checkpoint(asked.out) if asked.resume else None)
        model, merged = _saved(asked, trainer, tracked, processor, tokens)
    losses = [logs["loss"] for logs in trainer.state.log_history if "loss" in logs]
    return Trained(
        run_id=tracked.run_id,
        status="interrupted" if tracked.stopped else "done",
        rows=len(rows),
        longest=longest,
        steps=trainer.state.global_step,
        loss_first=losses[0] if losses else None,
        loss_last=losses[-1] if losses else None,
        model=model,
        merged=merged,
    )


def _check(asked: Asked, request: Mapping[str, Any]) -> None:
    """Raise `ConfigError` where data, model, settings and folder do not go together."""
    if (request["trainer"], request["kind"]) != ("trl", "sft"):
        made = f"{request['kind']} rows for {request['trainer']}"
        raise ConfigError(f"'{asked.data}' holds {made}.", "Export with --trainer trl --kind sft.")
    if (family := family_of_model(asked.model)) != request["family"]:
        raise ConfigError(
            f"Boxes of '{asked.data}' are as {request['family']} writes them, not {family}.",
            f"Export with --family {family}.",
        )
    if asked.merge and not asked.settings.lora_rank:
        raise ConfigError("Nothing is to be merged: all weights are trained.", "Leave out --merge.")
    if (last_checkpoint(asked.out) or (asked.out / MODEL).exists()) and not asked.resume:
        raise ConfigError(
            f"'{asked.out}' holds a training.", "Continue it with --resume, or choose another."
        )
    check_device(asked.settings.device, asked.settings.dtype)


def _trainer(asked: Asked, rows: Any, processor: Any, tokens: tuple[str, ...]) -> Any:
    """TRL's trainer over our rows, labels and networks."""
    from transformers.trainer_callback import PrinterCallback
    from trl import SFTTrainer

    settings = asked.settings
    added = new_ids(asked.model, tokens)
    anew = None if settings.lora_rank else resumed_weights(asked.out, asked.resume)
    model = load_policy(anew or asked.model, dtype=_dtype(settings), special_tokens=tokens)
    model.set_attn_implementation(settings.attention)
    if not settings.lora_rank:
        _freeze(model, settings)
    trainer = SFTTrainer(
        model,
        args=_arguments(asked),
        train_dataset=rows,
        eval_dataset=load_rows(asked.data, "validation") if settings.eval_steps else None,
        data_collator=collator_for(processor),
        processing_class=processor,
        peft_config=_lora(settings, added) if settings.lora_rank else None,
    )
    trainer.remove_callback(PrinterCallback)  # prints to stdout, where results go
    if added and settings.lora_rank:
        _give_bias(trainer.model)
    return trainer


def _give_bias(model: Any) -> None:
    """Let the head, where rows of it are trained, say that it has no bias: TRL's loss asks."""
    from peft.utils import TrainableTokensWrapper

    for module in model.modules():
        if isinstance(module, TrainableTokensWrapper):
            module.bias = None


def _arguments(asked: Asked) -> Any:
    """The settings in TRL's names."""
    from trl import SFTConfig

    s = asked.settings
    return SFTConfig(
        output_dir=str(asked.out),
        num_train_epochs=s.epochs,
        max_steps=s.max_steps,
        learning_rate=s.learning_rate,
        lr_scheduler_type=s.schedule,
        warmup_steps=s.warmup_ratio,  # below 1 it is a share
        weight_decay=s.weight_decay,
        max_grad_norm=s.max_grad_norm,
        per_device_train_batch_size=s.batch_size,
        per_device_eval_batch_size=s.batch_size,
        gradient_accumulation_steps=s.accumulation,
        gradient_checkpointing=s.gradient_checkpointing,
        bf16=s.dtype == "bfloat16",
        fp16=s.dtype == "float16",
        seed=s.seed,
        use_cpu=s.device == "cpu",
        dataloader_num_workers=s.workers,
        max_length=None,  # a cut row loses visual tokens: long ones were refused
        assistant_only_loss=True,
        logging_steps=s.log_steps,
        save_steps=s.save_steps,
        save_total_limit=s.keep,
        eval_strategy="steps" if s.eval_steps else "no",
        eval_steps=s.eval_steps or None,
        report_to=["tensorboard", *s.report_to],
        disable_tqdm=True,
    )


def _dtype(settings: SftSettings) -> str:
    """Of the weights in memory: what is updated, or sharded together with that, is float32."""
    return settings.dtype if settings.lora_rank and not is_sharded() else "float32"


def _freeze(model: Any, settings: SftSettings) -> None:
    """Leave out of the training what is to stay as it is."""
    import re

    for name, weight in model.named_parameters():
        tower = settings.freeze_vision and re.fullmatch(TOWER, name)
        merger = not settings.tune_merger and re.fullmatch(MERGERS, name)
        weight.requires_grad_(not (tower or merger))


def _lora(settings: SftSettings, added: list[int]) -> Any:
    """Adapters on all linear layers that are trained, and the rows of tokens that are new."""
    from peft import LoraConfig

    parts = [TOWER] if settings.freeze_vision else []
    parts += [] if settings.tune_merger else [MERGERS]
    return LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules="all-linear",
        exclude_modules="|".join(parts) or None,
        trainable_token_indices={"embed_tokens": added, "lm_head": added} if added else None,
        task_type="CAUSAL_LM",
    )


def _saved(
    asked: Asked, trainer: Any, tracked: Tracked, processor: Any, tokens: tuple[str, ...]
) -> tuple[str, str]:
    """Write the trained model and, where asked for, the merged one: their folders."""
    if tracked.stopped:
        return last_checkpoint(asked.out) or "", ""
    folder, step = asked.out / MODEL, trainer.state.global_step
    trainer.save_model(str(folder))
    tracked.stamp(folder, step)
    if not asked.merge:
        return str(folder), ""
    merged = asked.out / MERGED
    if is_first_process():
        _merge(asked, folder, merged, processor, tokens)
        tracked.stamp(merged, step)
    trainer.accelerator.wait_for_everyone()
    return str(folder), str(merged)


def _merge(
    asked: Asked, adapters: Path, merged: Path, processor: Any, tokens: tuple[str, ...]
) -> None:
    """The base model with the adapters' changes in its weights, as a folder of its own."""
    from peft import PeftModel

    base = load_policy(asked.model, dtype=asked.settings.dtype, special_tokens=tokens)
    PeftModel.from_pretrained(base, str(adapters)).merge_and_unload().save_pretrained(merged)
    processor.save_pretrained(merged)
