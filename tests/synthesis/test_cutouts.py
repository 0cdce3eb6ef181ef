"""Cut-outs are whole objects: in one piece, not cut off by what was segmented, where they are."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ConfigError
from pipeline.geometry import Box
from pipeline.samples import rng_for
from pipeline.sources.base import Picture, Region
from pipeline.synthesis.cutouts import ENOUGH, WINDOWS, Outliner, cutouts

SIZE = (640, 480)
IMAGE = Image.new("RGB", SIZE)


class Found:
    def __init__(self, mask: np.ndarray) -> None:
        self.mask = mask


class Draws:
    """Finds the given boxes in whatever it is shown."""

    def __init__(self, *boxes: tuple[int, int, int, int]) -> None:
        self.boxes = boxes
        self.seen: list[tuple[int, ...]] = []

    def automatic(self, image: np.ndarray, *, limit: int | None = None) -> list[Found]:
        self.seen.append(image.shape)
        mask = np.zeros(image.shape[:2], bool)
        for x0, y0, x1, y1 in self.boxes:
            mask[y0:y1, x0:x1] = True
        return [Found(mask)]


def found(outliner: Outliner | None, *regions: Region, key: int = 0) -> list[Box]:
    picture = Picture("p", image=IMAGE, masks=regions)
    return [cut.box for cut in cutouts(picture, IMAGE, outliner, rng_for(1, "cut", key))]


def region(width: int, height: int) -> Region:
    return Region(height, width, None, ((50, 50, 90, 50, 90, 100, 50, 100),))


def test_an_object_lies_in_the_picture_where_its_part_does() -> None:
    outliner = Draws((20, 30, 60, 80))
    boxes = found(outliner)
    assert len(boxes) == len(outliner.seen) == WINDOWS < ENOUGH
    assert all((box.width, box.height) == (40, 50) for box in boxes)
    assert all(Box(0, 0, *SIZE).contains(box) for box in boxes)
    quarters = {(box.x0 >= 320, box.y0 >= 240) for box in boxes}
    assert len(quarters) >= 3


@pytest.mark.parametrize("box", [(0, 30, 60, 80), (20, 0, 60, 80), (100, 30, 999, 80)])
def test_what_a_part_s_edge_cuts_off_is_left_out(box: tuple[int, int, int, int]) -> None:
    assert found(Draws(box)) == []


def test_a_mask_in_two_pieces_and_an_empty_one_are_left_out() -> None:
    assert found(Draws((20, 20, 40, 40), (80, 20, 100, 40))) == []
    assert found(Draws()) == []


def test_the_source_s_masks_spare_the_segmenter_where_they_are_of_this_picture() -> None:
    outliner = Draws((20, 30, 60, 80))
    assert found(outliner, region(*SIZE)) == [Box(50, 50, 90, 100)]
    assert not outliner.seen
    assert found(outliner, region(320, 240)) and outliner.seen


def test_without_masks_and_without_a_segmenter_it_says_so() -> None:
    with pytest.raises(ConfigError, match="segmenter"):
        found(None)
