"""One form of chat for all trainers: the checkpoints' own text, the right targets, stock files."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.errors import ConfigError
from pipeline.grammar import render_turn
from pipeline.train.chat_template import FAMILIES
from pipeline.turns import Mark, Turn, ZoomCall

pytestmark = pytest.mark.torch

pytest.importorskip("trl")

from pipeline.models.qwen_prompt import Encoder, Message  # noqa: E402
from pipeline.train.processing import load_processor, save_processor, visual_ids  # noqa: E402
from pipeline.train.rows import IGNORED, check_rows, collator_for, load_rows  # noqa: E402
from tests.train import tiny_training  # noqa: E402
from tests.train.tiny_training import KINDS, stock_template  # noqa: E402

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("COFPIPE_SERVE_PYTHON") or ROOT / ".venv-serve/bin/python")
CALL = Turn("It is far away.", (ZoomCall((10, 20, 60, 80), "a tag"),))
ANSWER = Turn("I can read it.", answer="K7Q")
LOOKS = [render_turn(CALL, "cof-v2"), render_turn(ANSWER, "cof-v2")]
IMAGE = {"type": "image", "text": None}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def says(role: str, *blocks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"role": role, "content": list(blocks)} | more


CHAT = [
    says("system", text(" Look closely. ")),
    says("user", IMAGE, text("Question: What is on the tag?\n(A) é\n(B) 木")),
    says("assistant", text(LOOKS[0])),
    says("user", IMAGE),
    says("assistant", text(LOOKS[1])),
]
V1 = [
    *CHAT[:2],
    says(
        "assistant",
        text("<think> There. <|box_start|>[1, 2, 30, 40]<|box_end|> <|image_zoomin|>"),
        IMAGE,
        text(" I read it. </think>\n<answer> K7Q </answer>"),
    ),
]


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_training.checkpoint(tmp_path_factory.mktemp(request.param) / "tiny", request.param)


@pytest.fixture(scope="module")
def kind(folder: Path) -> str:
    told: str = json.loads((folder / "config.json").read_text("utf-8"))["model_type"]
    return told


@pytest.fixture(scope="module")
def processor(folder: Path) -> Any:
    return load_processor(folder)


def rendered(processor: Any, chat: list[dict[str, Any]], **options: Any) -> str:
    said: str = processor.apply_chat_template(chat, tokenize=False, **options)
    return said


def picture(width: int, height: int, shade: int = 0) -> Image.Image:
    return Image.new("RGB", (width, height), (shade, 90, 200))


@pytest.mark.parametrize(
    "chat",
    [
        CHAT,
        CHAT[:2],
        CHAT[1:],
        [says("user", text("Hello")), says("assistant", text(""))],
        [{"role": "user", "content": "As one text. "}, {"role": "assistant", "content": "\nYes"}],
        [*CHAT, says("user", text("More"), IMAGE, IMAGE)],
    ],
)
@pytest.mark.parametrize("asking", [False, True])
def test_a_chat_without_tools_reads_as_the_checkpoints_own_template_writes_it(
    processor: Any, kind: str, chat: list[dict[str, Any]], asking: bool
) -> None:
    ours = rendered(processor, chat, add_generation_prompt=asking)
    stock = stock_template(kind)
    assert ours == rendered(processor, chat, add_generation_prompt=asking, chat_template=stock)


def test_a_later_system_message_is_never_dropped(processor: Any, kind: str) -> None:
    from jinja2 import TemplateError

    later = [*CHAT, says("system", text("Later."))]
    if kind == "qwen3_vl":  # whose own template leaves it out without a word
        with pytest.raises(TemplateError):
            rendered(processor, later)
    else:
        stock = rendered(processor, later, chat_template=stock_template(kind))
        assert rendered(processor, later) == stock


def test_tools_called_natively_read_as_the_data_writes_them(processor: Any) -> None:
    called = [
        {
            "type": "function",
            "function": {
                "name": "image_zoom_in_tool",
                "arguments": {"bbox_2d": [10, 20, 60, 80], "label": "a tag"},
            },
        }
    ]
    thought, _, _ = LOOKS[0].partition("\n")
    native = [
        *CHAT[:2],
        says("assistant", text(thought), tool_calls=called),
        says("tool", IMAGE, name="image_zoom_in_tool"),
        *CHAT[4:],
    ]
    assert rendered(processor, native, tools=[{"name": "any"}]) == rendered(processor, CHAT)


@pytest.mark.parametrize("looks", [1, 2])
def test_a_reply_is_read_back_as_thought_and_calls_and_written_again_as_it_was(
    processor: Any, looks: int
) -> None:
    reply = render_turn(Turn(CALL.thought, CALL.calls * looks), "cof-v2")
    tokenizer = processor.tokenizer
    opening = rendered(processor, CHAT[:2], add_generation_prompt=True)
    read = tokenizer.parse_response(f"{reply}<|im_end|>", prefix=opening)
    assert read["content"] == f"<think> {CALL.thought} </think>"
    assert [call["function"]["arguments"] for call in read["tool_calls"]] == [
        {"bbox_2d": [10, 20, 60, 80], "label": "a tag"}
    ] * looks
    assert rendered(processor, [*CHAT[:2], read]) == f"{opening}{reply}<|im_end|>\n"


def test_what_is_no_call_stays_words(processor: Any) -> None:
    from trl.chat_template_utils import parse_response

    words = processor.tokenizer("<think> a </think>\n<tool_call>\n{oh\n</tool_call><|im_end|>")
    prefix = processor.tokenizer("<|im_start|>assistant\n")["input_ids"]
    read = parse_response(processor.tokenizer, words["input_ids"], prefix=prefix)
    assert "tool_calls" not in read and "{oh" in read["content"]


def test_trl_takes_the_template_for_tools_and_for_targets(processor: Any) -> None:
    from trl.chat_template_utils import (
        is_chat_template_prefix_preserving,
        is_chat_template_stop_token_trained,
        supports_tool_calling,
    )

    assert supports_tool_calling(processor)
    assert is_chat_template_prefix_preserving(processor)
    assert is_chat_template_stop_token_trained(processor)


def test_a_chat_with_what_cannot_be_shown_is_refused(processor: Any) -> None:
    from jinja2 import TemplateError

    for wrong in (says("user", {"type": "video"}), says("critic", text("No."))):
        with pytest.raises(TemplateError):
            rendered(processor, [*CHAT, wrong])


@pytest.mark.parametrize("chat", [CHAT, V1], ids=["cof-v2", "cof-v1"])
def test_targets_are_the_assistants_turns_to_their_ends_and_never_a_visual_token(
    folder: Path, chat: list[dict[str, Any]]
) -> None:
    marks = ["<|box_start|>", "<|box_end|>", Mark.ZOOMIN.value]
    processor = load_processor(folder, special_tokens=marks)
    words = processor.tokenizer
    rows = [
        {"messages": chat, "images": [picture(224, 168), picture(120, 300)]},
        {"messages": [*CHAT[:2], CHAT[4]], "images": [picture(90, 77)]},
    ]
    batch = collator_for(processor)(rows)
    meant = [
        [
            "".join(block["text"] for block in message["content"] if block["type"] == "text")
            + "<|im_end|>"
            for message in row["messages"]
            if message["role"] == "assistant"
        ]
        for row in rows
    ]
    for ids, labels, turns in zip(batch["input_ids"], batch["labels"], meant, strict=True):
        targets = labels[labels != IGNORED].tolist()
        assert words.decode(targets) == "".join(turns)
        assert not set(targets) & visual_ids(processor)
        assert (labels[labels != IGNORED] == ids[labels != IGNORED]).all()
    grids = batch["image_grid_thw"].prod(1).sum().item() // processor.image_processor.merge_size**2
    assert int((batch["input_ids"] == processor.image_token_id).sum()) == grids


def test_training_reads_the_tokens_that_inference_writes(folder: Path, processor: Any) -> None:
    from transformers import AutoImageProcessor, AutoTokenizer

    images = AutoImageProcessor.from_pretrained(folder, backend="pil")
    encoder = Encoder(AutoTokenizer.from_pretrained(folder), images)
    views = [picture(224, 168), picture(112, 90, 9)]
    left = iter(views)
    said = [
        Message(
            message["role"],
            tuple(next(left) if b["type"] == "image" else b["text"] for b in message["content"]),
        )
        for message in CHAT[:4]
    ]
    ids, patches = encoder.encode(said, [LOOKS[1]])
    batch = collator_for(processor)([{"messages": CHAT, "images": views}])
    length = ids.shape[1]
    assert batch["input_ids"][:, :length].tolist() == ids.tolist()
    assert words_after(processor, batch, length) == "<|im_end|>\n"
    assert (batch["pixel_values"] == patches["pixel_values"]).all()


def words_after(processor: Any, batch: Any, length: int) -> str:
    said: str = processor.tokenizer.decode(batch["input_ids"][0, length:])
    return said


def files_of(folder: Path) -> dict[str, bytes]:
    names = ("preprocessor_config.json", "video_preprocessor_config.json", "chat_template.jinja")
    words = ("tokenizer.json", "tokenizer_config.json")
    return {name: (folder / name).read_bytes() for name in (*names, *words)}


def test_saved_files_are_the_stock_ones(folder: Path, processor: Any, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path / "one")
    (tmp_path / "two").mkdir()
    save_processor(tmp_path / "two", folder)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two") == files_of(folder)


def test_with_a_new_token_the_words_change_and_nothing_else(
    folder: Path, kind: str, tmp_path: Path
) -> None:
    grown = load_processor(folder, special_tokens=[Mark.ZOOMIN.value])
    grown.save_pretrained(tmp_path)
    before, after = files_of(folder), files_of(tmp_path)
    assert {n for n in before if before[n] != after[n]} == {
        "tokenizer.json",
        "tokenizer_config.json",
    }
    told = json.loads(after["tokenizer_config.json"])
    assert told["processor_class"] == tiny_training.PROCESSORS[kind]
    assert not told.get("response_template") and grown.tokenizer.response_template
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    again = load_processor(tmp_path)
    assert len(again.tokenizer(Mark.ZOOMIN.value)["input_ids"]) == 1
    assert len(again.tokenizer) == len(load_processor(folder).tokenizer) + 1


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.exists(), reason=f"no {PYTHON}: `make serve-env` makes it")
def test_the_stock_auto_processor_takes_what_was_saved(
    folder: Path, kind: str, tmp_path: Path
) -> None:
    load_processor(folder, special_tokens=[Mark.ZOOMIN.value]).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    code = (
        "import sys; from transformers import AutoProcessor;"
        "p = AutoProcessor.from_pretrained(sys.argv[1]);"
        "print(type(p).__name__, type(p.video_processor).__name__)"
    )
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(
        [str(PYTHON), "-c", code, str(tmp_path)],
        capture_output=True, text=True, env=os.environ | quiet, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == tiny_training.PROCESSORS[kind]
    assert "VideoProcessor" in done.stdout


def test_another_kind_of_model_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', "utf-8")
    with pytest.raises(ConfigError, match=f"'bert', not one of {', '.join(FAMILIES)}"):
        load_processor(tmp_path)


def test_rows_that_do_not_fit_are_counted_and_refused_not_cut(
    folder: Path, kind: str, processor: Any, tmp_path: Path
) -> None:
    run = tiny_training.make_run(tmp_path, 1)
    family = tiny_training.FAMILIES[kind]
    rows = load_rows(tiny_training.rows_for(run, tmp_path / "data", kind), "train")
    longest = check_rows(rows, processor, family, 10_000)
    batch = collator_for(processor)([rows[at] for at in range(4)])
    assert batch["input_ids"].shape == (4, longest)
    with pytest.raises(ConfigError, match=rf"of 4 rows are longer than {longest - 1} tokens"):
        check_rows(rows, processor, family, longest - 1)


def test_boxes_in_other_pixels_than_the_model_sees_are_refused(tmp_path: Path) -> None:
    folder = tiny_training.checkpoint(tmp_path / "tiny", "qwen2_5_vl")
    run = tiny_training.make_run(tmp_path, 1)
    rows = load_rows(tiny_training.rows_for(run, tmp_path / "data", "qwen2_5_vl"), "train")
    small = load_processor(folder, max_pixels=112 * 112)
    with pytest.raises(ConfigError, match="the model sees 112 x 84") as refused:
        check_rows(rows, small, "qwen2.5-vl", 10_000)
    assert "max_pixels=12845056" in str(refused.value)
