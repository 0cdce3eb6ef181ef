"""A policy to be reinforced: a Qwen-VL with random weights, overfit on a few exported chats.

Its tokenizer is made of those chats, so that a turn is a dozen tokens and a few updates are enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.synthesis.exports import Export, export

KINDS = {"qwen2_5_vl": "qwen2.5-vl", "qwen3_vl": "qwen3-vl"}
"""The family of each `model_type`."""
UPDATES = 18


@dataclass(frozen=True)
class World:
    """Exported chats, exported prompts, and a policy that was overfit on the chats."""

    sft: Path
    rl: Path
    model: Path


def chats(folder: Path, column: str = "messages") -> list[list[dict[str, Any]]]:
    """An exported folder's chats with their pictures in place."""
    from pipeline.train.rows import load_rows

    told = []
    for one in load_rows(folder, "train"):
        pictures = iter(one["images"])
        told.append(
            [
                {
                    "role": message["role"],
                    "content": [_block(b, pictures) for b in message["content"]],
                }
                for message in one[column]
            ]
        )
    return told


def _block(block: Mapping[str, Any], pictures: Any) -> dict[str, Any]:
    if block["type"] == "image":
        return {"type": "image", "image": next(pictures)}
    return {"type": "text", "text": block["text"]}


def tokenizer_of(texts: Sequence[str]) -> Any:
    """A BPE with tokens of up to 20 bytes, made of these texts: no token reaches over a line."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from tests.models.tiny_qwen import SPECIAL

    backend = Tokenizer(models.BPE())
    lines = pre_tokenizers.Split("\n", "isolated")
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([lines, bytewise])
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        max_token_length=20,
    )
    backend.train_from_iterator(list(texts) * 2, trainer)
    backend.add_special_tokens(list(SPECIAL))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=list(SPECIAL[1:]),
    )
    tokenizer.chat_template = "{{ messages }}"  # no published one; the loader brings its own
    return tokenizer


def make_world(folder: Path, run: Path, kind: str) -> World:
    """Export a run both ways, and fine-tune a model of this `kind` until it says its chats."""
    import torch

    from tests.models.tiny_qwen import build_model, write_image_settings

    torch.set_num_threads(1)
    wanted: tuple[Literal["sft", "rl"], ...] = ("sft", "rl")
    for one in wanted:
        export(run, folder / one, Export("trl", kind=one, family=KINDS[kind], split=0))
    told = chats(folder / "sft")
    words = [b["text"] for chat in told for m in chat for b in m["content"] if b["type"] == "text"]
    tokenizer = tokenizer_of(words)
    tokenizer.save_pretrained(folder / "base")
    build_model(tokenizer, kind=kind).save_pretrained(folder / "base")
    write_image_settings(folder / "base", patch=16 if kind == "qwen3_vl" else 14)
    return World(folder / "sft", folder / "rl", fine_tuned(folder))


def fine_tuned(folder: Path) -> Path:
    """Train what is in `base` on what is in `sft` as `cofpipe train sft` does."""
    from pipeline.train.presets import SFT_PRESETS, SftSettings
    from pipeline.train.sft import Asked, train_sft

    settings = SftSettings.model_validate(
        {
            **SFT_PRESETS["smoke"],
            "max_steps": UPDATES,
            "batch_size": 2,
            "accumulation": 1,
            "learning_rate": 3e-3,
            "schedule": "constant",
            "warmup_ratio": 0.0,
            "save_steps": 1000,
        }
    )
    asked = Asked(folder / "sft", str(folder / "base"), folder / "tuned", settings)
    return Path(train_sft(asked, runs_dir=folder / "runs").model)
