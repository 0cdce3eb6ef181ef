"""A Qwen-VL chat model in this process: Qwen2-VL, Qwen2.5-VL, Qwen3-VL, without torchvision.

Owns which checkpoints are taken and how a reply is drawn, token by token. Knows nothing of roles,
tools or grammars; safetensors only, and never a checkpoint's own code.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from jinja2 import TemplateError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer
from transformers.utils import logging

from pipeline.errors import ConfigError, ContextOverflow, ModelError
from pipeline.models.qwen_prompt import Encoder, Inputs, Message, Part

KINDS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
"""The `model_type`s that one code serves."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def load(
    path_or_id: str | Path, *, device: str = "cpu", dtype: str | None = None, threads: int = 1
) -> QwenVl:
    """A model from a folder, or from the Hub by its `owner/name`.

    `dtype` is torch's name for it; float32 on the CPU and the checkpoint's own elsewhere if not
    given. `threads` is torch's number of CPU threads, for the calling thread: use the model there.
    Raises `ConfigError` for what is no such model, `ModelError` for weights that do not fit it.
    """
    source = _source(path_or_id)
    _check_device(device)
    wanted = _dtype(dtype or ("float32" if device == "cpu" else "auto"))
    torch.set_num_threads(threads)
    logging.disable_progress_bar()
    try:
        config, encoder = _read_settings(source)
        model = _read_weights(source, config, wanted)
    except (OSError, ValueError, KeyError, ImportError, StrictDataclassError) as error:
        raise ConfigError(f"{source} is not a Qwen-VL model: {_first_line(error)}") from error
    except (RuntimeError, SafetensorError) as error:
        raise ModelError(f"{source} does not load: {_first_line(error)}") from error
    return QwenVl(model.to(device), encoder, _name(path_or_id, config))


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


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation as the networks take it."""

    ids: torch.Tensor
    """int64 (1, n)."""
    positions: torch.Tensor
    """int64 (3, 1, n): time, row and column of each token."""
    images: Inputs


class QwenVl:
    """Weights of one model; one call at a time.

    The checkpoint's own sampling defaults (top-k, repetition penalty) are not applied: a reply is
    drawn as it was asked for.
    """

    def __init__(self, model: Any, encoder: Encoder, name: str) -> None:
        if model.config.image_token_id != encoder.image_token:
            raise ConfigError(f"The networks and the tokenizer of {name} do not belong together.")
        self.model = model.eval()
        self.encoder = encoder
        self.name = name
        """Tells these weights from all others."""
        self._ends = _end_tokens(model, encoder.tokenizer)
        self._longest: int = model.config.get_text_config().max_position_embeddings

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
    ) -> Generated:
        """The assistant's next turn, which has begun with `prefix`; greedy at temperature 0.

        With `keep_special` the marks of `cof-v1` are read as tokens and stay in the text.
        The same arguments give the same text on the same machine. `halt` is asked before every
        token. Raises `ContextOverflow`, or `ModelError` when the model fails or is halted.
        """
        try:
            prompt = self.prompt(conversation, prefix, keep_special=keep_special)
            before = prompt.ids.shape[1]
            if before >= self._longest:
                raise ContextOverflow(f"{self.name} takes {self._longest} tokens, not {before}.")
            draw = _Draw(temperature, top_p, seed)
            tokens = self._tokens(prompt, draw, min(max_tokens, self._longest - before))
            return self._collect(tokens, before, stop, keep_special, halt)
        except torch.OutOfMemoryError as error:
            raise ContextOverflow(f"{self.name} has no memory for a request.") from error
        except (RuntimeError, ValueError, IndexError, TemplateError) as error:
            raise ModelError(f"{self.name} failed: {_first_line(error)}") from error

    def prompt(
        self,
        conversation: Sequence[Message],
        prefix: Sequence[Part] = (),
        *,
        keep_special: bool = False,
    ) -> Prompt:
        """A conversation, ready for the assistant's turn that has begun with `prefix`."""
        ids, images = self.encoder.encode(conversation, prefix, keep_special=keep_special)
        positions, _ = self.model.model.get_rope_index(
            ids,
            (ids == self.encoder.image_token).int(),
            image_grid_thw=images.get("image_grid_thw"),
            attention_mask=torch.ones_like(ids),
        )
        device = self.model.device
        if images:
            images["pixel_values"] = images["pixel_values"].to(self.model.dtype)
        placed = {name: tensor.to(device) for name, tensor in images.items()}
        return Prompt(ids.to(device), positions.to(device), placed)

    def _tokens(self, prompt: Prompt, draw: _Draw, most: int) -> Iterator[int]:
        """At most `most` tokens, one for each forward pass, the turn's end included."""
        ids, positions, images, cache = prompt.ids, prompt.positions, prompt.images, None
        following = int(positions.max()) + 1
        for position in range(following, following + most):
            out = self.model(
                input_ids=ids,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
                **images,
            )
            token = draw(out.logits[0, -1])
            yield token
            ids, positions = ids.new_tensor([[token]]), positions.new_full((3, 1, 1), position)
            images, cache = {}, out.past_key_values

    def _collect(
        self,
        tokens: Iterator[int],
        before: int,
        stop: Sequence[str],
        keep_special: bool,
        halt: Callable[[], bool],
    ) -> Generated:
        def text(ids: list[int]) -> str:
            return self.encoder.decode(ids, keep_special=keep_special)

        said: list[int] = []
        tail = 4 * max(map(len, stop), default=0) + 4  # a character has four bytes at most
        while not halt():
            token = next(tokens, None)
            if token is None or token in self._ends:
                ended = token is not None
                finish = "stop" if ended else "length"
                return Generated(text(said), finish, before, len(said) + ended)
            said.append(token)
            if stop and _cut(text(said[-tail:]), stop) and (cut := _cut(text(said), stop)):
                at, word = cut
                return Generated(text(said)[:at], "stop", before, len(said), word)
        raise ModelError(f"{self.name} was halted after {len(said)} tokens.")


