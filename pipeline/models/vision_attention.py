"""Attention highlighting: chosen keys of a prompt weigh more while a model reads and answers.

The unnormalised attention of every query to a highlighted key is multiplied by a weight, in all
layers and heads, at prefill and at every decode step (arXiv 2412.16869, section 2): ln(weight) is
added to the key's score before the softmax. Owns how language models take that, by an attention and
a mask function registered under names of their own; knows nothing of boxes and pictures.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from pipeline.errors import ConfigError
from pipeline.models import qformer_attention
from pipeline.models.attention_bias import (
    AttentionBias,
    already_highlighted,
    current,
    held,
    read_bias,
    read_rows,
)

Rows = Literal["all", "after_image"]
"""Which queries are biased: all, as published, or only those after their row's last visual token,
which leaves what came before exactly as without a highlight (not the published method)."""

WHOLE = "highlighted_sdpa"
BY_LAYER = "highlighted_sdpa_by_layer"
"""The registered names: for a bias on all layers and heads, and for one on some."""


@contextmanager
def highlight(
    model: Any,
    flags: Any,
    weight: Any,
    ids: Any = None,
    *,
    layers: Collection[int] | None = None,
    heads: Collection[int] | None = None,
    rows: Rows = "all",
) -> Iterator[None]:
    """While inside, `model` attends to the flagged keys `weight` times as much.

    `flags` is (B, L) or (L,), over a prompt's keys with the padding on its left: True, or a share
    in [0, 1] that scales ln(weight). `weight` is above 0, one number or one for each row; below 1
    it hides. Given `ids` (B, L), only visual tokens may be flagged. For InstructBLIP the keys are
    the Q-Former's (a class token, never flagged, then the cells) and `ids` are not looked at.
    One highlight at a time: a second one on the same model is refused with `ConfigError`, as is
    anything that does not fit. Other threads compute as usual. A ready 4-D attention mask, given to
    the model's forward pass, goes around all this.
    """
    shares = read_rows(flags, "The flags")
    if not bool(((shares >= 0) & (shares <= 1)).all()):
        raise ConfigError("Flags are true or false, or shares between 0 and 1.")
    if on_qformer(model):
        if bool(shares[:, 0].any()):
            raise ConfigError("The Q-Former's first key is its class token: it has no place.")
    elif ids is not None:
        _check_visual(model, shares, ids)
    log = _log_weight(weight, len(shares))
    with biased(model, shares * log, ids, layers=layers, heads=heads, rows=rows):
        yield


@contextmanager
def biased(
    model: Any,
    bias: Any,
    ids: Any = None,
    *,
    layers: Collection[int] | None = None,
    heads: Collection[int] | None = None,
    rows: Rows = "all",
) -> Iterator[None]:
    """While inside, `bias` (B, L) is added to the scores of a prompt's keys, as in `highlight`.

    Each of a batch's rows has its own; a batch of r·B rows holds each prompt r times in succession.
    """
    if rows not in ("all", "after_image"):
        raise ConfigError(f"Queries are 'all' or 'after_image', not '{rows}'.")
    if on_qformer(model):
        if rows != "all":
            raise ConfigError("A Q-Former's queries are no places of the prompt: rows are 'all'.")
        depth, config = qformer_attention.cross_attentions(model), model.config.qformer_config
    else:
        config = model.config.get_text_config()
        depth = dict.fromkeys(range(config.num_hidden_layers))
    values = read_rows(bias, "A bias", model.device)
    record = read_bias(
        values,
        layers=layers,
        heads=heads,
        depth=depth,
        width=config.num_attention_heads,
        after=None if rows == "all" else _last_visual(model, ids, values.shape),
    )
    taken = qformer_attention.biased_qformer if on_qformer(model) else _biased_decoder
    with taken(model, record):
        yield


@torch.inference_mode()
def has_effect(model: Any, inputs: Mapping[str, Any], flags: Any) -> bool:
    """Whether highlighting works on this model: a huge weight changes what follows, 1 does not.

    `inputs` are those of a forward pass, with one row of flags for each of its prompts. False, too,
    where nothing is flagged.
    """

    def logits(weight: float | None) -> torch.Tensor:
        on = nullcontext() if weight is None else highlight(model, flags, weight)
        with on:
            return model(**inputs).logits[:, -1].float()

    plain, one, huge = logits(None), logits(1.0), logits(1e4)
    size = float(plain.abs().max())
    slack = size * (1e-4 if model.dtype == torch.float32 else 5e-2)
    changed = torch.finfo(torch.float32).eps * size
    same = float((one - plain).abs().max()) <= slack
    return same and float((huge - one).abs().max()) > changed


@contextmanager
def _biased_decoder(model: Any, bias: AttentionBias) -> Iterator[None]:
    """Switch the language model to one of our attention names, and back."""
    config = model.config.get_text_config()
    before = _switch(model, config, BY_LAYER if bias.partial else WHOLE)
    try:
        with held(config, bias):
            yield
    finally:
        config._attn_implementation = before


def _switch(model: Any, config: Any, name: str) -> Any:
    """The name of the attention that was in use until now; two threads cannot both replace it."""
    with _SWITCH:
        before = config._attn_implementation
        if before in (WHOLE, BY_LAYER):
            raise already_highlighted()
        taken = False
        try:
            model.set_attn_implementation(name if config is model.config else {"text_config": name})
            taken = config._attn_implementation == name and _listens(model, config)
        finally:
            if not taken:
                config._attn_implementation = before
    if not taken:
        raise ConfigError(f"The attention of a {type(model).__name__} cannot be replaced.")
    return before


def _mask(*, config: Any, dtype: torch.dtype, **asked: Any) -> torch.Tensor | None:
    """Float (B, 1, Q, K): the bias where a query may look, the dtype's lowest number elsewhere.

    The bias is put in place of the zeros, not added to the lowest number, which it could overflow.
    Without a bias in this context it is what plain `sdpa` gets.
    """
    bias = current(config)
    if bias is None:
        return sdpa_mask(**asked)
    allowed = sdpa_mask(**asked | dict.fromkeys(_SKIPS, False))
    batch, queries, keys = (asked[name] for name in ("batch_size", "q_length", "kv_length"))
    added = bias.over(batch, keys, asked.get("kv_offset", 0), allowed.device)
    positions = torch.arange(queries, device=allowed.device) + asked.get("q_offset", 0)
    chosen = bias.asked_by(batch, positions)
    if chosen is not None:
        added = torch.where(chosen, added, 0.0)
    return torch.where(allowed, added.to(dtype), torch.finfo(dtype).min)


def _attend_by_layer(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Plain `sdpa`, with the bias taken out of the mask where it is not meant."""
    bias = current(module.config)
    if bias is not None and attention_mask is not None:
        lowest = torch.finfo(attention_mask.dtype).min
        plain = torch.where(attention_mask > lowest, 0.0, lowest).to(attention_mask.dtype)
        if bias.layers is not None and module.layer_idx not in bias.layers:
            attention_mask = plain
        elif bias.heads is not None:
            of_heads = bias.of_heads(query.shape[1], query.device)
            attention_mask = torch.where(of_heads, attention_mask, plain)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **options)


