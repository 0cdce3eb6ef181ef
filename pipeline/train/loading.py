"""The networks that are trained, and what of them is.

Knows nothing of data. Safetensors only, and never a checkpoint's own code.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.train.chat_template import FAMILIES


def load_policy(
    path: str | Path, *, dtype: str = "float32", special_tokens: Sequence[str] = ()
) -> Any:
    """A Qwen-VL on the CPU, ready to be trained.

    `dtype` is torch's name for it. For `special_tokens` that the checkpoint's tokenizer lacks, a
    row each is made ready at the end of the embeddings, the mean of those before it; they only grow
    where the checkpoint has no rows to spare. Raises `ConfigError` for what is no such model,
    `ModelError` for weights that do not fit it.
    """
    from transformers import AutoConfig

    from pipeline.models.generation import dtype_of, loading, read_weights, source_of
    from pipeline.models.vision_batches import batched_vision

    source = source_of(_whole(path))
    family_of_model(source)
    with loading(source, "a Qwen-VL model"):
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        model = read_weights(source, config, dtype_of(dtype))
        if special_tokens:
            _make_room(model, source, special_tokens)
    batched_vision(model)
    return model


def family_of_model(path: str | Path) -> str:
    """In whose numbers a checkpoint writes boxes; raises `ConfigError` for no Qwen-VL."""
    from transformers import AutoConfig

    from pipeline.models.generation import loading, source_of

    source = source_of(_whole(path))
    with loading(source, "a Qwen-VL model"):
        kind: str = AutoConfig.from_pretrained(source, trust_remote_code=False).model_type
    if kind not in FAMILIES:
        raise ConfigError(f"{source} is a '{kind}', not one of {', '.join(FAMILIES)}.")
    return FAMILIES[kind]


def new_ids(path: str | Path, special_tokens: Sequence[str]) -> list[int]:
    """The ids that tokens get which a checkpoint's tokenizer lacks; none for those it has."""
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(str(path), trust_remote_code=False)
    known = len(words)
    words.add_tokens(list(special_tokens), special_tokens=True)
    return list(range(known, len(words)))


def last_checkpoint(out: Path) -> str | None:
    """The last checkpoint of a training in a folder, None where there is none."""
    from transformers.trainer_utils import get_last_checkpoint

    found: str | None = get_last_checkpoint(str(out)) if out.is_dir() else None
    return found


def resumed_weights(out: Path, resume: bool) -> str | None:
    """The checkpoint whose weights a resumed training begins with, None where it has others.

    A trainer of transformers takes the names in its file for names of modules. Those of a
    Qwen2.5-VL are not, so it reads nothing and goes on from the weights it was given (5.23): give
    it these. Sharded weights are read another way.
    """
    return last_checkpoint(out) if resume and not is_sharded() else None


def is_sharded() -> bool:
    """Whether the launcher wants the weights sharded over processes."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("true", "1")


def _whole(path: str | Path) -> str | Path:
    """The path, unless it is an adapter alone: that is no model."""
    folder = Path(path).expanduser()
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise ConfigError(f"{folder} is an adapter, not a model.", "Train it with --merge.")
    return path


def _make_room(model: Any, source: str, special_tokens: Sequence[str]) -> None:
    """Rows for new tokens, in the embeddings and, where they are apart, in the head."""
    import torch

    ids = new_ids(source, special_tokens)
    if not ids:
        return
    rows = model.get_input_embeddings().weight.shape[0]
    if ids[-1] >= rows:
        model.resize_token_embeddings(ids[-1] + 1, mean_resizing=False)
    tables = {
        table.weight.data_ptr(): table.weight
        for table in (model.get_input_embeddings(), model.get_output_embeddings())
    }
    with torch.no_grad():
        for weight in tables.values():
            weight[ids] = weight[: ids[0]].float().mean(0).to(weight.dtype)
