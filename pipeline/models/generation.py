"""How a local model writes: what is asked of it, how a token is drawn, where a reply ends.

Owns what every chat model in this process shares, with a place on the disk or the Hub as its
source. Knows nothing of any one model's tokens, pictures or templates.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from jinja2 import TemplateError
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText
from transformers.utils import logging

from pipeline.errors import ConfigError, ContextOverflow, ModelError
from pipeline.grids import Rule
from pipeline.highlight import Highlight
from pipeline.models import vision_attention
from pipeline.models.vision_grid import Adapter, Seen

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Generated:
    """What the model wrote, and what it cost."""

    text: str
    """Without the prefix, the special tokens, and anything from a stop string on."""
    finish: str
    """`stop` (the turn's end or a stop string) or `length`."""
    tokens_in: int
    """Prompt and prefix, every visual token counted."""
    tokens_out: int
    """Tokens drawn, the one that ends the turn included."""
    stopped_at: str = ""
    """The stop string that ended it, if one did."""
    tokens_cached: int = 0
    """Of `tokens_in`, those that an earlier request had left in the cache."""


class Draw:
    """Chooses a token from logits (V,): the best one, or one at random from its own generator."""

    def __init__(self, temperature: float, top_p: float, seed: int) -> None:
        self._temperature = temperature
        self._top_p = top_p
        self._generator = torch.Generator().manual_seed(seed % 2**63)

    def __call__(self, logits: torch.Tensor) -> int:
        if self._temperature <= 0:
            return int(logits.argmax())
        chances = torch.softmax(logits.float().cpu() / self._temperature, -1)
        sizes, order = chances.sort(descending=True)
        sizes[1:][(sizes.cumsum(-1) - sizes)[1:] >= self._top_p] = 0  # the best one always stays
        return int(order[torch.multinomial(sizes, 1, generator=self._generator)])


def collect(
    tokens: Iterator[int],
    before: int,
    decode: Callable[[list[int]], str],
    ends: Collection[int],
    stop: Sequence[str],
    halt: Callable[[], bool],
    name: str,
) -> Generated:
    """The reply that `tokens` spell, up to one of `ends`, a stop string or their own end.

    `before` is how many tokens the model had read. `halt` is asked before every token; raises
    `ModelError` when it says so.
    """
    said: list[int] = []
    tail = 4 * max(map(len, stop), default=0) + 4  # a character has four bytes at most
    while not halt():
        token = next(tokens, None)
        if token is None or token in ends:
            ended = token is not None
            return Generated(decode(said), "stop" if ended else "length", before, len(said) + ended)
        said.append(token)
        if stop and cut(decode(said[-tail:]), stop) and (found := cut(decode(said), stop)):
            at, word = found
            return Generated(decode(said)[:at], "stop", before, len(said), word)
    raise ModelError(f"{name} was halted after {len(said)} tokens.")


def flags_of(
    adapter: Adapter, ids: torch.Tensor, pictures: Sequence[Seen], highlight: Highlight
) -> np.ndarray:
    """The attention keys of one row, bool (keys,), that a highlight means.

    `ids` are the row's tokens, int64 (1, n), `pictures` all of its pictures in order.
    """
    if not pictures:
        raise ConfigError("A highlight needs a picture to lie on.")
    return adapter.flags(
        ids[0].cpu().numpy(),
        pictures,
        None if highlight.whole else highlight.boxes,
        rule=Rule(highlight.expansion, highlight.square, highlight.compat),
        frame=highlight.frame,
    )


def attending(
    model: Any,
    adapter: Adapter,
    ids: torch.Tensor,
    pictures: Sequence[Seen],
    highlight: Highlight | None,
) -> AbstractContextManager[Any]:
    """While it is open, `model` attends to what the highlight means, as `flags_of` finds it.

    Without a highlight, and at the weight 1, the networks run as they always do.
    """
    if highlight is None:
        return nullcontext()
    flags = flags_of(adapter, ids, pictures, highlight)
    if highlight.weight == 1:
        return nullcontext()
    return vision_attention.highlight(model, torch.from_numpy(flags)[None], highlight.weight, ids)


def cut(text: str, stop: Sequence[str]) -> tuple[int, str] | None:
    """Where the first of the stop strings begins, and which one it is."""
    return min(((at, word) for word in stop if (at := text.find(word)) >= 0), default=None)


def source_of(path_or_id: str | Path) -> str:
    """The folder or Hub name to load from, or `ConfigError`."""
    text = str(path_or_id)
    path = Path(text).expanduser()
    if path.exists():
        if not (path / "config.json").is_file():
            raise ConfigError(f"{path} is not a model's folder: it has no config.json.")
        return str(path)
    if isinstance(path_or_id, Path) or not _HUB_ID.fullmatch(text):
        raise ConfigError(f"{text} is neither a folder nor a Hub name such as owner/name.")
    return text


def name_of(path_or_id: str | Path, config: Any) -> str:
    """The Hub's name and commit, or the folder's name and the digest of its weights."""
    folder = Path(path_or_id).expanduser()
    if not folder.is_dir():
        return f"{path_or_id}@{config._commit_hash[:12]}"
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"{folder.resolve().name}@{digest.hexdigest()[:12]}"


@contextmanager
def loading(source: str, kind: str) -> Iterator[None]:
    """Tells what goes wrong while a checkpoint is read.

    `ConfigError` where `source` is no such `kind`, `ModelError` for weights that do not fit it.
    """
    logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, StrictDataclassError) as error:
        raise ConfigError(f"{source} is not {kind}: {first_line(error)}") from error
    except (RuntimeError, SafetensorError) as error:
        raise ModelError(f"{source} does not load: {first_line(error)}") from error


