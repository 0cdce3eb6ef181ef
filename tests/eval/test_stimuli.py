"""Laws of the pictures: what is asked of a print is what is drawn."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.agent.encoding import encoded
from pipeline.agent.families import FAMILIES
from pipeline.errors import ConfigError
from pipeline.eval.stimuli import (
    FACTORS,
    SHAPE,
    Canvas,
    Item,
    Stimulus,
    base,
    canvas,
    first_size,
    items,
    side_of,
    stimulus,
)
from pipeline.geometry import view_size
from pipeline.scenes.tags import ALPHABET, COLORS
from pipeline.views import first_view

ON, SMALL = canvas(672), canvas(448)
LUMA = np.array([0.299, 0.587, 0.114])


def label(drawn: Stimulus) -> np.ndarray:
    """Grey values of the label's box, float HW."""
    box = tuple(int(v) for v in drawn.box.as_list())
    return np.asarray(drawn.image.crop(box), float) @ LUMA


def ink_in(grey: np.ndarray, least: float = 0.5) -> np.ndarray:
    """Where there is more ink than fill, inside the outline: bool HW."""
    side = grey.shape[0]
    ys, xs = np.indices(grey.shape)
    inner = np.hypot(ys - side / 2, xs - side / 2) < 0.42 * side
    fill, darkest = np.median(grey[inner]), grey[inner].min()
    return inner & (grey < fill - least * (fill - darkest))


def height_of(ink: np.ndarray) -> int:
    rows = np.flatnonzero(ink.any(1))
    return int(rows[-1] - rows[0] + 1)


@pytest.mark.parametrize("height", FACTORS["height_px"])
def test_capitals_are_as_high_as_asked_in_the_picture_as_sent(height: float) -> None:
    for number in range(4):
        drawn = stimulus(Item("height_px", height, number), ON, 0)
        assert height_of(ink_in(label(drawn))) * ON.scale == pytest.approx(height, abs=1)


@pytest.mark.parametrize("family", [None, "llava", "qwen3-vl", "internvl"])
def test_the_height_holds_in_the_pixels_that_a_model_is_sent(family: str | None) -> None:
    view = first_size(672)
    seen = FAMILIES[family].seen(view) if family else view
    on = canvas(672, (min(view[0], seen[0]), min(view[1], seen[1])))
    drawn = stimulus(Item("height_px", 16, 3), on, 0)
    pixels = first_view(drawn.image, 672).pixels
    if family:
        pixels = np.asarray(Image.open(io.BytesIO(encoded(pixels, FAMILIES[family]).jpeg)))
    assert pixels.shape[:2] == on.sent[::-1]
    x0, y0, x1, y1 = (round(v * on.scale) for v in drawn.box.as_list())
    grey = (pixels.astype(float) @ LUMA)[y0:y1, x0:x1]
    assert height_of(ink_in(grey[: x1 - x0, : y1 - y0])) == pytest.approx(16, abs=1)


@pytest.mark.parametrize("contrast", FACTORS["contrast"])
def test_the_contrast_of_ink_and_label_is_as_asked(contrast: float) -> None:
    for number in range(4):
        grey = label(stimulus(Item("contrast", contrast, number), ON, 0))
        side = grey.shape[0]
        ys, xs = np.indices(grey.shape)
        out = np.hypot(ys - side / 2, xs - side / 2) / side
        dark, light = grey[out < 0.4].min(), np.median(grey[(out > 0.41) & (out < 0.45)])
        assert (light - dark) / (light + dark) == pytest.approx(contrast, abs=0.01)


@pytest.mark.parametrize("tilt", FACTORS["tilt_deg"])
def test_the_line_of_print_is_turned_as_asked_to_either_side(tilt: float) -> None:
    turns = []
    for number in range(6):
        ys, xs = np.nonzero(ink_in(label(stimulus(Item("tilt_deg", tilt, number), ON, 0))))
        angles = np.radians(np.arange(-60, 61))[:, None]
        heights = np.ptp(ys * np.cos(angles) - xs * np.sin(angles), axis=1)
        turns.append(int(heights.argmin()) - 60)  # a line is lowest seen along itself
        assert heights.min() * ON.scale == pytest.approx(16, abs=1)
    assert np.abs(turns) == pytest.approx(tilt, abs=4)
    if tilt:
        assert min(turns) < 0 < max(turns)


