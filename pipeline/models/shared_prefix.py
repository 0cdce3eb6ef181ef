"""Attention of many rows to a beginning that all of them share, which is kept once.

Owns how keys and values lie in memory that is there from the start, and one attention function that
is registered under a name of its own. Knows nothing of what the tokens mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface
from transformers.cache_utils import Cache, DynamicLayer

NAME = "shared-prefix"


class Layer(DynamicLayer):
    """A layer's keys and values in room that is there: a further code copies none of the others."""

    def __init__(self, room: Tensor, held: int) -> None:
        """`room` is (2, rows, heads, length, size of a head), of which `held` places are taken."""
        super().__init__()
        self._room = room
        self.is_initialized = True
        self.keys, self.values = room[..., :held, :]

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        held = self.keys.shape[-2]
        end = held + keys.shape[-2]
        self._room[0, :, :, held:end], self._room[1, :, :, held:end] = keys, values
        self.keys, self.values = self._room[..., :end, :]
        return self.keys, self.values


def cache_in(memory: Tensor, held: int) -> Cache:
    """A cache in (layers, 2, rows, heads, length, size), of which `held` places are taken."""
    return Cache(layers=[Layer(room, held) for room in memory])


@contextmanager
def attending_to(model: Any, shared: Tensor | None) -> Iterator[None]:
    """While it is open, the model also attends to what all rows share, if they share something."""
    before = model.config._attn_implementation
    model.config._attn_implementation = before if shared is None else NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    shared: Tensor,
    **__: Any,
) -> tuple[Tensor, None]:
    """Attention (B, Q, H, D) of rows to what all share, read once for all, and to what is theirs.

    `shared` is (layers, 2, G, P, D); query (B, H, Q, D), key and value (B, G, S, D), the last Q of
    the S places being the query's own.
    """
    keys, values = shared[module.layer_idx]
    if query.shape[2] > 1:
        return _attend_whole(query, keys, values, key, value, scaling).transpose(1, 2), None
    rows, heads, _, size = query.shape
    mine = (query * scaling).reshape(rows, len(keys), -1, size)
    ours = mine.transpose(0, 1).reshape(len(keys), -1, size)
    near = (mine @ key.mT).float()
    far = (ours @ keys.mT).float().unflatten(1, (rows, -1)).transpose(0, 1)
    top = torch.maximum(near.amax(-1, keepdim=True), far.amax(-1, keepdim=True))
    near, far = (near - top).exp_(), (far - top).exp_()
    total = near.sum(-1, keepdim=True) + far.sum(-1, keepdim=True)
    far = far.transpose(0, 1).flatten(1, 2).to(values.dtype) @ values
    out = (near.to(value.dtype) @ value) + far.unflatten(1, (rows, -1)).transpose(0, 1)
    return (out / total.to(out.dtype)).view(rows, 1, heads, size), None


def _attend_whole(
    query: Tensor, keys: Tensor, values: Tensor, key: Tensor, value: Tensor, scaling: float
) -> Tensor:
    """The same for several places of a row, (B, H, Q, D): few enough to copy what is shared."""
    rows, asked = len(query), query.shape[2]
    key = torch.cat([keys.expand(rows, -1, -1, -1), key], 2)
    value = torch.cat([values.expand(rows, -1, -1, -1), value], 2)
    seen = torch.ones(asked, key.shape[2], dtype=torch.bool, device=key.device)
    seen = seen.tril(key.shape[2] - asked)
    grouped = query.shape[1] != key.shape[1]
    return F.scaled_dot_product_attention(
        query, key, value, seen, scale=scaling, enable_gqa=grouped
    )


AttentionInterface.register(NAME, _attend)
