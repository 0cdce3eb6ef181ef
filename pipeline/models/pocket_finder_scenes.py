"""Pictures with lines of text in them, on which the pocket finder is trained and judged.

Text is printed on plates, on cards of a few lines, or straight on what is there, from smudges of 3
pixels to letters of 60. Training pictures are keyed (seed, index); held-out ones have seeds from
`HELD_OUT_SEED` on and held-out letterforms.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import cos, exp, log, sin

import numpy as np
from PIL import Image, ImageDraw

from pipeline.models.pocket_reader_texts import random_text
from pipeline.samples import rng_for
from pipeline.scenes import fonts
from pipeline.scenes.draw import scene
from pipeline.scenes.fonts import FAMILIES
from pipeline.scenes.hang import corners, perspective, sent
from pipeline.scenes.lettering import Margins, colors, defocus, ink_mask, jpeg, lettering, noise
from pipeline.scenes.planes import Quad
from pipeline.scenes.plates import draw_look, draw_plate, fitted

SIDE = 256
"""Side of a training picture, pixels."""
CELL = 4
"""Side of a cell of the finder's maps, pixels."""
REACH_PX = 32.0
"""Farthest that a cell tells the ends of its line."""
HELD_OUT_SEED = 10**6
USES, POOL = 3, 384
"""Times a training scene is used, and scenes in use at a time."""
_CORE = 0.55


@dataclass(frozen=True, slots=True)
class Page:
    """A picture and where its lines of text are."""

    image: np.ndarray
    """uint8 HWC."""
    quads: tuple[Quad, ...]
    """Corners of each line's ink, clockwise from the upper left, pixels; may reach outside."""
    caps_px: tuple[float, ...]
    """Height of each line's capitals."""


@dataclass(frozen=True, slots=True)
class _Sprite:
    """Something with text on it, seen from the front."""

    image: Image.Image
    """RGBA."""
    quads: tuple[Quad, ...]
    caps_px: tuple[float, ...]
    bare: bool = False
    """Whether it is ink alone, to be coloured so that it shows where it comes to be."""


def training_page(seed: int, index: int) -> Page:
    """The training picture of a key; a scene is used `USES` times, `POOL` pictures apart."""
    block, place = divmod(index, POOL * USES)
    ground = _ground(seed, block * POOL + place % POOL)
    rng = rng_for(seed, "pocket-finder", index)
    if rng.random() < 0.5:
        ground = ground.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return make_page(rng, ground, fonts.TRAINING)


def held_out_page(seed: int, size: tuple[int, int] = (SIDE, SIDE)) -> Page:
    """The frozen picture of a seed ≥ `HELD_OUT_SEED`."""
    rng = rng_for(seed, "pocket-finder", "held out")
    return make_page(rng, Image.fromarray(scene(rng, size).image), fonts.HELD_OUT)


def generator_digest(pages: int = 10) -> str:
    """BLAKE2b (hex, 16 bytes) of the first held-out pictures and their lines."""
    digest = hashlib.blake2b(digest_size=16)
    for seed in range(HELD_OUT_SEED, HELD_OUT_SEED + pages):
        page = held_out_page(seed)
        digest.update(page.image.tobytes() + np.array(page.quads, np.float32).tobytes())
    return digest.hexdigest()


@lru_cache(maxsize=POOL)
def _ground(seed: int, number: int) -> Image.Image:
    rng = rng_for(seed, "pocket-finder", "scene", number)
    return Image.fromarray(scene(rng, (SIDE, SIDE)).image)


def make_page(rng: np.random.Generator, ground: Image.Image, families: Sequence[str]) -> Page:
    """The ground with text put on it, and then what cameras and files do to it."""
    image = ground.copy()
    quads: list[Quad] = []
    caps: list[float] = []
    taken: list[tuple[float, float, float, float]] = []
    for _ in range(int(rng.choice([0, 1, 2, 3, 4, 6, 8], p=[0.1, 0.2, 0.2, 0.2, 0.15, 0.1, 0.05]))):
        cap_px = exp(rng.uniform(log(3), log(60 if rng.random() < 0.5 else 18)))
        sprite = _sprite(rng, str(rng.choice(list(families))), cap_px, min(image.size))
        frame = _place(rng, sprite.image.size, image.size, taken)
        if frame is not None:
            quads += _paste(rng, image, sprite, frame)
            caps += sprite.caps_px
    return Page(np.asarray(_worn(rng, image)), tuple(quads), tuple(caps))


