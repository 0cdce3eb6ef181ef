"""A vision-language model in this process, whichever family it is of.

Owns the table of families by `model_type`, and what all of them have in common. Knows nothing of
tokens and pixels: those are their own files' matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from transformers import AutoConfig

from pipeline.errors import ConfigError
from pipeline.highlight import Highlight
from pipeline.models import instructblip, llava, qwen_vl
from pipeline.models.generation import Generated, loading, source_of
from pipeline.models.qwen_prompt import Message, Part

KINDS = (*qwen_vl.KINDS, *llava.KINDS, *instructblip.KINDS)
"""Every `model_type` that is served."""


class Vlm(Protocol):
    """Weights of one model; one call at a time."""

    name: str
    """Tells these weights from all others."""
    model: Any
    """The networks, as transformers builds them."""

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

        The same arguments give the same text on the same machine. `halt` is asked before every
        token. With `highlight` the model attends to regions of the first picture more. Raises
        `ContextOverflow`, `ConfigError` for a highlight that cannot be, or `ModelError` when the
        model fails, cannot take such a conversation, or is halted.
        """


def load(
    path_or_id: str | Path,
    *,
    device: str = "cpu",
    dtype: str | None = None,
    threads: int = 1,
    template: str = "auto",
) -> Vlm:
    """A model from a folder, or from the Hub by its `owner/name`; arguments as `qwen_vl.load`.

    `template` is how LLaVA is spoken to, as `llava.load` takes it; others have one of their own.

    Raises `ConfigError` for a family that is not served, `ModelError` for weights that do not fit.
    """
    source = source_of(path_or_id)
    with loading(source, "a model that is known"):
        kind = AutoConfig.from_pretrained(source, trust_remote_code=False).model_type
    if kind in llava.KINDS:
        return llava.load(
            path_or_id, device=device, dtype=dtype, threads=threads, template=template
        )
    if template != "auto":
        raise ConfigError(f"Template '{template}' is for LLaVA, not for a '{kind}'.")
    for family in (qwen_vl, instructblip):
        if kind in family.KINDS:
            return family.load(path_or_id, device=device, dtype=dtype, threads=threads)
    raise ConfigError(f"{source} is a '{kind}', not one of {', '.join(KINDS)}.")
