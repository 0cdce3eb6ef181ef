"""What is published of LAVMs and their tokenizer: configs, sampling, the order of a sentence.

Turns foreign configs and weight names into those of the networks that are used here, and refuses
what these cannot be. Knows nothing of how a network runs; imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from pipeline.errors import ConfigError, nearest

View = Literal["crop", "squash"]
"""How a picture is brought to the tokenizer's square: see `token_cache.VIEWS`."""
VariantName = Literal["delvm", "lvm"]

CODES = 8192
"""Of the published tokenizer; a model's ids from there on stand for no code."""
FRAME_TOKENS = 256
"""Codes of a picture by the published tokenizer."""
HEAD_SIZE = 128
"""Of an attention head of the published LAVMs."""
GROUPS = 32
"""Of every group norm of a VQGAN: its channels are a multiple."""

_OTHERS = {"architectures", "dtype", "model_type", "torch_dtype", "transformers_version"}
"""What libraries add to a VQGAN's config.json, with all that begins with an underscore."""
_SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "max_position_embeddings", "rms_norm_eps"),
)
"""What a LAVM's config.json must tell."""
_MORE = ("num_key_value_heads", "head_dim", "initializer_range", "mlp_bias")
_LAYER = {
    "mixer.out_proj": "self_attn.o_proj",
    "mlp.w1": "mlp.gate_proj",
    "mlp.w2": "mlp.down_proj",
    "mlp.w3": "mlp.up_proj",
    "norm1": "input_layernorm",
    "norm2": "post_attention_layernorm",
}
"""A layer's weights by their names in training, and as they are named here."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a code is drawn: the temperature first, then top-k, then top-p; greedy at 0."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    """The k likeliest codes only; 0: all of them."""

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.top_k < 0:
            raise ConfigError(
                f"{self} cannot be.",
                "temperature is at least 0, top_p in (0, 1], top_k at least 0.",
            )


GREEDY = Sampling()


@dataclass(frozen=True, slots=True)
class Variant:
    """What one family of published LAVMs does in its authors' code."""

    name: VariantName
    sampling: Sampling
    view: View
    """Of the pictures of a sentence; exemplars are selected by codes of the crop in both."""
    keeps_last: bool
    """Of a sentence that is too long: keep the last frames that fit, or refuse it."""
    dtype: str
    """On an accelerator."""


VARIANTS: Mapping[str, Variant] = {
    "delvm": Variant("delvm", Sampling(0.1, 0.75, 50), "crop", False, "float32"),
    "lvm": Variant("lvm", Sampling(1.0, 1.0, 50), "squash", True, "float16"),
}
"""Both codes leave top-k to transformers, where it was 50."""


