"""Laws of the adapter: which pixels a line's reading comes from, and when it is clear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image

from pipeline.agent.pocket_reader import MARGINS, PocketReader, build_reader, cut_line
from pipeline.scenes.lettering import draw_line, warp
from pipeline.views import ViewBox

CLEAR = 0.6
PAPER = (225, 220, 210)


@dataclass
class Said:
    text: str
    confidence: float


@dataclass
class Spot:
    box: ViewBox
    slope: float = 0.0
    score: float = 0.9


@dataclass
class FakeReader:
    """Says the next answer for each crop, and keeps the crops."""

    answers: list[Said]
    crops: list[np.ndarray] = field(default_factory=list)

    def read(self, lines: Sequence[np.ndarray]) -> list[Said]:
        self.crops += lines
        return [self.answers[len(self.crops) - len(lines) + n] for n in range(len(lines))]


@dataclass
class FakeFinder:
    spots: list[Spot]
    views: list[np.ndarray] = field(default_factory=list)

    def find(self, view: np.ndarray) -> list[Spot]:
        self.views.append(view)
        return self.spots


def page(text: str = "GATE 47", cap_px: float = 20) -> tuple[np.ndarray, ViewBox]:
    """A picture (160 × 300) with a dark line, and the bounds of its ink."""
    picture = Image.new("RGB", (300, 160), PAPER)
    picture.paste(draw_line(text, "open-sans", cap_px, (20, 20, 30), PAPER), (60, 50))
    pixels = np.asarray(picture)
    ys, xs = np.nonzero(pixels[..., 0] < 120)
    return pixels, (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


def read(spots: list[Spot], answers: list[Said], box: ViewBox) -> tuple[PocketReader, FakeReader]:
    reader = FakeReader(answers)
    return PocketReader(reader, FakeFinder(spots), CLEAR), reader


def test_a_cut_holds_the_line_and_the_margin_asked_for() -> None:
    pixels, ink = page()
    tall = ink[3] - ink[1]
    for margin in MARGINS:
        crop = cut_line(pixels, ink, 0.0, margin)
        assert crop.shape[0] == round(tall * (1 + 2 * margin))
        rows = np.flatnonzero((crop[..., 0] < 120).any(1))
        assert rows[0] == pytest.approx(margin * tall, abs=1.5)
        assert rows[-1] + 1 - rows[0] == pytest.approx(tall, abs=1.5)


def test_a_falling_line_is_cut_level() -> None:
    pixels, _ = page("HHHHHHHH")
    turned = np.asarray(warp(Image.fromarray(pixels), tilt_rad=0.15))
    ys, xs = np.nonzero((turned[..., 0] < 90) & (turned[..., 2] > 0))
    near = (xs > 40) & (xs < 260) & (ys > 20) & (ys < 140)
    box = (xs[near].min(), ys[near].min(), xs[near].max() + 1, ys[near].max() + 1)
    level = cut_line(turned, box, float(np.tan(0.15)), 0.3)
    askew = cut_line(turned, box, 0.0, 0.3)

    def ink_of(crop: np.ndarray) -> np.ndarray:
        return (crop[..., 0] < 120) & (crop[..., 2] > 0)

    assert ink_of(level).any(1).sum() < 0.75 * ink_of(askew).any(1).sum()
    assert ink_of(level).sum() > 0.95 * ((turned[..., 0] < 120) & (turned[..., 2] > 0)).sum()


def test_a_cut_at_the_rim_goes_on_with_the_rim() -> None:
    pixels, _ = page()
    crop = cut_line(pixels, (-6.0, -4.0, 30.0, 10.0), 0.1, 0.4)
    assert crop.dtype == np.uint8 and (crop == np.array(PAPER)).all()


def test_lines_are_read_from_above_to_below_and_joined() -> None:
    box = (10.0, 10.0, 200.0, 110.0)
    spots = [Spot((20, 50, 90, 70)), Spot((20, 12, 90, 32))]  # of the part around the box
    said = [Said("WING", 0.9), Said("WING", 0.8), Said("3F7", 0.9), Said("3f7", 0.7)]
    tools, _ = read(spots, said, box)
    lines = tools.read_lines(page()[0], box)
    assert [line.text for line in lines] == ["WING", "3F7"]
    assert [line.confidence for line in lines] == pytest.approx([0.85, 0.8])
    tools, _ = read(spots, said, box)
    whole = tools.read(page()[0], box)
    assert whole.text == "WING 3F7" and whole.confidence == pytest.approx(0.8)


def test_cuts_that_disagree_lower_the_confidence_and_a_doubt_makes_it_unclear() -> None:
    box = (10.0, 10.0, 200.0, 110.0)
    tools, _ = read([], [Said("3F7", 0.9), Said("8F7", 0.8)], box)
    (line,) = tools.read_lines(page()[0], box)
    assert line.confidence == pytest.approx(0.45) and line.confidence < CLEAR
    assert not line.clear and line.text == "" and line.guess == "3F7"
    tools, _ = read([Spot((5, 5, 80, 20)), Spot((5, 30, 80, 45))], [Said("A", 0.9)] * 4, box)
    assert tools.read(page()[0], box).clear
    doubt = [Said("A", 0.9), Said("A", 0.9), Said("B", 0.2), Said("B", 0.2)]
    tools, _ = read([Spot((5, 5, 80, 20)), Spot((5, 30, 80, 45))], doubt, box)
    whole = tools.read(page()[0], box)
    assert not whole.clear and whole.guess == "A B"


def test_nothing_to_read_is_unclear_without_a_guess() -> None:
    tools, _ = read([], [Said("", 0.0)] * 2, (0, 0, 9, 9))
    reading = tools.read(page()[0], (10.0, 10.0, 60.0, 40.0))
    assert (reading.text, reading.confidence, reading.guess) == ("", 0.0, "")


def test_without_a_line_the_box_itself_is_read() -> None:
    pixels, ink = page()
    tools, reader = read([], [Said("X", 0.6)] * 2, ink)
    assert tools.lines_in(pixels, ink) == [(ink, 0.0)]
    tools.read(pixels, ink)
    assert len(reader.crops) == len(MARGINS)


def test_lines_outside_the_box_are_left_alone_and_only_its_surroundings_are_seen() -> None:
    pixels, _ = page()
    box = (100.0, 60.0, 160.0, 90.0)
    finder = FakeFinder([Spot((40, 20, 90, 40)), Spot((0, 0, 30, 12))])
    tools = PocketReader(FakeReader([]), finder, CLEAR)
    assert len(tools.lines_in(pixels, box)) == 1
    (seen,) = finder.views
    assert seen.shape[0] <= 30 * 2.2 + 2 and seen.shape[1] <= 60 * 2.2 + 2


@pytest.mark.parametrize("box", [(-20.0, -20.0, -5.0, -5.0), (290.0, 150.0, 400.0, 300.0)])
def test_a_box_at_or_beyond_the_rim_is_no_error(box: ViewBox) -> None:
    tools, _ = read([], [Said("", 0.0)] * 2, box)
    assert not tools.read(page()[0], box).clear


@pytest.mark.torch
def test_two_lines_of_a_tilted_card_are_read_by_the_shipped_networks() -> None:
    picture = Image.new("RGB", (320, 240), (120, 130, 125))
    for row, text in enumerate(("STATION", "KX-902")):
        line = draw_line(text, "open-sans", 22, (20, 24, 40), (228, 226, 218))
        picture.paste(line, (70, 70 + row * line.height))
    turned = np.asarray(warp(picture, tilt_rad=0.08))
    lines = build_reader().read_lines(turned, (60.0, 55.0, 250.0, 175.0))
    assert [line.guess for line in lines] == ["STATION", "KX-902"]
    assert all(line.confidence > 0.5 for line in lines)
