"""What trainers make of an export, by their own code where it is installed, else by their rules.

TRL's code is run. The checkers of LLaMA-Factory (0.9.5) and verl (0.9.1) are written from what
their readers demand and do: both pin versions of `datasets` and `transformers` that this project
does not have, so their code cannot be installed beside it.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from PIL import Image

from pipeline.agent.chat import Picture
from pipeline.agent.families import FAMILIES
from pipeline.grammar import BOX_END, BOX_START
from pipeline.synthesis.exports import Export, export
from pipeline.synthesis.preflight_files import look_into, rows_of
from pipeline.synthesis.preflight_rows import llamafactory_chat, trl_chat, verl_chat
from pipeline.synthesis.preflight_trainers import encode_llamafactory
from pipeline.trajectory import render
from pipeline.turns import Mark
from tests.agent.fakes import ListModel
from tests.agent.test_inline import GOES_ON, ZOOM, planned
from tests.agent.test_inline import episode as inline_episode
from tests.agent.test_vision import AGREES, PICTURE, SAMPLE, STAR, numbers
from tests.models import tiny_qwen
from tests.synthesis.test_exports import BOXES, Write, path, row, sample, write

__all__ = ["write"]  # a fixture

Row = dict[str, Any]
LOOKS = (BOXES[:1], BOXES[1:2])
"""One box in each look: of two, LLaMA-Factory is shown the views in one turn, others in two."""


@pytest.fixture
def exported(write: Write, tmp_path: Path) -> Callable[..., Path]:
    """Export four rows; the folder."""

    def make(trainer: Any, kind: Any, family: str = "qwen2.5-vl", **settings: Any) -> Path:
        if not (tmp_path / "run").exists():
            write(*(row(path(n, 224, LOOKS), sample(n)) for n in range(4)))
        out = tmp_path / f"{trainer}-{kind}"
        export(
            tmp_path / "run", out, Export(trainer, kind=kind, family=family, split=0, **settings)
        )
        return out

    return make


def loaded(out: Path, kind: str, file: str) -> list[Row]:
    """Rows as a trainer's reader loads them."""
    data = load_dataset(kind, data_files=[str(out / file)], split="train", cache_dir=str(out / "c"))
    return list(data)


