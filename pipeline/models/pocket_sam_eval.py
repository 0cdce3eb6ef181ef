"""How good a segmenter is: on held-out drawn pictures, and on tags put on given pictures.

The trivial baseline is a flood fill by colour from the same point.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from pipeline.models.pocket_sam_scenes import HELD_OUT, generator_digest, held_out_scene
from pipeline.models.sam import Segmenter
from pipeline.samples import rng_for
from pipeline.scenes.draw import SceneObject
from pipeline.scenes.regions import interior_point
from pipeline.scenes.tags import ALPHABET, COLORS, SHAPES, draw_tag

SMALLEST_SHARE = 0.005
"""Objects with a smaller share of the picture are not asked for."""


def evaluate(
    segmenter: Segmenter,
    scenes: int = 200,
    first_seed: int = HELD_OUT,
    *,
    flood_scenes: int | None = None,
) -> dict[str, float | int | str]:
    """Mean IoU over the objects of held-out pictures: one point each, one box each, flood fill.

    The point is the most interior one of the visible mask; the answer is the single mask. The
    baseline is slow; `flood_scenes` limits it to the first so many pictures.
    """
    by_point: list[float] = []
    by_box: list[float] = []
    flooded: list[float] = []
    for seed in range(first_seed, first_seed + scenes):
        drawn = held_out_scene(seed)
        things = [thing for thing in drawn.objects if _share(thing) >= SMALLEST_SHARE]
        if not things:
            continue
        truth = np.stack([thing.mask for thing in things])
        points = [thing.point for thing in things]
        embedding = segmenter.embed(drawn.image)
        for scores, prompts in (
            (by_point, {"points": points}),
            (by_box, {"boxes": [thing.box.as_list() for thing in things]}),
        ):
            logits = segmenter.predict(embedding, **prompts).logits[:, 0]
            scores += mask_ious(segmenter.masks(embedding, logits), truth)
        if flood_scenes is None or seed < first_seed + flood_scenes:
            fills = np.stack([flood_fill(drawn.image, point) for point in points])
            flooded += mask_ious(fills, truth)
    return {
        "point_iou": _mean(by_point),
        "box_iou": _mean(by_box),
        "flood_fill_iou": _mean(flooded),
        "objects": len(by_point),
        "generator_digest": generator_digest(),
    }


def evaluate_tags(
    segmenter: Segmenter, images: Sequence[np.ndarray], *, tags: int = 200, seed: int = 0
) -> dict[str, float | int]:
    """Mean IoU on tags put on random square windows of the images (uint8 HWC).

    A tag is 8 to 64 pixels wide once the window is 256; it is asked for by its most interior point
    and by its box, each moved a little. `box_iou_of_point` compares sub-pixel boxes.
    """
    by_point: list[float] = []
    by_box: list[float] = []
    boxes: list[float] = []
    for index in range(tags):
        rng = rng_for(seed, "pocket-sam", "tags", index)
        window, truth = tag_window(rng, images[index % len(images)])
        rows, columns = np.flatnonzero(truth.any(1)), np.flatnonzero(truth.any(0))
        box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float)
        side = box[2] - box[0]
        point = np.array(interior_point(truth)) + rng.normal(0, 0.05 * side, 2)
        embedding = segmenter.embed(window)
        logits = segmenter.predict(embedding, points=[point]).logits[:, 0]
        by_point += mask_ious(segmenter.masks(embedding, logits), truth[None])
        boxes.append(_box_iou(segmenter.boxes(embedding, logits)[0], box))
        loose = box + rng.normal(0, 0.05 * side, 4)
        logits = segmenter.predict(embedding, boxes=[loose]).logits[:, 0]
        by_box += mask_ious(segmenter.masks(embedding, logits), truth[None])
    return {
        "point_iou": _mean(by_point),
        "box_iou": _mean(by_box),
        "box_iou_of_point": _mean(boxes),
        "point_iou_at_least_half": _mean([float(v >= 0.5) for v in by_point]),
        "tags": tags,
    }


def tag_window(rng: np.random.Generator, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A square window of an image with a tag on it (uint8 HWC), and the tag's mask (bool HW)."""
    height, width = image.shape[:2]
    side = int(min(height, width, rng.integers(256, 1025)))
    x, y = int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1))
    window = Image.fromarray(image[y : y + side, x : x + side])
    tag_side = max(8, round(side / 256 * float(np.exp(rng.uniform(np.log(8), np.log(64))))))
    code = "".join(rng.choice(list(ALPHABET), int(rng.integers(2, 5))))
    tag = draw_tag(str(rng.choice(SHAPES)), str(rng.choice(list(COLORS))), code, tag_side)
    left, top = (int(v) for v in rng.integers(0, side - tag_side + 1, 2))
    window.paste(tag, (left, top), tag)
    truth = np.zeros((side, side), bool)
    solid = np.asarray(tag.getchannel("A")) > 127
    truth[top : top + tag_side, left : left + tag_side] = solid
    return np.asarray(window), truth


def flood_fill(
    image: np.ndarray, point: tuple[float, float], tolerance: float = 32.0
) -> np.ndarray:
    """Pixels joined to `point` whose colour is near the colour there, bool HW.

    The colour is the mean over 3 × 3 pixels; `tolerance` is a Euclidean distance in RGB levels.
    """
    x, y = int(point[0]), int(point[1])
    around = image[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].reshape(-1, 3).mean(0)
    near = np.linalg.norm(image.astype(np.float32) - around, axis=2) <= tolerance
    near[y, x] = True
    filled = np.zeros_like(near)
    filled[y, x] = True
    count = 0
    while count != (count := int(filled.sum())):
        for _ in range(8):
            grown = filled.copy()
            grown[1:] |= filled[:-1]
            grown[:-1] |= filled[1:]
            grown[:, 1:] |= filled[:, :-1]
            grown[:, :-1] |= filled[:, 1:]
            filled = grown & near
    return filled


def mask_ious(found: np.ndarray, truth: np.ndarray) -> list[float]:
    """IoU of each of N masks with its own truth, both bool (N, H, W)."""
    shared = (found & truth).sum((1, 2))
    return (shared / np.maximum((found | truth).sum((1, 2)), 1)).tolist()


def _share(thing: SceneObject) -> float:
    return float(thing.mask.mean())


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _box_iou(found: np.ndarray, true: np.ndarray) -> float:
    """IoU of two XYXY boxes; 0 where nothing was found."""
    if not np.isfinite(found).all():
        return 0.0
    low, high = np.maximum(found[:2], true[:2]), np.minimum(found[2:], true[2:])
    shared = float(np.prod(np.clip(high - low, 0, None)))
    areas = float(np.prod(found[2:] - found[:2]) + np.prod(true[2:] - true[:2]))
    return shared / max(areas - shared, 1e-9)
