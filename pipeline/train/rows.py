"""Exported rows on their way into a trainer: read, measured, and made batches of.

Owns what a row must be to be trained on: short enough, and seen by the model as the export took for
granted. Nothing is cut and nothing left out in silence. Knows nothing of trainers' settings.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.agent.families import FAMILIES, Family
from pipeline.errors import ConfigError
from pipeline.geometry import Size
from pipeline.train.processing import visual_ids

IGNORED = -100
"""The label of a token that is no target."""


def load_rows(folder: Path, split: str) -> Any:
    """The rows of a split of an exported folder as a `Dataset`, None where it has none."""
    from datasets import load_dataset
    from datasets.utils.logging import disable_progress_bar

    files = sorted(map(str, (folder / "data").glob(f"{split}-*.parquet")))
    if not files:
        return None
    disable_progress_bar()
    return load_dataset("parquet", data_files={split: files}, split=split)


def check_rows(rows: Any, processor: Any, family: str, most: int) -> int:
    """Tokens of the longest row; raises `ConfigError` where one is longer than `most`.

    Raises, too, where the processor sees a first picture at another size than that in whose pixels
    the export writes boxes of it.
    """
    from datasets import Image as Pictures
    from datasets import List

    lengths: list[tuple[int, str]] = []
    for row in rows.cast_column("images", List(Pictures(decode=False))):
        sizes = [_size(cell["bytes"]) for cell in row["images"]]
        name = f"{row['sample_id']} at {row['resolution']}"
        _check_seen(sizes[0], processor, FAMILIES[family], name)
        lengths.append((_length(row["messages"], sizes, processor), name))
    longest, name = max(lengths)
    over = sum(length > most for length, _ in lengths)
    if over:
        raise ConfigError(
            f"{over} of {len(lengths)} rows are longer than {most} tokens; {name} has {longest}.",
            "Raise max_tokens, or export runs of smaller budgets: no row is cut.",
        )
    return longest


class Collator:
    """Makes batches of rows: tensors, and labels for what the assistant says, and for that alone.

    The labels are those of `inner`, less the tokens that stand for pictures: in `cof-v1` they lie
    inside the assistant's turn.
    """

    def __init__(self, inner: Any, processor: Any) -> None:
        self._inner = inner
        self._visual = sorted(visual_ids(processor))

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        """A batch of `rows`, padded on the right; a row without a target raises `ConfigError`."""
        import torch

        batch = self._inner([dict(row) for row in rows])
        labels = batch["labels"]
        labels[torch.isin(batch["input_ids"], torch.tensor(self._visual))] = IGNORED
        if not bool((labels != IGNORED).any(1).all()):
            raise ConfigError("A row has no word that the assistant says.")
        return batch


def collator_for(processor: Any) -> Collator:
    """The collator for rows of `messages` and `images`."""
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    inner = DataCollatorForVisionLanguageModeling(processor, assistant_only_loss=True)
    return Collator(inner, processor)


def _length(messages: Sequence[Any], sizes: Sequence[Size], processor: Any) -> int:
    """Tokens of a chat with pictures of these sizes."""
    text = processor.apply_chat_template(messages, tokenize=False)
    words = len(processor.tokenizer(text, add_special_tokens=False)["input_ids"])
    return words + sum(_visual_tokens(size, processor.image_processor) - 1 for size in sizes)


def _visual_tokens(size: Size, images: Any) -> int:
    """How many tokens a picture of `size` has."""
    return math.prod(_seen(size, images)) // (images.patch_size * images.merge_size) ** 2


def _seen(size: Size, images: Any) -> Size:
    """(width, height) at which the processor sees a picture."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    factor = images.patch_size * images.merge_size
    least, most = images.size["shortest_edge"], images.size["longest_edge"]
    rows, cols = smart_resize(size[1], size[0], factor, least, most)
    return cols, rows


def _check_seen(size: Size, processor: Any, family: Family, name: str) -> None:
    """Raise `ConfigError` where boxes count other pixels than those the model sees."""
    if family.kind != "pixels":
        return
    meant, seen = family.seen(size), _seen(size, processor.image_processor)
    if meant != seen:
        raise ConfigError(
            f"Boxes of {name} count pixels of {meant[0]} x {meant[1]}, and the model sees "
            f"{seen[0]} x {seen[1]}.",
            f"Set max_pixels={family.max_pixels}, or none for the checkpoint's own.",
        )


def _size(data: bytes) -> Size:
    with Image.open(io.BytesIO(data)) as picture:
        return picture.size


def batches(rows: Any, collator: Collator, size: int) -> Iterator[Any]:
    """All rows in order, `size` at a time, as a trainer gets them."""
    for start in range(0, len(rows), size):
        yield collator([rows[at] for at in range(start, min(start + size, len(rows)))])
