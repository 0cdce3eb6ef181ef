"""Pictures and prompts that the pocket segmenter is trained and judged on.

Training pictures are keyed (seed, index); held-out pictures have seeds from `HELD_OUT` on. The
drawing is frozen with the shipped weights: `generator_digest` changes when it does.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipeline.geometry import Box
from pipeline.samples import rng_for
from pipeline.scenes.draw import SURFACE_LABELS, Scene, scene
from pipeline.scenes.regions import interior_point, mask_box

SIDE = 256
"""Side of a picture and of the model's input, pixels."""
PATCH = 16
"""Side of a patch of the encoder, pixels."""
CELL = 4
"""Side in pixels of a cell of the model's mask map."""
HELD_OUT = 10**6
"""First seed of the held-out pictures; training uses smaller seeds."""
POINTS, BOXES = 6, 6
"""Prompts for each training picture."""
USES = 4
"""Times a training scene is used."""
POOL = 512
"""Training scenes in use at a time."""
_SHARE_OF_SURFACES = 0.06


@dataclass(frozen=True, slots=True)
class Example:
    """One training picture with its prompts; all coordinates in its pixels."""

    image: np.ndarray
    """uint8 (SIDE, SIDE, 3); an oblong picture is at the upper left."""
    size: tuple[int, int]
    """(width, height) of the part that is a picture."""
    points: np.ndarray
    """float32 (POINTS, 2)."""
    boxes: np.ndarray
    """float32 (BOXES, 4), a little off."""
    targets: np.ndarray
    """uint8 (POINTS + BOXES, SIDE/CELL, SIDE/CELL): pixels of a cell that are the object's."""
    bounds: np.ndarray
    """float32 (POINTS + BOXES, 4): the objects' exact boxes."""
    owners: np.ndarray
    """uint8 (g, g): the label of each of the encoder's patches, 0 where several share it."""


def held_out_scene(seed: int) -> Scene:
    """The frozen picture of a seed ≥ `HELD_OUT`, 256 × 256."""
    rng = rng_for(seed, "pocket-sam")
    return scene(rng, (SIDE, SIDE), tags=bool(rng.random() < 0.5), worn=True)


def generator_digest(scenes: int = 20) -> str:
    """BLAKE2b (hex, 16 bytes) of the first held-out pictures and their masks."""
    digest = hashlib.blake2b(digest_size=16)
    for seed in range(HELD_OUT, HELD_OUT + scenes):
        drawn = held_out_scene(seed)
        digest.update(drawn.image.tobytes())
        for thing in drawn.objects:
            digest.update(np.packbits(thing.mask).tobytes())
    return digest.hexdigest()


def make_example(seed: int, index: int) -> Example:
    """The training picture of a key: square or oblong, with prompts for objects drawn at random.

    Drawing costs as much as learning from it, so a scene is used `USES` times, `POOL` pictures
    apart, each time turned, recoloured and asked differently.
    """
    block, place = divmod(index, POOL * USES)
    drawn = _drawn(seed, block * POOL + place % POOL)
    rng = rng_for(seed, "pocket-sam", "train", index)
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    labels = np.zeros((SIDE, SIDE), np.uint8)
    turned, turned_labels = _turned(rng, drawn)
    height, width = turned_labels.shape
    image[:height, :width], labels[:height, :width] = turned, turned_labels
    chosen = _choose(rng, drawn, POINTS + BOXES)
    masks = labels == np.array(chosen, np.uint8)[:, None, None]
    boxes = [mask_box(mask) for mask in masks]
    surfaces = np.isin(chosen, SURFACE_LABELS)
    points = [_point(rng, masks[i], boxes[i], surface=surfaces[i]) for i in range(POINTS)]
    loose = [_loose_box(rng, box, (width, height)) for box in boxes[POINTS:]]
    grid = SIDE // CELL
    cells = masks.reshape(-1, grid, CELL, grid, CELL).sum((2, 4), dtype=np.uint8)
    return Example(
        image,
        (width, height),
        np.array(points, np.float32),
        np.array(loose, np.float32),
        cells,
        np.array([box.as_list() for box in boxes], np.float32),
        _patch_owners(labels),
    )


