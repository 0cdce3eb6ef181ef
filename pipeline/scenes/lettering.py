"""One line of text as pixels, and what cameras, files and views do to it.

Owns how letters are put on a ground and how they are worn down: each wear is one function of a
picture and its own settings, random only through the generator that it is given. It knows nothing
of scenes, of questions, or of who reads.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from pipeline.scenes.fonts import REGULAR, face

Rgb = tuple[int, int, int]

CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-.:/&' "
"""What a line may hold."""
LONGEST = 12
"""Characters in a line, at most."""

_PROBE_PX = 200


@dataclass(frozen=True, slots=True)
class Margins:
    """Ground around the band of the capitals, as fractions of a capital's height.

    Descenders lie below that band and need about 0.3 of it; a negative margin cuts letters off.
    """

    left: float = 0.4
    top: float = 0.4
    right: float = 0.4
    bottom: float = 0.4


@lru_cache(maxsize=256)
def lettering(name: str, cap_px: float, weight: int = REGULAR) -> ImageFont.FreeTypeFont:
    """A family's face whose capitals are `cap_px` pixels high."""
    probe = face(name, _PROBE_PX, weight)
    _, top, _, bottom = probe.getbbox("H", anchor="ls")
    return face(name, cap_px * _PROBE_PX / (bottom - top), weight)


def line_width(text: str, font: ImageFont.FreeTypeFont, tracking_px: float = 0.0) -> float:
    """Width in pixels from the first letter's origin to the last one's advance."""
    return font.getlength(text) + tracking_px * max(len(text) - 1, 0)


def ink_mask(
    text: str,
    font: ImageFont.FreeTypeFont,
    cap_px: float,
    margins: Margins = Margins(),
    *,
    tracking_px: float = 0.0,
    stroke_px: float = 0.0,
) -> Image.Image:
    """Coverage (L) of a line whose capitals are `cap_px` high, and its margins.

    `tracking_px` is put between letters; `stroke_px` makes them bolder on each side.
    """
    width = line_width(text, font, tracking_px) + (margins.left + margins.right) * cap_px
    height = (1 + margins.top + margins.bottom) * cap_px
    mask = Image.new("L", (max(1, round(width)), max(1, round(height))))
    draw = ImageDraw.Draw(mask)
    x, y = margins.left * cap_px, (1 + margins.top) * cap_px
    pieces = list(text) if tracking_px else [text]
    for piece in pieces:
        draw.text((x, y), piece, fill=255, font=font, anchor="ls", stroke_width=stroke_px)
        x += font.getlength(piece) + tracking_px
    return mask


def draw_line(
    text: str,
    family: str,
    cap_px: float,
    ink: Rgb,
    ground: Rgb,
    *,
    weight: int = REGULAR,
    margins: Margins = Margins(),
) -> Image.Image:
    """A clean line (RGB) at `cap_px`, drawn larger and brought down as a camera would."""
    over = max(1, round(32 / cap_px))
    mask = ink_mask(text, lettering(family, cap_px * over, weight), cap_px * over, margins)
    size = (max(1, round(mask.width / over)), max(1, round(mask.height / over)))
    return paint(mask.resize(size, Image.Resampling.HAMMING), ink, Image.new("RGB", size, ground))


def paint(mask: Image.Image, ink: Rgb, ground: Image.Image) -> Image.Image:
    """Ink where the mask (L coverage) is, over a ground (RGB) of the same size."""
    return Image.composite(Image.new("RGB", mask.size, ink), ground, mask)


def colors(rng: np.random.Generator, contrast: float) -> tuple[Rgb, Rgb]:
    """(ink, ground), whose luminances differ by about `contrast` × 255, of any hues."""
    light = rng.uniform(0, 1 - contrast)
    pair = []
    for level in (light, light + contrast):
        tint = rng.normal(0, rng.choice([3.0, 25.0, 60.0]), 3)
        tint -= tint @ (0.299, 0.587, 0.114)
        red, green, blue = np.clip(level * 255 + tint, 0, 255).astype(int).tolist()
        pair.append((red, green, blue))
    dark, bright = pair
    return (dark, bright) if rng.random() < 0.6 else (bright, dark)


def warp(
    image: Image.Image,
    *,
    tilt_rad: float = 0.0,
    shear: float = 0.0,
    fore: tuple[float, float] = (0.0, 0.0),
    fill: int = 0,
) -> Image.Image:
    """The picture (L or RGB) turned, slanted and seen askew, in the same frame.

    `shear` is the run of an upright over its rise; `fore` says how much shorter the right and the
    lower side look than their opposites, as fractions of the size: 0.2 is a steep view.
    """
    width, height = image.size
    x, y = np.array([0, 0, width, width]), np.array([0, height, height, 0])
    cx, cy = width / 2, height / 2
    dx, dy = x - cx, y - cy
    dy = dy * (1 - fore[0] * dx / width)
    dx = dx * (1 - fore[1] * dy / height) + shear * dy
    c, s = cos(tilt_rad), sin(tilt_rad)
    target = np.stack([cx + c * dx - s * dy, cy + s * dx + c * dy], axis=1)
    return image.transform(
        image.size,
        Image.Transform.PERSPECTIVE,
        _homography(target, np.stack([x, y], axis=1)),
        Image.Resampling.BILINEAR,
        fillcolor=fill,
    )


