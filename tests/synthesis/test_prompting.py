"""Laws of visual prompts: saliency decides the order, levels nest, and what is lacking is told."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.config import Prompts
from pipeline.errors import BadImage
from pipeline.saliency.maps import SIDE
from pipeline.saliency.objects import Prior
from pipeline.samples import Rejection
from pipeline.sources.base import Picture, Region
from pipeline.sources.decode import decode
from pipeline.synthesis.prompting import Prompter, read

SIZE = (160, 120)
JOINTS = tuple(v for n in range(17) for v in (20.0 + 3 * n, 20.0 + 2 * n, 2.0))


class Glow:
    """A network that finds one quarter salient: the left (0) or right (1), upper or lower one."""

    def __init__(self, across: int = 1, down: int = 1) -> None:
        self.map = np.zeros((1, SIDE, SIDE), np.float32)
        half = SIDE // 2
        self.map[0, down * half :, across * half :][:half, :half] = 0.9
        self.asked = 0

    def predict(self, batch: np.ndarray) -> np.ndarray:
        self.asked += 1
        return self.map


class Blind:
    """A network to which all is the same."""

    def predict(self, batch: np.ndarray) -> np.ndarray:
        return np.full((1, SIDE, SIDE), 0.25, np.float32)


class Halves:
    """Finds the left and the right half of any picture; notes what it was given."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []
        self.priors: list[np.ndarray | None] = []
        self._prior: Prior | None = None

    def __call__(self, prior: Prior | None) -> Halves:
        self._prior = prior
        return self

    def propose(self, image: np.ndarray) -> Sequence[np.ndarray]:
        height, width = image.shape[:2]
        self.sizes.append((width, height))
        self.priors.append(None if self._prior is None else self._prior(image))
        left = np.zeros((height, width), bool)
        left[:, : width // 2] = True
        return [left, ~left]


def png(size: tuple[int, int] = SIZE) -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(out, "PNG")
    return out.getvalue()


def region(number: int, x: int, y: int, side: int, **more: Any) -> Region:
    outline = (x, y, x + side, y, x + side, y + side, x, y + side)
    box = Region(SIZE[1], SIZE[0], polygons=(tuple(map(float, outline)),), label="box", id=number)
    return replace(box, **more)


REGIONS = (
    region(7, 4, 4, 40),  # the largest, outside what glows
    region(3, 100, 80, 30, keypoints=JOINTS),
    region(5, 130, 70, 12),
    region(9, 10, 90, 8),
)


def picture(*regions: Region, data: bytes | None = None) -> Picture:
    return Picture("a/1.png", data=png() if data is None else data, source="test", masks=regions)


def prompter(net: Any = None, **settings: Any) -> Prompter:
    asked = Prompts(**{"task": "seg", **settings})
    return Prompter(asked, seed=4, net=net or Glow(), net_sha256="n" * 64)


def pixels(cell: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(cell["bytes"])))


def row(prompter: Prompter, picture: Picture) -> dict[str, Any]:
    (made,) = prompter.prompts(picture)
    assert isinstance(made, dict)
    return made


def reasons(prompter: Prompter, picture: Picture) -> list[tuple[str, str, str]]:
    made = prompter.prompts(picture)
    return [(m.sample_id, m.stage, m.reason) for m in made if isinstance(m, Rejection)]


def test_objects_come_by_the_saliency_inside_them_and_not_by_their_size() -> None:
    made = row(prompter(), picture(*REGIONS))
    assert [one["id"] for one in made["objects"]] == [3, 5, 7, 9]
    assert made["saliency_scores"] == [one["saliency"] for one in made["objects"]]
    assert made["saliency_scores"][0] > made["saliency_scores"][1] > 0
    other = row(prompter(Glow(0, 0)), picture(*REGIONS))
    assert other["objects"][0]["id"] == 7