def truth_maps(page: Page) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the finder should say: (core, weight, distances).

    Core and weight are float32 (h, w), one cell for `CELL` pixels a side: whether the cell is on
    the middle of a line, and how much it counts. Distances are float32 (4, h, w), pixels from the
    cell's centre to the line's left, top, right and bottom, for core cells.
    """
    height, width = (-(-side // CELL) for side in page.image.shape[:2])
    core, weight = np.zeros((height, width), np.float32), np.ones((height, width), np.float32)
    distances = np.zeros((4, height, width), np.float32)
    y, x = (np.mgrid[:height, :width] + 0.5) * CELL
    for (x0, y0), (x1, y1), (x2, y2), (x3, y3) in page.quads:
        left, right = (x0 + x3) / 2, (x1 + x2) / 2
        along = (x - left) / (right - left)
        top, bottom = y0 + (y1 - y0) * along, y3 + (y2 - y3) * along
        tall = bottom - top
        off = np.abs(y - (top + bottom) / 2)
        inside = (along >= 0) & (along <= 1)
        weight[inside & (off <= np.maximum(tall, CELL) / 2 + 1)] = 0.4
        inset = np.minimum(0.2 * tall, 0.3 * (right - left))
        on = (x >= left + inset) & (x <= right - inset)
        on &= off <= np.maximum(_CORE * tall, CELL) / 2
        core[on], weight[on] = 1, 1
        ends = (x - left, y - top, right - x, bottom - y)
        for plane, values in zip(distances, ends, strict=True):
            plane[on] = np.clip(values, 0, None)[on]
    return core, weight, distances.clip(0, 2 * REACH_PX)


def _sprite(rng: np.random.Generator, family: str, cap_px: float, room: int) -> _Sprite:
    """A plate, a card with one to four lines, or bare letters; not much wider than the room."""
    over = max(1.0, 12 / cap_px)
    kind = rng.random()
    if kind < 0.45:
        sprite = _plate(rng, family, cap_px * over)
    else:
        sprite = _card(rng, family, cap_px * over, bare=kind < 0.7)
    scale = min(1 / over, 1.1 * room / sprite.image.width)
    size = tuple(max(2, round(side * scale)) for side in sprite.image.size)
    grown = (size[0] / sprite.image.width, size[1] / sprite.image.height)
    quads = tuple(_scaled(quad, grown) for quad in sprite.quads)
    image = sprite.image.resize((size[0], size[1]), Image.Resampling.HAMMING)
    caps = tuple(cap * scale for cap in sprite.caps_px)
    return _Sprite(image, quads, caps, sprite.bare)


def _plate(rng: np.random.Generator, family: str, cap_px: float) -> _Sprite:
    word, code = random_text(rng).upper()[:8].strip(), random_text(rng).upper()[:8].strip()
    look = fitted(draw_look(rng, fonts=[family]), [(word, code)])
    drawn = draw_plate(look, word, code, cap_px, rng)
    quads = (_quad(drawn.word_quad), _quad(drawn.code_quad))
    return _Sprite(drawn.image, quads, (drawn.word_cap_px, drawn.code_cap_px))


def _card(rng: np.random.Generator, family: str, cap_px: float, *, bare: bool) -> _Sprite:
    """Lines below each other, left or centred, on a flat card or on nothing."""
    ink, ground = colors(rng, rng.uniform(0.3, 1.0))
    font = lettering(family, float(round(cap_px)), int(rng.choice([400, 700])))
    count = 1 if bare else int(rng.integers(1, 5))
    texts = [random_text(rng) for _ in range(count)]
    if FAMILIES[family].caps_only:
        texts = [text.upper() for text in texts]
    tracking = rng.uniform(0, 0.3) * cap_px if rng.random() < 0.2 else 0.0
    lines = [ink_mask(t, font, cap_px, Margins(), tracking_px=tracking) for t in texts]
    pitch = rng.uniform(1.5, 2.2) * cap_px
    margin = rng.uniform(0.2, 1.2) * cap_px
    size = (
        max(line.width for line in lines) + round(2 * margin),
        round(2 * margin + pitch * count),
    )
    mask = Image.new("L", size)
    quads = []
    centred = rng.random() < 0.5
    for row, line in enumerate(lines):
        left = (size[0] - line.width) // 2 if centred else round(margin)
        top = round(margin + row * pitch)
        mask.paste(line, (left, top), line)
        x0, y0, x1, y1 = line.getbbox() or (0, 0, 1, 1)
        quads.append(_quad([(left + x0, top + y0), (left + x1, top + y1)]))
    image = Image.new("RGBA", size, (*(ink if bare else ground), 0 if bare else 255))
    if not bare and rng.random() < 0.4:
        ImageDraw.Draw(image).rectangle((0, 0, size[0] - 1, size[1] - 1), outline=(*ink, 255))
    image.paste((*ink, 255), (0, 0), mask)
    return _Sprite(image, tuple(quads), (cap_px,) * count, bare)


def _place(
    rng: np.random.Generator,
    size: tuple[int, int],
    room: tuple[int, int],
    taken: list[tuple[float, float, float, float]],
) -> Quad | None:
    """Where a sprite's corners go, askew and free of the others; None where there is no room."""
    width, height = size
    tilt = float(np.clip(rng.normal(0, 0.07), -0.3, 0.3)) if rng.random() < 0.7 else 0.0
    c, s = cos(tilt), sin(tilt)
    shrink, slant = rng.normal(0, 0.06), rng.normal(0, 0.08)
    frame = []
    for x, y in corners(size):
        dx, dy = x - width / 2, y - height / 2
        dy *= 1 - shrink * 2 * dx / width
        dx += slant * dy
        frame.append((c * dx - s * dy, s * dx + c * dy))
    xs, ys = zip(*frame, strict=True)
    for _ in range(8):
        cx, cy = (float(rng.uniform(0.02, 0.98)) * side for side in room)
        box = (cx + min(xs), cy + min(ys), cx + max(xs), cy + max(ys))
        hidden = max(-box[0], -box[1], box[2] - room[0], box[3] - room[1])
        if hidden > 0.15 * min(width, height):
            continue
        if any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
            continue
        taken.append(box)
        points = [(cx + x, cy + y) for x, y in frame]
        return points[0], points[1], points[2], points[3]
    return None


