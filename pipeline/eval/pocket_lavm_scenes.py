"""Visual sentences of drawn scenes, on which the pocket LAVM and its tokenizer are trained.

A scene shows things of several classes on a grey ground. What its frames mark, and in which
colours, is a `Convention` that every sentence draws anew: no picture tells it, an exemplar does.
Training sentences are keyed (seed, index); held-out ones have seeds from `HELD_OUT_SEED` on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from pipeline.samples import rng_for

HELD_OUT_SEED = 10**6
SIDE, CELLS = 32, 8
"""Side of the pocket tokenizer's pictures, pixels, and codes along it."""
FRAMES = 8
"""Of the longest sentence with its answer, as in DeLVM's published models."""
CLASSES: tuple[tuple[str, tuple[float, float, float]], ...] = (
    ("disc", (0.85, 0.2, 0.15)),
    ("square", (0.2, 0.7, 0.2)),
    ("triangle", (0.2, 0.3, 0.9)),
    ("cross", (0.9, 0.8, 0.15)),
    ("ring", (0.75, 0.2, 0.8)),
    ("bar", (0.15, 0.8, 0.85)),
)
"""A class is a shape and about a colour."""
INKS = (
    (255, 255, 255),
    (255, 64, 64),
    (64, 224, 64),
    (80, 112, 255),
    (255, 208, 48),
    (240, 96, 240),
)
"""What frames mark with, RGB."""
MARKED = 4
"""Classes that a convention marks; it leaves the others black."""
RADII = (0.15, 0.24)
"""Of a thing, shares of the side."""
HOME, ROAMING = 0.28, 0.15
"""How far from the middle a class's home is, and how far about a thing is from it: as in the world,
classes have their places, so pictures of the same classes are marked alike."""
SEEN = 0.2
"""Share of a code's pixels that a thing covers where it decides the code."""
SHARED = 0.7
"""Chance that an exemplar of a training sentence shows the query's classes."""

HELD_OUT = {"pool": 60, "query": 20}
"""Scenes of a held-out convention."""

Rgb = tuple[int, int, int]
Role = Literal["pool", "query"]


