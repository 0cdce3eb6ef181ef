"""Questions with exact answers from what annotations mark: relation, size, count and pose.

Asks only where the annotations leave no doubt: of labels that one object has, of places that are
well apart, of areas that differ plainly, of joints that are visible. Groups (crowds) are never
counted. A label is used as the source writes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations

import numpy as np

from pipeline.geometry import Box, Size
from pipeline.sources.base import Asked, Region
from pipeline.sources.masks import decode_region

AREA_RATIO = 1.5
"""An area counts as larger from this many times the other's on."""
APART = 0.06
"""Objects are told apart by place from this share of the picture's side on."""
POSE_LEAD = 0.05
"""A joint is higher or lower from this share of the person's height on."""
COUNTED = 9
"""No more objects than this are asked to be counted."""
SMALLEST_SHARE = 0.0004
"""An object that covers less of the picture is not asked about."""

_VISIBLE = 2
_JOINTS: Mapping[str, int] = {
    "nose": 0,
    "left shoulder": 5,
    "right shoulder": 6,
    "left elbow": 7,
    "right elbow": 8,
    "left wrist": 9,
    "right wrist": 10,
    "left hip": 11,
    "right hip": 12,
    "left knee": 13,
    "right knee": 14,
    "left ankle": 15,
    "right ankle": 16,
}
"""Where COCO lists them."""
_PAIRS = (
    ("left wrist", "left shoulder"),
    ("right wrist", "right shoulder"),
    ("left elbow", "left shoulder"),
    ("right elbow", "right shoulder"),
    ("left wrist", "nose"),
    ("right wrist", "nose"),
    ("left knee", "left hip"),
    ("right knee", "right hip"),
    ("left ankle", "right ankle"),
    ("left wrist", "right wrist"),
    ("left knee", "right knee"),
)


def asked_about(
    regions: Sequence[Region], size: Size, rng: np.random.Generator, most: int
) -> list[Asked]:
    """At most `most` questions about labelled regions of a picture of this size, kinds mixed.

    Regions of another frame are left out. Raises `BadImage` for a mask that does not decode.
    """
    ours = [r for r in regions if (r.width, r.height) == size and r.label and r.box is not None]
    named = _named(ours, size)
    pools = [
        list(_relations(named, size, rng)),
        list(_sizes(named, rng)),
        list(_counts(ours, size)),
        list(_poses(named, rng)),
    ]
    for pool in pools:
        rng.shuffle(pool)
    order = [pools[int(n)] for n in rng.permutation(len(pools))]
    longest = max(map(len, pools))
    mixed = [pool[turn] for turn in range(longest) for pool in order if turn < len(pool)]
    return mixed[:most]


def _named(regions: Sequence[Region], size: Size) -> dict[str, Region]:
    """The objects that words single out: the only one of a label, else the outermost ones."""
    labels: dict[str, list[Region]] = {}
    for region in regions:
        labels.setdefault(region.label, []).append(region)
    named: dict[str, Region] = {}
    for label, alike in labels.items():
        if any(region.crowd for region in alike):
            continue
        if len(alike) == 1:
            named[f"the {label}"] = alike[0]
            continue
        order = sorted(alike, key=lambda r: _box(r).centre[0])
        for name, one, next_ in (
            ("leftmost", order[0], order[1]),
            ("rightmost", order[-1], order[-2]),
        ):
            if abs(_box(one).centre[0] - _box(next_).centre[0]) >= APART * size[0]:
                named[f"the {name} {label}"] = one
    least = SMALLEST_SHARE * size[0] * size[1]
    return {name: region for name, region in named.items() if _box(region).area >= least}


def _relations(
    named: Mapping[str, Region], size: Size, rng: np.random.Generator
) -> Iterator[Asked]:
    """Is the dog to the left or to the right of the cat?"""
    axes = (("to the left of", "to the right of", 0), ("above", "below", 1))
    for one, other in permutations(named, 2):
        if _outermost(one) and _outermost(other):
            continue  # which of them is further left is in their names
        a, b = _box(named[one]), _box(named[other])
        for before, after, axis in axes:
            low, high = (a.x0, a.x1, b.x0, b.x1), (a.y0, a.y1, b.y0, b.y1)
            a0, a1, b0, b1 = (low, high)[axis]
            lead = abs(a.centre[axis] - b.centre[axis])
            if (a1 <= b0 or b1 <= a0) and lead >= APART * size[axis]:
                words = (before, after) if rng.integers(2) else (after, before)
                text = f"Is {one} {words[0]} or {words[1]} {other}?"
                right = before if a1 <= b0 else after
                yield Asked(text, right, words, (a, b), "relation")


def _sizes(named: Mapping[str, Region], rng: np.random.Generator) -> Iterator[Asked]:
    """Which covers more of the picture, the dog or the cat?"""
    areas = {name: int(decode_region(region).sum()) for name, region in named.items()}
    for one, other in permutations(named, 2):
        if one > other or min(areas[one], areas[other]) == 0:
            continue
        if max(areas[one], areas[other]) < AREA_RATIO * min(areas[one], areas[other]):
            continue
        words = (one, other) if rng.integers(2) else (other, one)
        text = f"Which covers more of the picture, {words[0]} or {words[1]}?"
        boxes = (_box(named[one]), _box(named[other]))
        yield Asked(text, max(words, key=areas.__getitem__), words, boxes, "size")


def _counts(regions: Sequence[Region], size: Size) -> Iterator[Asked]:
    """How many objects of the kind "person" are in the picture?"""
    least = SMALLEST_SHARE * size[0] * size[1]
    for label in sorted({region.label for region in regions}):
        alike = [region for region in regions if region.label == label]
        if any(r.crowd or _box(r).area < least for r in alike) or len(alike) > COUNTED:
            continue
        text = f'How many objects of the kind "{label}" are in the picture?'
        yield Asked(text, str(len(alike)), (), tuple(map(_box, alike)), "count")


def _poses(named: Mapping[str, Region], rng: np.random.Generator) -> Iterator[Asked]:
    """Is the left wrist of the person higher or lower than the left shoulder?"""
    for name, region in named.items():
        points = np.array(region.keypoints, float).reshape(-1, 3) if region.keypoints else None
        if points is None or len(points) <= max(_JOINTS.values()):
            continue
        box = _box(region)
        for one, other in _PAIRS:
            a, b = points[_JOINTS[one]], points[_JOINTS[other]]
            if min(a[2], b[2]) < _VISIBLE or abs(a[1] - b[1]) < POSE_LEAD * box.height:
                continue
            words = ("higher", "lower") if rng.integers(2) else ("lower", "higher")
            text = f"Is the {one} of {name} {words[0]} or {words[1]} than the {other}?"
            right = "higher" if a[1] < b[1] else "lower"
            yield Asked(text, right, words, (_around(a, b, box),), "pose")


def _around(one: np.ndarray, other: np.ndarray, person: Box) -> Box:
    """A box around two joints of a person, with some of what surrounds them."""
    room = 0.06 * max(person.width, person.height) + 1
    x0, x1 = sorted((float(one[0]), float(other[0])))
    y0, y1 = sorted((float(one[1]), float(other[1])))
    return Box(max(x0 - room, 0), max(y0 - room, 0), x1 + room, y1 + room).rounded()


def _outermost(name: str) -> bool:
    return name.startswith(("the leftmost ", "the rightmost "))


def _box(region: Region) -> Box:
    assert region.box is not None
    return region.box.rounded()
