"""Parts of a `prompts` row and back: objects, outlines, map, frames. The one home of their form.

Masks are COCO's compressed run lengths, pictures PNG; nothing is lost but the map's last bits.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from pipeline.errors import BadImage
from pipeline.geometry import Box, Size
from pipeline.samples import Rejection
from pipeline.sources.base import Region
from pipeline.sources.masks import decode_region
from pipeline.visual_prompt import PromptObject, VisualPrompt, mask_of

Row = dict[str, Any]


def sample_id_of(image_id: str, task: str) -> str:
    """One picture's prompt of one task."""
    return f"{image_id}#{task}"


def rejected(image_id: str, task: str, stage: str, reason: str, detail: str = "") -> Rejection:
    """Why there is no prompt of a task for a picture."""
    return Rejection(sample_id_of(image_id, task), 0, 0, stage, reason, detail)


def object_row(found: PromptObject, size: Size) -> Row:
    """An object as the struct of a row's `objects`, of a picture of (width, height)."""
    return {
        "id": int(found.id),
        "category": found.category,
        "bbox": [int(edge) for edge in found.box.as_list()],
        "rle": run_lengths(mask_of(found, size)),
        "saliency": found.saliency,
        "color": list(found.color),
        "keypoints": list(found.keypoints),
    }


def prompt_of(row: Mapping[str, Any]) -> VisualPrompt:
    """The prompt that a row tells of; raises `BadImage` for masks that do not decode."""
    size = (row["width"], row["height"])
    objects = tuple(_object(one, size) for one in row["objects"])
    return VisualPrompt(row["sample_id"], row["task"], objects, tuple(row["level_sizes"]))


def _object(one: Mapping[str, Any], size: Size) -> PromptObject:
    mask = decode_region(Region(size[1], size[0], counts=one["rle"]))
    box, (red, green, blue) = Box(*map(float, one["bbox"])), one["color"]
    joints, color = tuple(one["keypoints"] or ()), (red, green, blue)
    return PromptObject(str(one["id"]), one["category"], box, mask, one["saliency"], color, joints)


def run_lengths(mask: np.ndarray) -> str:
    """COCO's compressed run lengths of a mask, bool HW."""
    from pycocotools.mask import encode

    counts: bytes = encode(np.asfortranarray(mask.view(np.uint8)))["counts"]
    return counts.decode("ascii")


def quantised(prob: np.ndarray, peak: float) -> np.ndarray:
    """A map of at most `peak` as uint8 HW, the peak at 255."""
    grey: np.ndarray = np.rint(prob * (255 / peak)).astype(np.uint8)
    return grey


def to_png(pixels: np.ndarray, level: int = 6) -> bytes:
    """uint8 HW or HWC without loss: JPEG would fray flat colours and a threshold's edge."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=level)
    return out.getvalue()


def from_png(data: bytes) -> np.ndarray:
    """A stored PNG as uint8 HW or HWC; raises `BadImage`."""
    try:
        with PngImagePlugin.PngImageFile(io.BytesIO(data)) as image:
            return np.asarray(image)
    except Exception as error:  # the decoder raises anything on hostile bytes
        raise BadImage("corrupt", f"{type(error).__name__}: {error}"[:200]) from error
