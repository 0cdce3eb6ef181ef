"""What a Qwen-VL model has read of the last conversations, kept to go on from.

An agent's conversation grows at its end, and a token's keys and values hang on nothing behind it: a
request that begins as an earlier one did takes them from there. Owns what counts as the same
beginning, and what is let go when there is too much. Runs no networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from pipeline.models.qwen_prompt import Shown, Written

KEEP_TOKENS = 32_768
"""Of kept conversations together. A token takes 2 × layers × key-value heads × head size numbers:
57 kB for Qwen2.5-VL 7B in bfloat16, 1.9 GB in all."""
_WORTH = 8
"""A beginning shorter than one in so many of a request's tokens is read anew: going on from it
takes a mask for the attention, reading from the start does not."""

Layers = tuple[tuple[torch.Tensor, torch.Tensor], ...]
"""Keys and values of each layer, float (rows, heads, tokens, size)."""


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """A conversation as the networks have read it, its last reply included; never changed."""

    ids: torch.Tensor
    """int64 (n,), on the CPU."""
    pictures: Mapping[int, str]
    """Digest of each picture by the place of its first visual token."""
    asked: int
    """How many of its tokens were asked; those behind were drawn."""
    layers: Layers
    """Of one row."""

    def shared(self, written: Written) -> int:
        """With how many tokens both begin; a picture is the same whole or not at all."""
        length = min(len(self.ids), written.ids.shape[1])
        differ = (self.ids[:length] != written.ids[0, :length]).nonzero()
        agree = int(differ[0, 0]) if len(differ) else length
        for picture in written.shown:
            if picture.start >= agree:
                break
            same = self.pictures.get(picture.start) == picture.digest
            if not same or picture.start + picture.tokens > agree:
                return picture.start
        return agree


class Sessions:
    """The conversations used last, of at most `most` tokens together; none where it is 0."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._kept: list[Session] = []

    @property
    def tokens(self) -> int:
        """Tokens that are kept now."""
        return sum(len(session.ids) for session in self._kept)

    def beginning(self, written: Written) -> tuple[Session | None, int]:
        """The kept conversation that begins most as this one does, and for how many tokens.

        Among equals it is the one used last, so that no other is kept longer for a shared system
        prompt. The last token is never among them: its logits are what comes next.
        """
        last = written.ids.shape[1] - 1
        best, most = None, last // _WORTH
        for session in reversed(self._kept):
            if (shared := _before(written.shown, min(session.shared(written), last))) > most:
                best, most = session, shared
        if best is None:
            return None, 0
        self._kept.remove(best)
        self._kept.append(best)
        return best, most

    def keep(self, session: Session, written: Written) -> None:
        """Keep what was read of `written`, in place of all that it went on from."""
        if len(session.ids) > self.most:
            return
        self._kept = [old for old in self._kept if old.shared(written) < old.asked]
        self._kept.append(session)
        while self.tokens > self.most:
            del self._kept[0]

    def clear(self) -> None:
        """Let go of everything."""
        self._kept.clear()


def may_keep(model: Any) -> bool:
    """Whether every layer of a model keeps all keys: with a sliding window, a part is no whole."""
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)


def _before(shown: Sequence[Shown], length: int) -> int:
    """The same length, or where the picture begins that it would cut in two."""
    cut = (p.start for p in shown if p.start < length < p.start + p.tokens)
    return next(cut, length)
