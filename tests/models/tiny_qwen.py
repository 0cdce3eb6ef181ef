"""A Qwen2.5-VL too small to know anything, made on the spot: real classes, random weights.

The folder is laid out like a published one, so that this project's loader, `transformers serve`
and anything else that reads such folders can take it. Run as a script, it writes one:
`python -m tests.models.tiny_qwen FOLDER`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

VOCABULARY = 420
"""Tokens before the special ones: 256 bytes and a few merges."""
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
SIZE = {"shortest_edge": 56 * 56, "longest_edge": 12_845_056}
"""Pixels of a picture, as published for Qwen2.5-VL."""
NORMAL = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}

TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\n' }}
{%- if message.content is string %}
{{- message.content }}
{%- else %}
{%- for part in message.content %}
{%- if part.type == 'text' %}
{{- part.text }}
{%- else %}
{{- '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- endif %}
{%- endfor %}
{%- endif %}
{{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\n' }}
{%- endif %}
"""

_WORDS = """What is written on the red star in this picture? I look closer at the small tag.
<think> There is something here, and I zoom in to read it. </think> <answer> K7Q </answer>
{"name": "zoom", "arguments": {"box": [12, 40, 250, 310], "label": "the blue square"}}"""


def build(folder: Path, *, seed: int = 0, special: Sequence[str] = ()) -> Path:
    """Write the model's folder: weights, tokenizer, template, image settings."""
    tokenizer = build_tokenizer(special)
    tokenizer.save_pretrained(folder)
    build_model(tokenizer, seed=seed).save_pretrained(folder)
    write_image_settings(folder)
    return folder


def build_tokenizer(special: Sequence[str] = ()) -> Any:
    """A byte-level BPE with Qwen's special tokens and more, and a template of our own words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_WORDS.splitlines() * 4, trainer)
    backend.add_special_tokens([*SPECIAL, *special])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=[*SPECIAL[1:], *special],
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def build_model(tokenizer: Any, *, kind: str = "qwen2_5_vl", seed: int = 0) -> Any:
    """The networks with random weights; `kind` is the `model_type`."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig

    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    config = AutoConfig.for_model(
        kind,
        text_config=_text(kind, len(tokenizer), ids),
        vision_config=_vision(kind),
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config)
    model.generation_config = GenerationConfig(
        eos_token_id=[ids["<|im_end|>"], ids["<|endoftext|>"]], pad_token_id=ids["<|endoftext|>"]
    )
    return model.eval()


def _text(kind: str, tokens: int, ids: dict[str, int]) -> dict[str, Any]:
    """Heads of 16: rotations of 8 pairs, split among time, row and column."""
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]}
    settings = {
        "vocab_size": tokens,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "initializer_range": 0.2,
        "rope_parameters": rope,
        "bos_token_id": None,
        "eos_token_id": ids["<|im_end|>"],
    }
    if kind == "qwen3_vl":
        settings["head_dim"] = 16
    return settings


def _vision(kind: str) -> dict[str, Any]:
    shared = {"depth": 2, "num_heads": 2, "initializer_range": 0.2}
    if kind == "qwen2_vl":
        return shared | {"embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2}
    wide = shared | {"hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 64}
    if kind == "qwen3_vl":
        return wide | {"deepstack_visual_indexes": [0], "num_position_embeddings": 64}
    return wide | {"fullatt_block_indexes": [1]}


def write_image_settings(folder: Path, *, patch: int = 14) -> None:
    """`preprocessor_config.json`, for this loader and for whoever builds the whole processor."""
    settings = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
        "size": SIZE,
        "patch_size": patch,
        "temporal_patch_size": 2,
        "merge_size": 2,
        **NORMAL,
    }
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(settings, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))
