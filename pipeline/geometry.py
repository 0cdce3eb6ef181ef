"""Where things are in a picture: boxes, frames, resizing budgets, and the zoom.

A `Box` is always in pixels of the source image; a model's own convention is a `Frame`, and the
two meet in `Box.to_frame` and `Box.from_frame` only. Sizes are (width, height).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from pipeline.errors import ConfigError, InvalidBox

Size = tuple[int, int]

FACTOR = 28
"""Side of one visual token in pixels (Qwen2-VL, Qwen2.5-VL: 14-pixel patches merged 2 × 2)."""
MIN_PIXELS = 112 * 112
MAX_PIXELS = 3840 * 3840
RESOLUTIONS = (224, 336, 448, 672, 1024, 1920, 2560, 3840)
"""The eight published budgets (arXiv 2505.15436): R allows R² pixels, aspect kept."""
MAX_ASPECT = 200
LARGEST = 1e9
"""A number beyond this is no coordinate in any frame."""

FrameKind = Literal["pixels", "thousand", "unit", "unit-padded"]


@dataclass(frozen=True, slots=True)
class Frame:
    """A model's coordinate convention for one source image.

    `pixels`: of the image resized to `view` (Qwen2.5-VL) · `thousand`: 0..1000 on each axis
    (Qwen2-VL, Qwen3-VL) · `unit`: 0..1 on each axis · `unit-padded`: 0..1 on the image padded to a
    square about its centre (LLaVA).
    """

    kind: FrameKind
    size: Size
    """(width, height) of the source image."""
    view: Size | None = None
    """(width, height) of the resized image; needed by, and only by, `pixels`."""

    def __post_init__(self) -> None:
        if (self.kind == "pixels") != (self.view is not None):
            raise ConfigError("A frame has a view size when, and only when, its kind is 'pixels'.")
        if min(self.size + (self.view or self.size)) < 1:
            raise ConfigError(f"A frame of size {self.size} and view {self.view} has no pixels.")

    def axes(self) -> tuple[float, float, float, float]:
        """(x scale, y scale, x shift, y shift): frame value = source value × scale + shift."""
        width, height = self.size
        if self.kind == "pixels":
            assert self.view is not None
            return self.view[0] / width, self.view[1] / height, 0.0, 0.0
        if self.kind == "thousand":
            return 1000 / width, 1000 / height, 0.0, 0.0
        if self.kind == "unit":
            return 1 / width, 1 / height, 0.0, 0.0
        side = max(width, height)
        return 1 / side, 1 / side, (side - width) / (2 * side), (side - height) / (2 * side)

    @property
    def digits(self) -> int:
        """Decimals a model writes."""
        return 0 if self.kind in ("pixels", "thousand") else 4

    @property
    def slack_px(self) -> float:
        """How far a rounded number may pass the edge; a padded picture's edges are not round."""
        unit = 0.5 * 10**-self.digits if self.kind == "unit-padded" else 0.0
        return (unit + 1e-6) * max(self.size)


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """A region of the source image: XYXY pixels, right and bottom exclusive."""

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        bounds = (-math.inf, self.x0, self.x1, math.inf), (-math.inf, self.y0, self.y1, math.inf)
        if not all(a < b < c < d for a, b, c, d in bounds):
            raise InvalidBox(f"Box {self.as_list()} has no area, or no end.")

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        return self.y1 - self.y0

    @property
    def area(self) -> float:
        return self.width * self.height

    @property
    def centre(self) -> tuple[float, float]:
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    def as_list(self) -> list[float]:
        return [self.x0, self.y0, self.x1, self.y1]

    def rounded(self) -> Box:
        """The whole-pixel box nearest to this one, at least one pixel wide and high."""
        x0, y0 = round(self.x0), round(self.y0)
        return Box(x0, y0, max(round(self.x1), x0 + 1), max(round(self.y1), y0 + 1))

    def contains(self, other: Box) -> bool:
        """Whether `other` lies wholly inside this box."""
        inside_x = self.x0 <= other.x0 and other.x1 <= self.x1
        return inside_x and self.y0 <= other.y0 and other.y1 <= self.y1

    def clip(self, size: Size) -> Box:
        """The part inside an image of `size`; raises `InvalidBox` when there is none."""
        x0, x1 = max(self.x0, 0), min(self.x1, size[0])
        y0, y1 = max(self.y0, 0), min(self.y1, size[1])
        return Box(x0, y0, x1, y1)

    def enlarge(self, factor: float, size: Size) -> Box:
        """Each side times `factor` about the centre, clipped to `size`, truncated to integers."""
        (cx, cy), w, h = self.centre, self.width * factor / 2, self.height * factor / 2
        grown = Box(cx - w, cy - h, cx + w, cy + h).clip(size)
        return Box(int(grown.x0), int(grown.y0), int(grown.x1), int(grown.y1))

    def intersection(self, other: Box) -> float:
        """Shared area in pixels."""
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        return max(width, 0) * max(height, 0)

    def iou(self, other: Box) -> float:
        """Intersection over union, in [0, 1]."""
        shared = self.intersection(other)
        return shared / (self.area + other.area - shared)

    def to_frame(self, frame: Frame) -> tuple[float, float, float, float]:
        """The box in a model's convention, unrounded."""
        sx, sy, dx, dy = frame.axes()
        return self.x0 * sx + dx, self.y0 * sy + dy, self.x1 * sx + dx, self.y1 * sy + dy

    def as_written(self, frame: Frame) -> tuple[float, float, float, float]:
        """The box as a model writes it: whole numbers, or four decimals in the unit frames.

        Never empty: a side that rounding would close keeps one unit of its last digit.
        """
        digits = frame.digits
        x0, y0, x1, y1 = (value * 10**digits for value in self.to_frame(frame))
        most = Box(0, 0, *frame.size).to_frame(frame)
        x0, x1 = _whole(x0, x1, round(most[2] * 10**digits))
        y0, y1 = _whole(y0, y1, round(most[3] * 10**digits))
        if digits == 0:
            return x0, y0, x1, y1
        return x0 / 10**digits, y0 / 10**digits, x1 / 10**digits, y1 / 10**digits

    @classmethod
    def from_frame(cls, values: Sequence[float], frame: Frame) -> Box:
        """A model's box in whole source pixels; raises `InvalidBox` unless it lies in the picture
        and covers at least half a pixel each way."""
        x0, y0, x1, y1 = four_numbers(values)
        sx, sy, dx, dy = frame.axes()
        exact = cls((x0 - dx) / sx, (y0 - dy) / sy, (x1 - dx) / sx, (y1 - dy) / sy)
        (width, height), slack = frame.size, frame.slack_px
        if (
            min(exact.x0, exact.y0) < -slack
            or exact.x1 > width + slack
            or exact.y1 > height + slack
        ):
            raise InvalidBox(f"Box {list(values)} reaches outside the picture.")
        if min(exact.width, exact.height) < 0.5:
            raise InvalidBox(f"Box {list(values)} covers less than one pixel.")
        x0, x1 = _whole(exact.x0, exact.x1, width)
        y0, y1 = _whole(exact.y0, exact.y1, height)
        return cls(x0, y0, x1, y1)


