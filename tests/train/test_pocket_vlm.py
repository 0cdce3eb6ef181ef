"""Laws of the pocket VLM's recipe: what it is taught, that training repeats itself, its figures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.grammar import parse
from pipeline.train.pocket_vlm_chats import (
    CELL,
    NONE,
    boxes_in,
    cells_of,
    chat_of,
    question_of,
    seen_size,
    training_chat,
)
from pipeline.train.pocket_vlm_scenes import (
    APART_PX,
    COLORS,
    EASIEST,
    MARKS,
    RESOLUTION,
    SHAPES,
    SIDE,
    held_out_scene,
    training_scene,
)
from pipeline.views import first_view, zoomed

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file  # noqa: E402

from pipeline.agent.families import FAMILIES  # noqa: E402
from pipeline.models.pocket_training import Plan  # noqa: E402
from pipeline.models.pocket_training import train as train_recipe  # noqa: E402
from pipeline.train import pocket_vlm  # noqa: E402
from pipeline.train.loading import family_of_model  # noqa: E402
from pipeline.train.pocket_vlm_batch import (  # noqa: E402
    pictures_of,
    targets_of,
    tokenizer,
    words_of,
)
from pipeline.train.pocket_vlm_words import LARGEST  # noqa: E402
from pipeline.train.processing import load_processor  # noqa: E402
from pipeline.train.rows import IGNORED  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def network() -> Any:
    torch.manual_seed(0)
    return pocket_vlm.PocketVlm().eval()


@pytest.fixture(scope="module")
def folder(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pocket_vlm.save(network, tmp_path_factory.mktemp("made") / "pocket_vlm")


def test_a_scene_is_the_same_wherever_it_is_drawn_and_its_things_keep_apart() -> None:
    for number in range(40):
        scene = held_out_scene(number)
        assert scene == held_out_scene(number)
        assert len({thing.color for thing in scene.things}) == len(scene.things)
        for place, thing in enumerate(scene.things):
            assert thing.box.x0 > 0 and thing.box.x1 < SIDE and thing.box.y1 < SIDE
            assert thing.said.contains(thing.box)
            for other in scene.things[:place]:
                (x, y), (x2, y2) = thing.box.centre, other.box.centre
                assert max(abs(x - x2), abs(y - y2)) >= APART_PX
                assert thing.box.intersection(other.box) == 0
    assert training_scene(0, 1, 1.0) != training_scene(0, 2, 1.0)
    assert np.array_equal(held_out_scene(3).image(), held_out_scene(3).image())


def test_scenes_begin_with_few_kinds_and_end_with_all() -> None:
    def kinds(along: float) -> tuple[int, ...]:
        things = [t for n in range(300) for t in training_scene(0, n, along).things]
        drawn = ({t.shape for t in things}, {t.color for t in things}, {t.mark for t in things})
        return tuple(map(len, drawn))

    assert kinds(0.0) == EASIEST
    assert kinds(0.5) == kinds(1.0) == (len(SHAPES), len(COLORS), len(MARKS))


def test_the_cells_of_a_view_give_back_the_things_of_the_scene() -> None:
    looked_at = 0
    for number in range(12):
        scene = held_out_scene(number)
        views = [first_view(scene.image(), RESOLUTION)]
        views += [zoomed(scene.image(), t.said, RESOLUTION, parent=0) for t in scene.things]
        for place, view in enumerate(views):
            cells = cells_of(scene, view)
            width, height = seen_size(view.observation.size)
            assert len(cells.shape) == width * height // CELL**2
            found = boxes_in(cells, view.observation)
            told = {
                (cells.shape[n], cells.color[n]): (box, cells.mark[n]) for n, box in found.items()
            }
            mine = scene.things if place == 0 else [scene.things[place - 1]]
            assert len(found) == len(told) >= len(mine)
            for thing in mine:
                box, mark = told[thing.shape, thing.color]
                assert np.allclose(box.as_list(), thing.box.as_list(), atol=0.01)
                assert mark == (thing.mark if place or thing.readable else NONE)
                looked_at += place > 0
    assert looked_at > 12


def test_a_look_is_taught_exactly_where_the_mark_cannot_be_read() -> None:
    seen = set()
    for number in range(12):
        scene = held_out_scene(number)
        thing, chat = scene.things[0], chat_of(scene, "whole")
        turns = [parse(m["content"][0]["text"], "cof-v2") for m in chat.messages[2::2]]
        assert len(turns) == len(chat.views) == len(chat.cells) == (1 if thing.readable else 2)
        assert turns[-1].answer == MARKS[thing.mark]
        assert chat.messages[:2] == question_of(scene, scene.image())[0]
        if not thing.readable:
            box = FAMILIES["qwen3-vl"].read(turns[0].calls[0].box, (SIDE, SIDE))
            assert box == thing.said
            assert np.array_equal(
                zoomed(scene.image(), box, RESOLUTION, parent=0).pixels, chat.views[1]
            )
        seen.add(thing.readable)
    assert seen == {True, False}


def test_a_place_is_answered_in_the_family_s_numbers_and_a_close_view_at_once() -> None:
    scene = held_out_scene(2)
    where, read = chat_of(scene, "where"), chat_of(scene, "read")
    answer = parse(where.messages[2]["content"][0]["text"], "cof-v2").answer
    assert (
        answer
        and FAMILIES["qwen3-vl"].read(json.loads(answer), (SIDE, SIDE)) == scene.things[0].said
    )
    assert len(read.views) == 1
    assert (
        parse(read.messages[2]["content"][0]["text"], "cof-v2").answer
        == MARKS[scene.things[0].mark]
    )
    assert (read.cells[0].mark == scene.things[0].mark).sum() == 1


def test_whole_conversations_become_more_as_training_goes_on() -> None:
    def looks(along: float) -> int:
        return sum(len(training_chat(0, n, along).views) == 2 for n in range(30))

    assert looks(0.0) < looks(1.0) / 2


def test_what_never_changes_and_every_coordinate_is_one_token_and_all_text_survives() -> None:
    words = tokenizer()
    assert all(len(words.encode(str(n), add_special_tokens=False)) == 1 for n in range(LARGEST + 1))
    system = held_out_text(0, 0)
    assert len(words.encode(system, add_special_tokens=False)) == 1
    for text in (system, "Stra\u00dfe, 1234 <box>\n\n [5]  \u6f22", held_out_text(1, 2)):
        assert words.decode(words.encode(text, add_special_tokens=False)) == text


def held_out_text(number: int, place: int) -> str:
    """The first text of a message of a held-out conversation."""
    content = chat_of(held_out_scene(number), "whole").messages[place]["content"]
    return next(block["text"] for block in content if block["type"] == "text")


def test_a_batch_is_what_the_saved_processor_makes_of_the_chats(folder: Path) -> None:
    assert family_of_model(str(folder)) == "qwen3-vl"
    processor = load_processor(folder)
    for task in ("whole", "read"):
        chats = [chat_of(held_out_scene(number), task) for number in range(4)]
        views = [view for chat in chats for view in chat.views]
        theirs = processor(
            text=[
                processor.apply_chat_template([dict(m) for m in chat.messages], tokenize=False)
                for chat in chats
            ],
            images=[[Image.fromarray(view) for view in chat.views] for chat in chats],
            padding=True,
            padding_side="right",
            return_tensors="pt",
        )
        words = words_of([(chat.messages, chat.views) for chat in chats])
        pictures = pictures_of(views)
        assert torch.equal(words.ids, theirs["input_ids"])
        assert torch.equal(words.there, theirs["attention_mask"])
        assert torch.equal(pictures.grids, theirs["image_grid_thw"])
        assert torch.allclose(pictures.patches, theirs["pixel_values"], atol=1e-5)
        assert len(targets_of(chats).shape) == int(words.visual.sum())
        for chat, row in zip(chats, words.labels, strict=True):
            said = tokenizer().decode(row[row != IGNORED])
            wanted = [m["content"][0]["text"] for m in chat.messages if m["role"] == "assistant"]
            assert said == "".join(f"{text}<|im_end|>" for text in wanted)


def test_features_given_once_make_the_logits_that_the_saved_model_makes_of_pixels(
    network: Any, folder: Path
) -> None:
    from transformers import Qwen3VLForConditionalGeneration

    chats = [chat_of(held_out_scene(number), "whole") for number in range(3)]
    words = words_of([(chat.messages, chat.views) for chat in chats])
    pictures = pictures_of([view for chat in chats for view in chat.views])
    saved = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        ours = network.logits(words, pictures, network.seen(pictures))
        theirs = saved(
            input_ids=words.ids,
            attention_mask=words.there,
            mm_token_type_ids=words.visual,
            pixel_values=pictures.patches,
            image_grid_thw=pictures.grids,
        ).logits
    assert torch.allclose(ours, theirs[:, :-1][words.labels[:, 1:] != IGNORED], atol=5e-3)
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert sum(w.numel() for w in saved.parameters()) <= 4e6 and size <= 8e6


def test_targets_told_back_cost_next_to_nothing_and_wrong_ones_much() -> None:
    cells = targets_of([chat_of(held_out_scene(n), "whole") for n in range(8)])
    told = {"thing": torch.from_numpy(np.where(cells.shape != NONE, 20.0, -20.0))[:, None]}
    for name, count in pocket_vlm.KINDS.items():
        kind = torch.from_numpy(getattr(cells, name)).clamp(min=0)
        told[name] = 20.0 * torch.nn.functional.one_hot(kind, count)
    told["sides"] = torch.from_numpy(cells.sides)
    total, figures = pocket_vlm.dense_losses(told, cells)
    assert total < 1e-4
    assert [round(float(figures[n]), 6) for n in ("iou", "shape", "color", "mark")] == [1.0] * 4
    for name in told:
        assert pocket_vlm.dense_losses({**told, name: -told[name]}, cells)[0] > 1


def test_only_the_tower_learns_first_then_all_does(network: Any) -> None:
    early = pocket_vlm.losses(network, "", 0, range(2), 0.0)
    late = pocket_vlm.losses(network, "", 0, range(2), 0.9)
    assert "words" not in early and "words" in late
    weight = network.qwen.lm_head.weight
    assert torch.autograd.grad(early["total"], weight, allow_unused=True)[0] is None
    assert torch.autograd.grad(late["total"], weight)[0].abs().sum() > 0


def smallest() -> Any:
    """The network with one layer that speaks."""
    return pocket_vlm.PocketVlm(pocket_vlm.configuration(num_hidden_layers=1))


def test_training_continues_where_it_was_and_repeats_itself(tmp_path: Path) -> None:
    small = replace(pocket_vlm.RECIPE, batch=2, build=smallest)

    def run(name: str, images: int) -> dict[str, Any]:
        return load_file(train_recipe(small, tmp_path / name, Plan(3, 9.0, images), workers=1))

    whole, half, further = run("whole", 4), run("parts", 2), run("parts", 4)
    assert whole.keys() == smallest().state_dict().keys()
    assert all(torch.equal(whole[name], further[name]) for name in whole)
    assert any(not torch.equal(half[name], further[name]) for name in whole)
    log = (tmp_path / "whole" / "log.jsonl").read_text().splitlines()
    assert {"total", "iou", "mark", "words"} <= json.loads(log[-1]).keys()
