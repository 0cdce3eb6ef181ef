"""A bias on the cross-attention of InstructBLIP's Q-Former.

There the language model sees 32 tokens that lie nowhere in the picture, so places are highlighted
one step earlier: among the Q-Former's keys, a class token and then the picture's cells row by row.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from pipeline.errors import ConfigError
from pipeline.models.attention_bias import AttentionBias, current, held

KIND = "instructblip"
"""The `model_type` this is for."""

_TAKES_MASKS = ("sdpa", "eager")


def cross_attentions(model: Any) -> dict[int, Any]:
    """The Q-Former's cross-attention modules by their layer."""
    layers = enumerate(model.qformer.encoder.layer)
    return {i: layer.crossattention.attention for i, layer in layers if layer.has_cross_attention}


@contextmanager
def biased_qformer(model: Any, bias: AttentionBias) -> Iterator[None]:
    """Add `bias` to the scores of the picture's keys (257 at 224 px) in the Q-Former."""
    owner = model.config.qformer_config
    if owner._attn_implementation not in _TAKES_MASKS:
        raise ConfigError(
            f"The Q-Former's '{owner._attn_implementation}' attention takes no bias.",
            f"Load the model with one of {', '.join(_TAKES_MASKS)}.",
        )
    hooks = []
    with held(owner, bias):
        try:
            for layer, module in cross_attentions(model).items():
                if bias.layers is None or layer in bias.layers:
                    hook = partial(_before, owner, bias)
                    hooks.append(module.register_forward_pre_hook(hook, with_kwargs=True))
            yield
        finally:
            for hook in hooks:
                hook.remove()


def _before(
    owner: object,
    bias: AttentionBias,
    module: torch.nn.Module,
    args: tuple[Any, ...],
    named: Mapping[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """A call of a cross-attention module with the bias in its mask; another thread's as it is."""
    if current(owner) is not bias:
        return None
    call = inspect.signature(module.forward).bind(*args, **named)
    given = call.arguments.get("encoder_attention_mask")
    call.arguments["encoder_attention_mask"] = _mask(bias, module, call.arguments, given)
    return call.args, call.kwargs


def _mask(
    bias: AttentionBias, module: Any, told: Mapping[str, Any], given: torch.Tensor | None
) -> torch.Tensor:
    """Float (B, 1 or H, 1 or Q, K): the bias where a query may look, the lowest elsewhere."""
    states, keys = told["hidden_states"], told["encoder_hidden_states"]
    if keys.shape[1] != bias.values.shape[1]:
        raise ConfigError(
            f"Flags of {bias.values.shape[1]} keys do not fit the {keys.shape[1]} of the Q-Former.",
            "They are one for the class token, then one for each cell, row by row.",
        )
    added = bias.over(max(len(states), len(keys)), keys.shape[1], 0, states.device)
    if bias.heads is not None:
        of_heads = bias.of_heads(module.num_attention_heads, states.device)
        added = torch.where(of_heads, added, 0.0)
    added = added.to(states.dtype)
    if given is None:
        return added
    if given.dtype == torch.bool:
        return torch.where(given, added, torch.finfo(states.dtype).min)
    return given + added
