"""Prompts of a Qwen-VL model on their way through its networks, one row or a padded batch.

Owns what of a prompt is read anew and what is taken from a kept conversation, and every token's
place in time, row and column. Knows nothing of words, and draws no token itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import DynamicCache

from pipeline.models.qwen_prompt import Inputs, Written
from pipeline.models.qwen_session import Session, Sessions

_PAD = 0
"""A token to fill up rows with: masked, so any will do that is no visual one."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation as the networks take it."""

    ids: torch.Tensor
    """int64 (1, n)."""
    positions: torch.Tensor
    """int64 (3, 1, n): time, row and column of each token."""
    images: Inputs
    """Of the pictures behind what is held."""
    written: Written
    session: Session | None = None
    """Holds the first tokens' keys and values."""
    held: int = 0
    """How many tokens that is."""


class Reading:
    """A batch of prompts as the networks read them, each with what is drawn for it.

    Rows of unequal length are filled up on the left, what is held and what is new each for itself.
    A row's tokens keep their own positions, and filling is masked.
    """

    def __init__(self, model: Any, prompts: Sequence[Prompt]) -> None:
        self._model = model
        self._prompts = list(prompts)
        self._drawn: list[list[int]] = [[] for _ in prompts]
        self._next = [int(prompt.positions.max()) + 1 for prompt in prompts]
        self._cache = DynamicCache(config=model.config)
        self._mask: torch.Tensor | None = None
        self._whole = False

    def read(self) -> torch.Tensor:
        """Logits (rows, V) behind the prompts, of which only what is not held is read."""
        _fill(self._cache, self._prompts)
        held = _mask([p.held for p in self._prompts])
        new = _mask([p.ids.shape[1] - p.held for p in self._prompts])
        mask, width = torch.cat([held, new], 1), new.shape[1]
        self._mask = None if bool(mask.all()) else mask.to(self._prompts[0].ids.device)
        ids = [_left(p.ids[:, p.held :], width, _PAD) for p in self._prompts]
        places = [_left(p.positions[..., p.held :], width, 0) for p in self._prompts]
        return self._forward(torch.cat(ids), torch.cat(places, 1), _joined(self._prompts))

    def go_on(self, tokens: Sequence[int]) -> torch.Tensor:
        """Logits (rows, V) behind one more token a row."""
        device = self._prompts[0].ids.device
        if self._mask is not None:
            self._mask = pad(self._mask, (0, 1), value=1)
        places = torch.tensor(self._next, device=device).expand(3, -1)[..., None]
        logits = self._forward(torch.tensor(tokens, device=device)[:, None], places, {})
        for row, token in enumerate(tokens):
            self._drawn[row].append(token)
            self._next[row] += 1
        return logits

    def leave(self, rows: Collection[int], sessions: Sessions) -> None:
        """Let rows go, and have kept what was read of them; the others are counted anew.

        Where the networks failed, nothing is kept.
        """
        for row in rows if self._whole and sessions.most else ():
            sessions.keep(self._session(row), self._prompts[row].written)
        staying = [row for row in range(len(self._prompts)) if row not in rows]
        if staying:
            kept = torch.tensor(staying, device=self._prompts[0].ids.device)
            self._cache.batch_select_indices(kept)
            self._mask = None if self._mask is None else self._mask[kept]
        self._prompts = [self._prompts[row] for row in staying]
        self._drawn = [self._drawn[row] for row in staying]
        self._next = [self._next[row] for row in staying]

    def close(self, sessions: Sessions) -> None:
        """Let all rows go."""
        self.leave(range(len(self._prompts)), sessions)

    def _forward(self, ids: torch.Tensor, places: torch.Tensor, images: Inputs) -> torch.Tensor:
        self._whole = False
        out = self._model(
            input_ids=ids,
            position_ids=places,
            attention_mask=self._mask,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
            **images,
        )
        self._whole = True
        logits: torch.Tensor = out.logits[:, -1]
        return logits

    def _session(self, row: int) -> Session:
        prompt, alone = self._prompts[row], len(self._prompts) == 1
        own = slice(None) if self._mask is None else self._mask[row].bool()

        def of(states: torch.Tensor) -> torch.Tensor:
            part = states[row : row + 1, :, own]
            return part if alone or self._mask is not None else part.clone()  # not the whole batch

        return Session(
            torch.cat([prompt.written.ids[0], torch.tensor(self._drawn[row], dtype=torch.long)]),
            {picture.start: picture.digest for picture in prompt.written.shown},
            prompt.ids.shape[1],
            tuple((of(layer.keys), of(layer.values)) for layer in self._cache.layers),
        )


def _fill(cache: DynamicCache, prompts: Sequence[Prompt]) -> None:
    """Put what the rows hold into an empty cache, right-aligned."""
    width = max(prompt.held for prompt in prompts)
    sessions = [prompt.session for prompt in prompts]
    like = next((session for session in sessions if session is not None), None)
    if like is None:
        return
    rows = [
        ((session or like).layers, prompt.held)
        for prompt, session in zip(prompts, sessions, strict=True)
    ]
    for index in range(len(like.layers)):
        keys, values = (
            torch.cat(
                [pad(s[index][side][:, :, :held], (0, 0, width - held, 0)) for s, held in rows]
            )
            for side in (0, 1)
        )
        cache.update(keys, values, index)


def _mask(lengths: Sequence[int]) -> torch.Tensor:
    """int64 (rows, longest): 1 where a row has a token, at its right end."""
    places = torch.arange(max(lengths))
    return (places >= max(lengths) - torch.tensor(lengths)[:, None]).long()


def _left(tensor: torch.Tensor, width: int, value: int) -> torch.Tensor:
    """The last axis filled up on the left to `width`."""
    return pad(tensor, (width - tensor.shape[-1], 0), value=value)


def _joined(prompts: Sequence[Prompt]) -> Inputs:
    """The pictures of all rows, in their order."""
    some = [prompt.images for prompt in prompts if prompt.images]
    return {name: torch.cat([images[name] for images in some]) for name in some[0]} if some else {}