def test_levels_nest_and_show_every_object_in_its_own_colour() -> None:
    made = row(prompter(levels=3), picture(*REGIONS))
    assert made["level_sizes"] == [2, 3, 4]
    frames = [pixels(frame) for frame in made["frames"]]
    colors = [tuple(one["color"]) for one in made["objects"]]
    for frame, count in zip(frames, made["level_sizes"], strict=True):
        assert frame.shape == (*SIZE[::-1], 3)
        shown = {tuple(int(v) for v in color) for color in frame.reshape(-1, 3)} - {(0, 0, 0)}
        assert shown == set(colors[:count])
    assert all((~a.any(2) | b.any(2)).all() for a, b in pairwise(frames))


def test_the_published_map_tells_the_scores() -> None:
    made = row(prompter(), picture(*REGIONS))
    grey = pixels(made["saliency"])
    assert grey.shape == SIZE[::-1] and grey.dtype == np.uint8 and grey.max() == 255
    x0, y0, x1, y1 = made["objects"][0]["bbox"]
    assert (x0, y0, x1, y1) == (100, 80, 130, 110)
    again = grey[y0:y1, x0:x1].sum() / 255 * made["saliency_peak"]
    assert again == pytest.approx(made["saliency_scores"][0], rel=0.01)


@pytest.mark.parametrize("data", [None, "black"])
def test_a_flat_map_is_said_to_be_flat_and_makes_the_larger_object_the_first(
    data: str | None,
) -> None:
    out = io.BytesIO()
    Image.new("RGB", SIZE).save(out, "PNG")
    found = picture(*REGIONS, data=out.getvalue() if data else None)
    made = row(prompter(Blind()), found)
    assert made["flat_saliency"] and [one["id"] for one in made["objects"]] == [7, 3, 5, 9]
    assert np.isfinite(made["saliency_scores"]).all()
    assert not row(prompter(), found)["flat_saliency"]


def test_a_pose_counts_only_people_with_joints() -> None:
    seg, pose = prompter(task="both").prompts(picture(*REGIONS))
    assert isinstance(seg, dict) and isinstance(pose, dict)
    assert (seg["sample_id"], pose["sample_id"]) == ("a/1.png#seg", "a/1.png#pose")
    assert (seg["num_objects"], pose["num_objects"]) == (4, 1)
    assert pose["level_sizes"] == [1, 1] and pixels(pose["frames"][0]).any()
    assert pose["objects"][0] == next(one for one in seg["objects"] if one["id"] == 3)
    assert seg["image"] == pose["image"]


@pytest.mark.parametrize(
    ("task", "regions", "settings", "told"),
    [
        ("seg", (), {}, [("a/1.png#seg", "task", "no_objects")]),
        ("pose", REGIONS[:1], {}, [("a/1.png#pose", "task", "no_keypoints")]),
        ("both", REGIONS[:1], {}, [("a/1.png#pose", "task", "no_keypoints")]),
        ("seg", REGIONS, {"least_objects": 5}, [("a/1.png#seg", "task", "too_few_objects")]),
        (
            "seg",
            (replace(REGIONS[0], crowd=True),),
            {"crowds": False},
            [("a/1.png#seg", "task", "no_objects")],
        ),
    ],
)
def test_what_a_picture_lacks_is_told(
    task: str, regions: tuple[Region, ...], settings: dict[str, Any], told: list[Any]
) -> None:
    asked = prompter(task=task, **settings)
    assert reasons(asked, picture(*regions)) == told
    assert len(asked.prompts(picture(*regions))) == len(asked.settings.tasks)


def test_the_network_is_not_asked_about_a_picture_with_nothing_to_show() -> None:
    net = Glow()
    assert reasons(prompter(net), picture())
    assert net.asked == 0
    row(prompter(net), picture(*REGIONS))
    assert net.asked == 1


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (picture(*REGIONS, data=b"no picture"), "not_an_image"),
        (picture(*REGIONS, data=png((80, 60))), "bad_annotation"),
        (Picture("a/1.png", error=BadImage("source_changed")), "source_changed"),
    ],
)
def test_a_picture_that_cannot_be_used_is_rejected_for_each_task(
    found: Picture, reason: str
) -> None:
    told = [(f"a/1.png#{task}", "decode", reason) for task in ("seg", "pose")]
    assert reasons(prompter(task="both"), found) == told


