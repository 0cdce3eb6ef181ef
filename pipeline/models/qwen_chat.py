"""A chat as a trainer's processor turns it into tokens: the checkpoint's own template, no guard.

Unlike `qwen_prompt`, which quotes what a text only mentions, this does to a text what trainers do:
a special token in it acts. Knows nothing of columns, trainers and grammars, and of networks only
how many positions they have.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2.exceptions import TemplateError
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer

from pipeline.errors import ConfigError, ModelError
from pipeline.geometry import Size
from pipeline.models.generation import first_line, loading, source_of
from pipeline.models.qwen_vl import KINDS

IMAGE = "<|image_pad|>"
TURN_END = "<|im_end|>"
_PICTURE = (IMAGE, "<|vision_start|>", "<|vision_end|>")
_MARKED = re.compile(r"\{%-?\s*generation\b")
"""Whether a template itself tells which tokens are the assistant's."""

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the text that a chat becomes."""

    text: str
    taught: bool
    """Whether it is the assistant's: what a loss is taken on."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """What a chat becomes in tokens."""

    tokens: int
    """Visual ones included."""
    places: int
    """Pictures that the text has a place for."""
    taught: tuple[str, ...]
    """What the taught tokens say, a text for each stretch of them, visual tokens left out."""
    pictures_taught: int
    """Pictures that stand inside a taught stretch."""

    def teaches(self, said: Sequence[str]) -> bool:
        """Whether the taught tokens are these turns with their ends, and nothing else."""
        return [_plain(text + TURN_END) for text in said] == [*map(_plain, self.taught)]


