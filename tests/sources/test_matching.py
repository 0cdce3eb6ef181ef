"""Laws of matching: a picture is found whole, altered, cut and pasted, and no other one is."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipeline.sources.fingerprints import Fingerprint, fingerprint, fingerprint_of
from pipeline.sources.matching import Index, proven
from pipeline.sources.overlay import WHOLE as WHOLE_LAY
from pipeline.sources.overlay import Lay, agreement, covered, laid_by
from tests.sources.alterations import PARTS, WHOLE, drawn, part, quarters
from tests.sources.pictures import encoded

COUNT = 8


@pytest.fixture(scope="module")
def prints() -> list[Fingerprint]:
    return [fingerprint(encoded(drawn(number))) for number in range(COUNT)]


@pytest.fixture(scope="module")
def index(prints: list[Fingerprint]) -> Index:
    return Index(prints)


@pytest.mark.parametrize("name", WHOLE)
def test_every_altered_picture_is_found_and_is_near(name: str, index: Index) -> None:
    for number in range(COUNT):
        (match,) = index.matches(fingerprint_of(WHOLE[name](drawn(number))))
        assert (match.number, match.how) == (number, "near")
        assert match.score > 0.8


@pytest.mark.parametrize("name", ["2/3 of each side", "1/2 of each side", "in a collage"])
def test_a_part_of_a_picture_and_a_picture_around_one_are_crops(name: str, index: Index) -> None:
    for number in range(0, COUNT, 3):
        (match,) = index.matches(fingerprint_of(PARTS[name](drawn(number))))
        assert (match.number, match.how) == (number, "crop")


def test_the_same_bytes_and_the_same_pixels_are_known_by_digest(index: Index) -> None:
    (match,) = index.matches(fingerprint(encoded(drawn(5))))
    assert (match.number, match.how, match.score) == (5, "exact", 1.0)
    (match,) = index.matches(fingerprint(encoded(drawn(5), "BMP")))
    assert (match.number, match.how) == (5, "pixels")
    plain = Image.new("RGB", (64, 64), (9, 9, 9))
    (match,) = Index([fingerprint(encoded(plain))]).matches(fingerprint(encoded(plain, "BMP")))
    assert match.how == "pixels"


def test_unrelated_pictures_are_not_the_same(prints: list[Fingerprint], index: Index) -> None:
    for number, one in enumerate(prints):
        assert index.matches(one, before=number) == []


def test_little_detail_must_agree_better_and_in_more_places() -> None:
    assert proven(0.7, pixels=40, places=4) and not proven(0.69, pixels=128, places=60)
    assert proven(0.85, pixels=39, places=7)
    assert not proven(0.84, pixels=39, places=60)
    assert not proven(1.0, pixels=39, places=6)


def test_parts_that_share_no_pixel_are_not_the_same() -> None:
    cut = [fingerprint_of(q) for n in range(3) for q in quarters(drawn(n))]
    index = Index(cut)
    assert [index.matches(one, before=number) for number, one in enumerate(cut)] == [[]] * 12


def test_what_is_painted_on_a_picture_does_not_hide_it(index: Index) -> None:
    for number in range(0, COUNT, 4):
        image = drawn(number).copy()
        image.paste(drawn(number + 1).resize((60, 50)), (20, 90))
        image.paste((255, 255, 255), (150, 10, 200, 40))
        found = [match.number for match in index.matches(fingerprint_of(image))]
        assert number in found


def test_pages_with_one_layout_and_other_pictures_are_not_the_same() -> None:
    frame = drawn(0).resize((448, 336))
    pages = []
    for number in range(1, 4):
        page = frame.copy()
        page.paste(drawn(number).resize((400, 250)), (24, 60))
        pages.append(fingerprint_of(page))
    index = Index(pages)
    assert [index.matches(one, before=number) for number, one in enumerate(pages)] == [[]] * 3


def test_an_empty_set_matches_nothing() -> None:
    assert Index([]).matches(fingerprint_of(drawn(0))) == []


def test_a_lay_is_found_from_places_among_which_others_lie() -> None:
    rng = np.random.default_rng(0)
    ours = np.column_stack([rng.random((20, 2)), np.full(20, -9.0)])
    theirs = ours.copy()
    theirs[:, :2] = 0.5 * ours[:, :2] + (0.2, 0.1)
    theirs[:, 2] = -10
    theirs[12:, :2] = rng.random((8, 2))
    move = laid_by(ours, theirs, 4)
    assert move is not None
    lay = move.to_shares((400, 200), (400, 200))
    assert np.allclose((lay.x0, lay.y0, lay.x1, lay.y1), (0.2, 0.2, 0.7, 0.7), atol=0.01)
    assert laid_by(ours[12:], theirs[12:], 4) is None
    assert laid_by(ours[:1], theirs[:1], 4) is None


def test_shares_of_an_overlap_are_of_both_pictures() -> None:
    assert covered(WHOLE_LAY) == (1.0, 1.0)
    assert covered(Lay(0.25, 0.25, 0.75, 0.75)) == (1.0, 0.25)
    assert covered(Lay(-1, 0, 1, 1)) == (0.5, 1.0)
    assert covered(Lay(2, 2, 3, 3)) == (0.0, 0.0)


def test_agreement_is_of_the_overlap_and_not_of_brightness() -> None:
    image = drawn(6).convert("L").resize((128, 128))
    thumb = np.asarray(image)
    assert agreement(thumb, thumb // 2 + 40, WHOLE_LAY) > 0.98
    cut = np.asarray(part(image, 0.25, 0.25, 0.75, 0.75).resize((128, 128)))
    assert agreement(cut, thumb, Lay(0.25, 0.25, 0.75, 0.75)) > 0.9
    assert agreement(cut, thumb, WHOLE_LAY) < 0.5
    assert agreement(thumb, np.asarray(drawn(7).convert("L").resize((128, 128))), WHOLE_LAY) < 0.3
    flat = np.full((128, 128), 77, np.uint8)
    assert agreement(flat, flat, WHOLE_LAY) == 0.0
