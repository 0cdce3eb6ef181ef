"""Laws of plates: what is printed is there, legible, muted, and alike on plates of one look."""

from __future__ import annotations

import colorsys
import json

import numpy as np
import pytest
from PIL import Image

from pipeline.samples import rng_for
from pipeline.scenes.fonts import FAMILIES
from pipeline.scenes.imprint import ink
from pipeline.scenes.palettes import KINDS, PALETTES
from pipeline.scenes.plates import (
    LEAST_CONTRAST,
    Look,
    Plate,
    Point,
    draw_look,
    draw_plate,
    fitted,
    toned,
)
from pipeline.scenes.sign_words import FORMS, WORDS, draw_code, draw_lines, form_of

CAP_PX = 40
LINES = [("GATE", "47"), ("AISLE", "3-086"), ("BAY", "B12")]


def look_of(key: int, kind: int | None = None) -> Look:
    return fitted(draw_look(rng_for(4, "look", key), None if kind is None else KINDS[kind]), LINES)


def drawn(look: Look, code: str = "47", *, smeared: bool = False, key: int = 0) -> Plate:
    return draw_plate(look, "GATE", code, CAP_PX, rng_for(4, "plate", key), smeared=smeared)


def patch(plate: Plate, quad: tuple[Point, ...]) -> np.ndarray:
    """Grey levels of a line, float HW."""
    (x0, y0), _, (x1, y1), _ = quad
    grey = plate.image.convert("RGB").convert("L")
    return np.asarray(grey.crop((int(x0), int(y0), int(x1), int(y1))), float)


def luma(color: tuple[int, int, int]) -> float:
    return float(np.dot(color, (0.299, 0.587, 0.114)))


def test_the_same_key_gives_the_same_look_and_bytes() -> None:
    assert look_of(3) == look_of(3) and look_of(3) != look_of(4)
    assert drawn(look_of(3)).image.tobytes() == drawn(look_of(3)).image.tobytes()
    assert drawn(look_of(3), key=1).image.tobytes() != drawn(look_of(3), key=2).image.tobytes()


def test_a_look_comes_back_from_json() -> None:
    for key in range(10):
        look = look_of(key)
        assert Look.of(json.loads(json.dumps(look.describe()))) == look


def test_plates_of_a_look_are_of_one_size_and_hold_their_lines() -> None:
    for key in range(15):
        look = look_of(key)
        width, height = (round(v * CAP_PX) for v in look.size)
        for word, code in LINES:
            plate = draw_plate(look, word, code, CAP_PX, rng_for(0, key))
            assert plate.image.size == (width, height) and plate.image.mode == "RGBA"
            for x, y in (*plate.word_quad, *plate.code_quad):
                assert 0 <= x <= width and 0 <= y <= height
            assert plate.word_quad[2][1] <= plate.code_quad[0][1] + 0.4 * CAP_PX  # word above code


def test_the_word_stands_above_the_code_and_neither_is_condensed_by_much() -> None:
    for key in range(15):
        look = look_of(key)
        plate = drawn(look)
        assert plate.word_quad[0][1] < plate.code_quad[0][1]
        wide = ink("47", look.font, CAP_PX, look.weight).width
        assert plate.code_quad[1][0] - plate.code_quad[0][0] >= wide - 1


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_capitals_have_the_height_asked_for(family: str) -> None:
    for cap_px in (12, 33, 120):
        assert abs(ink("H", family, cap_px).height - cap_px) <= 0.06 * cap_px + 1


def test_ink_stands_out_from_every_kind_of_face() -> None:
    for kind in KINDS:
        for face, letters in PALETTES[kind]:
            assert abs(luma(face) - luma(letters)) >= 255 * LEAST_CONTRAST
    for key in range(20):
        plate = drawn(look_of(key))
        dark, light = np.quantile(patch(plate, plate.code_quad), [0.02, 0.98])
        assert light - dark >= 60


def test_a_toned_look_keeps_its_letters_readable_on_any_face() -> None:
    for level in range(10, 250, 10):
        look = toned(look_of(level), (level, level, level))
        assert look.face == (level, level, level)
        assert abs(luma(look.ink) - level) >= 255 * LEAST_CONTRAST - 1e-6


def test_faces_are_muted() -> None:
    for key in range(60):
        face = look_of(key, key % len(KINDS)).face
        _, saturation, value = colorsys.rgb_to_hsv(*(c / 255 for c in face))
        assert saturation * value < 0.45, face


def test_the_outline_is_opaque_inside_and_rounded_at_corners() -> None:
    for key in range(10):
        look = look_of(key)
        alpha = np.asarray(drawn(look).image.getchannel("A"))
        assert (alpha[alpha.shape[0] // 2] == 255).all()
        assert alpha[0, 0] == 0 or look.corner * CAP_PX < 3
        assert alpha[0, 0] == 255 or look.corner * CAP_PX > 0.5


def test_a_smeared_code_no_longer_tells_which_it_is() -> None:
    """A smeared 47 is no nearer to a clean 47 than to a clean 95."""
    told = []
    for key in range(40):
        look = look_of(key)
        clean = {code: drawn(look, code) for code in ("47", "95")}
        true = "47" if key % 2 else "95"
        rubbed = drawn(look, true, smeared=True)
        quad = clean["47"].code_quad
        score = {}
        for code, plate in clean.items():
            a, b = patch(plate, quad), patch(rubbed, quad)
            score[code] = float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
        told.append(score[true] - score["47" if true == "95" else "95"])
        step = np.ptp(np.quantile(patch(rubbed, quad), [0.02, 0.98]))
        assert step < 0.75 * np.ptp(np.quantile(patch(clean[true], quad), [0.02, 0.98]))
    assert np.mean(np.array(told) > 0.25) < 0.2, told


def test_a_smeared_plate_keeps_its_word() -> None:
    for key in range(10):
        look = look_of(key)
        whole, rubbed = drawn(look), drawn(look, smeared=True)
        a, b = patch(whole, whole.word_quad), patch(rubbed, rubbed.word_quad)
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.9


def test_plates_of_one_look_have_the_same_colours() -> None:
    for key in range(10):
        look = look_of(key)
        means = [
            np.asarray(
                drawn(look, code, key=n).image.convert("RGB").resize((1, 1), Image.Resampling.BOX),
                float,
            )
            for n, code in enumerate(("47", "95", "B12"))
        ]
        assert max(float(np.abs(a - means[0]).max()) for a in means) < 14


def test_every_kind_is_drawn() -> None:
    assert {look_of(key).kind for key in range(60)} == set(KINDS)
    assert all(look_of(0, n).kind == kind for n, kind in enumerate(KINDS))


def test_codes_have_their_form_and_lines_differ() -> None:
    for form in set(FORMS):
        for key in range(20):
            assert form_of(draw_code(form, rng_for(key, form))) == form
    for key in range(20):
        lines = draw_lines(rng_for(4, "lines", key), 6, short=bool(key % 2))
        words, codes = zip(*lines, strict=True)
        assert len(set(words)) == len(set(codes)) == 6
        assert len({form_of(code) for code in codes}) == 1
        assert set(words) <= set(WORDS)
        if key % 2:
            assert max(map(len, words)) <= 4 and max(map(len, codes)) <= 3
