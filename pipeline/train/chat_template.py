"""How a chat reads as text for training, and how a reply is read back: one form for all trainers.

Owns the template, which is the checkpoints' own for a chat without tools. Knows nothing of
tokenizers; the words of a turn are `grammar`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

FAMILIES: Mapping[str, str] = {
    "qwen2_vl": "qwen2-vl",
    "qwen2_5_vl": "qwen2.5-vl",
    "qwen3_vl": "qwen3-vl",
}
"""The family, whose numbers boxes are in, of each `model_type` that can be trained."""

RESPONSE_TEMPLATE: dict[str, Any] = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "tool_calls": {
            "open_pattern": r"\n?<tool_call>\s*",
            "close_pattern": r"\s*</tool_call>",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close_pattern": r"<\|im_end\|>\s*", "content": "text"},
    },
}
"""How transformers' `parse_response` reads a turn: thought and answer stay words, calls are taken
out of them. What is no JSON stays words, too."""


def template_for(model_type: str) -> str:
    """The chat template (Jinja, with `{% generation %}` markers) of a `model_type`."""
    text = files("pipeline.train").joinpath("templates/qwen_vl.jinja").read_text("utf-8")
    habits = "true" if model_type == "qwen3_vl" else "false"
    return f"{{%- set qwen3 = {habits} -%}}\n{text}"