@contextmanager
def writing(name: str) -> Iterator[None]:
    """What a model raises while it writes, as `ModelError`, or `ContextOverflow` without memory."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ContextOverflow(f"{name} has no memory for a request.") from error
    except (RuntimeError, ValueError, IndexError, TemplateError) as error:
        raise ModelError(f"{name} failed: {first_line(error)}") from error


def room(before: int, longest: int | None, most: int, name: str) -> int:
    """How many tokens may be drawn after `before` of them; raises `ContextOverflow`.

    `longest` is what the model takes in all, None where there is no bound.
    """
    if longest is None:
        return most
    if before >= longest:
        raise ContextOverflow(f"{name} takes {longest} tokens, not {before}.")
    return min(most, longest - before)


def read_weights(source: str, config: Any, dtype: Any) -> Any:
    """The networks; a weight that the files lack would be random, so it is a `ModelError`."""
    model, told = AutoModelForImageTextToText.from_pretrained(
        source,
        config=config,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    if absent := sorted(told["missing_keys"]):
        raise ModelError(f"{source} lacks {len(absent)} weights, '{absent[0]}' first.")
    return model


def end_tokens(model: Any, *named: int | None) -> frozenset[int]:
    """The tokens that end a turn: those the checkpoint tells, and those that are `named`."""
    told = model.generation_config.eos_token_id
    several = told if isinstance(told, list) else [told]
    return frozenset(i for i in (*several, *named) if i is not None)


def check_device(name: str) -> None:
    """Raise `ConfigError` for a device that torch does not have here."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"There is no device '{name}': {first_line(error)}") from error


def dtype_of(name: str) -> Any:
    """Torch's dtype of that name; `auto` as it is."""
    found = name if name == "auto" else getattr(torch, name, None)
    if found != "auto" and not isinstance(found, torch.dtype):
        raise ConfigError(f"torch has no dtype '{name}'.", "Known: float32, bfloat16, float16.")
    return found


def first_line(error: Exception) -> str:
    """What an error says in one line: its first, or its kind."""
    return (str(error).strip() or type(error).__name__).partition("\n")[0]
