"""Two-branch guidance: what is highlighted counts for more in every token that is drawn.

One batch holds each prompt twice: the first half attends to what is highlighted, the second half is
kept from it, and the logits move from the second to the first (Prompt Highlighter, arXiv
2312.04302, section 3). Owns the three ingredients; knows nothing of pictures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import LogitsProcessor

from pipeline.errors import ConfigError
from pipeline.models.attention_bias import current, read_rows
from pipeline.models.vision_attention import biased, on_qformer


class TwoBranchGuidance(LogitsProcessor):
    """Scores (2B, V) to g = p_u + scale · (p_c - p_u), the same for both halves of the batch.

    p_c and p_u are the chances of the first and the second half (their logarithms with `use_log`).
    Scale 1 is the first half alone, 0 the second. For greedy decoding: the halves must go on with
    the same tokens, and `ConfigError` says when they have not.
    """

    def __init__(self, scale: float, use_log: bool = False) -> None:
        if not math.isfinite(scale):
            raise ConfigError("The scale of a guidance is a finite number.")
        self.scale = scale
        self.use_log = use_log

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if len(scores) % 2:
            raise ConfigError("Guidance takes a batch of two halves.")
        half = len(scores) // 2
        if not torch.equal(input_ids[:half], input_ids[half:]):
            raise ConfigError("The two branches differ.", "Decode greedily, from equal prompts.")
        chances = torch.log_softmax if self.use_log else torch.softmax
        wanted, other = chances(scores.float(), -1).chunk(2)
        guided = other + self.scale * (wanted - other)
        return torch.cat([guided, guided])


def two_branch_bias(flags: Any, weight: float) -> torch.Tensor:
    """float32 (2B, L) from flags (B, L): +ln(weight), and -(2 + ln(weight)) in the second half."""
    if not (math.isfinite(weight) and weight > 0):
        raise ConfigError("A weight is above 0 and finite.")
    shares, log = read_rows(flags, "The flags"), math.log(weight)
    return torch.cat([shares * log, shares * -(2 + log)])


def perturbed(embeds: torch.Tensor, flags: Any, factor: float) -> torch.Tensor:
    """Embeddings (2B, L, D) whose flagged ones (B, L) are scaled by `factor` in the second half."""
    if not (math.isfinite(factor) and factor >= 0):
        raise ConfigError("A factor of embeddings is finite and not below 0.")
    shares = read_rows(flags, "The flags", embeds.device)
    if embeds.shape[:2] != (2 * len(shares), shares.shape[1]):
        raise ConfigError(
            f"Flags {tuple(shares.shape)} do not fit two branches {tuple(embeds.shape[:2])}."
        )
    wanted, other = embeds.chunk(2)
    scales = 1 + shares * (factor - 1)
    return torch.cat([wanted, other * scales[..., None].to(embeds.dtype)])


@contextmanager
def two_branches(model: Any, flags: Any, weight: float, *, factor: float = 0.01) -> Iterator[None]:
    """While inside, a batch of two halves with equal prompts is read in two ways.

    `flags` (B, L) are as in `highlight`: the first half attends to them `weight` times as much,
    the second less, and sees them scaled by `factor`. Generate with `TwoBranchGuidance` as a
    logits processor.
    """
    shares = read_rows(flags, "The flags")
    if on_qformer(model):
        module, owner, name = model.qformer, model.config.qformer_config, "encoder_hidden_states"
    else:
        module, owner, name = model.get_decoder(), model.config.get_text_config(), "inputs_embeds"

    def before(
        module: torch.nn.Module, args: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if current(owner) is None or _goes_on(named.get("past_key_values")):
            return None
        if named.get(name) is None:
            raise ConfigError(f"Two branches need a model that hands over its {name}.")
        return args, named | {name: perturbed(named[name], shares, factor)}

    with biased(model, two_branch_bias(shares, weight)):
        hook = module.register_forward_pre_hook(before, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()


def _goes_on(cache: Any) -> bool:
    """Whether the prompt has been read and lies in the cache."""
    return cache is not None and cache.get_seq_length() > 0