def _whole(low: float, high: float, most: int) -> tuple[int, int]:
    """Whole numbers nearest to the ends of a side within 0..`most`, at least one apart."""
    start = min(max(round(low), 0), most - 1)
    return start, min(max(round(high), start + 1), most)


def four_numbers(values: Sequence[float]) -> tuple[float, float, float, float]:
    """The four numbers of a box, or `InvalidBox` saying what is wrong with them."""
    if not isinstance(values, (list, tuple)):
        raise InvalidBox(f"A box is a list of four numbers, not {type(values).__name__}.")
    if len(values) != 4:
        raise InvalidBox(f"A box has four numbers, not {len(values)}.")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InvalidBox(f"A box holds numbers, not {type(value).__name__}.")
        if not abs(value) <= LARGEST:
            raise InvalidBox("A box holds finite numbers of a picture's scale.")
    x0, y0, x1, y1 = values
    return x0, y0, x1, y1


def smart_resize(
    height: float,
    width: float,
    factor: int = FACTOR,
    min_pixels: int = 3136,
    max_pixels: int = 12845056,
) -> tuple[int, int]:
    """(height, width) as multiples of `factor`, area within the limits, aspect nearly kept.

    The rule of Qwen2-VL's processor. A side can come out as 0 for very thin pictures under a small
    `max_pixels`; `view_size` never returns that. Raises `ValueError` for an aspect ratio over 200
    and `ZeroDivisionError` for an empty side.
    """
    if max(height, width) / min(height, width) > MAX_ASPECT:
        raise ValueError(f"Aspect ratio of {width} x {height} exceeds {MAX_ASPECT}.")
    return _fit(height, width, factor, min_pixels, max_pixels)


