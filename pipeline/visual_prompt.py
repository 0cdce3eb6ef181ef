"""A visual prompt: objects in saliency order, and the cumulative frames that show more of them.

After Chain-of-Focus prompting (ICLR 2025), poses as OpenPose draws them. Knows no files, no network
and no annotations. Sizes are (width, height), masks bool HW, frames uint8 HWC on black.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from pipeline.geometry import Box, Size
from pipeline.samples import rng_for

Rgb = tuple[int, int, int]
Runs = tuple[int, ...]
Joint = list[float]
"""[x, y, v]: pixels, and 0 for absent, 1 for hidden, 2 for visible."""
Task = Literal["seg", "pose"]
Overlap = Literal["painter", "add", "wrap"]

ORDER = (0, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
"""COCO's joints as OpenPose orders them; its neck then comes in at 1."""
PUBLISHED_ORDER = (*ORDER[:13], 1, 2, 3, 4)
"""The same with eyes and ears on the wrong side, as the published prompts have them."""
LEFT_SHOULDER, RIGHT_SHOULDER = 5, 6
LIMBS = (
    *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11)),
    *((11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),
)
RAMP = (0, 85, 170, 255)
JOINT_COLORS: tuple[Rgb, ...] = (
    *((255, level, 0) for level in RAMP),
    *((level, 255, 0) for level in RAMP[2::-1]),
    *((0, 255, level) for level in RAMP[1:]),
    *((0, level, 255) for level in RAMP[2::-1]),
    *((level, 0, 255) for level in RAMP[1:]),
    *((255, 0, level) for level in RAMP[2:0:-1]),
)
"""Eighteen hues around the circle, as OpenPose has them."""
LIMB_SHADE = 0.6
JOINT_RADIUS_PX = 8.0
"""Of DeLVM's training pictures; its limbs are half as thick on either side."""
LEAST_RADIUS_PX = 2.0
RADII_PER_PERSON = 20
"""A person is at least so many joint radii across: a small one is drawn finer, not as a blob."""

TONES = ((1.0, 1.0), (0.5, 1.0), (1.0, 0.6), (0.5, 0.65))
"""(saturation, value): bright, pastel, deep, dull."""
HUES = 12
PALETTE: tuple[Rgb, ...] = tuple(
    (round(255 * red), round(255 * green), round(255 * blue))
    for hue in range(HUES)
    for tone in TONES
    for red, green, blue in [colorsys.hsv_to_rgb(hue / HUES, *tone)]
)
"""Far from one another and from black, so that JPEG and a threshold keep them apart."""


@dataclass(frozen=True, slots=True)
class PromptObject:
    """One object of a prompt and how it is drawn."""

    id: str
    """The annotation's id, unique in its image."""
    category: str
    box: Box
    mask: np.ndarray | Runs
    """bool HW, or COCO's uncompressed run lengths down the columns, starting with outside."""
    saliency: float
    """Sum of the saliency map inside the mask."""
    color: Rgb
    keypoints: tuple[float, ...] = ()
    """COCO: x, y, visibility of 17 joints; empty where there are none."""


@dataclass(frozen=True, slots=True)
class VisualPrompt:
    """Objects by descending saliency, and how many of them each frame shows."""

    sample_id: str
    task: Task
    objects: tuple[PromptObject, ...]
    level_sizes: tuple[int, ...]
    """Cumulative, so the levels nest; the last one shows all."""

    def __post_init__(self) -> None:
        if not self.level_sizes or self.level_sizes[-1] != len(self.objects):
            raise ValueError(f"Levels {self.level_sizes} of {len(self.objects)} objects.")
        if any(a > b for a, b in pairwise((0, *self.level_sizes))):
            raise ValueError(f"Levels {self.level_sizes} do not grow.")


def levels(prompt: VisualPrompt, size: Size, overlap: Overlap = "painter") -> list[np.ndarray]:
    """The prompt's frames at an image's size, uint8 HWC, each showing what the last one showed."""
    if prompt.task == "pose":
        people = [coco_to_openpose(found.keypoints) for found in prompt.objects]
        return [render_pose(size, people[:count][::-1]) for count in prompt.level_sizes]
    masks = [mask_of(found, size) for found in prompt.objects]
    colors = [found.color for found in prompt.objects]
    return [
        render_segments(size, masks[:count], colors[:count], overlap)
        for count in prompt.level_sizes
    ]


