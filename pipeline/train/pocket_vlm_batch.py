"""Conversations about drawn scenes as what a Qwen3-VL takes: token ids, patches, targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.train.pocket_vlm_chats import CELL, Cells, Chat, seen_size
from pipeline.train.pocket_vlm_words import build_tokenizer
from pipeline.train.rows import IGNORED
from pipeline.trajectory import Message

PATCH, MERGE = 16, 2
"""Side of a patch, px, and patches along a merged cell."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """Views as the vision tower takes them."""

    patches: Tensor
    """float32 (patches, 3 · 2 · 16 · 16) in [-1, 1]."""
    grids: Tensor
    """int64 (views, 3): patches in time, down and across."""


@dataclass(frozen=True, slots=True)
class Words:
    """Conversations as the language model takes them; all are int64 (B, tokens of the longest)."""

    ids: Tensor
    there: Tensor
    """1 for a token, 0 for what fills up a row."""
    visual: Tensor
    """1 for a picture's tokens."""
    labels: Tensor
    """`ids` where the assistant speaks, else `IGNORED`."""


@lru_cache(maxsize=1)
def tokenizer() -> Any:
    """The one tokenizer of this recipe."""
    return build_tokenizer()


def pictures_of(views: Sequence[np.ndarray]) -> Pictures:
    """Views (uint8 HWC) as patches in the processor's order: cell by cell, row-major."""
    patches, grids = zip(*map(_patches, views), strict=True)
    return Pictures(torch.from_numpy(np.concatenate(patches)), torch.tensor(grids))


def targets_of(chats: Sequence[Chat]) -> Cells:
    """What all cells of all pictures show, one after another."""
    every = [cells for chat in chats for cells in chat.cells]
    return Cells(
        np.concatenate([cells.shape for cells in every]),
        np.concatenate([cells.color for cells in every]),
        np.concatenate([cells.mark for cells in every]),
        np.concatenate([cells.sides for cells in every]),
    )


def words_of(
    chats: Sequence[tuple[Sequence[Message], Sequence[np.ndarray]]], *, asking: bool = False
) -> Words:
    """(messages, their views) as tokens, each picture as many as it has cells.

    `asking` ends a conversation where the assistant is to speak, and fills rows up in front.
    """
    rows = [_row(messages, views, asking) for messages, views in chats]
    longest = max(len(ids) for ids, _ in rows)
    words = tokenizer()
    shape = (len(rows), longest)
    ids = np.full(shape, words.pad_token_id, np.int64)
    there, labels = np.zeros(shape, np.int64), np.full(shape, IGNORED, np.int64)
    for place, (own, taught) in enumerate(rows):
        part = slice(longest - len(own), None) if asking else slice(0, len(own))
        ids[place, part], there[place, part] = own, 1
        labels[place, part] = np.where(taught, own, IGNORED)
    visual = (ids == _image_id()).astype(np.int64)
    return Words(*(torch.from_numpy(array) for array in (ids, there, visual, labels)))


def _row(
    messages: Sequence[Message], views: Sequence[np.ndarray], asking: bool
) -> tuple[np.ndarray, np.ndarray]:
    """A conversation's ids (n,), and whether each is said by the assistant (n,)."""
    told = tokenizer().apply_chat_template(
        [dict(message) for message in messages],
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
        add_generation_prompt=asking,
    )
    ids, taught = np.asarray(told["input_ids"]), np.asarray(told["assistant_masks"], bool)
    counts = np.ones(len(ids), np.int64)
    sizes = [seen_size((view.shape[1], view.shape[0])) for view in views]
    counts[ids == _image_id()] = [width * height // CELL**2 for width, height in sizes]
    return ids.repeat(counts), taught.repeat(counts)


def _image_id() -> int:
    return int(tokenizer().convert_tokens_to_ids("<|image_pad|>"))


def _patches(view: np.ndarray) -> tuple[np.ndarray, tuple[int, int, int]]:
    """A view's patches and their grid, as Qwen2-VL's image processor cuts them."""
    width, height = seen_size((view.shape[1], view.shape[0]))
    shown = Image.fromarray(view).resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(shown, np.float32) / 127.5 - 1
    rows, cols = height // PATCH, width // PATCH
    cut = pixels.reshape(rows // MERGE, MERGE, PATCH, cols // MERGE, MERGE, PATCH, 3)
    cut = cut.transpose(0, 3, 1, 4, 6, 2, 5).reshape(rows * cols, 3, 1, PATCH * PATCH)
    twice = np.repeat(cut, 2, axis=2)  # a picture is a film of two equal frames
    return twice.reshape(rows * cols, -1), (1, rows, cols)
