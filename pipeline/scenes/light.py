"""The light, sharpness, noise and compression of a picture at a place, measured on its pixels.

Light is told in linear intensities (0..1) of what a white, a grey and a black thing would show
there; everything else in source pixels or levels of 0..255.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from pipeline.geometry import Box

GAMMA = 2.2
_WHITE = 0.92
_SAMPLE = 256
_PIXEL_BLUR = 0.45
_BLOCKINESS = (0.5, 0.95, 1.5, 1.9)
_QUALITIES = (95, 90, 75, 60)
"""JPEG quality at each excess of the steps between blocks, in levels; measured on photographs."""


@dataclass(frozen=True, slots=True)
class Light:
    """What a plate must look like to belong to its place."""

    white: tuple[float, float, float]
    """Linear intensities of a white thing there."""
    black: tuple[float, float, float]
    """Linear intensities of a black thing there: haze, glare, a lifted shadow."""
    slope: tuple[float, float]
    """Change of the light's logarithm over the plate's width and its height."""
    blur_px: float
    """Deviation of the picture's blur."""
    noise: float
    """Deviation of its noise, levels."""
    quality: int
    """JPEG quality that it looks like."""

    def describe(self) -> dict[str, Any]:
        """Plain values that `Light.of` takes back."""
        return asdict(self)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Light:
        """A light from `describe`'s values, also after JSON has made lists of the tuples."""
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**plain)


@dataclass(frozen=True, slots=True)
class Exposure:
    """What is measured once for a picture."""

    white: np.ndarray
    """Linear RGB of its brightest parts, float64 (3,)."""
    black: np.ndarray
    """Linear RGB of its darkest parts."""
    blur_px: float
    noise: float
    quality: int


def linear(levels: np.ndarray) -> np.ndarray:
    """Linear intensities 0..1 of levels 0..255."""
    return (np.asarray(levels, np.float64) / 255) ** GAMMA


def levels(intensities: np.ndarray) -> np.ndarray:
    """Levels 0..255 of linear intensities."""
    return 255 * np.clip(intensities, 0, 1) ** (1 / GAMMA)


