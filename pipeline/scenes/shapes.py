"""Outlines of drawn objects: named families of polygons, each filling its own unit square.

Knows nothing of colours or of pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import numpy as np
from PIL import Image, ImageDraw

from pipeline.scenes.tags import outline_points

Points = np.ndarray
"""float (N, 2): x to the right, y down."""


@dataclass(frozen=True, slots=True)
class Outline:
    """A region: the union of `solids` less the union of `holes`, within [-0.5, 0.5]²."""

    family: str
    solids: list[Points]
    holes: list[Points]
    aspect: float
    """Width over height once drawn."""


def make_outline(rng: np.random.Generator) -> Outline:
    """An outline of a random family, turned and stretched at random."""
    family = str(rng.choice(FAMILIES, p=_WEIGHTS))
    solids, holes = _DRAWN[family](rng)
    things = family in _THINGS
    aspect = float(np.exp(rng.normal(0, 0.18 if things else 0.35)))
    turn = float(rng.normal(0, 0.12) if things else rng.uniform(0, 2 * pi))
    turned = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    turned = np.array([[aspect**0.5, 0], [0, aspect**-0.5]]) @ turned
    solids, holes = [p @ turned for p in solids], [p @ turned for p in holes]
    every = np.concatenate(solids)
    low, high = every.min(0), every.max(0)
    middle, extent = (low + high) / 2, high - low
    solids, holes = ([(p - middle) / extent for p in group] for group in (solids, holes))
    return Outline(family, solids, holes, float(extent[0] / extent[1]))


def draw_outline(outline: Outline, size: tuple[int, int], over: int) -> Image.Image:
    """The region's coverage, L of (width, height) pixels, drawn `over` times as large."""
    wide = (size[0] * over, size[1] * over)
    mask = Image.new("L", wide)
    pen = ImageDraw.Draw(mask)
    for group, value in ((outline.solids, 255), (outline.holes, 0)):
        for points in group:
            pen.polygon(((points + 0.5) * wide).ravel().tolist(), fill=value)
    return mask.reduce(over) if over > 1 else mask


Parts = tuple[list[Points], list[Points]]


def _ellipse(x: float, y: float, width: float, height: float, steps: int = 40) -> Points:
    turns = np.linspace(0, 2 * pi, steps, endpoint=False)
    return np.stack([x + width / 2 * np.cos(turns), y + height / 2 * np.sin(turns)], 1)


def _rect(x: float, y: float, width: float, height: float) -> Points:
    """A rectangle by its middle and extent."""
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) / 2
    return corners * (width, height) + (x, y)


def _disc(rng: np.random.Generator) -> Parts:
    return [_ellipse(0, 0, 1, rng.uniform(0.55, 1))], []


def _box(rng: np.random.Generator) -> Parts:
    return [_rect(0, 0, 1, rng.uniform(0.4, 1))], []


def _rounded(rng: np.random.Generator) -> Parts:
    turns = np.linspace(0, 2 * pi, 48, endpoint=False)
    power = rng.uniform(0.3, 0.8)
    x, y = np.cos(turns), np.sin(turns)
    points = np.stack([np.sign(x) * abs(x) ** power, np.sign(y) * abs(y) ** power], 1)
    return [points * (0.5, rng.uniform(0.25, 0.5))], []


def _polygon(rng: np.random.Generator) -> Parts:
    corners = int(rng.integers(3, 9))
    turns = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * 2 * pi / corners
    radii = rng.uniform(0.6, 1, corners)
    return [np.stack([radii * np.cos(turns), radii * np.sin(turns)], 1)], []


def _emblem(rng: np.random.Generator) -> Parts:
    shape = str(rng.choice(["triangle", "diamond", "hexagon", "star"]))
    return [np.array(outline_points(shape)) - 0.5], []


def _spiky(rng: np.random.Generator) -> Parts:
    points = 2 * int(rng.integers(4, 10))
    turns = np.arange(points) * 2 * pi / points
    radii = np.where(np.arange(points) % 2, rng.uniform(0.35, 0.8), 1.0)
    return [np.stack([radii * np.cos(turns), radii * np.sin(turns)], 1)], []


def _blob(rng: np.random.Generator) -> Parts:
    turns = np.linspace(0, 2 * pi, 64, endpoint=False)
    radii = np.ones(64)
    for k in range(2, 8):
        radii += rng.normal(0, 0.35 / k) * np.cos(k * turns + rng.uniform(0, 2 * pi))
    radii = np.maximum(radii, 0.3)
    return [np.stack([radii * np.cos(turns), radii * np.sin(turns)], 1)], []


def _ring(rng: np.random.Generator) -> Parts:
    height, hole = rng.uniform(0.7, 1), rng.uniform(0.3, 0.6)
    return [_ellipse(0, 0, 1, height)], [_ellipse(0, 0, hole, hole * height)]


def _frame(rng: np.random.Generator) -> Parts:
    height, rim = rng.uniform(0.6, 1), rng.uniform(0.12, 0.22)
    return [_rect(0, 0, 1, height)], [_rect(0, 0, 1 - 2 * rim, height - 2 * rim)]


