"""Laws of visual prompts: nesting frames, flat colours, and people drawn as OpenPose draws them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.geometry import Box
from pipeline.visual_prompt import (
    JOINT_COLORS,
    LIMBS,
    PALETTE,
    PromptObject,
    VisualPrompt,
    coco_to_openpose,
    color_of,
    colors_of,
    drawn_limbs,
    is_drawn,
    levels,
    render_pose,
    render_segments,
    with_keypoints,
)

GOLDENS = Path(__file__).parent / "saliency" / "goldens"
POSES = json.loads((GOLDENS / "pose.json").read_text())
SIZE = (64, 48)
RED, BLUE = (200, 10, 30), (100, 30, 250)


def square(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros(SIZE[::-1], dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def runs_of(mask: np.ndarray) -> tuple[int, ...]:
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flat]).astype(int)))
    return tuple(np.diff([0, *edges, flat.size]).tolist())


def standing(x: float, y: float, height: float) -> tuple[float, ...]:
    """COCO joints of a person facing us, feet at (x, y)."""
    across = (0, 1, -1, 2, -2, 4, -4, 6, -6, 6, -6, 3, -3, 3, -3, 3, -3)
    up = (20, 21, 21, 20, 20, 17, 17, 13, 13, 9, 9, 10, 10, 5, 5, 0, 0)
    unit = height / 21
    joints = [(x + unit * a, y - unit * b, 2) for a, b in zip(across, up, strict=True)]
    return tuple(value for joint in joints for value in joint)


def found(number: int, mask: np.ndarray | tuple[int, ...] = (), **fields: object) -> PromptObject:
    box = Box(0, 0, 1, 1)
    color = colors_of(0, "a.jpg", list(range(number + 1)))[-1]
    return PromptObject(str(number), "cat", box, mask, 1.0, color, **fields)  # type: ignore[arg-type]


def test_wrapped_overlaps_are_the_published_pixels() -> None:
    golden = np.load(GOLDENS / "grouping.npz")
    masks = np.unpackbits(golden["masks"], axis=-1)[..., :64].astype(bool)
    chosen = masks[golden["render_ids_area_order"] - 1000]
    colors = golden["render_colors"]
    wrapped = render_segments(SIZE, chosen, colors, "wrap")
    assert (wrapped == golden["render_u8_wrap"]).all()
    added = render_segments(SIZE, chosen, colors, "add")
    over = np.unpackbits(golden["render_overflow"], axis=-1)[..., :64].astype(bool)
    assert over.any()
    assert (added[~over] == wrapped[~over]).all()
    assert (added[over].max(-1) == 255).all()


def test_overlaps_are_painted_added_or_wrapped() -> None:
    masks = [square(0, 0, 20, 20), square(10, 10, 50, 40)]
    both, one, none = (12, 12), (2, 2), (47, 0)
    for overlap, expected in (
        ("painter", RED),
        ("add", (255, 40, 255)),
        ("wrap", (44, 40, 24)),
    ):
        frame = render_segments(SIZE, masks, [RED, BLUE], overlap)  # type: ignore[arg-type]
        assert (frame.shape, frame.dtype) == ((48, 64, 3), np.uint8)
        assert tuple(frame[both]) == expected
        assert tuple(frame[one]) == RED
        assert tuple(frame[none]) == (0, 0, 0)


def test_the_smaller_mask_is_seen_whatever_the_order() -> None:
    masks, colors = [square(0, 0, 40, 40), square(5, 5, 9, 9)], [RED, BLUE]
    frame = render_segments(SIZE, masks, colors)
    assert tuple(frame[6, 6]) == BLUE
    assert (render_segments(SIZE, masks[::-1], colors[::-1]) == frame).all()


def test_of_equal_masks_the_more_salient_is_seen() -> None:
    mask = square(3, 3, 9, 9)
    assert tuple(render_segments(SIZE, [mask, mask], [RED, BLUE])[4, 4]) == RED


def test_colours_as_fractions_are_truncated() -> None:
    frame = render_segments(SIZE, [square(0, 0, 9, 9)], [(0.5, 0.999, 1.0)])
    assert tuple(frame[0, 0]) == (127, 254, 255)


def test_nothing_to_show_is_black() -> None:
    assert not render_segments(SIZE, [], []).any()
    assert not render_pose(SIZE, []).any()


def test_masks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(IndexError):
        render_segments((48, 64), [square(0, 0, 9, 9)], [RED])
    with pytest.raises(ValueError, match="1 masks, 2 colours"):
        render_segments(SIZE, [square(0, 0, 9, 9)], [RED, BLUE])


@pytest.mark.parametrize("overlap", ["painter", "add", "wrap"])
def test_levels_nest_and_run_lengths_draw_like_masks(overlap: str) -> None:
    places = (0, 0, 40, 40), (20, 20, 60, 45), (2, 2, 8, 8), (30, 1, 63, 6)
    masks = [square(*place) for place in places]
    shown = tuple(found(number, mask) for number, mask in enumerate(masks))
    frames = levels(VisualPrompt("a#0", "seg", shown, (2, 3, 4)), SIZE, overlap)  # type: ignore[arg-type]
    foregrounds = [frame.any(-1) for frame in frames]
    for count, foreground in zip((2, 3, 4), foregrounds, strict=True):
        assert (foreground == np.any(masks[:count], axis=0)).all()
    packed = tuple(found(number, runs_of(mask)) for number, mask in enumerate(masks))
    again = levels(VisualPrompt("a#0", "seg", packed, (2, 3, 4)), SIZE, overlap)  # type: ignore[arg-type]
    assert all((a == b).all() for a, b in zip(frames, again, strict=True))


def test_an_object_keeps_its_colour_from_level_to_level() -> None:
    masks = [square(0, 0, 10, 10), square(20, 20, 30, 30)]
    shown = tuple(found(number, mask) for number, mask in enumerate(masks))
    first, second = levels(VisualPrompt("a#0", "seg", shown, (1, 2)), SIZE)
    assert tuple(first[5, 5]) == tuple(second[5, 5]) == shown[0].color
    assert not first[25, 25].any()


def test_run_lengths_of_another_size_are_refused() -> None:
    prompt = VisualPrompt("a#0", "seg", (found(0, (5, 5)),), (1,))
    with pytest.raises(ValueError, match="reshape"):
        levels(prompt, SIZE)


@pytest.mark.parametrize("sizes", [(), (1,), (3,), (2, 1, 2), (-1, 2)])
def test_levels_that_do_not_grow_to_all_objects_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="Levels"):
        VisualPrompt("a#0", "seg", (found(0), found(1)), sizes)


def test_colours_are_told_from_black_and_from_one_another() -> None:
    colors = np.array(PALETTE, dtype=float)
    distances = np.linalg.norm(colors[:, None] - colors, axis=-1)
    assert colors.max(1).min() >= 60
    assert distances[~np.eye(len(colors), dtype=bool)].min() > 40


@given(st.integers(0, 9), st.text(), st.lists(st.integers(0, 10**9), unique=True, max_size=48))
def test_an_image_s_objects_have_colours_of_their_own(
    seed: int, image: str, ids: list[int]
) -> None:
    colors = colors_of(seed, image, ids)
    assert len(set(colors)) == len(ids)
    assert colors[:20] == colors_of(seed, image, ids[:20])
    assert colors[:1] == [color_of(seed, image, number) for number in ids[:1]]


def test_colours_differ_between_images_and_seeds() -> None:
    assert len({color_of(0, f"{number}.jpg", "7") for number in range(99)}) > 20
    assert len({color_of(number, "a.jpg", "7") for number in range(99)}) > 20
    assert color_of(0, "a.jpg", "7") == color_of(0, "a.jpg", 7)


def test_more_objects_than_colours_are_still_coloured() -> None:
    assert len(colors_of(0, "a.jpg", range(100))) == 100


@pytest.mark.parametrize("case", POSES, ids=[case["name"] for case in POSES])
def test_poses_are_the_published_ones(case: dict[str, list[int]]) -> None:
    if "raises" in case:
        with pytest.raises(ValueError, match="visibility"):
            coco_to_openpose(case["coco17"], compat=True)
        return
    joints = coco_to_openpose(case["coco17"], compat=True)
    assert joints == case["openpose18"]
    assert [is_drawn(joint, compat=True) for joint in joints] == [bool(v) for v in case["valid"]]
    assert drawn_limbs(joints, compat=True) == case["edges_drawn"]


def test_eyes_and_ears_are_on_their_own_side_unless_compatible() -> None:
    published = coco_to_openpose(POSES[0]["coco17"], compat=True)
    right_eye, left_eye, right_ear, left_ear = coco_to_openpose(POSES[0]["coco17"])[14:]
    assert [left_eye, right_eye, left_ear, right_ear] == published[14:]
    assert coco_to_openpose(POSES[0]["coco17"])[:14] == published[:14]
    assert right_eye == POSES[0]["coco17"][6:9]


def test_rows_of_three_are_read_like_a_flat_list() -> None:
    rows = np.array(POSES[0]["coco17"]).reshape(17, 3)
    assert coco_to_openpose(rows) == coco_to_openpose(POSES[0]["coco17"])
    with pytest.raises(ValueError, match="reshape"):
        coco_to_openpose([1, 2, 2])


def test_a_joint_on_the_edge_is_drawn_and_an_absent_one_is_not() -> None:
    assert is_drawn([0, 6, 2])
    assert not is_drawn([0, 6, 2], compat=True)
    assert not is_drawn([0, 0, 2])
    assert not is_drawn([5, 6, 0])


def test_limbs_make_one_tree_over_all_joints() -> None:
    reached = {1}
    for _ in LIMBS:
        reached |= {end for limb in LIMBS if reached & set(limb) for end in limb}
    assert reached == set(range(18))
    assert len(LIMBS) == 17


def test_a_pose_is_drawn_at_image_size_where_its_joints_are() -> None:
    joints = coco_to_openpose(standing(200, 380, 340))
    frame = render_pose((400, 420), [joints])
    assert (frame.shape, frame.dtype) == ((420, 400, 3), np.uint8)
    for number in (0, 4, 7, 10, 13):
        x, y, _ = joints[number]
        assert tuple(frame[round(y), round(x)]) == JOINT_COLORS[number]
    start, end = joints[9], joints[10]
    middle = frame[round((start[1] + end[1]) / 2), round((start[0] + end[0]) / 2)]
    assert tuple(middle) == tuple(round(0.6 * level) for level in JOINT_COLORS[8])
    assert 0.01 < frame.any(-1).mean() < 0.2


def test_edges_are_smooth_and_widths_are_those_asked_for() -> None:
    joints: list[list[float]] = [[0, 0, 0] for _ in range(18)]
    joints[9], joints[10] = [40, 40, 2], [360, 40, 2]
    frame = render_pose((400, 80), [joints])
    assert (frame[:, 40].max(-1) / 255).sum() == pytest.approx(16, abs=0.2)
    assert (frame[:, 200].max(-1) / 153).sum() == pytest.approx(8, abs=0.2)
    assert len(np.unique(frame[:, 37:43])) > 4


def test_a_small_person_is_drawn_finer() -> None:
    small, large = (
        render_pose((400, 420), [coco_to_openpose(standing(200, 400, h))]) for h in (50, 340)
    )
    assert small.any(-1).sum() < large.any(-1).sum() / 8
    assert small.any()


def test_joints_outside_the_picture_are_clipped() -> None:
    inside = render_pose((100, 100), [coco_to_openpose(standing(98, 99, 90))])
    assert inside.any()
    assert not render_pose((100, 100), [coco_to_openpose(standing(900, 800, 90))]).any()


def test_pose_levels_show_the_most_salient_on_top() -> None:
    rows = np.array(standing(200, 390, 340)).reshape(17, 3)
    turned = rows[[0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]]
    people = [rows, turned + np.array([3, 0, 0])]
    both = [found(n, keypoints=tuple(p.ravel().tolist())) for n, p in enumerate(people)]
    first, second = levels(VisualPrompt("a#1", "pose", tuple(both), (1, 2)), (400, 420))
    for x, y, _ in coco_to_openpose(both[0].keypoints):
        assert (second[round(y), round(x)] == first[round(y), round(x)]).all()
    assert second.any(-1).sum() > first.any(-1).sum()


def test_objects_without_joints_take_no_place_in_a_pose() -> None:
    hidden: Sequence[float] = (0,) * 51
    chosen = [found(0), found(1, keypoints=standing(9, 9, 9)), found(2, keypoints=tuple(hidden))]
    assert [kept.id for kept in with_keypoints(chosen)] == ["1"]