def measure(image: Image.Image) -> Exposure:
    """The exposure of a whole picture (RGB)."""
    small = image.resize(_within(image.size, _SAMPLE), Image.Resampling.BOX)
    pixels = linear(np.asarray(small).reshape(-1, 3))
    order = np.argsort(pixels.sum(1))
    bright = pixels[order[int(0.93 * len(order)) : max(int(0.99 * len(order)), 1)]].mean(0)
    dark = pixels[order[: max(1, len(order) // 80)]].mean(0)
    tint = bright / bright.mean()
    white = bright.mean() * (1 + np.clip(tint - 1, -0.14, 0.14))
    blur = blur_px(_middle(image, 1400))
    return Exposure(white, dark, blur, noise_level(image), jpeg_quality(image))


def light_at(image: Image.Image, exposure: Exposure, box: Box) -> Light:
    """The light at a plate's box, before anything hangs there.

    White there lies between the brightest things around and the picture's white: a plate in the
    shade is not lit by the sun. A little of the surface's own colour is reflected.
    """
    around = box.enlarge(5.0, image.size)
    near = linear(np.asarray(_cut(image, around, 64)).reshape(-1, 3))
    patch = linear(np.asarray(_cut(image, box.enlarge(1.2, image.size), 24)))
    surface = patch.mean((0, 1))
    brightest = np.quantile(near.mean(1), 0.93)
    local = max(float(brightest), 1.12 * float(surface.mean()), 0.03)
    whole = float(exposure.white.mean())
    lit = min(local, whole) ** 0.62 * whole**0.38 if local < whole else local
    tint = exposure.white / whole
    tint = tint * (1 + 0.10 * np.clip(surface / max(surface.mean(), 1e-4) - 1, -0.8, 0.8))
    white = np.clip(_WHITE * lit * tint / tint.mean(), 0.01, 1.0)
    black = np.minimum(0.7 * exposure.black + 0.004, 0.12 * white)
    blur = blur_px(np.asarray(_cut(image, box.enlarge(3.0, image.size), 400).convert("L")))
    blur = exposure.blur_px if blur == 0 else min(blur, 2.5 * exposure.blur_px)
    return Light(
        _three(white), _three(black), _slope(patch.mean(2)),
        round(max(blur, 0.35), 3), round(exposure.noise, 3), exposure.quality,
    )  # fmt: skip


def noise_level(image: Image.Image) -> float:
    """Deviation of a picture's noise in levels: the quiet third of its finest detail."""
    grey = np.asarray(_middle(image, 1024), np.float32)
    fine = grey[1:-1, 1:-1] - 0.25 * (
        grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    )
    rows, cols = fine.shape[0] // 8 * 8, fine.shape[1] // 8 * 8
    if not rows or not cols:
        return 0.0
    blocks = fine[:rows, :cols].reshape(rows // 8, 8, cols // 8, 8).std((1, 3))
    level = grey[1:-1, 1:-1][:rows, :cols].reshape(rows // 8, 8, cols // 8, 8).mean((1, 3))
    within = blocks[(level > 12) & (level < 243)]
    return float(np.quantile(within, 0.33)) / 1.12 if within.size else 0.0


def jpeg_quality(image: Image.Image) -> int:
    """The JPEG quality that a picture's 8 x 8 blocks look like, 60..95; 95 where none show.

    Told by how much larger the steps between blocks are than those inside, on calm ground.
    """
    grey = np.asarray(_middle(image, 1024), np.float32)
    steps = np.minimum(np.abs(np.diff(grey, axis=1)), 8)
    blocks = steps[:, : steps.shape[1] // 8 * 8].reshape(len(steps), -1, 8)
    inner = blocks[..., :7].mean(2)
    calm = inner < 1.5
    if calm.sum() < 64:
        return 95
    excess = float((blocks[..., 7] - inner)[calm].mean())
    return round(float(np.interp(excess, _BLOCKINESS, _QUALITIES)))


def blur_px(grey: np.ndarray | Image.Image) -> float:
    """Deviation of the blur of a grey picture's clearest edges, pixels; 0 where there are none.

    An edge of height A that was blurred by s has a steepest slope of A / (s sqrt(2 pi)); pixels
    and their differences blur it by half a pixel more.
    """
    values = np.asarray(grey, np.float32)
    if min(values.shape) < 24:
        return 0.0
    across, down = np.diff(values, axis=1)[:-1], np.diff(values, axis=0)[:, :-1]
    steep, values = np.hypot(across, down), values[:-1, :-1]
    rows, cols = values.shape[0] // 12 * 12, values.shape[1] // 12 * 12
    blocks = values[:rows, :cols].reshape(rows // 12, 12, cols // 12, 12)
    height = blocks.max((1, 3)) - blocks.min((1, 3))
    slope = steep[:rows, :cols].reshape(rows // 12, 12, cols // 12, 12).max((1, 3))
    clear = height >= max(40.0, float(np.quantile(height, 0.9)))
    if clear.sum() < 4:
        return 0.0
    width = np.quantile(height[clear] / (2.507 * np.maximum(slope[clear], 1.0)), 0.3)
    return float(np.clip(max(width**2 - _PIXEL_BLUR**2, 0) ** 0.5, 0.3, 4.0))


def _slope(patch: np.ndarray) -> tuple[float, float]:
    """Change of log light across a patch (HW), horizontally and vertically."""
    height, width = patch.shape
    y, x = np.mgrid[0:height, 0:width]
    values = np.log(np.maximum(patch, 1e-3))
    values = np.clip(values, np.median(values) - 0.5, np.median(values) + 0.5)
    dx = ((x - x.mean()) * values).sum() / max(((x - x.mean()) ** 2).sum(), 1) * width
    dy = ((y - y.mean()) * values).sum() / max(((y - y.mean()) ** 2).sum(), 1) * height
    return round(float(np.clip(dx, -0.3, 0.3)), 4), round(float(np.clip(dy, -0.3, 0.3)), 4)


def _cut(image: Image.Image, box: Box, most: int) -> Image.Image:
    """A part of a picture in at most `most` pixels a side."""
    whole = box.clip(image.size).rounded()
    part = image.crop((int(whole.x0), int(whole.y0), int(whole.x1), int(whole.y1)))
    return part.resize(_within(part.size, most), Image.Resampling.BOX)


def _within(size: tuple[int, int], most: int) -> tuple[int, int]:
    scale = min(1.0, most / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _middle(image: Image.Image, side: int) -> Image.Image:
    """The middle of a picture in grey, at its own scale, from a multiple of 8 on."""
    x = max(0, (image.width - side) // 2) // 8 * 8
    y = max(0, (image.height - side) // 2) // 8 * 8
    part = image.crop((x, y, min(image.width, x + side), min(image.height, y + side)))
    return part.convert("L")


def _three(values: np.ndarray) -> tuple[float, float, float]:
    red, green, blue = (round(float(v), 5) for v in values)
    return red, green, blue
