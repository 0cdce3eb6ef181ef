"""A conversation as a Qwen-VL model takes it: chat template, visual tokens, patches.

Owns what the words of a conversation can and cannot do to its structure: a special token that is
only mentioned stays text, and no picture is left out. Knows nothing of networks and replies.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from pipeline.errors import ConfigError, ModelError
from pipeline.grammar import BOX_END, BOX_START
from pipeline.models.quoting import Words, joined
from pipeline.turns import Mark

_IMAGE = "<|image_pad|>"
_VIEW = f"<|vision_start|>{_IMAGE}<|vision_end|>"
"""A picture's place, the same in every Qwen-VL."""
_MARKS = frozenset((BOX_START, BOX_END, Mark.ZOOMIN.value))
"""Special tokens that a model may say."""

_SIZES = 4096
"""Sizes of pictures whose grids are remembered."""

Part = str | Image.Image

Grid = tuple[int, int, int]
"""Patches of a picture: frames, rows, columns."""

Inputs = dict[str, torch.Tensor]
"""`pixel_values` float (patches, values) and `image_grid_thw` int64 (pictures, 3); {} without."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation: texts and pictures in order."""

    speaker: str
    """`system`, `user` or `assistant`."""
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A picture of a conversation, and its place among the tokens."""

    image: Image.Image
    """RGB."""
    digest: str
    """SHA-256 (hex) of its pixels and size."""
    grid: Grid
    start: int
    """Its first visual token's place."""
    tokens: int
    """How many visual tokens it has."""
    patches: torch.Tensor | None
    """float (patches, values), where they had to be cut for the grid to be known."""


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """A conversation in tokens, with the pictures they stand for."""

    ids: torch.Tensor
    """int64 (1, n)."""
    shown: tuple[Shown, ...]
    """In the order of their places."""

    @property
    def grids(self) -> torch.Tensor | None:
        """int64 (pictures, 3), None where there are none."""
        return torch.tensor([picture.grid for picture in self.shown]) if self.shown else None


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
        self._words = Words(tokenizer)
        self._grids: dict[tuple[int, int], Grid] = {}

    def encode(
        self,
        conversation: Sequence[Message],
        prefix: Sequence[Part] = (),
        *,
        keep_special: bool = False,
    ) -> tuple[torch.Tensor, Inputs]:
        """Tokens as `write` has them, and the patches of all pictures."""
        written = self.write(conversation, prefix, keep_special=keep_special)
        return written.ids, self.patches(written.shown)

    def write(
        self,
        conversation: Sequence[Message],
        prefix: Sequence[Part] = (),
        *,
        keep_special: bool = False,
    ) -> Written:
        """Tokens up to the end of `prefix` in the assistant's turn, and where the pictures are.

        With `keep_special` the marks of `cof-v1` are tokens where the system and the assistant
        speak; what users say is words in any case.
        """
        parts = [part for message in conversation for part in message.parts]
        pictures = [part for part in (*parts, *prefix) if isinstance(part, Image.Image)]
        text = self._render(conversation, keep_special) + self._spoken(prefix, keep_special)
        return self._placed(self._words.tokenize(text), pictures)

    def patches(self, shown: Sequence[Shown]) -> Inputs:
        """What the vision tower reads of these pictures."""
        if not shown:
            return {}
        cut = [self._cut(p.image)[0] if p.patches is None else p.patches for p in shown]
        return {
            "pixel_values": cut[0] if len(cut) == 1 else torch.cat(cut),
            "image_grid_thw": torch.tensor([picture.grid for picture in shown]),
        }

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
            for part in joined(message.parts)
        ]

    def _spoken(self, parts: Sequence[Part], marks: bool) -> str:
        """Parts as one text, with a place for each picture."""
        return "".join(
            self._quote(part, marks) if isinstance(part, str) else _VIEW for part in joined(parts)
        )

    def _quote(self, text: str, marks: bool) -> str:
        """Text whose special tokens are mentioned only, but with `marks` those of `cof-v1`."""
        return self._words.quote(text, _MARKS if marks else ())

    def _placed(self, ids: list[int], pictures: Sequence[Image.Image]) -> Written:
        """Each picture's place as many times as the picture has visual tokens."""
        image, merged = self.image_token, self.images.merge_size**2
        if (places := ids.count(image)) != len(pictures):
            raise ModelError(f"The chat template has {places} places for {len(pictures)} pictures.")
        waiting = iter(pictures)
        expanded: list[int] = []
        shown: list[Shown] = []
        for token in ids:
            if token != image:
                expanded.append(token)
                continue
            picture = next(waiting).convert("RGB")
            grid, patches = self._grid(picture)
            count = math.prod(grid) // merged
            shown.append(Shown(picture, _digest(picture), grid, len(expanded), count, patches))
            expanded += [token] * count
        return Written(torch.tensor([expanded]), tuple(shown))

    def _grid(self, picture: Image.Image) -> tuple[Grid, torch.Tensor | None]:
        """A picture's grid, and its patches if that took cutting them.

        The grid hangs on the size alone: of a size seen before, nothing need be cut.
        """
        if (known := self._grids.get(picture.size)) is not None:
            return known, None
        patches, grid = self._cut(picture)
        if len(self._grids) >= _SIZES:
            del self._grids[next(iter(self._grids))]
        self._grids[picture.size] = grid
        return grid, patches

    def _cut(self, picture: Image.Image) -> tuple[torch.Tensor, Grid]:
        """A picture's patches, float (patches, values), and its grid."""
        cut = self.images([picture], return_tensors="pt")
        frames, rows, columns = cut["image_grid_thw"][0].tolist()
        return cut["pixel_values"], (frames, rows, columns)


def _digest(picture: Image.Image) -> str:
    told = hashlib.sha256(f"{picture.size} {picture.mode}".encode())
    told.update(picture.tobytes())
    return told.hexdigest()
