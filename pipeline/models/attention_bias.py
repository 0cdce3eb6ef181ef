"""A bias on a model's attention, and for whom it holds: this context, one model at a time.

Owns the record, how it is spread over beams and growing caches, and who sees it. Knows nothing of
how an attention module takes it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pipeline.errors import ConfigError

_MOST = 1e4
"""Sizes of a bias up to here fit every float type, next to a masked key's lowest number."""


@dataclass(frozen=True, slots=True, eq=False)
class AttentionBias:
    """What is added to the scores of a prompt's keys before the softmax, and where."""

    values: torch.Tensor
    """float32 (B, L): 0 leaves a key as it is; keys after the first L are left as they are."""
    layers: frozenset[int] | None = None
    """Only these layers; None: all."""
    heads: frozenset[int] | None = None
    """Only these heads of each layer; None: all."""
    after: torch.Tensor | None = None
    """int64 (B,): only queries at later positions of their row; None: all queries."""

    @property
    def partial(self) -> bool:
        """Whether some layers or heads are left as they are."""
        return self.layers is not None or self.heads is not None

    def over(self, batch: int, keys: int, first: int, device: torch.device) -> torch.Tensor:
        """float32 (batch, 1, 1, keys): what is added to keys `first` to `first + keys`.

        A batch that is a multiple of B holds each row several times in succession (beams, several
        replies). Raises `ConfigError` for any other batch.
        """
        row = self.values[:, first : first + keys].to(device)
        row = torch.nn.functional.pad(row, (0, keys - row.shape[1]))
        return row.repeat_interleave(self._times(batch), 0)[:, None, None]

    def asked_by(self, batch: int, positions: torch.Tensor) -> torch.Tensor | None:
        """bool (batch, 1, Q, 1): which queries at `positions` (Q,) are biased; None: all."""
        if self.after is None:
            return None
        after = self.after.to(positions.device).repeat_interleave(self._times(batch), 0)
        return (positions > after[:, None])[:, None, :, None]

    def of_heads(self, count: int, device: torch.device) -> torch.Tensor:
        """bool (1, count, 1, 1): which heads are biased."""
        chosen = [self.heads is None or head in self.heads for head in range(count)]
        return torch.tensor(chosen, device=device)[None, :, None, None]

    def _times(self, batch: int) -> int:
        times, rest = divmod(batch, self.values.shape[0])
        if rest or not times:
            raise ConfigError(
                f"Flags of {self.values.shape[0]} rows do not fit a batch of {batch}.",
                "Give one row for each prompt.",
            )
        return times


def read_bias(
    values: torch.Tensor,
    *,
    layers: Collection[int] | None = None,
    heads: Collection[int] | None = None,
    depth: Collection[int],
    width: int,
    after: torch.Tensor | None = None,
) -> AttentionBias:
    """A bias of rows (B, L), for a model with the layers `depth` and `width` heads.

    Raises `ConfigError` for what is not finite or too large, and for layers and heads the model
    does not have.
    """
    if not bool((values.abs() <= _MOST).all()):
        raise ConfigError(f"A bias is finite and at most {_MOST:.0f} in size.")
    chosen = _chosen(heads, range(width), "head")
    return AttentionBias(values, _chosen(layers, depth, "layer"), chosen, after)


def read_rows(values: Any, name: str, device: torch.device | str = "cpu") -> torch.Tensor:
    """An array (B, L) or (L,) of any number type as float32 (B, L), or `ConfigError`."""
    try:
        given = values if isinstance(values, torch.Tensor) else torch.tensor(np.array(values))
        array = given.to(device, torch.float32)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} is an array of numbers.") from error
    array = array[None] if array.ndim == 1 else array
    if array.ndim != 2 or not array.numel():
        raise ConfigError(f"{name} has a row for each prompt and a place for each of its keys.")
    return array


def current(owner: object) -> AttentionBias | None:
    """The bias that this context has put on a model, known by its configuration object."""
    return next((bias for held, bias in _ACTIVE.get() if held is owner), None)


@contextmanager
def held(owner: object, bias: AttentionBias) -> Iterator[None]:
    """Put a bias on a model for this context alone: another thread does not see it.

    Raises `ConfigError` when there is one already.
    """
    if current(owner) is not None:
        raise already_highlighted()
    token = _ACTIVE.set((*_ACTIVE.get(), (owner, bias)))
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def already_highlighted() -> ConfigError:
    """What is raised where a second bias would meet the first."""
    return ConfigError(
        "This model is highlighted already.",
        "Leave that highlight first, or add the two up and give `biased` the sum.",
    )


def _chosen(
    asked: Collection[int] | None, known: Collection[int], noun: str
) -> frozenset[int] | None:
    if asked is None:
        return None
    if absent := sorted(set(asked) - set(known)):
        raise ConfigError(f"The model has no {noun} {absent[0]}, only {sorted(known)}.")
    return frozenset(asked)


_ACTIVE: ContextVar[tuple[tuple[object, AttentionBias], ...]] = ContextVar("biases", default=())
