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
from pipeline.grammar import BOX_END, BOX_START
from pipeline.turns import Mark

_IMAGE = "<|image_pad|>"
_VIEW = f"<|vision_start|>{_IMAGE}<|vision_end|>"
"""A picture's place, the same in every Qwen-VL."""
_MARKS = frozenset((BOX_START, BOX_END, Mark.ZOOMIN.value))
"""Special tokens that a model may say."""
_QUOTE = "\ue000"
"""Stands on both sides of a special token that is only mentioned; a private-use character."""

Part = str | Image.Image

Inputs = dict[str, torch.Tensor]
"""`pixel_values` float (patches, values) and `image_grid_thw` int64 (pictures, 3); {} without."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation: texts and pictures in order."""

    speaker: str
    """`system`, `user` or `assistant`."""
    parts: tuple[Part, ...]


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
        self,
        conversation: Sequence[Message],
        prefix: Sequence[Part] = (),
        *,
        keep_special: bool = False,
    ) -> tuple[torch.Tensor, Inputs]:
        """Tokens, int64 (1, n), up to the end of `prefix` in the assistant's turn, and patches.

        With `keep_special` the marks of `cof-v1` are tokens where the system and the assistant
        speak; what users say is words in any case.
        """
        parts = [part for message in conversation for part in message.parts]
        pictures = [part for part in (*parts, *prefix) if isinstance(part, Image.Image)]
        inputs: Inputs = {}
        if pictures:
            inputs = dict(self.images([p.convert("RGB") for p in pictures], return_tensors="pt"))
        text = self._render(conversation, keep_special) + self._spoken(prefix, keep_special)
        ids = self._tokenize(text)
        grids = inputs["image_grid_thw"].tolist() if inputs else []
        return self._expand(ids, grids), inputs

    def decode(self, ids: Sequence[int], *, keep_special: bool = False) -> str:
        """Text, without the special tokens unless they are kept."""
        text: str = self.tokenizer.decode(
            ids, skip_special_tokens=not keep_special, clean_up_tokenization_spaces=False
        )
        return text

    def _render(self, conversation: Sequence[Message], keep_special: bool) -> str:
        """The chat template's text, up to where the assistant begins."""
        messages = [
            {"role": m.speaker, "content": self._content(m, keep_special and m.speaker != "user")}
            for m in conversation
        ]
        text: str = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        return text

    def _content(self, message: Message, marks: bool) -> str | list[dict[str, str]]:
        """A message as the chat template takes it.

        The place of a picture in the assistant's turn is written here: not every template has one.
        """
        pictures = any(isinstance(part, Image.Image) for part in message.parts)
        if message.speaker == "assistant" or not pictures:
            return self._spoken(message.parts, marks)
        return [
            {"type": "text", "text": self._quote(part, marks)}
            if isinstance(part, str)
            else {"type": "image"}
            for part in _joined(message.parts)
        ]

    def _spoken(self, parts: Sequence[Part], marks: bool) -> str:
        """Parts as one text, with a place for each picture."""
        return "".join(
            self._quote(part, marks) if isinstance(part, str) else _VIEW for part in _joined(parts)
        )

    def _quote(self, text: str, marks: bool) -> str:
        """Text whose special tokens are marked as mentioned: words cannot open a turn.

        With `marks` those of `cof-v1` are meant.
        """

        def quoted(found: re.Match[str]) -> str:
            return found[0] if marks and found[0] in _MARKS else f"{_QUOTE}{found[0]}{_QUOTE}"

        return self._special.sub(quoted, text.replace(_QUOTE, ""))

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


def _joined(parts: Sequence[Part]) -> list[Part]:
    """The same with neighbouring texts as one: halves of a special token are one, too."""
    joined: list[Part] = []
    for part in parts:
        last = joined[-1] if joined else None
        if isinstance(part, str) and isinstance(last, str):
            joined[-1] = last + part
        else:
            joined.append(part)
    return joined
