"""What each trainer does to a row between its columns and the model's processor.

TRL hands messages to the chat template as they are. verl (0.9) resizes pictures first, as
`qwen_vl_utils` does, and tells the template of the tools. LLaMA-Factory (0.9.5) has pixel caps and
a template of its own, which is followed here from its rules: it renders turn by turn and tokenises
each side by itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.agent.families import FAMILIES
from pipeline.geometry import Size, smart_resize
from pipeline.grammar import known_profile
from pipeline.synthesis.export_rows import Kind
from pipeline.synthesis.exports import Trainer
from pipeline.synthesis.preflight_checks import Target, text_of
from pipeline.synthesis.preflight_files import Settings

if TYPE_CHECKING:
    from pipeline.models.qwen_chat import ChatProcessor, Encoded, Piece

Encode = Callable[[Sequence[Mapping[str, Any]], Sequence[Size]], "Encoded"]

FAMILY_OF = {"qwen2_vl": "qwen2-vl", "qwen2_5_vl": "qwen2.5-vl", "qwen3_vl": "qwen3-vl"}
"""Families by `model_type`."""
VERL_TOKENS = (4, 16_384)
"""Least and most visual tokens of a picture, as `qwen_vl_utils` resizes it."""
_LEAST_SIDE = 28
"""LLaMA-Factory widens a picture whose side is shorter."""
_PLACE = "<|vision_start|><|image_pad|><|vision_end|>"
_SYSTEM = {"qwen2_vl": "You are a helpful assistant."}
"""What LLaMA-Factory's template says where the row has no system's text."""


def target_of(
    folder: Path,
    settings: Settings,
    request: Mapping[str, Any],
    trainer: Trainer,
    kind: Kind,
    processor: ChatProcessor,
) -> Target:
    """What rows are held against, for an export's request, or {} where nobody tells."""
    family = FAMILIES.get(str(request.get("family")), FAMILIES[FAMILY_OF[processor.kind]])
    target = Target(
        trainer=trainer,
        taught=kind == "sft",
        processor=processor,
        numbers=family.kind,
        profile=known_profile(str(request.get("profile", "cof-v2"))),
        most_tokens=processor.positions,
        most_pixels=processor.most_pixels,
        resized=lambda size: size,
        encode=processor.taught if kind == "sft" else encode_prompt(processor),
    )
    if trainer == "llamafactory":
        return replace(
            target,
            most_tokens=min(target.most_tokens, settings.cutoff_len),
            most_pixels=min(target.most_pixels, settings.image_max_pixels),
            resized=resized_by_llamafactory(settings),
            encode=encode_llamafactory(processor, settings.template),
        )
    if trainer == "verl":
        most = VERL_TOKENS[1] * processor.side**2
        return replace(
            target,
            most_pixels=min(target.most_pixels, most),
            resized=resized_by_verl(processor.side),
            encode=encode_prompt(processor, tools_of(folder)),
        )
    return target


def encode_prompt(processor: ChatProcessor, tools: Sequence[Any] = ()) -> Encode:
    """Of a prompt, up to where the model begins; with the tools that the template is told of."""
    from pipeline.models.qwen_chat import Piece

    def encode(messages: Sequence[Mapping[str, Any]], sizes: Sequence[Size]) -> Encoded:
        text = processor.render(messages, tools=list(tools) or None, answering=True)
        return processor.encode([Piece(text, False)], sizes)

    return encode


def encode_llamafactory(processor: ChatProcessor, template: str) -> Encode:
    """Of a finished chat, in LLaMA-Factory's own template for Qwen-VL."""

    def encode(messages: Sequence[Mapping[str, Any]], sizes: Sequence[Size]) -> Encoded:
        pieces = [*_llamafactory(messages, _SYSTEM.get(template, ""))]
        return processor.encode(pieces, sizes, apart=True)

    return encode


def resized_by_llamafactory(settings: Settings) -> Callable[[Size], Size]:
    """What its pixel caps make of a picture."""

    def resized(size: Size) -> Size:
        width, height = size
        if width * height > settings.image_max_pixels:
            width, height = _scaled(width, height, settings.image_max_pixels)
        if width * height < settings.image_min_pixels:
            width, height = _scaled(width, height, settings.image_min_pixels)
        return max(width, _LEAST_SIDE), max(height, _LEAST_SIDE)

    return resized


def resized_by_verl(side: int) -> Callable[[Size], Size]:
    """What `qwen_vl_utils` makes of a picture, for visual tokens of so many pixels a side."""
    least, most = (tokens * side * side for tokens in VERL_TOKENS)

    def resized(size: Size) -> Size:
        try:
            rows, cols = smart_resize(size[1], size[0], side, least, most)
        except (ValueError, ZeroDivisionError):
            return size  # the processor refuses it as well, and says so
        return cols, rows

    return resized


def tools_of(folder: Path) -> list[Any]:
    """The schemas of `tools.yaml`, as the export writes them: JSON on a line; [] without."""
    try:
        lines = (folder / "tools.yaml").read_text("utf-8").splitlines()
        named = (line.partition("tool_schema:")[2] for line in lines if "tool_schema:" in line)
        return [json.loads(schema) for schema in named]
    except (OSError, ValueError):
        return []


def _llamafactory(messages: Sequence[Mapping[str, Any]], system: str) -> Iterator[Piece]:
    """Its template: system and question, then a reply, in turn."""
    from pipeline.models.qwen_chat import TURN_END, Piece

    before = ""
    if messages and messages[0]["role"] == "system":
        system, messages = text_of(messages[0]) or system, messages[1:]
    if system:
        before = f"<|im_start|>system\n{system}{TURN_END}\n"
    for message in messages:
        text = _with_places(message)
        if message["role"] == "assistant":
            yield Piece(f"{text}{TURN_END}\n", True)
            continue
        if message["role"] == "tool":
            text = f"<tool_response>\n{text}\n</tool_response>"
        asked = f"<|im_start|>user\n{text}{TURN_END}\n<|im_start|>assistant\n"
        yield Piece(before + asked, False)
        before = ""


def _with_places(message: Mapping[str, Any]) -> str:
    return "".join(
        _PLACE if block["type"] == "image" else block["text"] for block in message["content"]
    )


def _scaled(width: int, height: int, pixels: int) -> Size:
    """As LLaMA-Factory rounds: down."""
    factor = math.sqrt(pixels / (width * height))
    return int(width * factor), int(height * factor)
