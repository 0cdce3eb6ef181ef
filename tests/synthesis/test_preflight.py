"""Preflight passes what was exported, and finds each defect in its row, under its own reason.

The defects of a layout are put into one folder, a row for each: none of them ends the check.
"""

from __future__ import annotations

import copy
import io
import json
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.errors import ConfigError
from pipeline.grammar import BOX_END, BOX_START
from pipeline.synthesis.exports import Export, export
from pipeline.synthesis.preflight import Checked, Preflight, Problem, preflight
from pipeline.synthesis.preflight_checks import REASONS
from pipeline.synthesis.preflight_files import json_rows
from pipeline.turns import Mark
from tests.models import tiny_qwen
from tests.synthesis.test_exports import BOXES, Write, path, row, sample, tree, write

__all__ = ["write"]  # a fixture

pytestmark = pytest.mark.torch

Row = dict[str, Any]
Rows = list[Row]
KINDS = [("trl", "sft"), ("trl", "rl"), ("llamafactory", "sft"), ("verl", "rl")]
FAMILIES = {"qwen2_5_vl": "qwen2.5-vl", "qwen3_vl": "qwen3-vl"}
HELD_OUT, TRAINED = 0, 1
"""Pictures that `split` puts apart."""


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of tiny models, by `model_type`, without weights."""
    root = tmp_path_factory.mktemp("models")
    tokenizer = tiny_qwen.build_tokenizer((BOX_START, BOX_END, Mark.ZOOMIN.value))
    for kind in FAMILIES:
        tokenizer.save_pretrained(root / kind)
        tiny_qwen.build_model(tokenizer, kind=kind).config.save_pretrained(root / kind)
        tiny_qwen.write_image_settings(root / kind, patch=16 if kind == "qwen3_vl" else 14)
    return root


@pytest.fixture
def exported(write: Write, tmp_path: Path) -> Callable[..., Path]:
    """Export so many rows to train on and one that is held out, each with two looks."""

    def make(
        trainer: Any, kind: Any = None, model: str = "qwen2_5_vl", rows: int = 1, **settings: Any
    ) -> Path:
        looks = ((BOXES[0],), BOXES[1:])
        told = [replace(path(TRAINED, 224, looks), rollout=k) for k in range(rows)]
        if trainer == "verl":  # of prompts there is one for each question
            told = [replace(t, sample_id=f"001#{k}", rollout=0) for k, t in enumerate(told)]
        asked = [replace(sample(TRAINED), sample_id=t.sample_id) for t in told]
        made = [row(t, a) for t, a in zip(told, asked, strict=True)]
        write(*made, row(path(HELD_OUT, 224, looks), sample(HELD_OUT)))
        out = tmp_path / f"{trainer}-{model}"
        export_ = Export(trainer, kind=kind, family=FAMILIES[model], split=0.3, **settings)
        assert export(tmp_path / "run", out, export_).rows == {"train": rows, "validation": 1}
        return out

    return make


def look(out: Path, trainer: Any, model: Path, **asked: Any) -> tuple[Checked, list[Problem]]:
    found: list[Problem] = []
    return preflight(out, Preflight(trainer, str(model), **asked), found.append), found


def parquet(out: Path, change: Callable[[Rows], Rows | None], split: str = "train") -> None:
    """Rewrite a split's rows as they are after a change."""
    (file,) = (out / "data").glob(f"{split}-*.parquet")
    table = pq.read_table(file)
    rows = table.to_pylist()
    rows = change(rows) or rows
    names = [name for name in table.schema.names if name in rows[0]]
    schema = pa.schema([table.schema.field(name) for name in names], table.schema.metadata)
    pq.write_table(pa.Table.from_pylist(rows, schema), file)


def resized(data: bytes, factor: float) -> bytes:
    image, sink = Image.open(io.BytesIO(data)), io.BytesIO()
    image.resize((int(image.width * factor), int(image.height * factor))).save(sink, "PNG")
    return sink.getvalue()