def test_the_same_key_gives_the_same_pixels_and_another_key_others() -> None:
    for item in (Item("clutter", "textured", 3), Item("clutter", "crowded", 3)):
        first, again = stimulus(item, SMALL, 5), stimulus(item, SMALL, 5)
        assert first.image.tobytes() == again.image.tobytes()
        assert (first.code, first.box) == (again.code, again.box)
        other = stimulus(item, SMALL, 6)
        assert other.image.tobytes() != first.image.tobytes()
    codes = {stimulus(Item("contrast", 0.8, n), ON, 0).code for n in range(12)}
    assert len(codes) > 10 and all(set(code) <= set(ALPHABET) for code in codes)


@pytest.mark.parametrize("clutter", ["none", "crowded"])
def test_clutter_leaves_the_label_whole_and_the_question_without_a_second_answer(
    clutter: str,
) -> None:
    for number in range(6):
        drawn = stimulus(Item("clutter", clutter, number), SMALL, 0)
        color = next(c for c in COLORS if f"the {c} {SHAPE}?" in drawn.question)
        assert f"{color} {SHAPE}" not in drawn.others
        assert len(drawn.others) == len(set(drawn.others))
        assert len(drawn.others) >= 6 if clutter == "crowded" else not drawn.others
        grey = label(drawn)
        ys, xs = np.indices(grey.shape)
        out = np.hypot(ys - len(grey) / 2, xs - len(grey) / 2) / len(grey)
        fill = np.dot(COLORS[color], LUMA)
        assert grey[(out > 0.4) & (out < 0.45)] == pytest.approx(fill, abs=1)
        assert np.ptp(grey[out > 0.52]) < 1, "something comes too near"


def test_crowded_and_textured_grounds_are_busier_than_plain_ones() -> None:
    def edges(clutter: str) -> float:
        pixels = np.asarray(
            stimulus(Item("clutter", clutter, 0), SMALL, 0).image.convert("L"), float
        )
        return float(np.abs(np.diff(pixels, axis=1)).mean())

    assert 5 * edges("none") < min(edges("textured"), edges("crowded"))


@pytest.mark.parametrize("resolution", [280, 448, 672, 1000, 1024, 1920])
def test_the_whole_source_is_sent_at_the_size_that_was_planned(resolution: int) -> None:
    on = canvas(resolution)
    assert view_size(on.source, resolution) == on.sent
    assert on.scale == pytest.approx(0.25)


def test_the_tallest_print_keeps_its_room_or_the_budget_is_refused() -> None:
    assert side_of(32, canvas(280)) <= 0.75 * min(canvas(280).source)
    with pytest.raises(ConfigError, match="no room"):
        canvas(200)


def test_a_sweep_changes_one_thing_at_a_time() -> None:
    made = items(tuple(FACTORS), 2)
    assert len({item.key for item in made}) == len(made) == 2 * sum(map(len, FACTORS.values()))
    plain = Item("tilt_deg", 0, 0).condition
    for item in made:
        how = item.condition
        changed = [name for name in FACTORS if getattr(how, name) != getattr(plain, name)]
        assert changed in ([], [item.factor])
    assert f"{plain.height_px:g} pixels" in base()
    with pytest.raises(ConfigError, match="height_px"):
        items(("hight_px",), 1)


def test_another_canvas_is_another_picture_of_the_same_code() -> None:
    item = Item("height_px", 8, 0)
    small = Canvas(ON.source, (ON.sent[0] // 2, ON.sent[1] // 2))
    assert stimulus(item, ON, 0).box.width * 2 == stimulus(item, small, 0).box.width
