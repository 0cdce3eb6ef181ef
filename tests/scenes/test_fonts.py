"""Laws of the table of fonts."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.errors import ConfigError
from pipeline.scenes import fonts
from pipeline.scenes.fonts import BOLD, FAMILIES, HELD_OUT, REGULAR, TRAINING, Family, face
from pipeline.scenes.lettering import CHARACTERS

ROOT = Path(__file__).parents[2]


def pixels(name: str, text: str, weight: int = REGULAR) -> np.ndarray:
    canvas = Image.new("L", (60 * len(text), 80))
    ImageDraw.Draw(canvas).text((10, 60), text, fill=255, font=face(name, 40, weight), anchor="ls")
    return np.asarray(canvas)


def test_training_and_held_out_families_share_nothing_and_are_all() -> None:
    assert not set(TRAINING) & set(HELD_OUT)
    assert {*TRAINING, *HELD_OUT} == set(FAMILIES)
    kinds = {FAMILIES[name].kind for name in TRAINING}
    assert kinds >= {"sans", "serif", "mono", "condensed", "hand"}
    assert len({FAMILIES[name].kind for name in HELD_OUT}) >= 3


@pytest.mark.parametrize("name", FAMILIES)
def test_every_character_has_a_form_of_its_own(name: str) -> None:
    unknown = pixels(name, "\N{SNOWMAN}")
    drawn = {char: pixels(name, char).tobytes() for char in CHARACTERS.strip()}
    assert unknown.tobytes() not in drawn.values()
    letters = [c for c in drawn if c.isalnum() and (c.isupper() or not FAMILIES[name].caps_only)]
    alike = {"I", "l", "O", "0", "o"}
    told_apart = {drawn[c] for c in letters if c not in alike}
    assert len(told_apart) == len([c for c in letters if c not in alike])
    assert all(np.frombuffer(form, np.uint8).any() for form in drawn.values())


@pytest.mark.parametrize("name", [n for n, f in FAMILIES.items() if len(f.weights) > 1])
def test_bold_has_more_ink(name: str) -> None:
    assert pixels(name, "HAMBURG", BOLD).sum() > 1.1 * pixels(name, "HAMBURG").sum()


def test_families_look_different() -> None:
    drawn = {name: pixels(name, "Rag3").tobytes() for name in FAMILIES}
    assert len(set(drawn.values())) == len(FAMILIES)


def test_a_face_is_the_same_each_time() -> None:
    assert np.array_equal(pixels("oswald", "AB12", BOLD), pixels("oswald", "AB12", BOLD))


def test_an_unknown_family_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="lora"):
        face("lorra", 20)


def test_a_missing_package_is_an_error_that_names_it_and_never_another_font(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = {REGULAR: "files/Gone.ttf"}
    gone = Family("gone", "sans", "font-gone", "OFL-1.1", "font_gone", files)
    monkeypatch.setitem(fonts.FAMILIES, "gone", gone)
    with pytest.raises(ConfigError, match="pip install font-gone"):
        face("gone", 20)
    broken = Family("gone", "sans", "font-manrope", "OFL-1.1", "font_manrope", files)
    monkeypatch.setitem(fonts.FAMILIES, "gone", broken)
    with pytest.raises(ConfigError, match="pip install font-manrope"):
        face("gone", 20)


def test_every_package_is_a_dependency_and_every_licence_is_written_down() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[<>=\[]", line)[0] for line in project["dependencies"]}
    listed = (ROOT / "docs" / "fonts.md").read_text()
    for family in FAMILIES.values():
        assert family.package in needed
        row = next(line for line in listed.splitlines() if line.startswith(f"| `{family.name}`"))
        assert family.licence in row
        assert ("held out" in row) == family.held_out