def text(r: Row, turn: int) -> Row:
    """The last text block of a turn."""
    return next(b for b in reversed(r["messages"][turn]["content"]) if b["type"] == "text")


def replaced(turn: int, old: str, new: str) -> Callable[[Row], None]:
    def change(r: Row) -> None:
        block = text(r, turn)
        assert old in block["text"]
        block["text"] = block["text"].replace(old, new)

    return change


def image(place: int, make: Callable[[bytes], bytes | None]) -> Callable[[Row], None]:
    def change(r: Row) -> None:
        r["images"][place]["bytes"] = make(r["images"][place]["bytes"])

    return change


def no_block(r: Row) -> None:
    r["messages"][3]["content"] = [{"type": "text", "text": "Here it is."}]


def no_view(r: Row) -> None:
    no_block(r)
    del r["images"][1]


# system, user, assistant (one look), user, assistant (two looks), user, user, assistant
TRL: dict[str, tuple[Callable[[Row], object], set[str]]] = {
    "a missing placeholder": (no_block, {"no_place", "no_view"}),
    "an extra picture": (lambda r: r["images"].append(r["images"][0]), {"no_place"}),
    "a picture too few": (lambda r: r["images"].pop(), {"no_picture"}),
    "a look without its picture": (no_view, {"no_view"}),
    "a truncated crop": (image(2, lambda data: data[: len(data) // 2]), {"picture"}),
    "bytes that are no picture": (image(1, lambda _: b"not a picture at all"), {"picture"}),
    "a picture without bytes": (image(1, lambda _: None), {"picture"}),
    "an over-long row": (replaced(2, "Look 1.", "so " * 5000), {"too_long"}),
    "turns in the wrong order": (
        lambda r: r["messages"].insert(2, r["messages"].pop(1)),
        {"roles", "no_view"},
    ),
    "no last turn": (lambda r: r["messages"].pop(), {"roles"}),
    "an empty assistant turn": (
        lambda r: r["messages"][-1].update(content=[{"type": "text", "text": " "}]),
        {"empty_turn", "turn"},
    ),
    "a picture resized after the boxes were written": (
        image(0, lambda data: resized(data, 2)),
        {"numbers"},
    ),
    "a box outside the picture": (replaced(2, '"bbox_2d": [', '"bbox_2d": [-9'), {"box"}),
    "a tool call that is no JSON": (replaced(2, '{"name": "', '{"name": '), {"turn"}),
    "a call of another tool": (replaced(2, "image_zoom_in_tool", "crop"), {"turn"}),
    "a stray image token": (replaced(1, "Question", "<|image_pad|> Question"), {"stray_token"}),
    "a turn's end in the question": (replaced(1, "Question", "<|im_end|> Q"), {"stray_token"}),
    "a block of another type": (
        lambda r: r["messages"][1]["content"][0].update(type="video"),
        {"columns"},
    ),
    "a role that nobody has": (lambda r: r["messages"][3].update(role="ipython"), {"roles"}),
}


@pytest.mark.parametrize("model", FAMILIES)
@pytest.mark.parametrize(("trainer", "kind"), KINDS)
def test_what_was_exported_passes_and_is_left_as_it_was(
    trainer: Any, kind: Any, model: str, models: Path, exported: Callable[..., Path]
) -> None:
    out = exported(trainer, kind, model)
    before = tree(out)
    done, found = look(out, trainer, models / model)
    assert not found and done.holds and done.broken == 0
    twice = 2 if trainer == "llamafactory" else 1  # in both of its forms
    assert (done.rows, done.pictures) == (2 * twice, (8 if kind == "sft" else 2) * twice)
    assert 300 < done.longest < 4096 and done.repeated == 0
    assert tree(out) == before


@pytest.mark.parametrize("trainer", ["trl", "llamafactory"])
def test_pictures_inside_a_turn_pass_where_the_trainer_can_leave_them_out_of_the_loss(
    trainer: str, models: Path, exported: Callable[..., Path]
) -> None:
    out = exported(trainer, "sft", profile="cof-v1")
    done, found = look(out, trainer, models / "qwen2_5_vl")
    assert any("left out of the loss" in note for note in done.notes)
    assert [(p.reason, p.row) for p in found] == [("mask", None)] * (trainer == "llamafactory")


def test_each_defect_is_found_in_its_row_under_its_own_reason(
    models: Path, exported: Callable[..., Path]
) -> None:
    out = exported("trl", "sft", rows=len(TRL) + 1)
    kept: Rows = []

    def spoil(rows: Rows) -> Rows:
        twice, other = copy.deepcopy(rows[-1]), copy.deepcopy(rows[-1])
        kept.append(rows[-1] | {"rollout": 777})
        for place, (change, _) in enumerate(TRL.values()):
            change(rows[place])
        return [*rows, twice, other | {"sample_id": "another#0"}]

    parquet(out, spoil)
    parquet(out, lambda rows: rows + kept, "validation")
    done, found = look(out, "trl", models / "qwen2_5_vl")
    seen = {
        name: {p.reason for p in found if (p.file, p.row) == ("data/train-00000.parquet", place)}
        for place, name in enumerate([*TRL, "nothing", "a row twice", "the same elsewhere"])
    }
    wanted = {name: reasons for name, (_, reasons) in TRL.items()}
    assert seen == wanted | {
        "nothing": set(),
        "a row twice": {"duplicate"},
        "the same elsewhere": set(),
    }
    held_out = [(p.row, p.reason) for p in found if p.file.startswith("data/validation")]
    assert held_out == [(1, "leak")]
    assert done.broken == len(TRL) + 2 and done.rows == len(TRL) + 5 and done.repeated == 2
    assert set(done.reasons) <= set(REASONS) and all(p.detail for p in found)


def test_thousandths_are_held_against_a_thousand_whatever_the_size(
    models: Path, exported: Callable[..., Path]
) -> None:
    out = exported("trl", "sft", "qwen3_vl")
    parquet(out, lambda rows: replaced(2, '"bbox_2d": [', '"bbox_2d": [-9')(rows[0]))
    _, found = look(out, "trl", models / "qwen3_vl")
    assert [(p.row, p.reason) for p in found] == [(0, "box")]


def test_a_file_without_a_column_or_cut_off_is_told_and_the_other_is_still_read(
    models: Path, exported: Callable[..., Path]
) -> None:
    out = exported("trl", "sft", rows=2)
    parquet(out, lambda rows: [{k: v for k, v in r.items() if k != "images"} for r in rows])
    (file,) = (out / "data").glob("validation-*")
    file.write_bytes(file.read_bytes()[:-100])
    done, found = look(out, "trl", models / "qwen2_5_vl")
    assert {(p.file[5:10], p.row, p.reason) for p in found} == {
        ("train", 0, "columns"),
        ("train", 1, "columns"),
        ("valid", None, "file"),
        ("valid", None, "load"),
    }
    assert (done.rows, done.broken) == (2, 2)


def turned(number: int, **changes: str) -> Callable[[Row, Path], object]:
    return lambda r, _: r["messages"][number].update(changes)


def filed(place: int, make: Callable[[bytes], bytes]) -> Callable[[Row, Path], object]:
    def change(r: Row, out: Path) -> None:
        file = out / "images" / r["images"][place]
        file.write_bytes(make(file.read_bytes()))

    return change


LLAMAFACTORY: dict[str, tuple[Callable[[Row, Path], object], set[str]]] = {
    "a speaker out of turn": (turned(3, role="assistant"), {"roles", "no_view", "turn"}),
    "a stray place in the question": (turned(1, content="<image><image>?"), {"no_picture"}),
    "a place that is gone": (turned(3, content="Here."), {"no_place", "no_view"}),
    "a stray place of a film": (turned(1, content="<image> <video> What?"), {"stray_token"}),
    "half a character": (turned(0, content="Look. \ud800"), {"stray_token"}),
    "an answer that is gone": (turned(-1, content=""), {"empty_turn", "turn"}),
    "a column that is gone": (lambda r, _: r.pop("images"), {"columns"}),
    "a truncated file": (filed(1, lambda data: data[:99]), {"picture", "changed"}),
    "another picture": (filed(0, lambda data: resized(data, 2)), {"caps", "changed"}),
    "a file that is gone": (lambda r, _: r["images"].__setitem__(1, "gone.png"), {"picture"}),
}


def test_each_defect_is_found_in_llamafactorys_form(
    models: Path, exported: Callable[..., Path]
) -> None:
    out = exported("llamafactory", "sft", rows=len(LLAMAFACTORY) + 1)
    rows = json.loads((out / "train.json").read_text("utf-8"))
    for place, (change, _) in enumerate(LLAMAFACTORY.values()):
        change(rows[place], out)
    lines = [*map(json.dumps, rows), json.dumps(rows[-1]), '{"messages": [}']
    (out / "train.json").write_text("[\n" + ",\n".join(lines) + "\n]\n", "utf-8")
    done, found = look(out, "llamafactory", models / "qwen2_5_vl")
    seen = {
        name: {p.reason for p in found if (p.file, p.row) == ("train.json", place)}
        for place, name in enumerate([*LLAMAFACTORY, "nothing", "a row twice", "no JSON"])
    }
    wanted = {name: reasons for name, (_, reasons) in LLAMAFACTORY.items()}
    others = {"nothing": set(), "a row twice": {"duplicate"}, "no JSON": {"row"}}
    assert seen == wanted | others
    assert [(p.file, p.reason) for p in found if p.row is None] == [("train.json", "load")]
    whole = {p.row for p in found if p.file == "train_conversations.json"}
    assert whole == {7, 8}  # its rows are as they were, two of its pictures are not
    assert done.rows == 2 * (len(LLAMAFACTORY) + 2) + 2


def test_llamafactorys_files_settings_and_caps_are_held_against_the_pictures(
    models: Path, exported: Callable[..., Path]
) -> None:
    out, model = exported("llamafactory", "sft"), models / "qwen2_5_vl"
    info = json.loads((out / "dataset_info.json").read_text())
    info["cofpipe_train"]["file_name"] = "gone.json"
    (out / "dataset_info.json").write_text(json.dumps(info))
    settings = (out / "settings.yaml").read_text()
    lines = settings.replace("qwen2_vl", "qwen3_vl").splitlines()
    capped = ["image_max_pixels: 30000" if "image_max" in line else line for line in lines]
    (out / "settings.yaml").write_text("\n".join(capped))
    done, found = look(out, "llamafactory", model)
    assert [(p.name, p.file) for p in found if p.reason == "file"] == [
        ("cofpipe_train", "gone.json")
    ]
    assert set(done.reasons) == {"file", "settings", "caps", "numbers", "box"} and done.rows == 3
    (out / "settings.yaml").write_text(settings.replace("81920", "400"))
    assert set(look(out, "llamafactory", model)[0].reasons) == {"file", "too_long"}
    (out / "settings.yaml").unlink()
    shutil.move(out / "images", out / "elsewhere")
    assert {"settings", "picture"} <= set(look(out, "llamafactory", model)[0].reasons)
    (out / "dataset_info.json").write_text("[")
    assert set(look(out, "llamafactory", model)[0].reasons) == {"file", "settings"}


def unplaced(r: Row) -> None:
    r["prompt"][1]["content"] = r["prompt"][1]["content"].replace("<image>", "")


def unopened(r: Row) -> None:
    opened = r["extra_info"]["tools_kwargs"]["image_zoom_in_tool"]["create_kwargs"]
    opened["source"] = opened["source"][:60]


VERL: dict[str, tuple[Callable[[Row], object], set[str]]] = {
    "a missing placeholder": (unplaced, {"no_place", "no_view"}),
    "an empty answer": (lambda r: r["reward_model"].update(ground_truth=" "), {"target"}),
    "a target outside": (
        lambda r: r["extra_info"].update(target_boxes=[[0.0, 0.0, 9000.0, 9.0]]),
        {"box"},
    ),
    "a source that does not decode": (unopened, {"picture"}),
    "a reply in the prompt": (
        lambda r: r["prompt"].append({"role": "assistant", "content": "Yes."}),
        {"roles", "turn"},
    ),
}


def test_each_defect_is_found_in_verls_form(models: Path, exported: Callable[..., Path]) -> None:
    out = exported("verl", "rl", rows=len(VERL) + 1)

    def spoil(rows: Rows) -> None:
        for place, (change, _) in enumerate(VERL.values()):
            change(rows[place])

    parquet(out, spoil)
    _, found = look(out, "verl", models / "qwen2_5_vl")
    seen = {
        name: {p.reason for p in found if p.row == place}
        for place, name in enumerate([*VERL, "nothing"])
    }
    assert seen == {name: reasons for name, (_, reasons) in VERL.items()} | {"nothing": set()}


def test_views_that_the_trainer_or_the_template_drops_are_found(
    models: Path, tmp_path: Path, exported: Callable[..., Path]
) -> None:
    out, blind = exported("trl", "sft"), tmp_path / "blind"
    shutil.copytree(models / "qwen2_5_vl", blind)
    template = (blind / "chat_template.jinja").read_text()
    old, new = "{%- else %}\n{{- '<|v", "{%- elif messages.index(message) < 2 %}\n{{- '<|v"
    assert old in template
    (blind / "chat_template.jinja").write_text(template.replace(old, new))
    done, found = look(out, "trl", blind)
    assert done.reasons == {"template": 2}
    assert {p.detail for p in found} == {"it has 1 places for 4 pictures"}
    parquet(out, lambda rows: rows[0]["messages"][3].update(role="tool"))
    _, found = look(out, "trl", models / "qwen2_5_vl")
    assert [(p.file[5:10], p.row, p.reason) for p in found] == [("train", 0, "no_place")]


def test_boxes_of_another_family_and_limits_of_the_model_are_told_for_the_whole(
    models: Path, exported: Callable[..., Path]
) -> None:
    out = exported("trl", "sft")
    done, found = look(out, "trl", models / "qwen3_vl")
    assert found[0].reason == "family" and found[0].row is None
    assert done.reasons["family"] == 1
    done, _ = look(out, "trl", models / "qwen2_5_vl", max_tokens=500)
    assert done.reasons == {"too_long": 2} and done.longest > 500


def test_what_cannot_be_checked_is_refused(
    models: Path, exported: Callable[..., Path], tmp_path: Path
) -> None:
    out, model = exported("trl", "sft"), models / "qwen2_5_vl"
    for trainer, folder, model_, asked, said in (
        ("verl", out, model, {}, "export for trl"),
        ("trrl", out, model, {}, "no trainer"),
        ("trl", out, model, {"kind": "rl"}, "of kind sft"),
        ("trl", out, model, {"max_tokens": 0}, "at most 0"),
        ("trl", tmp_path / "nowhere", model, {}, "no folder"),
        ("trl", out, tmp_path, {}, "config.json"),
    ):
        with pytest.raises(ConfigError, match=said):
            look(folder, trainer, model_, **asked)


@pytest.mark.parametrize("layout", ["list", "lines", "pretty"])
def test_json_is_read_a_row_at_a_time_however_it_is_laid_out(layout: str, tmp_path: Path) -> None:
    rows = [{"n": n, "said": f'a "b", [{n}] \\ é ' + "x" * 20_000} for n in range(300)]
    texts = {
        "list": lambda: "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n",
        "lines": lambda: "\n".join(json.dumps(r, ensure_ascii=False) for r in rows),
        "pretty": lambda: json.dumps(rows, indent=2),
    }
    file = tmp_path / "rows.json"
    file.write_text(texts[layout](), "utf-8")
    assert [r for _, r in json_rows(file)] == rows
    tracemalloc.start()
    for _ in json_rows(file):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert file.stat().st_size > 6e6 and peak < 4e6