@lru_cache(maxsize=POOL)
def _drawn(seed: int, number: int) -> Scene:
    """The training scene of a key."""
    rng = rng_for(seed, "pocket-sam", "scene", number)
    size = (SIDE, SIDE)
    if rng.random() < 0.4:
        size = (SIDE, int(rng.integers(SIDE // 2, SIDE)))
    return scene(rng, size, tags=bool(rng.random() < 0.6), worn=True)


def _turned(rng: np.random.Generator, drawn: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Picture and labels, mirrored, perhaps on their side, with the colours exchanged or faded."""
    image, labels = drawn.image, drawn.labels
    if rng.random() < 0.5:
        image, labels = image[:, ::-1], labels[:, ::-1]
    if rng.random() < 0.3:
        image, labels = image[::-1], labels[::-1]
    if rng.random() < 0.3:
        image, labels = image.transpose(1, 0, 2), labels.T
    if rng.random() < 0.5:
        image = image[..., rng.permutation(3)]
    if rng.random() < 0.3:
        gains, level = rng.uniform(0.6, 1.1, 3), rng.uniform(0, 30)
        image = (image * gains + level).clip(0, 255).astype(np.uint8)
    return image, labels


def _patch_owners(labels: np.ndarray) -> np.ndarray:
    """The label of each patch whose middle half has one only, else 0; uint8 (g, g)."""
    grid, edge = SIDE // PATCH, PATCH // 4
    patches = labels.reshape(grid, PATCH, grid, PATCH)[:, edge:-edge, :, edge:-edge]
    first = patches[:, 0, :, 0]
    alone = (patches == first[:, None, :, None]).all((1, 3))
    return np.where(alone, first, 0).astype(np.uint8)


def _choose(rng: np.random.Generator, drawn: Scene, count: int) -> list[int]:
    """Labels to ask for, tags twice as often, now and then a whole wall or floor."""
    things = [thing for thing in drawn.objects if thing.box.area >= 36]
    pixels = np.bincount(drawn.labels.ravel(), minlength=256)
    surfaces = [label for label in SURFACE_LABELS if pixels[label] > 400]
    weights = [2.0 if thing.category == "tag" else 1.0 for thing in things]
    share = _SHARE_OF_SURFACES if things else 1.0
    weights += [share * (sum(weights) or 1.0) / max(1, len(surfaces))] * len(surfaces)
    pool = [thing.label for thing in things] + surfaces
    return rng.choice(pool, count, p=np.array(weights) / sum(weights)).tolist()


def _point(
    rng: np.random.Generator, mask: np.ndarray, box: Box, *, surface: bool
) -> tuple[float, float]:
    """A pixel of the object (bool HW, with its box): any, or its most interior one."""
    x0, y0, x1, y1 = (int(v) for v in box.as_list())
    part = mask[y0:y1, x0:x1]
    if not surface and rng.random() < 0.45:
        x, y = interior_point(part)
        return float(x0 + x), float(y0 + y)
    ys, xs = np.nonzero(part)
    pick = int(rng.integers(len(xs)))
    return float(x0 + xs[pick]), float(y0 + ys[pick])


def _loose_box(
    rng: np.random.Generator, box: Box, size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """A box with each side moved by about a twentieth of its length."""
    scale = 0.0 if rng.random() < 0.25 else 0.06
    dx0, dx1 = rng.normal(0, scale * box.width + 1e-6, 2)
    dy0, dy1 = rng.normal(0, scale * box.height + 1e-6, 2)
    x0, y0 = max(0.0, box.x0 + dx0), max(0.0, box.y0 + dy0)
    x1, y1 = min(float(size[0]), box.x1 + dx1), min(float(size[1]), box.y1 + dy1)
    return x0, y0, max(x1, x0 + 2), max(y1, y0 + 2)