class _Draw:
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


def _cut(text: str, stop: Sequence[str]) -> tuple[int, str] | None:
    """Where the first of the stop strings begins, and which one it is."""
    return min(((at, word) for word in stop if (at := text.find(word)) >= 0), default=None)


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """The tokens that end a turn, as the checkpoint and its tokenizer name them."""
    told = model.generation_config.eos_token_id
    several = told if isinstance(told, list) else [told]
    turn_end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    return {i for i in (*several, tokenizer.eos_token_id, turn_end) if i is not None}


def _source(path_or_id: str | Path) -> str:
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


def _read_settings(source: str) -> tuple[Any, Encoder]:
    """The configuration, and how conversations are encoded for it."""
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    if config.model_type not in KINDS:
        raise ConfigError(f"{source} is a '{config.model_type}', not one of {', '.join(KINDS)}.")
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    images = AutoImageProcessor.from_pretrained(source, backend="pil", trust_remote_code=False)
    return config, Encoder(tokenizer, images)


def _read_weights(source: str, config: Any, dtype: Any) -> Any:
    """The networks; a weight that the files lack would be random, so it is an error."""
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


def _check_device(name: str) -> None:
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"There is no device '{name}': {_first_line(error)}") from error


def _dtype(name: str) -> Any:
    """Torch's dtype of that name; `auto` as it is."""
    found = name if name == "auto" else getattr(torch, name, None)
    if found != "auto" and not isinstance(found, torch.dtype):
        raise ConfigError(f"torch has no dtype '{name}'.", "Known: float32, bfloat16, float16.")
    return found


def _name(path_or_id: str | Path, config: Any) -> str:
    """The Hub's name and commit, or the folder's name and the digest of its weights."""
    folder = Path(path_or_id).expanduser()
    if not folder.is_dir():
        return f"{path_or_id}@{config._commit_hash[:12]}"
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"{folder.resolve().name}@{digest.hexdigest()[:12]}"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).partition("\n")[0]
