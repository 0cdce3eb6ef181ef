"""Pictures and prompts that the pocket segmenter is trained and judged on.

Training pictures are keyed (seed, index); held-out pictures have seeds from `HELD_OUT` on. The
drawing is frozen with the shipped weights: `generator_digest` changes when it does.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from pipeline.samples import rng_for
from pipeline.scenes.draw import SURFACE_LABELS, Scene, SceneObject, scene
from pipeline.scenes.regions import mask_box

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
    """The training picture of a key: square or oblong, with prompts for objects drawn at random."""
    rng = rng_for(seed, "pocket-sam", "train", index)
    size = (SIDE, SIDE)
    if rng.random() < 0.4:
        size = (SIDE, int(rng.integers(SIDE // 2, SIDE)))
        size = size if rng.random() < 0.7 else size[::-1]
    drawn = scene(rng, size, tags=bool(rng.random() < 0.6), worn=True)
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    labels = np.zeros((SIDE, SIDE), np.uint8)
    image[: size[1], : size[0]], labels[: size[1], : size[0]] = drawn.image, drawn.labels
    chosen = _choose(rng, drawn, POINTS + BOXES)
    points = np.array([_point(rng, labels, thing) for thing in chosen[:POINTS]], np.float32)
    boxes = np.array([_loose_box(rng, thing, size) for thing in chosen[POINTS:]], np.float32)
    masks = labels == np.array([thing.label for thing in chosen], np.uint8)[:, None, None]
    grid = SIDE // CELL
    cells = masks.reshape(-1, grid, CELL, grid, CELL).sum((2, 4), dtype=np.uint8)
    bounds = np.array([thing.box.as_list() for thing in chosen], np.float32)
    return Example(image, size, points, boxes, cells, bounds, _patch_owners(labels))


def _patch_owners(labels: np.ndarray) -> np.ndarray:
    """The label of each patch whose middle half has one only, else 0; uint8 (g, g)."""
    grid, edge = SIDE // PATCH, PATCH // 4
    patches = labels.reshape(grid, PATCH, grid, PATCH)[:, edge:-edge, :, edge:-edge]
    first = patches[:, 0, :, 0]
    alone = (patches == first[:, None, :, None]).all((1, 3))
    return np.where(alone, first, 0).astype(np.uint8)


def _choose(rng: np.random.Generator, drawn: Scene, count: int) -> list[SceneObject]:
    """Objects to ask for, tags twice as often, now and then a whole wall or floor."""
    things = [thing for thing in drawn.objects if thing.box.area >= 36]
    surfaces = [
        SceneObject(mask_box(drawn.labels == label), "surface", label, drawn.labels)
        for label in SURFACE_LABELS
        if (drawn.labels == label).sum() > 400
    ]
    weights = [2.0 if thing.category == "tag" else 1.0 for thing in things]
    share = _SHARE_OF_SURFACES if things else 1.0
    weights += [share * (sum(weights) or 1.0) / max(1, len(surfaces))] * len(surfaces)
    pool = things + surfaces
    picks = rng.choice(len(pool), count, p=np.array(weights) / sum(weights))
    return [pool[i] for i in picks]


def _point(rng: np.random.Generator, labels: np.ndarray, thing: SceneObject) -> tuple[float, float]:
    """A pixel of the object: any, or its most interior one."""
    if thing.category != "surface" and rng.random() < 0.45:
        return thing.point
    ys, xs = np.nonzero(labels == thing.label)
    pick = int(rng.integers(len(xs)))
    return float(xs[pick]), float(ys[pick])


def _loose_box(
    rng: np.random.Generator, thing: SceneObject, size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """The object's box with each side moved by about a twentieth of the box."""
    box = thing.box
    scale = 0.0 if rng.random() < 0.25 else 0.06
    dx0, dx1 = rng.normal(0, scale * box.width + 1e-6, 2)
    dy0, dy1 = rng.normal(0, scale * box.height + 1e-6, 2)
    x0, y0 = max(0.0, box.x0 + dx0), max(0.0, box.y0 + dy0)
    x1, y1 = min(float(size[0]), box.x1 + dx1), min(float(size[1]), box.y1 + dy1)
    return x0, y0, max(x1, x0 + 2), max(y1, y0 + 2)