@dataclass(frozen=True, slots=True)
class Thing:
    """Something of a class, in shares of the picture's side."""

    kind: int
    """Place in `CLASSES`."""
    x: float
    y: float
    radius: float
    color: tuple[float, float, float]
    """RGB in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Things on a ground whose grey goes from one corner's to the opposite one's."""

    things: tuple[Thing, ...]
    """Largest first: most salient first."""
    greys: tuple[float, float]
    tilt: float
    """Direction of the change, radians."""

    def image(self, side: int = SIDE) -> np.ndarray:
        """The picture, uint8 (side, side, 3)."""
        across, down = _grid(side)
        along = (across - 0.5) * np.cos(self.tilt) + (down - 0.5) * np.sin(self.tilt) + 0.5
        ground = self.greys[0] + (self.greys[1] - self.greys[0]) * along.clip(0, 1)
        pixels = np.repeat(ground[..., None], 3, 2)
        for thing in self.things:
            cover = _cover(thing, side)[..., None]
            pixels = pixels * (1 - cover) + np.asarray(thing.color) * cover
        return np.rint(255 * pixels).astype(np.uint8)

    def frame(self, convention: Convention, count: int, side: int = SIDE) -> np.ndarray:
        """The `count` most salient of the things marked, uint8 (side, side, 3) on black."""
        pixels = np.zeros((side, side, 3))
        for thing in convention.marked(self)[:count]:
            cover = _cover(thing, side)[..., None]
            pixels = pixels * (1 - cover) + np.asarray(convention.inks[thing.kind]) * cover
        return np.rint(pixels).astype(np.uint8)

    def decisive(self) -> np.ndarray:
        """The first code of each thing in reading order, int64 (things,).

        There it is told what marks it; each later code of it can be copied from its neighbours.
        """
        found = [
            _cover(thing, SIDE).reshape(CELLS, -1, CELLS, SIDE // CELLS).mean((1, 3)).ravel() > SEEN
            for thing in self.things
        ]
        return np.asarray([cover.argmax() for cover in found])

    def frames(self, convention: Convention, levels: int, side: int = SIDE) -> list[np.ndarray]:
        """The chain: the last of `levels` frames marks all, each before it one thing less."""
        most = len(convention.marked(self))
        return [self.frame(convention, max(1, most - n), side) for n in reversed(range(levels))]


@dataclass(frozen=True, slots=True)
class Convention:
    """What frames mark, and in which colour."""

    inks: tuple[Rgb | None, ...]
    """By class; None: it is not marked."""

    def marked(self, scene: Scene) -> list[Thing]:
        """The things that it marks, most salient first."""
        return [thing for thing in scene.things if self.inks[thing.kind] is not None]


def convention_of(rng: np.random.Generator) -> Convention:
    """Any of them, all equally likely: `MARKED` classes, each in a colour of its own."""
    inks: list[Rgb | None] = [None] * len(CLASSES)
    colors = rng.permutation(len(INKS))
    for kind, color in zip(rng.permutation(len(CLASSES))[:MARKED], colors, strict=False):
        inks[kind] = INKS[color]
    return Convention(tuple(inks))


def kinds_of(rng: np.random.Generator, convention: Convention) -> list[int]:
    """Two or three classes of a scene: some that the convention marks, and one that it does not."""
    marked = [kind for kind, ink in enumerate(convention.inks) if ink is not None]
    others = [kind for kind, ink in enumerate(convention.inks) if ink is None]
    return [*rng.permutation(marked)[: rng.integers(1, 3)].tolist(), int(rng.choice(others))]


def scene_of(rng: np.random.Generator, kinds: Sequence[int], *, anywhere: bool = False) -> Scene:
    """One thing of each class, near the class's home or anywhere, none touching another."""
    turns = 2 * np.pi * np.asarray(kinds) / len(CLASSES)
    homes = 0.5 + HOME * np.stack([np.cos(turns), np.sin(turns)], 1)
    while True:
        radii = rng.uniform(*RADII, len(kinds))
        edges = radii[:, None] + 0.01
        if anywhere:
            places = rng.uniform(edges, 1 - edges, (len(kinds), 2))
        else:
            places = rng.normal(homes, ROAMING).clip(edges, 1 - edges)
        gaps = [
            np.hypot(*(p - q)) - a - b
            for n, (p, a) in enumerate(zip(places, radii, strict=True))
            for q, b in zip(places[:n], radii[:n], strict=True)
        ]
        if min(gaps, default=1.0) > 0.02:
            break
    things = []
    for kind, (x, y), radius in zip(kinds, places, radii, strict=True):
        color = np.asarray(CLASSES[kind][1]) * rng.uniform(0.85, 1.1) + rng.uniform(-0.05, 0.05, 3)
        red, green, blue = color.clip(0, 1).tolist()
        things.append(Thing(kind, float(x), float(y), float(radius), (red, green, blue)))
    things.sort(key=lambda thing: -thing.radius)
    first, second = rng.uniform(0.3, 0.65, 2).tolist()
    return Scene(tuple(things), (first, second), float(rng.uniform(0, 2 * np.pi)))


@dataclass(frozen=True, slots=True)
class Sentence:
    """A visual sentence with its answer."""

    frames: tuple[np.ndarray, ...]
    """A scene, what marks it, another scene, …: uint8 (SIDE, SIDE, 3) each."""
    decisive: tuple[np.ndarray, ...]
    """By frame: `Scene.decisive` of one that marks, none of a scene."""


def training_sentence(seed: int, index: int) -> Sentence:
    """One to three exemplars with one to three levels, as `visual_sentence` orders them."""
    rng = rng_for(seed, "pocket-lavm", index)
    convention = convention_of(rng)
    kinds = kinds_of(rng, convention)
    levels = int(rng.choice([1, 2, 3], p=[0.5, 0.4, 0.1]))
    frames, decisive = [], []
    for left in reversed(range((FRAMES - 2) // (2 * levels) + 1)):
        own = kinds if not left or rng.random() < SHARED else kinds_of(rng, convention)
        scene = scene_of(rng, own)
        for frame in scene.frames(convention, levels if left else 1):
            frames += [scene.image(), frame]
            decisive += [np.zeros(0, np.int64), scene.decisive()]
    return Sentence(tuple(frames), tuple(decisive))


def training_frame(seed: int, index: int) -> np.ndarray:
    """A picture for the tokenizer, uint8 (SIDE, SIDE, 3): a scene, or a frame of one."""
    rng = rng_for(seed, "pocket-vqgan", index)
    convention = convention_of(rng)
    scene = scene_of(rng, kinds_of(rng, convention), anywhere=True)
    return scene.image() if rng.random() < 0.5 else scene.frame(convention, int(rng.integers(1, 4)))


def held_out(number: int, role: Role) -> tuple[Convention, list[Scene]]:
    """A convention that is held out, and scenes to which it is put: a pool, or queries."""
    seed = HELD_OUT_SEED + number
    convention = convention_of(rng_for(seed, "pocket-lavm", "convention"))
    drawn = [rng_for(seed, "pocket-lavm", role, place) for place in range(HELD_OUT[role])]
    return convention, [scene_of(rng, kinds_of(rng, convention)) for rng in drawn]


def generator_digest(frames: int = 20) -> str:
    """SHA-256 (hex) of drawn frames: tells one generator from another."""
    return hashlib.sha256(
        b"".join(training_frame(0, n).tobytes() for n in range(frames))
    ).hexdigest()


def _grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) of each pixel's middle in [0, 1], (1, side) and (side, 1)."""
    middles = (np.arange(side) + 0.5) / side
    return middles[None], middles[:, None]


def _cover(thing: Thing, side: int) -> np.ndarray:
    """How much of each pixel a thing covers, (side, side) in [0, 1]."""
    across, down = _grid(side)
    x, y = (across - thing.x) / thing.radius, (down - thing.y) / thing.radius
    outside = _DISTANCES[CLASSES[thing.kind][0]](x, y) * thing.radius * side
    cover: np.ndarray = (0.5 - outside).clip(0, 1)
    return cover


def _box(x: np.ndarray, y: np.ndarray, wide: float, high: float) -> np.ndarray:
    return np.maximum(abs(x) - wide, abs(y) - high)


_CORNERS = [(np.cos(a), np.sin(a)) for a in np.deg2rad([-90, 30, 150, 270])]


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    sides = [
        (y - y0) * (x1 - x0) - (x - x0) * (y1 - y0) for (x0, y0), (x1, y1) in pairwise(_CORNERS)
    ]
    return -np.minimum.reduce(sides) / np.sqrt(3)


_DISTANCES = {
    "disc": lambda x, y: np.hypot(x, y) - 1,
    "square": lambda x, y: _box(x, y, 0.8, 0.8),
    "triangle": _triangle,
    "cross": lambda x, y: np.minimum(_box(x, y, 1, 0.35), _box(x, y, 0.35, 1)),
    "ring": lambda x, y: abs(np.hypot(x, y) - 0.72) - 0.28,
    "bar": lambda x, y: _box(x, y, 1, 0.42),
}
"""By class: how far outside its edge a place is, in radii; negative inside."""
