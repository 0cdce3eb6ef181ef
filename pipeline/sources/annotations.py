"""Annotations as JSON, COCO's above all, to `Region` and `Box`; anything odd is a `BadImage`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import BadImage, InvalidBox
from pipeline.geometry import Box
from pipeline.sources.base import Region


def parse_json(data: bytes) -> Any:
    """The value in UTF-8 JSON; raises `BadImage` `bad_annotation`."""
    try:
        value = json.loads(data)
        if b"\\ud" in data or b"\\uD" in data:  # half a character can be written, but not stored
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise bad_annotation(f"not JSON: {error}") from error
    return value


def bad_annotation(detail: str) -> BadImage:
    """An annotation that does not say what its form promises."""
    return BadImage("bad_annotation", detail[:200])


def region_from_coco(
    annotation: Mapping[str, Any], height: int, width: int, label: str = ""
) -> Region:
    """One COCO or SA-1B annotation of a picture of `height` x `width` pixels."""
    try:
        counts, polygons = _outline(annotation.get("segmentation"))
        height, width = _own_size(annotation.get("segmentation"), height, width)
        box, number = annotation.get("bbox"), annotation.get("id")
        score, area = annotation.get("predicted_iou"), annotation.get("area")
        return Region(
            height=height,
            width=width,
            counts=counts,
            polygons=polygons,
            box=None if box is None else box_from_xywh(box),
            label=label,
            score=None if score is None else float(score),
            crowd=bool(annotation.get("iscrowd", 0)),
            keypoints=tuple(map(float, annotation.get("keypoints") or ())),
            id=number if type(number) is int else None,
            area=None if area is None else _finite(area),
        )
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise bad_annotation(f"{type(error).__name__}: {error}") from error


def box_from_xywh(values: Sequence[Any]) -> Box | None:
    """The box of [x, y, width, height]; None without area: COCO itself has some of those."""
    x, y, width, height = map(float, values)
    if not all(map(math.isfinite, (x, y, width, height))):
        raise ValueError(f"a box of {list(values)}")
    return Box(x, y, x + width, y + height) if width > 0 and height > 0 else None


def boxes_from(values: Any, *, xywh: bool = False) -> tuple[Box, ...]:
    """Boxes from one list of four numbers or a list of such lists, XYXY unless `xywh`."""
    if isinstance(values, str):
        values = parse_json(values.encode())
    if values is None:
        return ()
    if not isinstance(values, list | tuple):
        raise bad_annotation(f"boxes {values!r}")
    if not values:
        return ()
    rows = [values] if isinstance(values[0], int | float) else values
    try:
        boxes = [box_from_xywh(row) if xywh else Box(*map(float, row)) for row in rows]
    except (TypeError, ValueError, InvalidBox) as error:
        raise bad_annotation(f"boxes {values!r}") from error
    if not all(boxes) or not all(map(_is_finite, boxes)):
        raise bad_annotation(f"boxes {values!r}")
    return tuple(box for box in boxes if box)


def positive_int(value: Any, what: str) -> int:
    """A size in pixels from JSON."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise bad_annotation(f"{what} is {value!r}")
    return value


def _finite(value: Any) -> float:
    """A number that can be compared; NaN would break every order."""
    if not math.isfinite(number := float(value)):
        raise ValueError(f"a number of {value!r}")
    return number


def _is_finite(box: Box | None) -> bool:
    return box is not None and all(map(math.isfinite, box.as_list()))


def _outline(value: Any) -> tuple[str | tuple[int, ...] | None, tuple[tuple[float, ...], ...]]:
    """(run lengths, polygons) of a segmentation in any of COCO's three forms."""
    if not value:
        return None, ()
    if isinstance(value, dict):
        counts = value["counts"]
        return (counts if isinstance(counts, str) else tuple(map(int, counts))), ()
    polygons = (tuple(map(float, polygon)) for polygon in value)
    return None, tuple(polygon for polygon in polygons if len(polygon) >= 6)


def _own_size(value: Any, height: int, width: int) -> tuple[int, int]:
    """The size that run lengths carry themselves, else the picture's."""
    if isinstance(value, dict) and "size" in value:
        height, width = value["size"]
    return positive_int(height, "height"), positive_int(width, "width")
