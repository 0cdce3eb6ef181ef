"""A VQGAN and LAVMs too small to know anything, in folders laid out like the published ones.

Real classes and random weights; frames have 256 codes as in the real ones unless told otherwise.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FRAME_TOKENS = 256


def write_tokenizer(
    folder: Path, *, frame_tokens: int = FRAME_TOKENS, codes: int = 512, seed: int = 0
) -> Path:
    """Write a VQGAN's folder: five levels of 32 channels, pictures of 16 pixels per code's side."""
    import torch

    from pipeline.eval.vqgan import build

    config = {
        "_class_name": "VQGANModel",
        "resolution": 16 * round(frame_tokens**0.5),
        "num_channels": 3,
        "hidden_channels": 32,
        "channel_mult": [1, 1, 1, 1, 1],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "no_attn_mid_block": True,
        "z_channels": 16,
        "num_embeddings": codes,
        "quantized_embed_dim": 16,
        "dropout": 0.0,
        "resample_with_conv": True,
        "commitment_cost": 0.25,
    }
    torch.manual_seed(seed)
    network = build(config)
    torch.nn.init.normal_(network.quantize.embedding.weight, std=0.3)  # so that all are near some
    _write_json(folder, config)
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    return folder


def write_lavm(
    folder: Path,
    kind: str = "delvm",
    *,
    frame_tokens: int = FRAME_TOKENS,
    codes: int = 512,
    frames: int | None = None,
    hidden: int = 32,
    layers: int = 2,
    heads: int = 2,
    seed: int = 0,
) -> Path:
    """Write a LAVM's folder, `delvm` (8 frames, biases) or `lvm` (16, ids that are no codes)."""
    import torch
    from safetensors.torch import save_file

    config = lavm_config(
        kind,
        frame_tokens=frame_tokens,
        codes=codes,
        frames=frames or {"delvm": 8, "lvm": 16}[kind],
        hidden=hidden,
        layers=layers,
        heads=heads,
    )
    torch.manual_seed(seed)
    model = llama(config)
    for name, weight in model.named_parameters():  # so large that what was read matters
        if "embed" in name or name.endswith("bias"):
            torch.nn.init.normal_(weight)
        elif weight.ndim > 1:
            torch.nn.init.normal_(weight, std=2 / weight.shape[1] ** 0.5)
    _write_json(folder, config)
    save_file(dict(model.state_dict()), folder / "model.safetensors", {"format": "pt"})
    return folder


def lavm_config(
    kind: str,
    *,
    frame_tokens: int,
    codes: int,
    frames: int,
    hidden: int,
    layers: int,
    heads: int,
) -> dict[str, Any]:
    """The values of a published config.json with other sizes, and what ours may add to it."""
    sizes = {
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": frames * frame_tokens,
        "tie_word_embeddings": False,
        "frame_tokens": frame_tokens,
        "codes": codes,
    }
    if kind == "delvm":
        nobody = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
        remote = {"AutoModel": "modeling_internlm.InternLMForCausalLM"}
        more = {"model_type": "internlm", "auto_map": remote, "bias": True, **nobody}
        return sizes | more | {"vocab_size": codes}
    ends = {"bos_token_id": 1, "eos_token_id": 2, "attention_bias": False}
    return sizes | ends | {"model_type": "llama", "vocab_size": codes + 100}


def llama(config: dict[str, Any]) -> Any:
    """Transformers' Llama of such a config, random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from pipeline.eval.lavm_config import translate

    return LlamaForCausalLM(LlamaConfig(**translate(config).llama))


def _write_json(folder: Path, values: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", "utf-8")
