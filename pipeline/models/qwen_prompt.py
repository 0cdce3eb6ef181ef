"""A conversation as a Qwen-VL model takes it: chat template, visual tokens, patches.

Owns what the words of a conversation can and cannot do to its structure: a special token that is
only mentioned stays text, and no picture is left out. Knows nothing of networks and replies.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from pipeline.errors import ConfigError, ModelError

_IMAGE = "<|image_pad|>"
_QUOTE = "\ue000"
"""Stands on both sides of a special token that is only mentioned; a private-use character."""

Inputs = dict[str, torch.Tensor]
"""`pixel_values` float (patches, values) and `image_grid_thw` int64 (pictures, 3); {} without."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation: texts and pictures in order."""

    speaker: str
    """`system`, `user` or `assistant`."""
    parts: tuple[str | Image.Image, ...]


class Encoder:
    """A checkpoint's tokenizer, chat template and image settings."""

    def __init__(self, tokenizer: Any, images: Any) -> None:
        if not tokenizer.chat_template:
            raise ConfigError("The tokenizer has no chat template.")
        vocabulary = tokenizer.get_vocab()
        if _IMAGE not in vocabulary:
            raise ConfigError(f"The tokenizer has no {_IMAGE}.")
        if not hasattr(images, "merge_size"):
            raise ConfigError(f"{type(images).__name__} is not Qwen-VL's image preprocessing.")
        self.tokenizer = tokenizer
        self.images = images
        """The published preprocessing, on PIL alone."""
        self.image_token: int = vocabulary[_IMAGE]
        special = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special]
        self._special = re.compile("|".join(map(re.escape, special)))

    def encode(
        self, conversation: Sequence[Message], prefix: str = ""
    ) -> tuple[torch.Tensor, Inputs]:
        """Tokens, int64 (1, n), up to the end of `prefix` in the assistant's turn, and patches."""
        pictures = [p for m in conversation for p in m.parts if isinstance(p, Image.Image)]
        inputs: Inputs = {}
        if pictures:
            inputs = dict(self.images([p.convert("RGB") for p in pictures], return_tensors="pt"))
        ids = self._tokenize(self._render(conversation) + self._quote(prefix))
        grids = inputs["image_grid_thw"].tolist() if inputs else []
        return self._expand(ids, grids), inputs

    def decode(self, ids: Sequence[int]) -> str:
        """Text without the special tokens."""
        text: str = self.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _render(self, conversation: Sequence[Message]) -> str:
        """The chat template's text, up to where the assistant begins."""
        messages = []
        for message in conversation:
            parts = [
                {"type": "text", "text": self._quote(part)}
                if isinstance(part, str)
                else {"type": "image"}
                for part in message.parts
            ]
            plain = all(isinstance(part, str) for part in message.parts)
            content = "".join(part["text"] for part in parts) if plain else parts
            messages.append({"role": message.speaker, "content": content})
        text: str = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        return text

    def _quote(self, text: str) -> str:
        """Text whose special tokens are marked as mentioned: words cannot open a turn."""
        return self._special.sub(lambda m: f"{_QUOTE}{m[0]}{_QUOTE}", text.replace(_QUOTE, ""))

    def _tokenize(self, text: str) -> list[int]:
        ids: list[int] = []
        for i, piece in enumerate(text.split(_QUOTE)):
            ids += self.tokenizer.encode(
                piece, add_special_tokens=False, split_special_tokens=bool(i % 2)
            )
        return ids

    def _expand(self, ids: list[int], grids: list[list[int]]) -> torch.Tensor:
        """Each picture's place as many times as the picture has visual tokens."""
        image, merged = self.image_token, self.images.merge_size**2
        places = ids.count(image)
        if places != len(grids):
            raise ModelError(f"The chat template has {places} places for {len(grids)} pictures.")
        sizes = iter(math.prod(grid) // merged for grid in grids)
        return torch.tensor([[t for i in ids for t in [i] * (next(sizes) if i == image else 1)]])
