"""A conversation as a LLaVA takes it: chat format, a placeholder for every visual token, pixels.

Owns the formats for checkpoints that bring none, and what the words of a conversation can do to its
structure: a special token that is only mentioned stays text. Where a format opens turns by plain
words ("USER:"), no text can be kept from using them. Knows nothing of networks and replies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jinja2 import TemplateError
from PIL import Image

from pipeline.errors import ModelError
from pipeline.models.quoting import Words, joined
from pipeline.models.qwen_prompt import Message, Part
from pipeline.models.vision_grid import Adapter, Seen

VICUNA_V1 = """\
{%- if messages[0].role != 'system' -%}
A chat between a curious user and an artificial intelligence assistant. \
The assistant gives helpful, detailed, and polite answers to the user's questions.{{ ' ' }}
{%- endif -%}
{%- for message in messages -%}
{%- if message.role != 'system' -%}{{ message.role.upper() + ': ' }}{%- endif -%}
{%- for part in message.content -%}
{{- part.text if part.type == 'text' else image_token + '\n' -}}
{%- endfor -%}
{{- eos_token if message.role == 'assistant' else ' ' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}ASSISTANT:{%- endif -%}
"""
"""The format in which LLaVA-1.5 was taught and is scored; a system message is its preamble."""

TEMPLATES = {"vicuna_v1": VICUNA_V1}
"""Chat formats by name."""

_SEEN = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "look"}]}


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation as the networks take it."""

    ids: torch.Tensor
    """int64 (1, n)."""
    inputs: dict[str, torch.Tensor]
    """What the picture's half of the networks takes, under its names; {} without pictures."""
    pictures: tuple[Seen, ...]
    """The conversation's, in order."""

    def to(self, device: torch.device, dtype: torch.dtype) -> Prompt:
        """The same on a device, pixels in that dtype."""
        placed = {
            name: tensor.to(device, dtype if tensor.is_floating_point() else None)
            for name, tensor in self.inputs.items()
        }
        return Prompt(self.ids.to(device), placed, self.pictures)


class Encoder:
    """A checkpoint's tokenizer, chat format and image settings."""

    def __init__(self, tokenizer: Any, images: Any, adapter: Adapter, template: str) -> None:
        self.tokenizer = tokenizer
        self.images = images
        """The published preprocessing, on PIL alone."""
        self.adapter = adapter
        """How many tokens a picture becomes, and where they lie on it."""
        self.template = template
        self._place: str = tokenizer.convert_ids_to_tokens(adapter.image_token)
        self._words = Words(tokenizer, self._place)
        bare = tokenizer.encode("", add_special_tokens=True)
        self._begin: list[int] = bare[:1] if bare[:1] == [tokenizer.bos_token_id] else []

    def encode(self, conversation: Sequence[Message], prefix: Sequence[Part] = ()) -> Prompt:
        """The conversation up to the end of `prefix` in the assistant's turn, on the CPU.

        A checkpoint's own template may put a message's pictures before its words. The prefix is
        text alone: no LLaVA was taught to see a picture while it speaks.
        """
        parts = [part for message in conversation for part in message.parts]
        pictures = [part.convert("RGB") for part in parts if isinstance(part, Image.Image)]
        inputs = dict(self.images(pictures, return_tensors="pt")) if pictures else {}
        text = self._render(conversation)
        text += self._begun(text, prefix)
        bos = self.tokenizer.bos_token
        begin = [] if bos and text.startswith(bos) else self._begin  # some templates write it
        seen = tuple(Seen(picture.size) for picture in pictures)
        return Prompt(self._expand(begin + self._words.tokenize(text), seen), inputs, seen)

    def decode(self, ids: list[int], *, keep_special: bool = False) -> str:
        """Text, without the special tokens unless they are kept."""
        text: str = self.tokenizer.decode(
            ids, skip_special_tokens=not keep_special, clean_up_tokenization_spaces=False
        )
        return text

    def _render(self, conversation: Sequence[Message]) -> str:
        """The format's text, up to where the assistant begins."""
        messages = [
            {"role": said.speaker, "content": [self._piece(part) for part in joined(said.parts)]}
            for said in conversation
        ]
        return _rendered(self.tokenizer, self.template, messages, self._place)

    def _piece(self, part: Part) -> dict[str, str]:
        if isinstance(part, str):
            return {"type": "text", "text": self._words.quote(part)}
        return {"type": "image"}

    def _begun(self, opened: str, prefix: Sequence[Part]) -> str:
        """What the assistant has said already, after the words that open its turn."""
        spoken = "".join(part for part in prefix if isinstance(part, str))
        if not all(isinstance(part, str) for part in prefix):
            raise ModelError("A LLaVA takes no picture in the assistant's turn.")
        apart = spoken and not opened.endswith((" ", "\n"))
        return (" " if apart else "") + self._words.quote(spoken)

    def _expand(self, ids: list[int], pictures: Sequence[Seen]) -> torch.Tensor:
        """Each picture's place as many times as the picture has visual tokens."""
        image = self.adapter.image_token
        places = ids.count(image)  # type: ignore[arg-type]
        if places != len(pictures):
            raise ModelError(f"The chat format has {places} places for {len(pictures)} pictures.")
        counts = iter([self.adapter.count(seen) for seen in pictures])
        return torch.tensor([[t for i in ids for t in [i] * (next(counts) if i == image else 1)]])


def makes_squares(images: Any, side_px: int) -> bool:
    """Whether a preprocessing hands on squares of that side, whatever the picture."""
    probe = images([Image.new("RGB", (48, 32))], return_tensors="pt")["pixel_values"]
    return tuple(probe.shape[-2:]) == (side_px, side_px)


def shows_pictures(tokenizer: Any, template: str, place: str) -> bool:
    """Whether a chat format writes a message of texts and pictures, `place` for each of these."""
    try:
        text = _rendered(tokenizer, template, [_SEEN], place)
    except (TemplateError, TypeError, ValueError):
        return False
    return text.count(place) == 1 and "look" in text and "'type'" not in text


def _rendered(tokenizer: Any, template: str, messages: list[dict[str, Any]], place: str) -> str:
    text: str = tokenizer.apply_chat_template(
        messages,
        chat_template=template,
        tokenize=False,
        add_generation_prompt=True,
        image_token=place,
    )
    return text
