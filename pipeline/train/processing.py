"""The processor a model is trained with: pictures and words in, tensors out.

Owns the half of the published processor that needs no torchvision, with the chat template of
`chat_template`. What is saved beside a checkpoint are the stock files, so that whoever loads it
gets the processor that was published.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.train.chat_template import FAMILIES, RESPONSE_TEMPLATE, template_for

SHAPE_FILES = (
    *("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json"),
    *("chat_template.json", "chat_template.jinja"),
)
"""What tells how pictures, films and chats are read."""
WORD_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt"),
)
"""What tells how words are."""
BESIDE_WORDS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
"""Tokens that stand for pictures; they are put there, never said."""


def load_processor(
    path: str | Path, *, max_pixels: int | None = None, special_tokens: Sequence[str] = ()
) -> Any:
    """The processor of a Qwen2-VL, Qwen2.5-VL or Qwen3-VL, on PIL alone, without its video half.

    `max_pixels` bounds the area at which a picture is seen, the checkpoint's own where not given;
    `special_tokens` are added where the tokenizer lacks them. `save_pretrained` writes the stock
    files of `path`. Raises `ConfigError` for what is no such checkpoint.
    """
    from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer

    from pipeline.models.generation import loading, source_of

    source = source_of(path)
    with loading(source, "a Qwen-VL model"):
        kind = AutoConfig.from_pretrained(source, trust_remote_code=False).model_type
        if kind not in FAMILIES:
            raise ConfigError(f"{source} is a '{kind}', not one of {', '.join(FAMILIES)}.")
        words = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        images = AutoImageProcessor.from_pretrained(source, backend="pil", trust_remote_code=False)
    added = [token for token in special_tokens if token not in words.get_vocab()]
    words.add_tokens(added, special_tokens=True)
    words.response_template = RESPONSE_TEMPLATE
    if max_pixels is not None:
        images.size = {**dict(images.size), "longest_edge": max_pixels}
    return _class_of(kind)(
        images, words, chat_template=template_for(kind), base=source, grown=added
    )


def save_processor(folder: str | Path, base: str | Path) -> None:
    """Put the processor's files of the checkpoint `base` into `folder`, byte for byte."""
    for name in (*SHAPE_FILES, *WORD_FILES):
        _copy(name, str(base), Path(folder))


def visual_ids(processor: Any) -> frozenset[int]:
    """Ids of the tokens that stand for pictures and films."""
    vocabulary = processor.tokenizer.get_vocab()
    return frozenset(vocabulary[token] for token in BESIDE_WORDS if token in vocabulary)


def _class_of(kind: str) -> Any:
    """The published processor's class with its name, taking no video processor."""
    from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
    from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor
    from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

    stock: Any = {
        "qwen2_vl": Qwen2VLProcessor,
        "qwen2_5_vl": Qwen2_5_VLProcessor,
        "qwen3_vl": Qwen3VLProcessor,
    }[kind]

    def __init__(
        self: Any,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        base: str = "",
        grown: Sequence[str] = (),
    ) -> None:
        stock.__init__(self, image_processor, tokenizer, chat_template=chat_template)
        self.base, self.grown = base, tuple(grown)

    def save_pretrained(self: Any, folder: str | Path, **_: Any) -> list[str]:
        return _save(Path(folder), self)

    return type(
        stock.__name__, (stock,), {"__init__": __init__, "save_pretrained": save_pretrained}
    )


def _save(folder: Path, processor: Any) -> list[str]:
    """The stock files; with tokens that were added, the tokenizer's own in place of theirs."""
    folder.mkdir(parents=True, exist_ok=True)
    save_processor(folder, processor.base)
    if processor.grown:
        for name in WORD_FILES:
            (folder / name).unlink(missing_ok=True)
        words = processor.tokenizer
        words.response_template = None  # ours, not the checkpoint's
        words.save_pretrained(folder)
        words.response_template = RESPONSE_TEMPLATE
        for name in SHAPE_FILES:
            _copy(name, processor.base, folder)
    return [str(folder / name) for name in (*SHAPE_FILES, *WORD_FILES) if (folder / name).exists()]


def _copy(name: str, base: str, folder: Path) -> None:
    """A file of a checkpoint in a folder or on the Hub, where it has one of that name."""
    from transformers.utils import cached_file

    found = cached_file(
        base,
        name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if found is not None and Path(found).resolve() != (folder / name).resolve():
        shutil.copyfile(found, folder / name)
