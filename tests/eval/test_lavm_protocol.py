"""Laws of what a LAVM is asked and how its frames are measured: pure functions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ConfigError
from pipeline.eval.lavm_protocol import (
    LavmProtocol,
    joint_recall,
    measured,
    placed,
)
from pipeline.eval.token_cache import cropped
from pipeline.visual_prompt import coco_to_openpose, render_pose

JOINTS = [v for n in range(17) for v in (30 + 3 * n, 15 + 4 * n, 2)]


def _pose(people: list[list[float]], size: tuple[int, int] = (256, 256)) -> np.ndarray:
    return render_pose(size, [coco_to_openpose(person) for person in people])


PERSON = [float(v) for n in range(17) for v in (40 + 10 * n, 60 + 40 * (n % 4), 2)]


def test_a_joint_is_found_where_its_own_colour_is_near_its_place_and_nowhere_else() -> None:
    truth, black = _pose([PERSON]), np.zeros((256, 256, 3), np.uint8)
    assert joint_recall(truth, truth, [PERSON]) == 1.0
    assert joint_recall(black, truth, [PERSON]) == 0.0
    near = np.roll(truth, 6, axis=1)
    far = np.roll(truth, 40, axis=1)
    assert joint_recall(near, truth, [PERSON]) == 1.0
    assert joint_recall(far, truth, [PERSON]) < 0.3  # type: ignore[operator]
    swapped = truth[..., ::-1]
    assert 0.0 < joint_recall(swapped, truth, [PERSON]) < 0.5  # type: ignore[operator]
    assert joint_recall(truth, black, [PERSON]) is None, "a joint that the truth hides is no miss"
    assert joint_recall(truth, truth, []) is None


@pytest.mark.parametrize("view", ["crop", "squash"])
@pytest.mark.parametrize("size", [(320, 200), (200, 320), (256, 256)])
def test_keypoints_go_where_their_pixels_go(size: tuple[int, int], view: Any) -> None:
    from pipeline.eval.token_cache import squashed

    image = Image.new("RGB", size)
    spots = [(size[0] * 0.4, size[1] * 0.45), (size[0] * 0.6, size[1] * 0.7)]
    for x, y in spots:
        image.paste((255, 255, 255), (int(x) - 4, int(y) - 4, int(x) + 5, int(y) + 5))
    seen = np.asarray((cropped if view == "crop" else squashed)(image, 128)).max(-1)
    joints = placed([v for x, y in spots for v in (x, y, 2)], size, 128, view)
    for x, y in zip(joints[0::3], joints[1::3], strict=True):
        assert seen[round(y), round(x)] > 200
    assert joints[2::3] == [2.0, 2.0]


def test_what_is_not_defined_has_no_value_and_is_not_zero() -> None:
    told = LavmProtocol("p", "q", "m", "t")
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 99, np.uint8)
    empty = measured(told, black, black, [black], [])
    assert (empty["iou"], empty["foreground_acc"], empty["exemplar_iou"]) == (None, None, None)
    assert (empty["pixel_acc"], empty["black_rate"]) == (1.0, 1.0)
    found = measured(told, black, white, [white, black], [])
    assert (found["iou"], found["exemplar_iou"]) == (0.0, 0.5)
    dark = measured(replace(told, threshold=120), white, white, [white], [])
    assert dark["iou"] is None, "the threshold says what is foreground"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"methods": ("chain", "chain")}, "each one once"),
        ({"methods": ("chian",)}, "no method"),
        ({"variant": "gpt"}, "no variant"),
        ({"k": 0}, "counted from 1"),
        ({"limit": 0}, "counted from 1"),
        ({"shortlist": 1, "k": 2}, "shortlist of 1"),
        ({"threshold": 255}, "0 to 254"),
    ],
)
def test_what_cannot_be_asked_is_refused(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        LavmProtocol("p", "q", "m", "t", **wrong)
