"""Tiny Qwen-VLs to look into while they read, and conversations that grow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.grammar import BOX_END, BOX_START
from pipeline.models import qwen_vl
from pipeline.models.generation import Generated
from pipeline.models.qwen_prompt import Message
from pipeline.turns import Mark
from tests.models import tiny_qwen
from tests.models.test_qwen_vl import picture

MARKS = (BOX_START, BOX_END, Mark.ZOOMIN.value)
LOGITS = 5e-6
"""Of the largest logit: float32, and what was read in two parts instead of one."""
LOOKS = ((84, 56), (112, 84), (56, 140))
"""Crops, (width, height) in pixels."""


def build(folder: Path, kind: str = "qwen2_5_vl") -> qwen_vl.QwenVl:
    """A tiny model that knows the marks of `cof-v1`, and keeps nothing."""
    tokenizer = tiny_qwen.build_tokenizer(MARKS)
    tokenizer.save_pretrained(folder)
    tiny_qwen.build_model(tokenizer, kind=kind).save_pretrained(folder)
    tiny_qwen.write_image_settings(folder, patch=16 if kind == "qwen3_vl" else 14)
    return qwen_vl.load(folder, keep_tokens=0)


def like(model: qwen_vl.QwenVl, keep_tokens: int = 4096) -> qwen_vl.QwenVl:
    """The same networks, with nothing read yet."""
    return qwen_vl.QwenVl(model.model, model.encoder, model.name, keep_tokens=keep_tokens)


@dataclass
class Watched:
    """What went through the networks."""

    tokens: list[int] = field(default_factory=list)
    """Tokens a row, padding included, of each forward pass."""
    patches: int = 0
    logits: list[Any] = field(default_factory=list)
    """float (rows, V) behind each."""


@contextmanager
def watching(model: qwen_vl.QwenVl) -> Iterator[Watched]:
    watched = Watched()

    def read(_: object, _args: object, given: dict[str, Any], out: Any) -> None:
        watched.tokens.append(given["input_ids"].shape[1])
        watched.logits.append(out.logits[:, -1])

    def seen(_: object, args: tuple[Any, ...]) -> None:
        watched.patches += len(args[0])

    hooks = [
        model.model.register_forward_hook(read, with_kwargs=True),
        model.model.model.visual.register_forward_pre_hook(seen),
    ]
    try:
        yield watched
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def failing(model: qwen_vl.QwenVl, error: Exception, *, after: int) -> Iterator[None]:
    """The last layer fails at one forward pass, when the first has done its part already."""
    passes = iter(range(after + 1))

    def fail(*_: object) -> None:
        if next(passes, None) == after:
            raise error

    hook = model.model.model.language_model.layers[-1].register_forward_pre_hook(fail)
    try:
        yield
    finally:
        hook.remove()


def opening(key: int = 0, size: tuple[int, int] = (140, 112)) -> list[Message]:
    asked = Message("user", (picture(*size, key), "What is written on the tag?"))
    return [Message("system", ("Look closer, then answer.",)), asked]


def grown(
    conversation: Sequence[Message], reply: str, look: tuple[int, int], key: int = 1
) -> list[Message]:
    """The conversation after a call and the crop that answers it."""
    crop = Message("user", ("Zoomed:", picture(*look, key), "Go on."))
    return [*conversation, Message("assistant", (reply,)), crop]


def plain(said: Generated) -> Generated:
    return replace(said, tokens_cached=0)


def assert_close(ours: Sequence[Any], theirs: Sequence[Any]) -> None:
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() <= LOGITS * other.abs().max()
