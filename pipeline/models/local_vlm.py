"""What every vision-language model in this process is: how it is asked, whichever family it is of.

Knows nothing of tokens, templates and networks: those are the families' own matter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from pipeline.highlight import Highlight
from pipeline.models.generation import Draw, Generated

if TYPE_CHECKING:
    from pipeline.models.qwen_prompt import Message, Part


@dataclass(frozen=True, slots=True)
class Asked:
    """How a reply is to be written."""

    prefix: Sequence[Part]
    """What the assistant's turn has begun with."""
    draw: Draw
    """What chooses the tokens; it is used up by one reply."""
    max_tokens: int
    stop: Sequence[str]
    keep_special: bool
    """Special tokens stay in the text."""
    halt: Callable[[], bool]
    """Asked before every token."""
    highlight: Highlight | None
    """Regions of the first picture that the model attends to more."""


class Vlm(ABC):
    """Weights of one model; one call at a time."""

    name: str
    """Tells these weights from all others."""
    model: Any
    """The networks, as transformers builds them."""

    @torch.inference_mode()
    def generate(
        self,
        conversation: Sequence[Message],
        *,
        prefix: Sequence[Part] = (),
        temperature: float = 0.0,
        top_p: float = 1.0,
        max_tokens: int = 1024,
        stop: Sequence[str] = (),
        seed: int = 0,
        keep_special: bool = False,
        halt: Callable[[], bool] = lambda: False,
        highlight: Highlight | None = None,
    ) -> Generated:
        """The assistant's next turn, which has begun with `prefix`; greedy at temperature 0.

        The same arguments give the same text on the same machine. Raises `ContextOverflow`,
        `ConfigError` for a highlight that cannot be, or `ModelError` when the model fails, cannot
        take such a conversation, or is halted.
        """
        asked = Asked(
            prefix, Draw(temperature, top_p, seed), max_tokens, stop, keep_special, halt, highlight
        )
        return self.answer(conversation, asked)

    @abstractmethod
    def answer(self, conversation: Sequence[Message], asked: Asked) -> Generated:
        """As `generate`."""