def _paste(
    rng: np.random.Generator, image: Image.Image, sprite: _Sprite, frame: Quad
) -> list[Quad]:
    """Put a sprite into the picture, in place; returns its lines' corners there."""
    xs, ys = zip(*frame, strict=True)
    x0, y0 = int(min(xs)) - 1, int(min(ys)) - 1
    size = (int(max(xs)) + 2 - x0, int(max(ys)) + 2 - y0)
    moved = tuple((x - x0, y - y0) for x, y in frame)
    target: Quad = (moved[0], moved[1], moved[2], moved[3])
    back = perspective(target, corners(sprite.image.size))
    seen = sprite.image.transform(
        size, Image.Transform.PERSPECTIVE, back, Image.Resampling.BILINEAR
    )
    if sprite.bare:
        box = (x0, y0, x0 + size[0], y0 + size[1])
        image.paste(_showing(rng, image.crop(box)), (x0, y0), seen.getchannel("A"))
    else:
        image.paste(seen.convert("RGB"), (x0, y0), seen.getchannel("A"))
    there = perspective(corners(sprite.image.size), frame)
    return [_quad([sent(point, there) for point in quad]) for quad in sprite.quads]


def _showing(rng: np.random.Generator, ground: Image.Image) -> Image.Image:
    """Ink for each place of a ground (RGB): all dark, all light, or what differs from each."""
    light = np.asarray(ground.convert("L").resize((4, 4), Image.Resampling.BOX), np.float32)
    dark_ink = light.mean() > rng.uniform(90, 160)
    if light.min() < 90 < 165 < light.max():
        mask = ground.convert("L").point(lambda level: 255 * (level < 128))
        return Image.merge("RGB", [mask] * 3)
    level = rng.uniform(0, 60) if dark_ink else rng.uniform(195, 255)
    red, green, blue = np.clip(level + rng.normal(0, 20, 3), 0, 255).astype(int).tolist()
    return Image.new("RGB", ground.size, (red, green, blue))


def _worn(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    if rng.random() < 0.4:
        image = defocus(image, rng.uniform(0.2, 1.3))
    if rng.random() < 0.3:
        gain, lift = rng.uniform(0.5, 1.0), rng.uniform(0, 40)
        image = image.point([int(min(255, v * gain + lift)) for v in range(256)] * 3)
    if rng.random() < 0.4:
        image = noise(image, rng, min(rng.exponential(8.0), 40.0))
    if rng.random() < 0.4:
        image = jpeg(image, int(rng.integers(30, 96)))
    return image


def _quad(points: Sequence[tuple[float, float]]) -> Quad:
    """Four corners, or those of a box given by its upper left and lower right."""
    if len(points) == 2:
        (x0, y0), (x1, y1) = points
        return (x0, y0), (x1, y0), (x1, y1), (x0, y1)
    return points[0], points[1], points[2], points[3]


def _scaled(quad: Quad, by: tuple[float, float]) -> Quad:
    return _quad([(x * by[0], y * by[1]) for x, y in quad])