def _log_weight(weight: Any, count: int) -> torch.Tensor:
    """float32 (1, 1) or (count, 1): the natural logarithm of the weights, or `ConfigError`."""
    weights = torch.as_tensor(weight, dtype=torch.float64).cpu()
    if weights.ndim > 1 or weights.numel() not in (1, count):
        raise ConfigError(f"There is one weight, or one for each of the {count} rows.")
    if not bool(((weights > 0) & weights.isfinite()).all()):
        raise ConfigError("A weight is above 0 and finite; 1 changes nothing, below 1 hides.")
    return weights.log().float().reshape(-1, 1)


def _check_visual(model: Any, shares: torch.Tensor, ids: Any) -> None:
    visual = _visual(model, ids, shares.shape)
    if bool((shares.cpu()[~visual] > 0).any()):
        raise ConfigError("A flag lies on a token that is no part of a picture.")


def _last_visual(model: Any, ids: Any, shape: torch.Size) -> torch.Tensor:
    """int64 (B,): the position of each row's last visual token."""
    if ids is None:
        raise ConfigError("Rows 'after_image' are found by the prompt's token ids: give `ids`.")
    visual = _visual(model, ids, shape)
    if not bool(visual.any(1).all()):
        raise ConfigError("A prompt without a visual token has no rows 'after_image'.")
    return visual.shape[1] - 1 - visual.flip(1).int().argmax(1)


def _visual(model: Any, ids: Any, shape: torch.Size) -> torch.Tensor:
    """bool (B, L): which tokens stand for a part of a picture or of a film; ids have that shape."""
    names = ("image_token_id", "video_token_id")
    marks = [mark for name in names if (mark := getattr(model.config, name, None)) is not None]
    if not marks:
        raise ConfigError(f"A {type(model).__name__} has no visual tokens.", "Give no `ids`.")
    array = torch.as_tensor(ids).cpu()
    array = array[None] if array.ndim == 1 else array
    if array.shape != shape:
        raise ConfigError(f"Flags {tuple(shape)} are not over ids {tuple(array.shape)}.")
    return torch.isin(array, torch.tensor(marks))


def on_qformer(model: Any) -> bool:
    """Whether this model's places are keys of a Q-Former, not of its language model."""
    return bool(model.config.model_type == qformer_attention.KIND)


def _listens(model: Any, config: object) -> bool:
    """Whether attention modules look up their implementation in this very configuration."""
    return any(
        module is not model and getattr(module, "config", None) is config
        for module in model.modules()
    )


_SKIPS = ("allow_is_causal_skip", "allow_is_bidirectional_skip")
_SWITCH = threading.Lock()

AttentionInterface.register(WHOLE, sdpa_attention_forward)
AttentionInterface.register(BY_LAYER, _attend_by_layer)
AttentionMaskInterface.register(WHOLE, _mask)
AttentionMaskInterface.register(BY_LAYER, _mask)
