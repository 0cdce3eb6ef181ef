"""Laws of the pocket finder: it finds lines, readable or not, and leaves the rest alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ModelError

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from pipeline.models import pocket_finder, weights  # noqa: E402
from pipeline.models.pocket_finder import Finder, pieces  # noqa: E402
from pipeline.models.pocket_finder_eval import bounds, recall  # noqa: E402
from pipeline.models.pocket_finder_scenes import (  # noqa: E402
    CELL,
    held_out_page,
    training_page,
    truth_maps,
)
from pipeline.models.pocket_finder_scenes import HELD_OUT_SEED as FIRST  # noqa: E402
from pipeline.models.pocket_finder_train import train  # noqa: E402
from pipeline.scenes.lettering import draw_line, warp  # noqa: E402


@pytest.fixture(scope="module")
def finder() -> Finder:
    return pocket_finder.load()


def wall(size: tuple[int, int] = (320, 224)) -> Image.Image:
    grain = np.random.default_rng(0).normal(0, 4, (size[1], size[0], 3))
    return Image.fromarray(np.clip(150 + grain, 0, 255).astype(np.uint8))


def with_line(text: str, cap_px: float, corner: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A wall with a dark line on a light card, and the bounds of its ink, XYXY."""
    picture = wall()
    line = draw_line(text, "hanken-grotesk", cap_px, (25, 30, 40), (225, 220, 210))
    picture.paste(line, corner)
    ink = np.asarray(line.convert("L")) < 125
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    x, y = corner
    return np.asarray(picture), np.array(
        [x + columns[0], y + rows[0], x + columns[-1] + 1, y + rows[-1] + 1], float
    )


@pytest.mark.parametrize("cap_px", [7, 12, 24, 40])
def test_a_line_is_boxed_where_it_is(finder: Finder, cap_px: int) -> None:
    picture, truth = with_line("GATE 47", cap_px, (60, 70))
    found = finder.find(picture)
    assert len(found) == 1
    assert found[0].score > 0.7 and abs(found[0].slope) < 0.1
    reach = np.array([1.0, 0.5, 1.0, 0.5]) * cap_px * 0.7 + 1.5
    assert (np.abs(np.array(found[0].box) - truth) <= reach).all()


def test_a_smudge_of_text_is_found_too(finder: Finder) -> None:
    picture, truth = with_line("MARKET HALL", 4, (100, 90))
    (line,) = finder.find(picture)
    x, y = (truth[0] + truth[2]) / 2, (truth[1] + truth[3]) / 2
    assert line.box[0] < x < line.box[2] and line.box[1] < y < line.box[3]


def test_an_empty_wall_and_plain_things_hold_no_text(finder: Finder) -> None:
    assert finder.find(np.asarray(wall())) == []
    for level in (0, 128, 255):
        assert finder.find(np.full((100, 130, 3), level, np.uint8)) == []
    picture = wall()
    picture.paste((200, 30, 30), (40, 40, 120, 130))
    picture.paste((30, 60, 200), (180, 60, 260, 90))
    assert finder.find(np.asarray(picture)) == []


def test_a_tilted_line_has_its_slope(finder: Finder) -> None:
    picture, _ = with_line("PLATFORM", 18, (90, 100))
    turned = np.asarray(warp(Image.fromarray(picture), tilt_rad=0.12, fill=150))
    (line,) = finder.find(turned)
    assert line.slope == pytest.approx(0.12, abs=0.05)


def test_most_lines_of_held_out_pictures_are_found(finder: Finder) -> None:
    pages = [held_out_page(seed, (448, 448)) for seed in range(FIRST, FIRST + 12)]
    shares = [recall(finder.find(page.image), page, 448) for page in pages if page.quads]
    assert np.mean(shares) > 0.7


def test_boxes_lie_inside_views_of_any_size(finder: Finder) -> None:
    for size in ((1, 1), (33, 70), (448, 300)):
        width, height = size
        view = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
        for line in finder.find(view, least_score=0.0):
            x0, y0, x1, y1 = line.box
            assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height


def test_pieces_touch_and_are_all() -> None:
    mask = np.zeros((6, 8), bool)
    mask[0, 0] = mask[1, 1] = mask[2, 2] = True
    mask[5, 4:7] = True
    found = pieces(mask)
    assert [list(zip(*map(np.ndarray.tolist, piece), strict=True)) for piece in found] == [
        [(0, 0), (1, 1), (2, 2)],
        [(5, 4), (5, 5), (5, 6)],
    ]
    assert pieces(np.zeros((4, 4), bool)) == []


def test_truth_is_on_the_lines_and_tells_their_sides() -> None:
    for index in range(6):
        page = training_page(2, index)
        core, weight, distances = truth_maps(page)
        rows, columns = np.nonzero(core)
        assert ((core == 0) | (weight == 1)).all()
        boxes = [bounds(quad, 256) for quad in page.quads]
        for row, column in zip(rows, columns, strict=True):
            x, y = (column + 0.5) * CELL, (row + 0.5) * CELL
            assert any(x0 - 2 <= x <= x1 + 2 and y0 - 4 <= y <= y1 + 4 for x0, y0, x1, y1 in boxes)
        assert (distances[:, core == 0] == 0).all()
        assert (distances[1] + distances[3])[core > 0].min(initial=9) > 1


def test_pages_are_keyed() -> None:
    one, again = training_page(7, 3), training_page(7, 3)
    assert np.array_equal(one.image, again.image) and one.quads == again.quads
    assert not np.array_equal(one.image, training_page(8, 3).image)


def test_the_shipped_weights_are_small_and_say_where_they_are_from() -> None:
    path = weights.find("pocket-finder")
    assert path.stat().st_size <= 1_000_000
    with safe_open(path, "pt") as file:
        facts = file.metadata()
    assert facts["variant"] == "pocket_finder" and int(facts["images"]) > 5_000
    assert len(facts["generator"]) == 32


def test_a_missing_checkpoint_is_an_error() -> None:
    with pytest.raises(ModelError, match="no checkpoint"):
        pocket_finder.load("nowhere.safetensors")


def test_training_changes_weights_and_repeats(tmp_path: Path) -> None:
    one, again = (load_file(train(tmp_path / name, seed=3, images=16, workers=1)) for name in "ab")
    torch.manual_seed(3)
    began = pocket_finder.PocketFinder().state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["net.head.3.weight"], began["net.head.3.weight"].half())
