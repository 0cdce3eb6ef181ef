"""Regions to masks. Run lengths are checked before use: the C decoder leaves what they do not
cover uninitialised, and takes polygons of any length.
"""

from __future__ import annotations

import math

import numpy as np

from pipeline.errors import BadImage
from pipeline.sources.base import Picture, Region
from pipeline.sources.decode import MAX_PIXELS


def decode_masks(picture: Picture) -> list[np.ndarray]:
    """The picture's regions as bool HW, in order; raises `BadImage` `bad_mask`."""
    return [decode_region(region) for region in picture.masks]


def decode_region(region: Region) -> np.ndarray:
    """One region as bool HW; all False where it has no outline."""
    height, width = region.height, region.width
    if height * width > MAX_PIXELS:
        raise BadImage("bad_mask", f"{width} x {height} pixels")
    if region.counts is not None:
        runs = _runs(region.counts)
        return _from_runs(runs, height, width)
    if region.polygons:
        return _from_polygons(region.polygons, height, width)
    return np.zeros((height, width), dtype=bool)


def _from_runs(runs: list[int], height: int, width: int) -> np.ndarray:
    """bool HW from lengths of alternating False and True runs down the columns."""
    if any(run < 0 for run in runs) or sum(runs) != height * width:
        raise BadImage("bad_mask", f"runs do not cover {width} x {height} pixels")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape((height, width), order="F")


def _runs(counts: str | tuple[int, ...]) -> list[int]:
    """Run lengths from COCO's compressed text (five bits a character, deltas of two back)."""
    if not isinstance(counts, str):
        return list(counts)
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise BadImage("bad_mask", "run lengths are not COCO text")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise BadImage("bad_mask", "run lengths end early")
    return runs


def _from_polygons(polygons: tuple[tuple[float, ...], ...], height: int, width: int) -> np.ndarray:
    """bool HW, the union of the polygons, drawn as COCO draws them."""
    from pycocotools import mask

    most = 2 * max(height, width)
    for polygon in polygons:
        if len(polygon) % 2 or any(not math.isfinite(v) or abs(v) > most for v in polygon):
            raise BadImage("bad_mask", "a polygon that leaves its picture")
    drawn = mask.frPyObjects([list(polygon) for polygon in polygons], height, width)
    decoded: np.ndarray = mask.decode(mask.merge(drawn))
    return decoded.astype(bool)