class ChatProcessor:
    """A checkpoint's tokenizer, chat template and picture preprocessing."""

    def __init__(self, kind: str, tokenizer: Any, images: Any, positions: int) -> None:
        vocabulary = tokenizer.get_vocab()
        missing = [token for token in (*_PICTURE, TURN_END) if token not in vocabulary]
        if missing or not tokenizer.chat_template:
            what = f"no {missing[0]}" if missing else "no chat template"
            raise ConfigError(f"The tokenizer has {what}.")
        self.kind = kind
        """The `model_type`."""
        self.positions = positions
        """Tokens that the model has positions for."""
        self.tokenizer = tokenizer
        self._images = images
        self._image = vocabulary[IMAGE]
        self._visual = {vocabulary[token] for token in _PICTURE}
        self._grids: dict[Size, tuple[int, int, int]] = {}

    @property
    def side(self) -> int:
        """Side in pixels of what one token shows."""
        return int(self._images.patch_size * self._images.merge_size)

    @property
    def most_pixels(self) -> int:
        """A picture of more pixels is shrunk."""
        return int(self._images.size["longest_edge"])

    def knows(self, token: str) -> bool:
        """Whether a text is one token of the vocabulary."""
        return token in self.tokenizer.get_vocab()

    def seen(self, size: Size) -> Size:
        """(width, height) at which the model is shown a picture; raises `ModelError`."""
        _, rows, cols = self._grid(size)
        return cols * int(self._images.patch_size), rows * int(self._images.patch_size)

    def tokens(self, size: Size) -> int:
        """Feature tokens of a picture: its grid over merge²; raises `ModelError`."""
        return int(math.prod(self._grid(size)) // self._images.merge_size**2)

    def render(self, messages: Messages, *, tools: Any = None, answering: bool = False) -> str:
        """The chat template's text, with `answering` up to where the assistant begins.

        Raises `ModelError` for a chat that the template refuses.
        """
        try:
            text: str = self.tokenizer.apply_chat_template(
                list(messages), tools=tools, tokenize=False, add_generation_prompt=answering
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise ModelError(f"The chat template fails: {first_line(error)}") from error
        return text

    def taught(self, messages: Messages, sizes: Sequence[Size]) -> Encoded:
        """A chat with the assistant's turns taught, by the template's own marks where it has any.

        Without marks a turn is what the template adds for it. Raises `ModelError` for a template
        that fails, or writes an earlier turn otherwise once a later one is there.
        """
        if _MARKED.search(self.tokenizer.chat_template):
            return self._counted(*self._marked(messages), sizes)
        return self.encode(self._pieces(messages), sizes)

    def encode(
        self, pieces: Sequence[Piece], sizes: Sequence[Size], *, apart: bool = False
    ) -> Encoded:
        """Pieces as tokens, each tokenised by itself where they are taken `apart`."""
        if apart:
            said = [(self._ids(piece.text), piece.taught) for piece in pieces]
            ids = [token for tokens, _ in said for token in tokens]
            return self._counted(ids, [t for tokens, t in said for _ in tokens], sizes)
        whole = self.tokenizer(
            "".join(piece.text for piece in pieces),
            add_special_tokens=False,
            return_offsets_mapping=True,
        )
        spans, end = [], 0
        for piece in pieces:
            start, end = end, end + len(piece.text)
            if piece.taught:
                spans.append((start, end))
        marks = [
            any(start < high and low < stop for low, high in spans)
            for start, stop in whole["offset_mapping"]
        ]
        return self._counted(whole["input_ids"], marks, sizes)

    def _grid(self, size: Size) -> tuple[int, int, int]:
        """Patches of a picture, which hang on its size alone; one of each size is really cut."""
        if size not in self._grids:
            try:
                cut = self._images([Image.new("RGB", size)], return_tensors="pt")
            except (ValueError, ZeroDivisionError) as error:
                raise ModelError(f"The processor refuses {size}: {first_line(error)}") from error
            frames, rows, cols = cut["image_grid_thw"][0].tolist()
            if len(cut["pixel_values"]) != frames * rows * cols:
                raise ModelError(f"A picture of {size} has other features than its grid says.")
            self._grids[size] = (frames, rows, cols)
        return self._grids[size]

    def _pieces(self, messages: Messages) -> list[Piece]:
        """The rendered chat, cut where the assistant's turns begin and end."""
        pieces: list[Piece] = []
        done = ""
        for place, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            head = self.render(messages[:place], answering=True)
            whole = self.render(messages[: place + 1])
            if not (head.startswith(done) and whole.startswith(head)):
                raise ModelError("The chat template writes earlier turns otherwise later on.")
            end = max(whole.rfind(TURN_END) + len(TURN_END), len(head))
            pieces += [Piece(head[len(done) :], False), Piece(whole[len(head) : end], True)]
            done = whole[:end]
        text = self.render(messages)
        if not text.startswith(done):
            raise ModelError("The chat template writes earlier turns otherwise later on.")
        return [*pieces, Piece(text[len(done) :], False)]

    def _marked(self, messages: Messages) -> tuple[list[int], list[bool]]:
        """(tokens, taught) as the template marks them."""
        self.render(messages)  # tells what a template that fails says
        told = self.tokenizer.apply_chat_template(
            list(messages), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        return told["input_ids"], [bool(mark) for mark in told["assistant_masks"]]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _counted(self, ids: list[int], marks: list[bool], sizes: Sequence[Size]) -> Encoded:
        """What the tokens come to, with each picture's place as long as its features."""
        runs: list[list[int]] = []
        before, pictures = False, 0
        for token, taught in zip(ids, marks, strict=True):
            if taught and not before:
                runs.append([])
            if taught and token not in self._visual:
                runs[-1].append(token)
            pictures += taught and token == self._image
            before = taught
        places = ids.count(self._image)
        visual = sum(map(self.tokens, sizes))
        said = (self.tokenizer.decode(run, skip_special_tokens=False) for run in runs)
        return Encoded(len(ids) - places + visual, places, tuple(said), pictures)


def load(path_or_id: str | Path) -> ChatProcessor:
    """From a folder, or from the Hub by `owner/name`, weights not read; raises `ConfigError`."""
    source = source_of(path_or_id)
    with loading(source, "a Qwen-VL model"):
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        if config.model_type not in KINDS:
            known = ", ".join(KINDS)
            raise ConfigError(f"{source} is a '{config.model_type}', not one of {known}.")
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        images = AutoImageProcessor.from_pretrained(source, backend="pil", trust_remote_code=False)
    positions = config.get_text_config().max_position_embeddings
    return ChatProcessor(config.model_type, tokenizer, images, positions)


def _plain(text: str) -> str:
    """Text as tokenizers give it back: composed characters (NFC), no line end behind a turn."""
    return unicodedata.normalize("NFC", text).removesuffix("\n")