def test_a_query_is_kept_without_objects_and_gets_none_proposed() -> None:
    assert not Prompts(role="query").proposes
    made = row(prompter(role="query"), picture())
    assert (made["role"], made["num_objects"], made["frames"]) == ("query", 0, [])
    assert made["level_sizes"] == [] and pixels(made["saliency"]).max() == 255
    marked = row(prompter(role="query"), picture(*REGIONS))
    assert marked["frames"] == row(prompter(), picture(*REGIONS))["frames"]


def test_the_file_is_published_as_found_and_a_drawn_picture_as_encoded() -> None:
    data = png()
    published = read(picture(data=data))
    assert published.data == data and published.image_sha256 == published.source_sha256
    drawn = Picture("1", image=Image.linear_gradient("L").convert("RGB"))
    published = read(drawn)
    assert published.image_sha256 != published.source_sha256
    assert published.seen.tobytes() == decode(published.data).tobytes()


@pytest.mark.parametrize("orientation", [1, 6])
def test_fast_decoding_changes_what_is_seen_and_no_size(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    Image.linear_gradient("L").resize((3000, 2001)).convert("RGB").save(out, "JPEG", exif=exif)
    exact, fast = (read(picture(data=out.getvalue()), how) for how in ("exact", "fast"))
    assert fast.size == exact.size == ((2001, 3000) if orientation == 6 else (3000, 2001))
    assert max(fast.seen.size) < max(fast.size) and exact.seen.size == exact.size


def test_colours_follow_from_the_seed_and_the_picture() -> None:
    def colors(asked: Prompter) -> dict[int, list[int]]:
        return {one["id"]: one["color"] for one in row(asked, picture(*REGIONS))["objects"]}

    assert colors(prompter()) == colors(prompter(Glow(0, 0), levels=3))
    assert len({tuple(color) for color in colors(prompter()).values()}) == len(REGIONS)
    assert colors(prompter()) != colors(replace(prompter(), seed=5))


@pytest.mark.parametrize("size", [(320, 240), (2400, 1600)])
def test_proposals_are_masks_of_the_whole_picture_however_large_it_is(
    size: tuple[int, int],
) -> None:
    found, halves = picture(data=png(size)), Halves()
    asked = prompter(least_salience=0)
    asked = replace(asked, proposer=halves, segmenter_sha256="s" * 64)
    made = row(asked, found)
    middle = size[0] // 2
    assert [one["bbox"] for one in made["objects"]] == [[middle, 0, *size], [0, 0, middle, size[1]]]
    assert max(halves.sizes[0]) == min(max(size), 1024)
    assert made["segmenter"] == "s" * 64 and pixels(made["frames"][-1]).any(axis=2).all()
    assert row(asked, picture(*REGIONS))["segmenter"] is None


def test_what_is_less_salient_than_the_picture_is_proposed_as_ground_and_left_out() -> None:
    def boxes(net: Any, data: bytes | None = None) -> list[list[int]]:
        made = row(replace(prompter(net), proposer=Halves()), picture(data=data))
        return [one["bbox"] for one in made["objects"]]

    assert boxes(Glow(1, 0)) == [[80, 0, 160, 120]]
    assert boxes(Glow(0, 1)) == [[0, 0, 80, 120]]
    assert len(boxes(Blind())) == 2, "a flat map knows no ground"


def test_the_proposer_is_told_what_is_salient_where_the_grid_is_thinned() -> None:
    halves, net = Halves(), Glow()
    for thin, salient in ((True, net), (False, net), (True, Blind())):
        row(replace(prompter(salient, thin=thin), proposer=halves), picture())
    told, *untold = halves.priors
    assert told is not None and (told == net.map[0]).all()
    assert untold == [None, None]
