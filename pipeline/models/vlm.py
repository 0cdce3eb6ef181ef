"""A vision-language model in this process, whichever family it is of.

Owns the table of families by `model_type`. What all have in common is in `local_vlm`.
"""

from __future__ import annotations

from pathlib import Path

from transformers import AutoConfig

from pipeline.errors import ConfigError
from pipeline.models import instructblip, llava, qwen_vl
from pipeline.models.generation import loading, source_of
from pipeline.models.local_vlm import Vlm

KINDS = (*qwen_vl.KINDS, *llava.KINDS, *instructblip.KINDS)
"""Every `model_type` that is served."""


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
