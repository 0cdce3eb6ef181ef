"""Laws of the proof for signs: what the pixels show counts, and every lie about them is found."""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.geometry import Box
from pipeline.samples import rng_for
from pipeline.scenes.draw import scene
from pipeline.scenes.sign_questions import (
    ABOVE,
    COMPARE,
    NO_SIGN,
    NOT_READABLE,
    READ,
    REFUSALS,
    sign_questions,
)
from pipeline.scenes.signs import Planted, plant_signs, signs_of
from pipeline.sources.decode import decode, encode
from pipeline.synthesis.proofs import is_provable, looked_past, proven
from pipeline.views import crop_region

SIZE = (1024, 768)
KEYS = range(4)


@cache
def planted(key: int) -> tuple[Image.Image, Planted]:
    """A picture as published, and what was put on it: the first of a few that have room."""
    for attempt in range(9):
        drawn = scene(rng_for(key, "sign proof", attempt), SIZE)
        masks = [thing.mask for thing in drawn.objects]
        rng = rng_for(key, "plant", attempt)
        made = plant_signs(Image.fromarray(drawn.image), masks, rng, (224, 672), drawn=True)
        if made.signs:
            return decode(encode(made.image)), made
    raise AssertionError("no room on nine pictures")


def recipe(key: int) -> dict[str, Any]:
    """As it comes out of a row."""
    stored = json.dumps({"kind": "signs", "photo": list(SIZE), **planted(key)[1].recipe})
    return dict(json.loads(stored))


def told(key: int, said: dict[str, Any], question: str) -> str:
    return proven(planted(key)[0], json.dumps(said), question + REFUSALS)


def legible(key: int) -> int:
    return next(n for n, p in enumerate(recipe(key)["plates"]) if not p["smeared"])


@pytest.mark.parametrize("key", KEYS)
def test_every_question_has_the_answer_it_was_made_with(key: int) -> None:
    asked = sign_questions(planted(key)[1].signs, rng_for(key, "ask"), 6)
    text = json.dumps(recipe(key))
    assert is_provable(text) and asked
    found = [proven(planted(key)[0], text, q.text) for q in asked]
    assert found == [q.answer for q in asked]


@pytest.mark.parametrize("key", KEYS)
def test_a_code_with_one_other_character_is_not_proven(key: int) -> None:
    lie = recipe(key)
    plate = lie["plates"][legible(key)]
    digit = next(n for n, c in enumerate(plate["code"]) if c.isdigit())
    other = {"1": "4", "7": "4"}.get(plate["code"][digit], "1")
    plate["code"] = plate["code"][:digit] + other + plate["code"][digit + 1 :]
    assert told(key, lie, READ.format(plate["word"])) == ""
    assert told(key, lie, ABOVE.format(plate["code"])) == ""


@pytest.mark.parametrize("key", KEYS)
def test_another_word_and_a_smear_that_is_none_are_not_proven(key: int) -> None:
    honest = recipe(key)["plates"][legible(key)]
    lie = recipe(key)
    lie["plates"][legible(key)]["word"] = "VALVE" if honest["word"] != "VALVE" else "HUT"
    assert told(key, lie, ABOVE.format(honest["code"])) == ""
    lie = recipe(key)
    lie["plates"][legible(key)]["smeared"] = True
    assert told(key, lie, READ.format(honest["word"])) == ""


def test_a_smeared_code_is_proven_to_be_unreadable_and_no_sign_to_be_absent() -> None:
    for key in range(12):
        said = recipe(key)
        smeared = [p for p in said["plates"] if p["smeared"]]
        if smeared:
            assert told(key, said, READ.format(smeared[0]["word"])) == NOT_READABLE
            break
    else:
        pytest.fail("no picture with a smeared sign")
    words = {p["word"] for p in said["plates"]}
    absent = next(w for w in ("VALVE", "HUT", "SUITE", "PIER", "ZONE", "YARD") if w not in words)
    assert told(key, said, READ.format(absent)) == NO_SIGN
    assert told(key, said, COMPARE.format(absent, words.pop())) == NO_SIGN


def test_signs_that_hang_elsewhere_or_on_another_picture_prove_nothing() -> None:
    said = recipe(0)
    word = said["plates"][legible(0)]["word"]
    moved = copy.deepcopy(said)
    for plate in moved["plates"]:
        plate["quad"] = [[x + 40, y] for x, y in plate["quad"]]
    assert told(0, moved, READ.format(word)) == ""
    noise = np.random.default_rng(1).integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)
    assert proven(Image.fromarray(noise), json.dumps(said), READ.format(word) + REFUSALS) == ""
    small = planted(0)[0].resize((512, 384))
    assert proven(small, json.dumps(said), READ.format(word) + REFUSALS) == ""
    assert told(0, said, "What is written here?") == ""
    assert told(0, said | {"plates": 3}, READ.format(word)) == ""


def test_a_last_look_at_another_place_is_found() -> None:
    text, signs = json.dumps(recipe(0)), signs_of(recipe(0))
    there = signs[0].box
    assert not looked_past(text, "sign_read", [there], crop_region(there, SIZE))
    elsewhere = Box(0, 0, 60, 60) if there.x0 > 200 or there.y0 > 200 else Box(900, 700, 960, 760)
    assert looked_past(text, "sign_read", [there], elsewhere)
    assert looked_past(text, "sign_word", [there], elsewhere)
    assert not looked_past(text, "sign_nearest", [there], elsewhere)
    assert not looked_past("{}", "sign_read", [there], elsewhere)
