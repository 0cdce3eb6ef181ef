"""Highlighting computed in two other ways: as a written formula in float64, and by hooks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface

from tests.models.tiny_vlms import Tiny

WEIGHTS = torch.tensor([4.5, 0.2])
"""Of a tiny model's two prompts."""


def logits(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    with torch.inference_mode():
        return model(**inputs).logits


def by_hand(
    module: Any, query: Any, key: Any, value: Any, mask: torch.Tensor, scaling: float, **_: Any
) -> tuple[torch.Tensor, None]:
    """Attention as it is written, in the precision it is given."""
    times = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
    shares = (query @ key.transpose(2, 3) * scaling + mask).softmax(-1)
    return (shares @ value).transpose(1, 2), None


AttentionInterface.register("by_hand", by_hand)


def explicit(bias: torch.Tensor, padding: torch.Tensor, first: int = 0) -> torch.Tensor:
    """The formula as it is written: (B, 1, T, T), causal and padded, the bias on every row.

    Or, to show what is not the published method, on the rows from `first` on.
    """
    count = padding.shape[1]
    seen = torch.ones(count, count, dtype=torch.bool).tril() & padding.bool()[:, None]
    rows = bias[:, None, :] * (torch.arange(count) >= first)[:, None]
    return rows.masked_fill(~seen, -1e30)[:, None]


def by_formula(
    tiny: Tiny, bias: torch.Tensor, ids: torch.Tensor | None = None, first: int = 0
) -> torch.Tensor:
    """Logits of attention by hand in float64 with the formula as a ready-made 4-D mask."""
    model = copy.deepcopy(tiny.model).double()
    model.set_attn_implementation({"text_config": "by_hand"})
    inputs = dict(tiny.inputs)
    inputs["pixel_values"] = inputs["pixel_values"].double()
    more = 0 if ids is None else ids.shape[1] - tiny.ids.shape[1]
    padding = torch.nn.functional.pad(inputs["attention_mask"], (0, more), value=1)
    inputs["input_ids"] = tiny.ids if ids is None else ids
    if "mm_token_type_ids" in inputs:
        types = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, more))
        inputs["mm_token_type_ids"] = types
        inputs["position_ids"], _ = model.model.get_rope_index(
            inputs["input_ids"], types, inputs["image_grid_thw"], attention_mask=padding
        )
    else:
        inputs["position_ids"] = (padding.cumsum(1) - 1).clamp(min=0)
    grown = torch.nn.functional.pad(bias, (0, more))
    inputs["attention_mask"] = explicit(grown.double(), padding, first)
    return logits(model, inputs)


@contextmanager
def by_hooks(
    tiny: Tiny,
    bias: torch.Tensor,
    chosen: Callable[[int, int], bool] = lambda layer, head: True,
) -> Iterator[None]:
    """Another way to the same: eager attention, whose mask each layer gets with the bias added."""
    config = tiny.model.config.get_text_config()
    marks = [
        [chosen(layer, head) for head in range(config.num_attention_heads)]
        for layer in range(config.num_hidden_layers)
    ]

    def before(module: Any, args: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        mask = named["attention_mask"]
        row = torch.nn.functional.pad(bias, (0, mask.shape[-1] - bias.shape[1]))
        row = row.repeat_interleave(len(mask) // len(row), 0)[:, None, None]
        heads = torch.tensor(marks[module.layer_idx])[None, :, None, None]
        return args, named | {"attention_mask": mask + row * heads}

    layers = tiny.model.get_decoder().layers
    hooks = [x.self_attn.register_forward_pre_hook(before, with_kwargs=True) for x in layers]
    tiny.model.set_attn_implementation({"text_config": "eager"})
    try:
        yield
    finally:
        tiny.model.set_attn_implementation({"text_config": "sdpa"})
        for hook in hooks:
            hook.remove()


def log_flags(tiny: Tiny) -> torch.Tensor:
    return tiny.flags * WEIGHTS.log()[:, None]
