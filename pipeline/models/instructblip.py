"""An InstructBLIP in this process: one picture, one instruction, an answer; on Vicuna or Flan-T5.

Owns which checkpoints are taken, how an instruction goes to the Q-Former and to the language model,
and how a reply is drawn, token by token. It says no boxes. Knows nothing of roles, tools or
grammars; safetensors only, never a checkpoint's own code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoConfig, AutoTokenizer
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from pipeline.errors import ConfigError, ContextOverflow, ModelError
from pipeline.models.generation import (
    Draw,
    Generated,
    attending,
    check_device,
    collect,
    dtype_of,
    end_tokens,
    first_line,
    loading,
    name_of,
    read_weights,
    room,
    source_of,
    writing,
)
from pipeline.models.llava_prompt import Prompt, makes_squares
from pipeline.models.local_vlm import Asked, Vlm
from pipeline.models.qwen_prompt import Message, Part
from pipeline.models.vision_grid import Seen, adapter_for

KINDS = ("instructblip",)
"""The `model_type`s that one code serves."""

_QFORMER = "qformer_tokenizer"
"""The folder of the Q-Former's own tokenizer, inside the checkpoint's."""


def load(
    path_or_id: str | Path, *, device: str = "cpu", dtype: str | None = None, threads: int = 1
) -> InstructBlip:
    """A model from a folder, or from the Hub by its `owner/name`; arguments as `qwen_vl.load`.

    Raises `ConfigError` for what is no such model, `ModelError` for weights that do not fit it.
    """
    source = source_of(path_or_id)
    check_device(device)
    wanted = dtype_of(dtype or ("float32" if device == "cpu" else "auto"))
    torch.set_num_threads(threads)
    with loading(source, "an InstructBLIP model"):
        config, encoder = _read_settings(source)
        model = read_weights(source, config, wanted)
    return InstructBlip(model.to(device), encoder, name_of(path_or_id, config))


class Encoder:
    """A checkpoint's two tokenizers and image settings."""

    def __init__(self, tokenizer: Any, qformer_tokenizer: Any, images: Any, config: Any) -> None:
        self.tokenizer = tokenizer
        self.images = images
        """The published preprocessing, on PIL alone."""
        self._qformer = qformer_tokenizer
        self._places = [config.image_token_id] * config.num_query_tokens
        self._longest: int = config.qformer_config.max_position_embeddings

    def encode(self, conversation: Sequence[Message], begun: str = "") -> Prompt:
        """One picture and its instruction: the queries' places, the words, and what is `begun`.

        A system message is the instruction's first line. Words never act: special tokens in them
        are text, to both tokenizers. Raises `ModelError` for more than one picture or question.
        """
        speakers = [said.speaker for said in conversation if said.speaker != "system"]
        parts = [part for said in conversation for part in said.parts]
        pictures = [part.convert("RGB") for part in parts if isinstance(part, Image.Image)]
        if speakers != ["user"] or len(pictures) != 1:
            told = f"{len(speakers)} turns with {len(pictures)} pictures"
            raise ModelError(f"InstructBLIP takes one question on one picture, not {told}.")
        text = "\n".join(filter(None, (_words(said.parts) for said in conversation)))
        asked = self._qformer(text, split_special_tokens=True, return_tensors="pt")
        if asked["input_ids"].shape[1] > self._longest:
            raise ContextOverflow(f"The Q-Former reads {self._longest} tokens of an instruction.")
        given = f"{text} {begun}" if begun else text
        ids = self._places + self.tokenizer.encode(given, split_special_tokens=True)
        inputs = {
            "pixel_values": self.images(pictures, return_tensors="pt")["pixel_values"],
            "qformer_input_ids": asked["input_ids"],
            "qformer_attention_mask": asked["attention_mask"],
        }
        return Prompt(torch.tensor([ids]), inputs, (Seen(pictures[0].size),))

    def decode(self, ids: list[int], *, keep_special: bool = False) -> str:
        """Text, without the special tokens unless they are kept."""
        text: str = self.tokenizer.decode(
            ids, skip_special_tokens=not keep_special, clean_up_tokenization_spaces=False
        )
        return text


