"""A chat in tokens as a trainer's processor makes it, whatever a chat template does to it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError, ModelError
from pipeline.models import qwen_chat
from pipeline.models.qwen_chat import ChatProcessor, Piece
from tests.models import tiny_qwen

pytestmark = pytest.mark.torch

SIZES = [(280, 168), (56, 84)]
TOKENS = 10 * 6 + 2 * 3
CHAT = [
    {"role": "system", "content": [{"type": "text", "text": "Look closely."}]},
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "<think> Closer. </think>"}]},
    {"role": "user", "content": [{"type": "image", "text": None}]},
    {"role": "assistant", "content": [{"type": "text", "text": "A cafe\u0301, blue."}]},
]
SAID = ["<think> Closer. </think>", "A cafe\u0301, blue."]
MARKED = tiny_qwen.TEMPLATE.replace(
    "{{- '<|im_end|>\n' }}\n{%- endfor %}",
    "{%- if message.role == 'assistant' %}{%- generation %}{{- '<|im_end|>' }}{%- endgeneration %}"
    "{{- '\n' }}{%- else %}{{- '<|im_end|>\n' }}{%- endif %}\n{%- endfor %}",
)
"""A template that marks no more than the turns' ends."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("model")
    tokenizer = tiny_qwen.build_tokenizer()
    tokenizer.save_pretrained(made)
    tiny_qwen.build_model(tokenizer).config.save_pretrained(made)
    tiny_qwen.write_image_settings(made)
    return made


@pytest.fixture
def processor(folder: Path) -> ChatProcessor:
    return qwen_chat.load(folder)


def test_pictures_take_the_tokens_of_their_grids_and_turns_are_taught_with_their_ends(
    processor: ChatProcessor,
) -> None:
    told = processor.taught(CHAT, SIZES)
    assert (told.places, told.pictures_taught) == (2, 0) and told.teaches(SAID)
    text = processor.render(CHAT)
    words = processor.tokenizer.encode(text, add_special_tokens=False)
    assert told.tokens == len(words) - 2 + TOKENS
    assert [processor.tokens(size) for size in SIZES] == [60, 6]
    assert processor.seen((281, 167)) == (280, 168) and processor.seen((14, 14)) == (56, 56)
    assert not told.teaches(SAID[:1]) and not told.teaches([SAID[0], "Red."])


def test_pieces_that_are_tokenised_apart_say_the_same(processor: ChatProcessor) -> None:
    pieces = [Piece("<|im_start|>user\nHi<|im_end|>\n", False), Piece("Ho<|im_end|>\n", True)]
    for apart in (True, False):
        told = processor.encode(pieces, [], apart=apart)
        assert told.teaches(["Ho"]) and told.places == 0


@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        ("'<|vision_start|><|image_pad|><|vision_end|>'", "''", "places"),
        ("{{- part.text }}", "{{- part.text | upper }}", "taught"),
        ("{{- part.text }}", "{{- part.text if loop.index0 == 0 else '' }}", None),
        (
            "for part in message.content",
            "for part in (message.content if loop.last or message.role != 'assistant' else [])",
            "otherwise",
        ),
        ("message.role +", "message.nobody.role +", "fails"),
        (tiny_qwen.TEMPLATE, MARKED, "taught"),
    ],
    ids=["drops pictures", "other words", "first blocks", "forgets", "fails", "marks the ends"],
)
def test_a_template_that_does_something_else_to_the_chat_is_found_out(
    old: str, new: str, wrong: str | None, processor: ChatProcessor
) -> None:
    assert old in tiny_qwen.TEMPLATE
    processor.tokenizer.chat_template = tiny_qwen.TEMPLATE.replace(old, new)
    if wrong in ("otherwise", "fails"):
        with pytest.raises(ModelError, match=wrong):
            processor.taught(CHAT, SIZES)
        return
    told = processor.taught(CHAT, SIZES)
    assert (told.places != 2) == (wrong == "places")
    assert told.teaches(SAID) == (wrong != "taught")


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("form", ["", "_training"])
def test_the_published_templates_teach_the_turns(
    name: str, form: str, processor: ChatProcessor
) -> None:
    found: Any = importlib.util.find_spec("trl")
    if found is None:
        pytest.skip("trl, which is not installed, has the published templates")
    file = Path(found.origin).parent / "chat_templates" / f"{name}{form}.jinja"
    processor.tokenizer.chat_template = file.read_text("utf-8")
    told = processor.taught(CHAT, SIZES)
    assert told.places == 2 and told.teaches(SAID)


def test_pictures_inside_a_turn_are_told_and_are_no_words_of_it(processor: ChatProcessor) -> None:
    inside = [{"type": "text", "text": "See"}, {"type": "image"}, {"type": "text", "text": "it."}]
    chat = [CHAT[1], {"role": "assistant", "content": inside}]
    told = processor.taught(chat, SIZES)
    assert told.teaches(["Seeit."]) and told.pictures_taught == 1 and told.places == 2


def test_what_is_no_such_checkpoint_is_refused(folder: Path, processor: ChatProcessor) -> None:
    with pytest.raises(ConfigError, match="no config"):
        qwen_chat.load(folder.parent)
    processor.tokenizer.chat_template = ""
    with pytest.raises(ConfigError, match="no chat template"):
        ChatProcessor("qwen2_vl", processor.tokenizer, None, 1)
    with pytest.raises(ModelError, match="refuses"):
        processor.tokens((1, 9999))