def with_keypoints(objects: Iterable[PromptObject]) -> list[PromptObject]:
    """The objects that a pose prompt can draw: the others must not take places in its levels."""
    return [found for found in objects if any(v > 0 for v in found.keypoints[2::3])]


def mask_of(found: PromptObject, size: Size) -> np.ndarray:
    """The object's mask as bool HW; raises `ValueError` for run lengths of another size."""
    if isinstance(found.mask, np.ndarray):
        return found.mask
    outside_inside = np.arange(len(found.mask)) % 2 == 1
    return np.repeat(outside_inside, found.mask).reshape(size[::-1], order="F")


def color_of(seed: int, image_id: str, object_id: str | int) -> Rgb:
    """An object's colour, the same in every level and every run."""
    return PALETTE[_preferences(seed, image_id, object_id)[0]]


def colors_of(seed: int, image_id: str, object_ids: Sequence[str | int]) -> list[Rgb]:
    """A colour for each object of an image: `color_of`, or its next choice where that is taken.

    No two are equal while there are no more objects than colours in `PALETTE`.
    """
    taken: set[int] = set()
    chosen = []
    for object_id in object_ids:
        choices = _preferences(seed, image_id, object_id)
        choice = next((choice for choice in choices if choice not in taken), choices[0])
        taken.add(choice)
        chosen.append(PALETTE[choice])
    return chosen


def _preferences(seed: int, image_id: str, object_id: str | int) -> list[int]:
    """All places in `PALETTE` in an object's own order."""
    order: list[int] = (
        rng_for(seed, image_id, object_id, "color").permutation(len(PALETTE)).tolist()
    )
    return order


def render_segments(
    size: Size,
    masks: Sequence[np.ndarray],
    colors: Sequence[Sequence[float]] | np.ndarray,
    overlap: Overlap = "painter",
) -> np.ndarray:
    """Flat colours on black, uint8 HWC; colours are whole numbers to 255, or floats to 1.

    Where masks overlap, "painter" shows the smaller one (of equal ones the earlier), "add" the
    sum clipped to 255, and "wrap" the sum mod 256, as the published prompts were written.
    """
    paints = np.asarray(colors).reshape(-1, 3)
    if len(paints) != len(masks):
        raise ValueError(f"{len(masks)} masks, {len(paints)} colours")
    whole = paints.dtype.kind in "iu"
    if overlap == "painter":
        return _painted(size, masks, paints if whole else 255 * paints)
    total = np.zeros((*size[::-1], 3), np.int64 if whole else np.float32)
    for mask, paint in zip(masks, paints.astype(total.dtype), strict=True):
        total[np.asarray(mask, dtype=bool)] += paint
    levels = total if whole else (255 * total).astype(np.int64)
    return (levels.clip(0, 255) if overlap == "add" else levels).astype(np.uint8)


def _painted(size: Size, masks: Sequence[np.ndarray], paints: np.ndarray) -> np.ndarray:
    """Larger masks first, smaller over them."""
    areas = [int(np.count_nonzero(mask)) for mask in masks]
    owner = np.zeros(size[::-1], np.int32)
    for index in sorted(range(len(masks)), key=lambda index: (areas[index], index), reverse=True):
        owner[np.asarray(masks[index], dtype=bool)] = index + 1
    palette = np.concatenate([np.zeros((1, 3)), paints]).astype(np.uint8)
    return palette[owner]


def coco_to_openpose(
    keypoints: Sequence[float] | Sequence[Sequence[float]] | np.ndarray, compat: bool = False
) -> list[Joint]:
    """COCO's 17 joints as OpenPose's 18, each [x, y, v]; absent ones are [0, 0, 0].

    The neck is the truncated middle of the shoulders, [0, 0, 2] without both. `compat` gives the
    published prompts' order, with eyes and ears exchanged. Raises `ValueError` for a `v` other
    than 0, 1, 2.
    """
    joints: list[Joint] = np.asarray(keypoints).reshape(17, 3).tolist()
    strange = {v for _, _, v in joints} - {0, 1, 2}
    if strange:
        raise ValueError(f"Keypoints of visibility {sorted(strange)}.")
    absent: Joint = [0, 0, 0]
    seen = [joint if joint[2] > 0 else absent for joint in joints]
    found = [list(seen[index]) for index in (PUBLISHED_ORDER if compat else ORDER)]
    return [found[0], _neck(seen[LEFT_SHOULDER], seen[RIGHT_SHOULDER]), *found[1:]]