class InstructBlip(Vlm):
    """Weights of one model; one call at a time. A reply is drawn as it was asked for: a
    checkpoint's own sampling defaults are not applied."""

    def __init__(self, model: Any, encoder: Encoder, name: str) -> None:
        self.model = model.eval()
        self.encoder = encoder
        self.name = name
        """Tells these weights from all others."""
        self._adapter = adapter_for(model.config)
        self._ends = end_tokens(model, encoder.tokenizer.eos_token_id)
        self._encodes = bool(model.language_model.config.is_encoder_decoder)
        bound = getattr(model.config.text_config, "max_position_embeddings", None)
        self._longest: int | None = None if self._encodes else bound

    def answer(self, conversation: Sequence[Message], asked: Asked) -> Generated:
        with writing(self.name):
            begun = self._begun(asked.prefix)
            prompt = self.prompt(conversation, asked.prefix)
            before = prompt.ids.shape[1] + len(begun)
            most = room(before, self._longest, asked.max_tokens, self.name)
            tokens = self._tokens(prompt, begun, asked.draw, most)
            text = partial(self.encoder.decode, keep_special=asked.keep_special)
            with attending(self.model, self._adapter, prompt.ids, prompt.pictures, asked.highlight):
                return collect(tokens, before, text, self._ends, asked.stop, asked.halt, self.name)

    def prompt(self, conversation: Sequence[Message], prefix: Sequence[Part] = ()) -> Prompt:
        """The question, ready for the answer; one that has begun is here only in a Vicuna."""
        if not all(isinstance(part, str) for part in prefix):
            raise ModelError("InstructBLIP takes no picture in its answer.")
        begun = "" if self._encodes else _words(prefix)
        prompt = self.encoder.encode(conversation, begun)
        return prompt.to(self.model.device, self.model.dtype)

    def _begun(self, prefix: Sequence[Part]) -> list[int]:
        """Tokens that a Flan-T5's answer has begun with; a Vicuna finds them in its prompt."""
        tokens: list[int] = []
        if self._encodes and prefix:
            tokens = self.encoder.tokenizer.encode(
                _words(prefix), add_special_tokens=False, split_special_tokens=True
            )
        return tokens

    def _tokens(self, prompt: Prompt, begun: list[int], draw: Draw, most: int) -> Iterator[int]:
        """At most `most` tokens, one for each pass of the language model, the end included."""
        language, ids = self.model.language_model, prompt.ids
        embedded = self._embedded(prompt)
        if self._encodes:
            start = language.config.decoder_start_token_id
            fixed = {"encoder_outputs": language.get_encoder()(inputs_embeds=embedded)}
            step, name = (
                {"decoder_input_ids": ids.new_tensor([[start, *begun]])},
                "decoder_input_ids",
            )
        else:
            fixed, step, name = {}, {"inputs_embeds": embedded}, "input_ids"
        cache = None
        for _ in range(most):
            out = language(**fixed, **step, past_key_values=cache, use_cache=True)
            token = draw(out.logits[0, -1])
            yield token
            step, cache = {name: ids.new_tensor([[token]])}, out.past_key_values

    def _embedded(self, prompt: Prompt) -> torch.Tensor:
        """The prompt with what the Q-Former saw in its places, (1, n, width)."""
        seen = self.model.get_image_features(**prompt.inputs, return_dict=True).pooler_output
        embedded = self.model.language_model.get_input_embeddings()(prompt.ids)
        places = (prompt.ids == self.model.config.image_token_id)[..., None]
        return embedded.masked_scatter(places, seen.to(embedded.dtype))


def _words(parts: Sequence[Part]) -> str:
    return "".join(part for part in parts if isinstance(part, str))


def _read_settings(source: str) -> tuple[Any, Encoder]:
    """The configuration, and how questions are encoded for it."""
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    if config.model_type not in KINDS:
        raise ConfigError(f"{source} is a '{config.model_type}', not one of {', '.join(KINDS)}.")
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    if config.image_token_id is None or config.image_token_id >= len(tokenizer):
        raise ConfigError(
            f"{source} has no token for pictures: it was saved for an older transformers."
        )
    try:
        qformer = AutoTokenizer.from_pretrained(source, subfolder=_QFORMER, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{source} lacks {_QFORMER}: {first_line(error)}") from error
    images = BlipImageProcessorPil.from_pretrained(source)
    if not makes_squares(images, config.vision_config.image_size):
        raise ConfigError(f"The networks and the image settings of {source} disagree.")
    return config, Encoder(tokenizer, qformer, images, config)
