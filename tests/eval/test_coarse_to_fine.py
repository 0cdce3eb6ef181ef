"""What stage 1 asks, how its reply is read, and what becomes of a reply without a box."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.eval import coarse_to_fine
from pipeline.eval.coarse_to_fine import (
    LOCATE_PROMPTS,
    PRESETS,
    Preset,
    Region,
    check_published_wording,
    choose,
    grid_mask,
    locate_text,
    outcome_of,
    parse_boxes,
    read_region,
    region_mask,
)
from pipeline.grids import UnitBox

GOLDENS = Path(__file__).parents[3] / "shared" / "goldens" / "c2f.json"
LAW = settings(deadline=None, max_examples=60)
PUBLISHED, EXACT = PRESETS["mme-hl"], PRESETS["exact"]
BOX = (0.1, 0.2, 0.3, 0.4)
OTHER = (0.5, 0.5, 0.9, 0.9)

# The published reading

READ = {
    "[0.1, 0.2, 0.3, 0.4]": BOX,
    "The answer is in [0.1, 0.2, 0.3, 0.4].": BOX,
    '```json\n{"box": [0.1, 0.2, 0.3, 0.4]}\n```': BOX,
    "[[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.9, 0.9]]": BOX,
    '{"person": [0, 0.2, 1, 0.6], "bag": [0.5, 0.5, 0.9, 0.9]}': OTHER,
    "[12.0, 40.0, 200.0, 180.0]": (12.0, 40.0, 200.0, 180.0),
    "[00.10, 0.20, 0.30, 0.40]": BOX,
    "[٠.١, 0.2, 0.3, 0.4]": BOX,
}
UNREAD = (
    *("[0, 0.5, 1, 1.0]", "[0.1,0.2,0.3,0.4]", "[0.1,  0.2, 0.3, 0.4]", "[ 0.1, 0.2, 0.3, 0.4 ]"),
    *("(0.1, 0.2, 0.3, 0.4)", "[.1, .2, .3, .4]", "[1e-1, 0.2, 0.3, 0.4]", "[0.1, 0.2,\n0.3, 0.4]"),
    *("[+0.1, 0.2, 0.3, 0.4]", "[12, 40, 200, 180]", "[0.1, 0.2, 0.3, 0.4", "no box here", ""),
    *("[0.1, 0.1, 0.2]", "[0.1, 0.1, 0.2, 0.2, 0.3]", "[0.1; 0.2; 0.3; 0.4]"),
)


@pytest.mark.parametrize("text", READ)
def test_the_published_reading_is_the_first_box_of_four_decimals(text: str) -> None:
    assert parse_boxes(text, compat=True) == [READ[text]]


@pytest.mark.parametrize("text", UNREAD)
def test_the_published_reading_refuses_what_its_pattern_refuses(text: str) -> None:
    assert parse_boxes(text, compat=True) == []
    found = read_region(text, PUBLISHED)
    assert found == Region((), whole=True)
    assert region_mask(found, (24, 24), PUBLISHED).all()
    assert outcome_of(found, np.ones(3, bool)) == "fallback_all"


@pytest.mark.skipif(not GOLDENS.exists(), reason="the goldens beside the project are not here")
def test_every_recorded_reply_becomes_its_published_mask_and_outcome() -> None:
    golden = json.loads(GOLDENS.read_text())
    assert len(golden["boxes"]) == 271
    for case in golden["boxes"]:
        _check_case(case)
    assert golden["stage1_prompt_suffix"]["sha256"] == coarse_to_fine.PUBLISHED_WORDING


def _check_case(case: dict[str, Any]) -> None:
    rule = {"expansion": case["expansion"], "square": case["square"]}
    preset = Preset(**rule, select="first", on_miss="all_image", compat=True)
    found = read_region(case["text"], preset)
    mask = region_mask(found, tuple(case["grid"]), preset)
    assert outcome_of(found, mask) == case["outcome"], case
    assert [list(box) for box in found.boxes] == ([case["bbox"]] if "bbox" in case else []), case
    told = case["mask"]["flat_sha256"]
    assert hashlib.sha256(mask.tobytes()).hexdigest().startswith(told), case


# The tolerant reading


@pytest.mark.parametrize(
    "text",
    [
        *(
            "[0.1, 0.2, 0.3, 0.4]",
            "[0.1,0.2,0.3,0.4]",
            "[ .1 , .2 , .3 , .4 ]",
            "[1e-1 0.2 0.3 0.4]",
        ),
        *("(0.1, 0.2, 0.3, 0.4)", "[0.1, 0.2,\n  0.3, 0.4,]", "[0.1; 0.2; 0.3; 0.4]"),
        *("0.1, 0.2, 0.3, 0.4", "```\n0.1 0.2 0.3 0.4\n```", "It is at [0.1, 0.2, 0.3, 0.4"),
        *("[+0.1, 0.2, 0.3, 0.4]", "[[0.1, 0.2], [0.3, 0.4]]", "(0.1,0.2),(0.3,0.4)"),
        "<|box_start|>(0.1,0.2),(0.3,0.4)<|box_end|>",
        "x1=0.1, y1=0.2, x2=0.3, y2=0.4",
        '{"xmin": 0.1, "ymin": 0.2, "xmax": 0.3, "ymax": 0.4}',
        '{"x0": 0.1, "y0": 0.2, "x1": 0.3, "y1": 0.4}',
        '```json\n[{"bbox_2d": [0.1, 0.2, 0.3, 0.4], "label": "the sign"}]\n```',
        "[0.3, 0.4, 0.1, 0.2]",
    ],
)
def test_a_box_is_read_however_it_is_written(text: str) -> None:
    assert parse_boxes(text) == [BOX]


def test_all_boxes_are_read_in_their_order() -> None:
    text = '{"a": [0, 0.2, 0.6, 0.8],\n"b": [0.5, 0.5, 0.9, 0.9], "c": [0.1, 0.2, 0.3, 0.4]}'
    assert parse_boxes(text) == [(0.0, 0.2, 0.6, 0.8), OTHER, BOX]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "no box here",
            "[0.1, 0.1, 0.2]",
            "[0.1, 0.1, 0.2, 0.2, 0.3]",
            "[0.1., 0.2, 0.3, 0.4]",
        ),
        *("[nan, 0.1, 0.2, 0.3]", "[0.1, inf, 0.2, 0.3]", "[1e999, 0.1, 0.2, 0.3]"),
        *("[__import__('os'), 0, 1, 1]", "the tags 1, 2, 3, 4 are red", "[0.1, 0.2, 0.3, 0.4e]"),
        "[true, false, true, true]",
    ],
)
def test_what_is_not_four_numbers_is_no_box(text: str) -> None:
    assert parse_boxes(text) == []


def test_boxes_are_read_in_the_space_that_the_family_speaks() -> None:
    reply = '{"bbox_2d": [64, 96, 192, 192]}'
    assert parse_boxes(reply, space="pixel", size=(640, 480)) == [(0.1, 0.2, 0.3, 0.4)]
    assert parse_boxes("[100, 200, 300, 400]", space="permille") == [BOX]
    assert parse_boxes(reply) == []  # pixels are no fractions, and nothing is guessed
    with pytest.raises(ConfigError, match="size"):
        parse_boxes(reply, space="pixel")


def test_a_box_is_cut_at_the_border_and_left_out_beyond_it() -> None:
    assert parse_boxes("[-0.1, 0.5, 0.5, 1.2]") == [(0.0, 0.5, 0.5, 1.0)]
    assert parse_boxes("[1.1, 0.5, 1.5, 0.9]") == []
    assert parse_boxes("[0.5, 0.5, 300, 200]") == []


@LAW
@given(st.lists(st.floats(-0.5, 1.5), min_size=4, max_size=4))
def test_tolerant_boxes_lie_in_the_picture_with_their_corners_in_order(
    numbers: list[float],
) -> None:
    for x0, y0, x1, y1 in parse_boxes(json.dumps(numbers)):
        assert 0 <= x0 <= x1 <= 1 and 0 <= y0 <= y1 <= 1


@LAW
@given(st.text('[]()0123456789.,;-+eE \n"x1:=', max_size=60), st.booleans())
def test_any_text_is_read_without_an_error(text: str, compat: bool) -> None:
    for box in parse_boxes(text, compat):
        assert np.isfinite(box).all()
        grid_mask(box, (24, 24), compat=compat)


def test_hostile_replies_take_no_time() -> None:
    start = time.process_time()
    for text in (
        "[" + "1" * 100_000,
        "(1,2)" + " " * 100_000,
        "[1" + " " * 100_000,
        "[" * 100_000,
        "[0.1, 0.2, 0.3, 0.4" + " " * 100_000 + "x",
        "x1=" + " " * 100_000,
        "x1=1" + ' ,;"' * 25_000,
    ):
        assert parse_boxes(text) == parse_boxes(text, compat=True) == []
    assert time.process_time() - start < 2


# Which boxes, and what without one


def test_of_several_boxes_the_first_the_largest_or_all_are_chosen() -> None:
    assert choose([BOX, OTHER]) == (BOX,)
    assert choose([BOX, OTHER], "largest") == (OTHER,)
    assert choose([BOX, OTHER], "union") == (BOX, OTHER)
    assert [choose([], how) for how in ("first", "largest", "union")] == [(), (), ()]  # type: ignore[arg-type]


def test_each_way_a_reply_can_end_has_its_word() -> None:
    nothing, some = np.zeros(4, bool), np.eye(2, dtype=bool)
    assert outcome_of(read_region("[0.1, 0.2, 0.3, 0.4]", EXACT), some) == "box"
    assert outcome_of(read_region("[1.2, 1.2, 1.6, 1.6]", PUBLISHED), nothing) == "empty"
    assert outcome_of(read_region("I see none.", PUBLISHED), some) == "fallback_all"
    assert outcome_of(read_region("I see none.", EXACT), nothing) == "none"


def test_a_box_without_area_is_none_but_for_the_published_reading() -> None:
    text = "[0.0, 0.0, 0.0, 0.0]"
    assert read_region(text, EXACT) == Region(())
    assert region_mask(read_region(text, PUBLISHED), (24, 24), PUBLISHED).sum() == 1


def test_a_region_of_several_boxes_is_all_of_their_cells() -> None:
    found = read_region("[0.1, 0.2, 0.3, 0.4] [0.5, 0.5, 0.9, 0.9]", EXACT)
    either: UnitBox
    mask = np.zeros((24, 24), bool)
    for either in (BOX, OTHER):
        mask |= grid_mask(either, (24, 24))
    assert np.array_equal(region_mask(found, (24, 24), EXACT), mask)


# Settings and wording


@pytest.mark.parametrize(
    "settings",
    [
        {"weight": 0.0},
        {"weight": float("nan")},
        {"expansion": 0.0},
        {"expansion": float("inf")},
        {"select": "last"},
        {"on_miss": "guess"},
        {"compat": True},
        {"locate_tokens": 0},
    ],
    ids=str,
)
def test_impossible_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Preset(**settings)


def test_the_published_run_is_a_preset() -> None:
    assert Preset(4.5, 1.0, True, "first", "all_image", True, 128) == PUBLISHED


def test_stage_one_asks_the_first_line_and_where_its_answer_is() -> None:
    question = "Is there a dog?\nAnswer with one word."
    for space, suffix in LOCATE_PROMPTS.items():
        text = locate_text(question, suffix)
        assert text.startswith("Is there a dog?\n") and "one word" not in text
        assert suffix.count("\n") == 2 and "JSON" in suffix, space
        assert not check_published_wording(suffix)


@pytest.mark.torch
def test_a_highlight_lasts_as_long_as_its_context() -> None:
    import torch

    from tests.models.tiny_qwen import build_model, build_tokenizer

    model = build_model(build_tokenizer())
    ids = torch.arange(8)[None]
    flags = (ids >= 2) & (ids < 5)

    def logits() -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = model(input_ids=ids).logits
        return found

    plain = logits()
    with coarse_to_fine.highlight(model, flags, 4.5):
        assert not torch.allclose(logits(), plain, atol=1e-3)
    with coarse_to_fine.highlight(model, flags, 1.0, layers=[0]):
        assert torch.allclose(logits(), plain, atol=1e-6)
    assert torch.equal(logits(), plain)