def _neck(left: Joint, right: Joint) -> Joint:
    if left[2] == 0 or right[2] == 0:
        return [0, 0, 2]
    return [int((left[0] + right[0]) / 2), int((left[1] + right[1]) / 2), 2]


def is_drawn(joint: Sequence[float], compat: bool = False) -> bool:
    """Whether an OpenPose joint is there; `compat` drops all on the first column or row."""
    x, y, visibility = joint
    if compat:
        return x != 0 and y != 0
    return visibility > 0 and (x, y) != (0, 0)


def drawn_limbs(joints: Sequence[Sequence[float]], compat: bool = False) -> list[int]:
    """Places in `LIMBS` of those with both ends there."""
    there = [is_drawn(joint, compat) for joint in joints]
    return [number for number, (a, b) in enumerate(LIMBS) if there[a] and there[b]]


def render_pose(
    size: Size,
    people: Sequence[Sequence[Sequence[float]]],
    *,
    radius_px: float = JOINT_RADIUS_PX,
    compat: bool = False,
) -> np.ndarray:
    """People of 18 OpenPose joints [x, y, v] drawn on black at the image's own size, uint8 HWC.

    Later people lie over earlier ones, joints over limbs; edges are smooth. `radius_px` is that of
    a joint where the person is large enough. `compat` as in `is_drawn`.
    """
    canvas = np.zeros((*size[::-1], 3), np.uint8)
    for joints in people:
        there = [number for number, joint in enumerate(joints) if is_drawn(joint, compat)]
        radius = _radius([joints[number] for number in there], radius_px)
        for number in drawn_limbs(joints, compat):
            start, end = (joints[joint] for joint in LIMBS[number])
            shade = [LIMB_SHADE * level for level in JOINT_COLORS[number]]
            _ellipse(canvas, start, end, radius / 2, shade)
        for number in there:
            _ellipse(canvas, joints[number], joints[number], radius, JOINT_COLORS[number])
    return canvas


def _radius(joints: Sequence[Sequence[float]], most_px: float) -> float:
    """Of a person's joints, pixels: finer for one that is small in the picture."""
    extent = max((max(axis) - min(axis) for axis in list(zip(*joints, strict=True))[:2]), default=0)
    return min(most_px, max(LEAST_RADIUS_PX, extent / RADII_PER_PERSON))


def _ellipse(
    canvas: np.ndarray,
    start: Sequence[float],
    end: Sequence[float],
    thickness: float,
    color: Sequence[float],
) -> None:
    """Lay a filled ellipse from `start` to `end` over `canvas`: a disc where they are one point.

    `thickness` is half its width, pixels; coverage falls over the one pixel about its edge, whose
    distance is taken to first order from the implicit equation.
    """
    cx, cy = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    dx, dy = (end[0] - start[0]) / 2, (end[1] - start[1]) / 2
    length = math.hypot(dx, dy)
    ux, uy = (dx / length, dy / length) if length else (1.0, 0.0)
    longest = max(length, thickness)
    rows = _span(cy, math.hypot(longest * uy, thickness * ux), canvas.shape[0])
    columns = _span(cx, math.hypot(longest * ux, thickness * uy), canvas.shape[1])
    ys = np.arange(rows.start, rows.stop)[:, None] - cy
    xs = np.arange(columns.start, columns.stop)[None] - cx
    along, across = xs * ux + ys * uy, ys * ux - xs * uy
    level = np.hypot(along / longest, across / thickness)
    slope = np.hypot(along / longest**2, across / thickness**2) / np.maximum(level, 1e-9)
    cover = (0.5 - (level - 1) / np.maximum(slope, 1e-9)).clip(0, 1)[..., None]
    under = canvas[rows, columns]
    canvas[rows, columns] = np.rint(under + cover * (np.asarray(color) - under))


def _span(centre: float, reach: float, limit: int) -> slice:
    """The pixels of an axis that a shape can touch, one more for its smooth edge."""
    start = max(0, math.floor(centre - reach - 1))
    return slice(start, max(start, min(limit, math.ceil(centre + reach + 1) + 1)))
