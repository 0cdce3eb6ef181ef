"""A LLaVA chat model in this process: LLaVA-1.5 and LLaVA-NeXT, without torchvision.

Owns which checkpoints are taken, in which chat format they are spoken to, and how a reply is drawn,
token by token. Knows nothing of roles, tools or grammars; safetensors only, never foreign code.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
)
from transformers.utils import cached_file

from pipeline.errors import ConfigError, nearest
from pipeline.models.generation import (
    Draw,
    Generated,
    attending,
    check_device,
    collect,
    dtype_of,
    end_tokens,
    loading,
    name_of,
    read_weights,
    room,
    source_of,
    writing,
)
from pipeline.models.llava_prompt import (
    TEMPLATES,
    Encoder,
    Prompt,
    makes_squares,
    shows_pictures,
)
from pipeline.models.local_vlm import Asked, Vlm
from pipeline.models.qwen_prompt import Message, Part
from pipeline.models.vision_grid import adapter_for

KINDS = ("llava", "llava_next")
"""The `model_type`s that one code serves."""

_VISION = "clip_vision_model"


def load(
    path_or_id: str | Path,
    *,
    device: str = "cpu",
    dtype: str | None = None,
    threads: int = 1,
    template: str = "auto",
    pad: bool = True,
) -> Llava:
    """A model from a folder, or from the Hub by its `owner/name`.

    `dtype` and `threads` as for `qwen_vl.load`. `template` is a chat format of `TEMPLATES`, `own`
    for the checkpoint's, or `auto`: its own where it has one for pictures, else `vicuna_v1` for one
    on a LLaMA. `pad`: LLaVA-1.5 sees the picture padded to a square, as it was taught; without, as
    the checkpoint's settings say, which may crop. Raises `ConfigError`, `ModelError`.
    """
    source = source_of(path_or_id)
    check_device(device)
    wanted = dtype_of(dtype or ("float32" if device == "cpu" else "auto"))
    torch.set_num_threads(threads)
    with loading(source, "a LLaVA model"):
        config, encoder = _read_settings(source, template, pad)
        model = read_weights(source, config, wanted)
    return Llava(model.to(device), encoder, name_of(path_or_id, config))


class Llava(Vlm):
    """Weights of one model; one call at a time. A reply is drawn as it was asked for: a
    checkpoint's own sampling defaults are not applied."""

    def __init__(self, model: Any, encoder: Encoder, name: str) -> None:
        self.model = model.eval()
        self.encoder = encoder
        self.name = name
        """Tells these weights from all others."""
        self._ends = end_tokens(model, encoder.tokenizer.eos_token_id)
        self._longest: int = model.config.get_text_config().max_position_embeddings

    def answer(self, conversation: Sequence[Message], asked: Asked) -> Generated:
        with writing(self.name):
            prompt = self.prompt(conversation, asked.prefix)
            before, adapter = prompt.ids.shape[1], self.encoder.adapter
            most = room(before, self._longest, asked.max_tokens, self.name)
            tokens = self._tokens(prompt, asked.draw, most)
            text = partial(self.encoder.decode, keep_special=asked.keep_special)
            with attending(self.model, adapter, prompt.ids, prompt.pictures, asked.highlight):
                return collect(tokens, before, text, self._ends, asked.stop, asked.halt, self.name)

    def prompt(self, conversation: Sequence[Message], prefix: Sequence[Part] = ()) -> Prompt:
        """A conversation, ready for the assistant's turn that has begun with `prefix`."""
        return self.encoder.encode(conversation, prefix).to(self.model.device, self.model.dtype)

    def _tokens(self, prompt: Prompt, draw: Draw, most: int) -> Iterator[int]:
        """At most `most` tokens, one for each forward pass, the turn's end included."""
        ids, inputs, cache = prompt.ids, prompt.inputs, None
        for _ in range(most):
            out = self.model(
                input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1, **inputs
            )
            token = draw(out.logits[0, -1])
            yield token
            ids, inputs, cache = ids.new_tensor([[token]]), {}, out.past_key_values


def _read_settings(source: str, template: str, pad: bool) -> tuple[Any, Encoder]:
    """The configuration, and how conversations are encoded for it."""
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    if config.model_type not in KINDS:
        raise ConfigError(f"{source} is a '{config.model_type}', not one of {', '.join(KINDS)}.")
    if config.vision_config.model_type != _VISION:
        seen_by = config.vision_config.model_type
        raise ConfigError(f"{source} sees by a '{seen_by}'; only LLaVAs on CLIP are known.")
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    place = tokenizer.convert_ids_to_tokens(config.image_token_id)
    if place is None or place not in tokenizer.get_added_vocab():
        raise ConfigError(f"The tokenizer of {source} has no token {config.image_token_id}.")
    images = _read_images(source, config, pad)
    chosen = _template(source, config, tokenizer, place, template)
    return config, Encoder(tokenizer, images, adapter_for(config, images), chosen)


def _read_images(source: str, config: Any, pad: bool) -> Any:
    """The preprocessing; `ConfigError` for one that does not go with the networks."""
    if config.model_type == "llava_next":
        images = LlavaNextImageProcessorPil.from_pretrained(source)
        canvases = [list(size) for size in config.image_grid_pinpoints]
        fit = [list(size) for size in images.image_grid_pinpoints] == canvases
        fit = fit and config.vision_feature_select_strategy == "default"
    else:
        more = {"do_pad": True} if pad else {}
        images, fit = LlavaImageProcessorPil.from_pretrained(source, **more), True
    if not (fit and makes_squares(images, config.vision_config.image_size)):
        raise ConfigError(f"The networks and the image settings of {source} disagree.")
    return images


def _template(source: str, config: Any, tokenizer: Any, place: str, named: str) -> str:
    """The chat format of that name."""
    if named in TEMPLATES:
        return TEMPLATES[named]
    if named not in ("auto", "own"):
        fix = nearest(named, ("auto", "own", *TEMPLATES))
        raise ConfigError(f"There is no chat format '{named}'.", fix)
    own = _own_template(source, tokenizer)
    if own and shows_pictures(tokenizer, own, place):
        return own
    if named == "auto" and config.text_config.model_type == "llama":
        return TEMPLATES["vicuna_v1"]
    raise ConfigError(f"{source} has no chat template for pictures.", "Name one by `template`.")


def _own_template(source: str, tokenizer: Any) -> str | None:
    """What the tokenizer brings, else the file of processors that older checkpoints have."""
    told = tokenizer.chat_template
    if isinstance(told, dict):
        told = told.get("default")
    if told:
        return str(told)
    path = cached_file(source, "chat_template.json", _raise_exceptions_for_missing_entries=False)
    if path is None:
        return None
    template = json.loads(Path(path).read_text("utf-8")).get("chat_template")
    return template if isinstance(template, str) else None