def _bar(rng: np.random.Generator) -> Parts:
    return [_rect(0, 0, 1, rng.uniform(0.12, 0.3))], []


def _crescent(rng: np.random.Generator) -> Parts:
    turns = np.linspace(-2.2, 2.2, 30)
    outer = np.stack([np.cos(turns), np.sin(turns)], 1)
    inner = outer[::-1] * (rng.uniform(0.1, 0.4), 1.0)
    return [np.concatenate([outer, inner])], []


def _leaf(rng: np.random.Generator) -> Parts:
    x = np.linspace(0, 1, 20)
    y = rng.uniform(0.2, 0.4) * np.sin(pi * x ** rng.uniform(0.7, 1.3))
    return [np.concatenate([np.stack([x, y], 1), np.stack([x, -y], 1)[::-1]])], []


def _cross(rng: np.random.Generator) -> Parts:
    wide = rng.uniform(0.25, 0.42)
    return [_rect(0, 0, 1, wide), _rect(0, 0, wide, 1)], []


def _arrow(rng: np.random.Generator) -> Parts:
    wide = rng.uniform(0.2, 0.35)
    head = np.array([(0.5, 0), (0.05, -0.4), (0.05, 0.4)])
    return [_rect(-0.2, 0, 0.6, wide), head], []


def _bottle(rng: np.random.Generator) -> Parts:
    neck = rng.uniform(0.12, 0.2)
    body = np.array([(-0.2, 0.5), (-0.2, -0.1), (-neck / 2, -0.25), (neck / 2, -0.25)])
    return [np.concatenate([body, [(0.2, -0.1), (0.2, 0.5)]]), _rect(0, -0.36, neck, 0.28)], []


def _mug(rng: np.random.Generator) -> Parts:
    high = rng.uniform(0.6, 0.9)
    handle = _ellipse(0.3, 0, 0.4, high * 0.6)
    return [handle, _rect(0, 0, 0.6, high)], [_ellipse(0.38, 0, 0.16, high * 0.3)]


def _house(rng: np.random.Generator) -> Parts:
    eaves = rng.uniform(0.4, 0.55)
    roof = np.array([(-eaves, 0), (0, -rng.uniform(0.3, 0.5)), (eaves, 0)])
    return [_rect(0, 0.25, 0.8, 0.5), roof], []


def _tree(rng: np.random.Generator) -> Parts:
    crown = _blob(rng)[0][0] * 0.35 + (0, -0.2)
    return [_rect(0, 0.3, rng.uniform(0.1, 0.18), 0.5), crown], []


def _figure(rng: np.random.Generator) -> Parts:
    wide = rng.uniform(0.26, 0.4)
    legs = [_rect(s * wide * 0.28, 0.33, wide * 0.36, 0.36) for s in (-1, 1)]
    return [_ellipse(0, -0.4, 0.2, 0.22), _ellipse(0, -0.05, wide, 0.62), *legs], []


def _car(rng: np.random.Generator) -> Parts:
    roof = np.array([(-0.3, 0), (-0.18, -0.2), (0.15, -0.2), (0.3, 0)])
    wheels = [_ellipse(s * rng.uniform(0.25, 0.32), 0.16, 0.2, 0.2) for s in (-1, 1)]
    return [_rect(0, 0.06, 1, 0.2), roof, *wheels], []


def _fish(rng: np.random.Generator) -> Parts:
    tail = np.array([(0.2, 0), (0.5, -0.22), (0.44, 0), (0.5, 0.22)])
    return [_ellipse(-0.1, 0, 0.8, rng.uniform(0.3, 0.5)), tail], []


def _lamp(rng: np.random.Generator) -> Parts:
    top = rng.uniform(0.15, 0.3)
    shade = np.array([(-top, -0.5), (top, -0.5), (0.4, -0.1), (-0.4, -0.1)])
    return [shade, _rect(0, 0.15, 0.1, 0.6), _ellipse(0, 0.44, 0.5, 0.14)], []


_DRAWN = {
    "disc": _disc,
    "box": _box,
    "rounded": _rounded,
    "polygon": _polygon,
    "emblem": _emblem,
    "spiky": _spiky,
    "blob": _blob,
    "ring": _ring,
    "frame": _frame,
    "bar": _bar,
    "crescent": _crescent,
    "leaf": _leaf,
    "cross": _cross,
    "arrow": _arrow,
    "bottle": _bottle,
    "mug": _mug,
    "house": _house,
    "tree": _tree,
    "figure": _figure,
    "car": _car,
    "fish": _fish,
    "lamp": _lamp,
}
FAMILIES = tuple(_DRAWN)
_THINGS = frozenset(FAMILIES[FAMILIES.index("bottle") :])
_COMMON = {"disc": 3, "box": 3, "rounded": 3, "polygon": 3, "blob": 4, "emblem": 2}
_COUNTS = np.array([_COMMON.get(family, 1) for family in FAMILIES])
_WEIGHTS = _COUNTS / _COUNTS.sum()