def as_llamafactory(out: Path, name: str) -> list[Row]:
    """What its ShareGPT converter, its media checks and its Qwen-VL plug-in take, or `ValueError`.

    A row out of turn is dropped by it with a warning; here that is an error.
    """
    info = json.loads((out / "dataset_info.json").read_text("utf-8"))[name]
    settings = dict(re.findall(r"^(\w+): (\S+)$", (out / "settings.yaml").read_text(), re.M))
    columns, tags = info["columns"], info.get("tags", {})
    role, content = tags.get("role_tag", "from"), tags.get("content_tag", "value")
    asks, says = tags.get("user_tag", "human"), tags.get("assistant_tag", "gpt")
    rows = []
    for found in loaded(out, "json", info["file_name"]):
        turns, system = found[columns["messages"]], ""
        if "system" in columns:
            system = found[columns["system"]]
        elif turns[0][role] == tags.get("system_tag", "system"):
            system, turns = turns[0][content], turns[1:]
        if len(turns) % 2 or [t[role] for t in turns] != [asks, says] * (len(turns) // 2):
            raise ValueError("turns do not alternate")
        pictures = [out / settings["media_dir"] / name for name in found[columns["images"]]]
        if sum(t[content].count("<image>") for t in turns) != len(pictures):
            raise ValueError("another number of pictures than of places")
        for picture in pictures:
            with Image.open(picture) as image:
                width, height = image.size
            least, most = (int(settings[f"image_{end}_pixels"]) for end in ("min", "max"))
            if not least <= width * height <= most or min(width, height) < 28:
                raise ValueError("a picture is resized")
        rows.append({"system": system, "turns": [t[content] for t in turns], "pictures": pictures})
    return rows


def as_verl(out: Path) -> list[Row]:
    """What its `RLHFDataset` makes of rows, or `ValueError` where it asserts or reads a key."""
    rows = []
    for found in loaded(out, "parquet", "data/train-00000.parquet"):
        pictures, prompt = list(found["images"]), []
        for message in found["prompt"]:
            pieces = [p for p in re.split("(<image>|<video>|<audio>)", message["content"]) if p]
            if "<video>" in pieces or "<audio>" in pieces:
                raise ValueError("there are neither films nor sounds")
            prompt.append({**message, "content": [*map(_block(pictures), pieces)]})
        if pictures:
            raise ValueError("a picture has no place")
        extra = found["extra_info"]
        if extra["need_tools_kwargs"] and not all(extra["tools_kwargs"].values()):
            raise ValueError("a tool is opened with nothing")
        truth = found["reward_model"]["ground_truth"]
        rows.append(found | {"prompt": prompt, "index": extra["index"], "truth": truth})
    return rows


def _block(pictures: list[Image.Image]) -> Callable[[str], Row]:
    def block(piece: str) -> Row:
        if piece != "<image>":
            return {"type": "text", "text": piece}
        if not pictures:
            raise ValueError("a place has no picture")
        return {"type": "image", "image": pictures.pop(0).convert("RGB")}

    return block


def test_both_forms_are_rows_to_llamafactory_and_say_the_same(
    exported: Callable[..., Path],
) -> None:
    out = exported("llamafactory", "sft")
    by_role = as_llamafactory(out, "cofpipe_train")
    assert by_role == as_llamafactory(out, "cofpipe_train_conversations")
    assert len(by_role) == 4 and all(r["system"] and len(r["pictures"]) == 3 for r in by_role)


def test_the_checker_of_llamafactorys_rules_refuses_what_it_would_refuse(
    exported: Callable[..., Path],
) -> None:
    out = exported("llamafactory", "sft")
    told = (out / "train.json").read_text("utf-8")
    for turn, text in ((1, "No picture."), (2, "Look: <image>")):
        rows = json.loads(told)
        rows[2]["messages"][turn]["content"] = text
        (out / "train.json").write_text(json.dumps(rows), "utf-8")
        with pytest.raises(ValueError, match="places"):
            as_llamafactory(out, "cofpipe_train")
    rows[2]["messages"].pop()
    (out / "train.json").write_text(json.dumps(rows), "utf-8")
    with pytest.raises(ValueError, match="alternate"):
        as_llamafactory(out, "cofpipe_train")


def test_prompts_are_rows_to_verl(exported: Callable[..., Path]) -> None:
    rows = as_verl(exported("verl", "rl"))
    assert [r["index"] for r in rows] == [0, 1, 2, 3] and {r["truth"] for r in rows} == {"blue"}
    for r in rows:
        first = r["prompt"][1]["content"][0]
        assert math.prod(first["image"].size) <= 224**2
        assert r["agent_name"] == "tool_agent" and r["data_source"] == "cofpipe"


@pytest.mark.torch
def test_chats_and_prompts_are_rows_to_trl(exported: Callable[..., Path]) -> None:
    own = pytest.importorskip("trl.data_utils")
    for kind, column in (("sft", "messages"), ("rl", "prompt")):
        for r in loaded(exported("trl", kind), "parquet", "data/train-00000.parquet"):
            told = own.prepare_multimodal_messages(copy.deepcopy(r[column]), images=r["images"])
            blocks = [block for message in told for block in message["content"]]
            shown = [block["image"] for block in blocks if block["type"] == "image"]
            assert shown == r["images"] and own.is_conversational(r)
            broken = {**r, "images": r["images"][:-1]}
            with pytest.raises(ValueError, match="placeholders"):
                own.prepare_multimodal_messages(broken[column], images=broken["images"])


def words(content: Any) -> list[str | None]:
    """The texts of a message, None where a picture stands."""
    return [block["text"] if block["type"] == "text" else None for block in content]


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
def test_what_is_trained_rewarded_and_asked_reads_the_same_to_the_byte(
    kind: str, exported: Callable[..., Path], tmp_path: Path
) -> None:
    from transformers import AutoImageProcessor

    from pipeline.models import qwen_chat
    from pipeline.models.qwen_prompt import Encoder, Message

    tokenizer = tiny_qwen.build_tokenizer((BOX_START, BOX_END, Mark.ZOOMIN.value))
    tokenizer.save_pretrained(tmp_path / kind)
    tiny_qwen.build_model(tokenizer, kind=kind).config.save_pretrained(tmp_path / kind)
    tiny_qwen.write_image_settings(tmp_path / kind, patch=16 if kind == "qwen3_vl" else 14)
    processor = qwen_chat.load(tmp_path / kind)
    images = AutoImageProcessor.from_pretrained(tmp_path / kind, backend="pil")
    encoder = Encoder(processor.tokenizer, images)
    family = {"qwen2_5_vl": "qwen2.5-vl", "qwen3_vl": "qwen3-vl"}[kind]

    def read(trainer: str, use: str, reader: Callable[..., Any]) -> list[Any]:
        (table,) = look_into(exported(trainer, use, family), trainer).tables[-1:]
        return [reader(table, n, r) for n, r in rows_of(table)]

    trained = read("trl", "sft", trl_chat("sft"))
    apart = read("llamafactory", "sft", llamafactory_chat)
    rewarded = read("trl", "rl", trl_chat("rl")), read("verl", "rl", verl_chat)
    for n, chat in enumerate(trained):
        told = path(n, 224, LOOKS)
        frame = FAMILIES[family].frame(sample(n).size, told.view.size)
        said = [words(m["content"]) for m in render(sample(n), told, "cof-v2", frame)]
        assert [words(m["content"]) for m in chat.messages] == said
        prompt = processor.render(chat.messages[:2], answering=True)
        for prompts in rewarded:
            assert processor.render(prompts[n].messages, answering=True) == prompt
            assert prompts[n].pictures == chat.pictures[:1]
        sizes = [(28, 28)] * len(chat.pictures)
        both = processor.taught(chat.messages, sizes)
        other = encode_llamafactory(processor, "qwen2_vl")(apart[n].messages, sizes)
        assert [t.removesuffix("\n") for t in other.taught] == [*both.taught]
        assert apart[n].pictures == chat.pictures
        picture = Image.new("RGB", (84, 56))
        asked = [
            Message(m["role"], tuple(picture if t is None else t for t in words(m["content"])))
            for m in chat.messages
        ]
        for turns in (2, 4, 6):
            written = encoder.write(asked[:turns])
            text = processor.render(chat.messages[:turns], answering=True)
            ids = written.ids[0].tolist()
            shown = f"<|vision_start|>{'<|image_pad|>' * written.shown[0].tokens}<|vision_end|>"
            place = "<|vision_start|><|image_pad|><|vision_end|>"
            assert tokenizer.decode(ids) == text.replace(place, shown)


@pytest.mark.torch
@pytest.mark.parametrize("family", ["qwen2.5-vl", "qwen3-vl"])
def test_a_model_that_looks_inside_its_turn_is_asked_as_it_was_trained(family: str) -> None:
    box = numbers(STAR, family)
    for _ in range(2):  # a box is looked at in whole pixels of the view: as such it comes back
        first = f"<think> Closer. {BOX_START}{json.dumps(box)}{BOX_END} "
        model = ListModel([first, GOES_ON], AGREES)
        done = inline_episode(model, family=family)
        frame = FAMILIES[family].frame(PICTURE.size, done.trajectory.view.size)
        again = done.trajectory.steps[0].boxes[0].as_written(frame)
        assert max(abs(a - b) for a, b in zip(again, box, strict=True)) <= 1000 / 168
        box = list(again)
    system, user, assistant = render(SAMPLE, done.trajectory, "cof-v1", frame)
    last = planned(model)[-1]
    sent = [
        [None if isinstance(part, Picture) else part for part in said.parts]
        for said in last.messages
    ]
    assert sent == [words(system["content"]), words(user["content"])]
    turn = [None if isinstance(part, Picture) else part for part in last.prefix]
    assert [*turn, GOES_ON] == words(assistant["content"]) and turn[0] == first + ZOOM