@dataclass(frozen=True, slots=True)
class LavmConfig:
    """A LAVM as a Llama, and what its ids mean."""

    variant: Variant
    llama: Mapping[str, Any]
    """Arguments of transformers' LlamaConfig."""
    codes: int
    """Ids from here on are never drawn."""
    frame_tokens: int

    @property
    def frames(self) -> int:
        """Frames of a sentence and its answer, at most."""
        return int(self.llama["max_position_embeddings"] // self.frame_tokens)


def translate(
    values: Mapping[str, Any], *, variant: str | None = None, frame_tokens: int | None = None
) -> LavmConfig:
    """A LAVM's config.json, DeLVM's ("internlm") or a Llama's, as a Llama without end tokens.

    The variant is told by the config: a Llama with biases is a DeLVM. `frame_tokens` and `codes`
    may stand in it; else they are the published ones. Raises `ConfigError`.
    """
    kind = values.get("model_type")
    if kind not in ("internlm", "llama"):
        raise ConfigError(f"A LAVM is an 'internlm' or a 'llama', not a '{kind}'.")
    if missing := [name for name in _SIZES if values.get(name) is None]:
        raise ConfigError(f"The LAVM's config lacks '{missing[0]}'.")
    if values.get("hidden_act", "silu") != "silu":
        raise ConfigError(f"A LAVM's layers use silu, not '{values['hidden_act']}'.")
    bias = bool(values.get("bias", True) if kind == "internlm" else values.get("attention_bias"))
    named = variant or ("delvm" if bias else "lvm")
    if named not in VARIANTS:
        raise ConfigError(f"There is no LAVM '{named}'.", nearest(named, VARIANTS))
    llama = {name: values[name] for name in (*_SIZES, *_MORE) if values.get(name) is not None}
    llama |= {
        "attention_bias": bias,
        "rope_parameters": _rotary(values),
        "tie_word_embeddings": bool(values.get("tie_word_embeddings", False)),
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
    }
    codes = int(values.get("codes") or min(CODES, llama["vocab_size"]))
    length = frame_tokens or int(values.get("frame_tokens") or FRAME_TOKENS)
    if not 0 < codes <= llama["vocab_size"] or llama["max_position_embeddings"] < 3 * length:
        raise ConfigError(
            f"{codes} codes and frames of {length} do not fit {llama['vocab_size']} ids and "
            f"{llama['max_position_embeddings']} positions."
        )
    return LavmConfig(VARIANTS[named], llama, codes, length)


def training_config(shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """A config.json's values for a DeLVM's training file that has none beside it, from its shapes.

    What no shape tells is the published models'.
    """
    vocabulary, hidden = shapes["head.weight"]
    layers = [name for name in shapes if name.endswith(".mixer.Wqkv.weight")]
    return {
        "model_type": "internlm",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": shapes["blocks.0.mlp.w1.weight"][0],
        "num_hidden_layers": len(layers),
        "num_attention_heads": hidden // HEAD_SIZE,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
    }


def from_training(state: Mapping[str, Any]) -> dict[str, Any]:
    """DeLVM's training weights under a Llama's names.

    The embedding is the tokenizer's codebook times a projection; the fused q, k, v are split.
    """
    table = state["embedding.vq_model.quantize.embedding.weight"].float()
    projected = table @ state["embedding.embed_proj.weight"].float().mT
    told = {
        "model.embed_tokens.weight": projected + state.get("embedding.embed_proj.bias", 0),
        "model.norm.weight": state["norm.weight"],
        "lm_head.weight": state["head.weight"],
    }
    for name, tensor in state.items():
        if not name.startswith("blocks."):
            continue
        _, number, rest = name.split(".", 2)
        part, _, ending = rest.rpartition(".")
        if part == "mixer.Wqkv":
            for letter, split in zip("qkv", tensor.chunk(3), strict=True):
                told[f"model.layers.{number}.self_attn.{letter}_proj.{ending}"] = split
        elif ending != "inv_freq":
            told[f"model.layers.{number}.{_LAYER.get(part, part)}.{ending}"] = tensor
    return told


def visual_sentence(
    exemplars: Sequence[tuple[ArrayLike, Sequence[ArrayLike]]],
    query: ArrayLike,
    *,
    frames: int | None = None,
) -> np.ndarray:
    """[image, step 0, image, step 1, …] of each exemplar, then the query: codes, int64 (L,).

    Each exemplar is (the image's codes, the codes of each step); all frames have as many codes.
    Raises `ConfigError`, also where it and its answer are more than `frames`.
    """
    told = [frame for image, steps in exemplars for step in steps for frame in (image, step)]
    codes = [np.asarray(frame, np.int64) for frame in (*told, query)]
    if not all(steps for _, steps in exemplars) or not told:
        raise ConfigError("A visual sentence needs an exemplar, and each exemplar a step.")
    if len({frame.shape for frame in codes}) > 1 or codes[0].ndim != 1:
        shapes = sorted({frame.shape for frame in codes})
        raise ConfigError(f"The frames of a visual sentence differ in size: {shapes}.")
    if frames is not None and len(codes) + 1 > frames:
        raise too_long(len(codes) + 1, frames)
    return np.concatenate(codes)


def check_capacity(exemplars: int, levels: int, frames: int) -> None:
    """Raise `ConfigError` where k exemplars of n levels do not fit: 2nk + 2 frames."""
    if 2 * levels * exemplars + 2 > frames:
        raise too_long(2 * levels * exemplars + 2, frames)


def too_long(needed: int, frames: int) -> ConfigError:
    """What to raise for a sentence of `needed` frames, its answer included."""
    most = (frames - 2) // 2
    return ConfigError(
        f"A sentence of {needed} frames with its answer (2nk + 2) does not fit the model's "
        f"{frames}.",
        f"Use at most {most} steps in all: levels × exemplars.",
    )


def _rotary(values: Mapping[str, Any]) -> dict[str, Any]:
    """The base of the rotary embedding, wherever a config has it: 10 000 is the published one."""
    told = values.get("rope_parameters") or values.get("rotary") or {}
    if told.get("rope_type", "default") != "default" or values.get("rope_scaling"):
        raise ConfigError("A LAVM with scaled rotary embeddings is not known.")
    base = told.get("rope_theta") or told.get("base") or values.get("rope_theta") or 10_000.0
    return {"rope_type": "default", "rope_theta": float(base)}


def read_json(folder: Path) -> dict[str, Any]:
    """The values of a folder's config.json; raises `ConfigError`."""
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is no config.")
    return values


@dataclass(frozen=True, slots=True)
class VqganConfig:
    """Sizes of a network; those that shape it have no defaults, for published defaults differ."""

    resolution: int
    """Side of the pictures it was trained on, pixels."""
    num_channels: int
    hidden_channels: int
    channel_mult: tuple[int, ...]
    """Channels of each level, as multiples of `hidden_channels`; each level halves the side."""
    num_res_blocks: int
    attn_resolutions: tuple[int, ...]
    """Sides of the levels, pixels, that have attention where the picture's is `resolution`."""
    no_attn_mid_block: bool
    z_channels: int
    num_embeddings: int
    """Codes."""
    quantized_embed_dim: int
    dropout: float = 0.0
    resample_with_conv: bool = True
    commitment_cost: float = 0.25
    """Weight of a loss: nothing here uses it."""

    @classmethod
    def of(cls, values: Mapping[str, Any] | VqganConfig) -> VqganConfig:
        """From a config.json's values; raises `ConfigError` for what is missing or unknown."""
        if isinstance(values, VqganConfig):
            return values
        known = {field.name: field for field in fields(cls)}
        own = {k: v for k, v in values.items() if not k.startswith("_") and k not in _OTHERS}
        if unknown := own.keys() - known:
            first = min(unknown)
            raise ConfigError(f"A VQGAN has no setting '{first}'.", nearest(first, known))
        missing = [n for n, f in known.items() if f.default is MISSING and n not in own]
        if missing:
            raise ConfigError(f"The VQGAN's config lacks '{missing[0]}'.")
        own |= {k: tuple(v) for k, v in own.items() if isinstance(v, list)}
        return cls(**own)

    def __post_init__(self) -> None:
        if not self.channel_mult or any(width % GROUPS for width in self.widths):
            raise ConfigError(f"Channels {self.widths} are no multiples of {GROUPS}.")
        if self.resolution % self.factor:
            raise ConfigError(f"{self.resolution} pixels are no multiple of {self.factor}.")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, and before them those of the first convolution."""
        return tuple(self.hidden_channels * times for times in (1, *self.channel_mult))

    @property
    def factor(self) -> int:
        """Pixels along a side of the picture for one code."""
        return int(2 ** (len(self.channel_mult) - 1))

    @property
    def tokens(self) -> int:
        """Codes of a picture of `resolution`."""
        return int((self.resolution // self.factor) ** 2)

    def attends(self, level: int) -> bool:
        return self.resolution // 2**level in self.attn_resolutions