def _fit(
    height: float, width: float, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    new_height = max(factor, round(height / factor) * factor)
    new_width = max(factor, round(width / factor) * factor)
    if new_height * new_width > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        new_height = math.floor(height / shrink / factor) * factor
        new_width = math.floor(width / shrink / factor) * factor
    elif new_height * new_width < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        new_height = math.ceil(height * grow / factor) * factor
        new_width = math.ceil(width * grow / factor) * factor
    return new_height, new_width


def view_size(region: Size, resolution: int, *, magnify: float = 1.0) -> Size:
    """(width, height) at which a region of the source is shown at budget `resolution`.

    The observation law: area ≤ resolution², sides multiples of 28, no side over twice its source.
    `magnify` is what a tool asks for (1 for a first view, 2 for a crop). Raises `InvalidBox` for
    a region under 14 pixels a side or thinner than 1:200, `ConfigError` for a budget under 28.
    """
    if resolution < FACTOR:
        raise ConfigError(
            f"A budget of {resolution} holds not one visual token of {FACTOR} pixels."
        )
    width, height = region
    if min(region) < FACTOR // 2 or max(region) / min(region) > MAX_ASPECT:
        raise InvalidBox(f"A region of {width} x {height} pixels is too small or too thin to show.")
    most = resolution * resolution
    rows, cols = _fit(height * magnify, width * magnify, FACTOR, 0, most)
    rows = max(FACTOR, min(rows, 2 * height // FACTOR * FACTOR))
    cols = max(FACTOR, min(cols, 2 * width // FACTOR * FACTOR))
    return min(cols, _under(most, rows)), min(rows, _under(most, cols))


def _under(pixels: int, side: int) -> int:
    """The longest other side, a multiple of 28, that keeps `side` × it within `pixels`."""
    return max(FACTOR, pixels // side // FACTOR * FACTOR)


def visual_tokens(size: Size) -> int:
    """Tokens a view costs: one for each 28 × 28 pixels."""
    return (size[0] // FACTOR) * (size[1] // FACTOR)


def zoom(
    image: Image.Image,
    box: Box,
    *,
    enlarge: float = 1.5,
    scale: float = 2,
    min_pixels: int = MIN_PIXELS,
    max_pixels: int = MAX_PIXELS,
    factor: int = FACTOR,
) -> Image.Image:
    """The published crop: enlarge, clip, cut, times `scale`, smart-resize (LANCZOS), RGB.

    Defaults are those of the Chain-of-Focus evaluation. Raises `InvalidBox` for a box that leaves
    the picture or covers less than one pixel of it, where the original shows the whole image.
    """
    if box.x0 < 0 or box.y0 < 0 or box.x1 > image.width or box.y1 > image.height:
        raise InvalidBox(f"Box {box.as_list()} reaches outside the picture.")
    cut = box.enlarge(enlarge, image.size)
    try:
        rows, cols = smart_resize(
            int(cut.height * scale), int(cut.width * scale), factor, min_pixels, max_pixels
        )
    except (ValueError, ZeroDivisionError) as error:
        raise InvalidBox(f"Box {box.as_list()} cannot be shown enlarged: {error}") from error
    if rows * cols == 0:
        raise InvalidBox(f"Box {box.as_list()} is too thin to show in {max_pixels} pixels.")
    crop = image.crop((int(cut.x0), int(cut.y0), int(cut.x1), int(cut.y1))).convert("RGB")
    return crop.resize((cols, rows), Image.Resampling.LANCZOS)
