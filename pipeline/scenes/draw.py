"""Procedural pictures with exact masks: rooms, tables, foliage, and objects in front of each other.

A picture depends on its generator and size only. Masks are the visible parts under the painter's
order; an object that is mostly hidden or falls apart is painted but not listed.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from dataclasses import field as default
from math import exp, log

import numpy as np
from PIL import Image, ImageChops, ImageFilter, ImageFont

from pipeline.geometry import Box, Size
from pipeline.scenes import textures
from pipeline.scenes.regions import interior_point, largest_share, mask_box
from pipeline.scenes.shapes import draw_outline, make_outline
from pipeline.scenes.tags import ALPHABET, COLORS, SHAPES, draw_tag, embedded_font

Corner = tuple[int, int]
"""Where a painted thing's upper left pixel goes; may lie outside the picture."""

SURFACE_LABELS = range(250, 255)
"""Labels of walls, floors and tables; 0 is nothing."""


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One drawn object of which one visible region is left."""

    box: Box
    """Bounds of the visible mask."""
    category: str
    """The outline's family, or `tag`."""
    label: int
    labels: np.ndarray = default(repr=False, compare=False)

    @property
    def mask(self) -> np.ndarray:
        """Its visible pixels, bool HW of the whole picture."""
        return self.labels == self.label

    @property
    def point(self) -> tuple[float, float]:
        """The most interior pixel (x, y) of the visible mask."""
        x0, y0, x1, y1 = (int(v) for v in (self.box.x0, self.box.y0, self.box.x1, self.box.y1))
        x, y = interior_point(self.labels[y0:y1, x0:x1] == self.label)
        return x0 + x, y0 + y


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture, what every pixel belongs to, and the objects worth naming."""

    image: np.ndarray
    """uint8 HWC, RGB."""
    labels: np.ndarray
    """uint8 HW: 1.. for painted things, `SURFACE_LABELS` for what they stand on or before."""
    objects: list[SceneObject]


def scene(
    rng: np.random.Generator, size: Size = (256, 256), *, tags: bool = False, worn: bool = False
) -> Scene:
    """A picture of (width, height) pixels with 8 to 40 objects.

    `tags` puts up to eight tags on it; `worn` adds blur, grain and JPEG artefacts.
    """
    canvas = _Canvas.start(rng, size)
    for side in sorted(_object_sides(rng, min(size), int(rng.integers(8, 33))), reverse=True):
        _paint_object(canvas, rng, side)
    if tags:
        font = embedded_font(24)
        for _ in range(int(rng.integers(1, 9))):
            _paint_tag(canvas, rng, font)
    labels = np.asarray(canvas.labels)
    image = _wear(canvas.image, rng) if worn else canvas.image
    return Scene(np.asarray(image), labels, _visible_objects(canvas, labels))


@dataclass(slots=True)
class _Canvas:
    """The picture while it is painted."""

    image: Image.Image
    labels: Image.Image
    atlas: textures.Atlas
    palette: list[textures.Rgb]
    painted: list[tuple[str, int, tuple[int, int, int, int]]] = default(default_factory=list)
    """(category, pixels inside the picture, box) of label 1, 2, …"""

    @classmethod
    def start(cls, rng: np.random.Generator, size: Size) -> _Canvas:
        side = 128 if max(size) <= 512 else 512
        canvas = cls(
            Image.new("RGB", size),
            Image.new("L", size, SURFACE_LABELS[0]),
            textures.make_atlas(rng, side),
            textures.make_palette(rng),
        )
        _paint_surfaces(canvas, rng)
        if rng.random() < 0.45:
            _paint_clutter(canvas, rng)
        return canvas

    def paste(self, fill: Image.Image, mask: Image.Image, corner: Corner, kind: str) -> None:
        """Paint `fill` where `mask` (L coverage) is, as the next label."""
        label = len(self.painted) + 1
        solid = mask.convert("1", dither=Image.Dither.NONE)
        self.image.paste(fill, corner, mask)
        self.labels.paste(label, corner, solid)
        x0, y0 = (max(0, c) for c in corner)
        x1, y1 = (min(s, c + m) for s, c, m in zip(self.image.size, corner, mask.size, strict=True))
        inside = solid.crop((x0 - corner[0], y0 - corner[1], x1 - corner[0], y1 - corner[1]))
        self.painted.append((kind, inside.histogram()[255], (x0, y0, x1, y1)))


def _object_sides(rng: np.random.Generator, short: int, count: int) -> list[float]:
    """Sizes in pixels, more small than large."""
    low, high = max(10.0, 0.05 * short), 0.5 * short
    return [exp(rng.uniform(log(low), log(high))) for _ in range(count)]


def _paint_surfaces(canvas: _Canvas, rng: np.random.Generator) -> None:
    """A wall, and before it perhaps a floor, a table or panels."""
    width, height = canvas.image.size
    areas = [(0, 0, width, height)]
    layout = rng.random()
    if layout < 0.4:
        areas.append((0, int(height * rng.uniform(0.35, 0.8)), width, height))
    elif layout < 0.6:
        for cut in sorted(rng.uniform(0.1, 0.9, int(rng.integers(1, 3)))):
            areas.append((int(width * cut), 0, width, height))
    for label, (x0, y0, x1, y1) in zip(SURFACE_LABELS, areas, strict=False):
        size = (x1 - x0, y1 - y0)
        canvas.image.paste(_surface_fill(canvas, rng, size), (x0, y0))
        canvas.labels.paste(label, (x0, y0, x1, y1))


def _surface_fill(canvas: _Canvas, rng: np.random.Generator, size: Size) -> Image.Image:
    """One field, or two in patches of nearby colours."""
    low = canvas.palette[int(rng.integers(len(canvas.palette)))]
    values = textures.field(canvas.atlas, size, rng)
    fill = textures.colored(values, low, textures.shifted(low, rng, 70))
    if rng.random() < 0.65:
        return fill
    low = textures.shifted(low, rng, 60)
    values = textures.field(canvas.atlas, size, rng)
    other = textures.colored(values, low, textures.shifted(low, rng, 50))
    patches = textures.cut(canvas.atlas["clouds"], size, rng)
    return Image.composite(fill, other, patches.point(textures.CONTRAST))


def _paint_clutter(canvas: _Canvas, rng: np.random.Generator) -> None:
    """Leaves, pebbles or chips strewn over the surfaces; they have no labels of their own."""
    width, height = canvas.image.size
    base = canvas.palette[int(rng.integers(len(canvas.palette)))]
    sprites = []
    for _ in range(6):
        outline = make_outline(rng)
        long = max(3, int(min(width, height) * rng.uniform(0.012, 0.05)))
        size = (long, max(2, round(long / max(0.3, outline.aspect))))
        mask = draw_outline(outline, size, 3)
        color = textures.shifted(base, rng, 50)
        fill = textures.colored(textures.field(canvas.atlas, size, rng), base, color)
        sprites.append((fill, mask))
    top = height * (rng.random() < 0.3) * rng.uniform(0.2, 0.6)
    count = int(rng.integers(30, 110))
    xs, ys = rng.uniform(0, width, count), rng.uniform(top, height, count)
    for x, y, which in zip(xs, ys, rng.integers(0, 6, count), strict=True):
        fill, mask = sprites[which]
        canvas.image.paste(fill, (int(x) - mask.width // 2, int(y) - mask.height // 2), mask)


def _paint_object(canvas: _Canvas, rng: np.random.Generator, side: float) -> None:
    outline = make_outline(rng)
    stretch = max(0.35, min(2.9, outline.aspect)) ** 0.5
    size = (max(4, round(side * stretch)), max(4, round(side / stretch)))
    corner = _place(canvas, rng, size)
    mask = draw_outline(outline, size, 4 if max(size) < 128 else 2)
    fill = _object_fill(canvas, rng, size, corner)
    if rng.random() < 0.3:
        _paint_shadow(canvas, rng, mask, corner)
    canvas.paste(fill, mask, corner, outline.family)


def _place(canvas: _Canvas, rng: np.random.Generator, size: Size) -> Corner:
    """A corner such that most of the box is inside; free ground where there is some."""
    best, most = (0, 0), -1.0
    for _ in range(3):
        x, y = (
            int(rng.uniform(-0.12 * s, max(1, whole - 0.88 * s)))
            for s, whole in zip(size, canvas.image.size, strict=True)
        )
        box = (x, y, x + size[0], y + size[1])
        seen = canvas.labels.resize((6, 6), Image.Resampling.NEAREST, box=_clipped(box, canvas))
        free = sum(seen.histogram()[SURFACE_LABELS[0] :]) / 36
        if free > most:
            best, most = (x, y), free
    return best


def _clipped(box: tuple[int, int, int, int], canvas: _Canvas) -> tuple[int, int, int, int]:
    width, height = canvas.image.size
    return max(0, box[0]), max(0, box[1]), min(width, box[2]), min(height, box[3])


def _object_fill(
    canvas: _Canvas, rng: np.random.Generator, size: Size, corner: Corner
) -> Image.Image:
    """A surface that stands out from what is behind it."""
    box = _clipped((*corner, corner[0] + size[0], corner[1] + size[1]), canvas)
    behind = np.asarray(canvas.image.resize((4, 4), Image.Resampling.BOX, box=box), np.float32)
    behind = behind.reshape(-1, 3)
    wanted = rng.uniform(60, 140)
    chosen, most = canvas.palette[0], -1.0
    for _ in range(8):
        color = canvas.palette[int(rng.integers(len(canvas.palette)))]
        if rng.random() < 0.12:
            color = textures.vivid(rng)
        contrast = float(np.abs(behind - color).sum(1).mean()) / 1.7
        if contrast > most:
            chosen, most = color, contrast
        if most >= wanted:
            break
    values = textures.field(canvas.atlas, size, rng)
    other = textures.shifted(chosen, rng, min(80.0, 0.6 * most + 10))
    return textures.colored(values, chosen, other)


def _paint_shadow(
    canvas: _Canvas, rng: np.random.Generator, mask: Image.Image, corner: Corner
) -> None:
    reach = max(1, max(mask.size) // 16)
    soft = Image.new("L", (mask.width + 4 * reach, mask.height + 4 * reach))
    soft.paste(mask.point(lambda v: v // 2), (2 * reach, 2 * reach))
    soft = soft.filter(ImageFilter.BoxBlur(reach))
    dx, dy = (int(v) for v in rng.integers(-reach, reach + 1, 2))
    canvas.image.paste((0, 0, 0), (corner[0] - 2 * reach + dx, corner[1] - 2 * reach + dy), soft)


def _paint_tag(canvas: _Canvas, rng: np.random.Generator, font: ImageFont.FreeTypeFont) -> None:
    short = min(canvas.image.size)
    side = int(exp(rng.uniform(log(0.032 * short), log(0.28 * short))))
    code = "".join(rng.choice(list(ALPHABET), int(rng.integers(0, 5))))
    turn = float(rng.normal(0, 12)) if rng.random() < 0.4 else 0.0
    shape, color = str(rng.choice(SHAPES)), str(rng.choice(list(COLORS)))
    tag = draw_tag(shape, color, code, side, rotation_deg=turn, font=font)
    x, y = (int(rng.uniform(0, s - side)) for s in canvas.image.size)
    fill = tag.convert("RGB")
    if rng.random() < 0.5:
        light = float(rng.uniform(0.75, 1.0))
        fill = fill.point(lambda v: int(v * light))
    canvas.paste(fill, tag.getchannel("A"), (x, y), "tag")


def _wear(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """What cameras and files do to a picture: exposure, blur, grain, JPEG."""
    if rng.random() < 0.4:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.2, 1.1))))
    if rng.random() < 0.3:
        gain, lift = rng.uniform(0.6, 1.0), rng.uniform(0, 40)
        image = image.point([int(min(255, v * gain + lift)) for v in range(256)] * 3)
    if rng.random() < 0.5:
        grain = rng.integers(0, 256, (image.height, image.width, 3), dtype=np.uint8)
        depth = int(rng.integers(6, 40))
        dust = Image.fromarray((grain.astype(np.uint16) * depth >> 8).astype(np.uint8))
        image = ImageChops.add(image, dust, offset=-depth // 2)
    if rng.random() < 0.4:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(rng.integers(45, 96)))
        image = Image.open(file).convert("RGB")
    return image


def _visible_objects(canvas: _Canvas, labels: np.ndarray) -> list[SceneObject]:
    """The painted things of which at least half is left, in one piece."""
    visible = canvas.labels.histogram()
    objects = []
    for label, (kind, painted, (x0, y0, x1, y1)) in enumerate(canvas.painted, start=1):
        if painted < 24 or visible[label] < 0.5 * painted:
            continue
        mask = labels[y0:y1, x0:x1] == label
        if visible[label] < 0.98 * painted and largest_share(mask) < 0.95:
            continue
        tight = mask_box(mask)
        box = Box(x0 + tight.x0, y0 + tight.y0, x0 + tight.x1, y0 + tight.y1)
        objects.append(SceneObject(box, kind, label, labels))
    return objects