def bend(image: Image.Image, sag: float, *, fill: int = 0) -> Image.Image:
    """The line bent as on a round can: its middle is `sag` × height lower than its ends."""
    width, height = image.size
    cuts = np.linspace(0, width, 9).round().astype(int)
    offsets = sag * height * (0.5 - ((2 * cuts / max(width, 1) - 1) ** 2))
    mesh = []
    for left, right, a, b in zip(cuts[:-1], cuts[1:], offsets[:-1], offsets[1:], strict=True):
        if right > left:
            quad = (left, -a, left, height - a, right, height - b, right, -b)
            mesh.append(((int(left), 0, int(right), height), tuple(float(v) for v in quad)))
    return image.transform(
        image.size, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR, fillcolor=fill
    )


def defocus(image: Image.Image, sigma_px: float) -> Image.Image:
    """Out of focus."""
    return image.filter(ImageFilter.GaussianBlur(sigma_px))


def motion(image: Image.Image, length_px: float, angle_rad: float) -> Image.Image:
    """Smeared along a straight line of at most 5 pixels."""
    kernel = np.zeros((5, 5))
    reach = min(length_px, 5.0) / 2
    for t in np.linspace(-reach, reach, 9):
        x, y = 2 + t * cos(angle_rad) * 0.8, 2 + t * sin(angle_rad) * 0.8
        left, top = int(x), int(y)
        for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
            weight = abs(1 - i - (y - top)) * abs(1 - j - (x - left))
            if weight:
                kernel[top + i, left + j] += weight
    return image.filter(ImageFilter.Kernel((5, 5), kernel.ravel().tolist()))


def noise(image: Image.Image, rng: np.random.Generator, level: float) -> Image.Image:
    """A sensor's grain: `level` is its standard deviation, of 255; half of it is common to RGB."""
    pixels = np.asarray(image, np.float32)
    grain = rng.standard_normal(pixels.shape, np.float32) * 0.7
    grain += rng.standard_normal((*pixels.shape[:2], 1), np.float32) * 0.7
    return Image.fromarray(np.clip(pixels + grain * level, 0, 255).astype(np.uint8))


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """What a JPEG file of this quality keeps."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def shade(image: Image.Image, rng: np.random.Generator, depth: float) -> Image.Image:
    """Lit from one side: the far side keeps 1 - `depth` of its light."""
    turn = rng.uniform(0, 2 * pi)
    x = np.linspace(-0.5, 0.5, image.width, dtype=np.float32)
    y = np.linspace(-0.5, 0.5, image.height, dtype=np.float32)[:, None]
    slope = (cos(turn) * x + sin(turn) * y) / (abs(cos(turn)) + abs(sin(turn))) + 0.5
    light = Image.fromarray(((1 - depth * slope) * 255).astype(np.uint8))
    return ImageChops.multiply(image, Image.merge("RGB", [light] * 3))


def resample(image: Image.Image, factor: float) -> Image.Image:
    """Brought to `factor` times its size as views are: HAMMING down, LANCZOS up."""
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    down = factor < 1
    return image.resize(size, Image.Resampling.HAMMING if down else Image.Resampling.LANCZOS)


def clutter(image: Image.Image, rng: np.random.Generator, pieces: int) -> Image.Image:
    """Bars and blobs of any colour at the borders, as of frames, screws and neighbours."""
    width, height = image.size
    canvas = image.copy()
    draw = ImageDraw.Draw(canvas)
    for _ in range(pieces):
        red, green, blue = rng.integers(0, 256, 3).tolist()
        thick = rng.uniform(0.02, 0.16) * height
        side, offset = int(rng.integers(0, 5)), rng.uniform(-0.05, 0.02) * height
        if side < 2:
            y = offset if side else height - thick - offset
            draw.rectangle((0, y, width, y + thick), fill=(red, green, blue))
        elif side < 4:
            x = offset if side == 2 else width - thick - offset
            draw.rectangle((x, 0, x + thick, height), fill=(red, green, blue))
        else:
            x, y = rng.uniform(0, width), float(rng.choice([0, height]))
            box = (x - thick, y - thick, x + thick, y + thick)
            draw.ellipse(box, fill=(red, green, blue))
    return canvas


def specks(image: Image.Image, rng: np.random.Generator, share: float) -> Image.Image:
    """Dust: a `share` of the pixels becomes black or white."""
    pixels = np.asarray(image).copy()
    hit = rng.random(pixels.shape[:2]) < share
    pixels[hit] = rng.choice([0, 255], (int(hit.sum()), 1)).astype(np.uint8)
    return Image.fromarray(pixels)


def ghost(image: Image.Image, shift_px: tuple[int, int], strength: float) -> Image.Image:
    """Seen double: a copy moved by (x, y) pixels, mixed in at `strength`."""
    return Image.blend(image, ImageChops.offset(image, *shift_px), strength)


def posterise(image: Image.Image, levels: int) -> Image.Image:
    """Only so many levels of each colour."""
    step = 255 / (levels - 1)
    return image.point([round(round(v / step) * step) for v in range(256)] * 3)


def cast_shadow(image: Image.Image, rng: np.random.Generator, depth: float) -> Image.Image:
    """A hard shadow over one part, which keeps 1 - `depth` of its light."""
    width, height = image.size
    at, lean = rng.uniform(0.2, 0.8) * width, rng.uniform(-1, 1) * height
    light = Image.new("L", image.size, 255)
    corners = [(0, 0), (at, 0), (at + lean, height), (0, height)]
    ImageDraw.Draw(light).polygon(corners, fill=round(255 * (1 - depth)))
    return ImageChops.multiply(image, Image.merge("RGB", [light] * 3))


def _homography(source: np.ndarray, target: np.ndarray) -> list[float]:
    """The eight numbers that take four points (x, y) of `source` to `target`."""
    rows, values = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.linalg.solve(np.array(rows, float), np.array(values, float)).tolist()
