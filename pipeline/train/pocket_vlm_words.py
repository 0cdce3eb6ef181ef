"""The pocket VLM's tokenizer, made of what is said to it: phrases, words, whole coordinates, bytes.

What never changes is one token, the instructions too, and each number from 0 to 1000 is one, so
that a turn is a dozen decisions. All other text is written byte by byte.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pipeline.agent.families import FAMILIES
from pipeline.answers import ASKS_FOR_BOX
from pipeline.grammar import TOOL_NAME
from pipeline.instructions import instructions
from pipeline.train.chat_template import template_for
from pipeline.train.pocket_vlm_chats import CLEAR, CLOSER, FAINT, THERE
from pipeline.train.pocket_vlm_scenes import COLORS, MARKS, RESOLUTION, SHAPES

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
LARGEST = 1000
"""The last coordinate."""
_FRAME = FAMILIES["qwen3-vl"].frame((RESOLUTION, RESOLUTION))
PHRASES = (
    instructions("cof-v2", _FRAME),
    *(f"{role}\n" for role in ("system", "user", "assistant")),
    "Question: Which mark is on the",
    "Question: Where is the",
    f" {ASKS_FOR_BOX}",
    *(f"<think> {thought} </think>" for thought in (CLEAR, FAINT, CLOSER, THERE)),
    f'<tool_call>\n{{"name": "{TOOL_NAME}", "arguments": {{"bbox_2d": ',
    "}}\n</tool_call>",
    "<answer> ",
    " </answer>",
    ", ",
)
WORDS = (*(name for name, _, _ in COLORS), *SHAPES, *MARKS)
_PIECE = r"\d+| ?[A-Za-z]+|."
"""What text is cut into where it is no phrase."""


def build_tokenizer() -> Any:
    """The tokenizer, with the chat template that all our trainers use."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    said = (*PHRASES, *WORDS, *(f" {word}" for word in WORDS), *map(str, range(LARGEST + 1)))
    written = ["".join(part for part, _ in bytewise.pre_tokenize_str(text)) for text in said]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = dict.fromkeys([*alphabet, *written])
    model = models.BPE(
        vocab={token: place for place, token in enumerate(tokens)}, merges=[], ignore_merges=True
    )
    backend = Tokenizer(model)
    phrases = "|".join(_literal(text) for text in sorted(PHRASES, key=len, reverse=True))
    cut = pre_tokenizers.Split(Regex(f"(?m:{phrases}|{_PIECE})"), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([cut, bytewise])
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(SPECIAL))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",  # noqa: S106
        pad_token="<|endoftext|>",  # noqa: S106
        extra_special_tokens=list(SPECIAL[1:]),
    )
    tokenizer.chat_template = template_for("qwen3_vl")
    return tokenizer


def image_settings() -> str:
    """`preprocessor_config.json`: Qwen3-VL's own way with pictures."""
    family = FAMILIES["qwen3-vl"]
    settings = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen3VLProcessor",
        "size": {"shortest_edge": family.min_pixels, "longest_edge": family.max_pixels},
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    return json.dumps(settings, indent=2) + "\n"


def _literal(text: str) -> str:
    """A pattern that finds this text."""
    return re.sub(r"([^\w\s])", r"\\\1", text)
