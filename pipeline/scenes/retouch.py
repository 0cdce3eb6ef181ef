"""Changing one thing in a picture: filling the hole it leaves, pasting it elsewhere, its colour.

Arithmetic on pixels, uint8 HWC, and masks, bool HW. Nothing outside what is named changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from pipeline.geometry import Box

HALO_PX = 3
"""How far beyond a cut-out its hole reaches: masks are seldom exact."""

_RING_PX = 6
_EDGE = 4
_REACH = 1.6
"""How far off a filling may come from, in sides of the hole."""
_SHIFTS = 13
"""Places tried along each axis."""
_SAMPLES = 600


@dataclass(frozen=True, slots=True, eq=False)
class CutOut:
    """An object: its box in whole pixels, and which of the box's pixels are its own (bool HW)."""

    box: Box
    mask: np.ndarray

    def pixels(self, picture: np.ndarray, shift: tuple[int, int] = (0, 0)) -> np.ndarray:
        """The picture's pixels under the mask moved by (x, y): (N, 3)."""
        return np.asarray(picture[self.part(shift)][self.mask])

    def part(self, shift: tuple[int, int] = (0, 0)) -> tuple[slice, slice]:
        """(rows, columns) of the box moved by (x, y)."""
        x, y = int(self.box.x0) + shift[0], int(self.box.y0) + shift[1]
        return slice(y, y + self.mask.shape[0]), slice(x, x + self.mask.shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class _Hole:
    """The pixels to fill and the ring around them, in a window of the picture."""

    corner: tuple[int, int]
    """(x, y) of the window; it may lie outside the picture, the hole may not."""
    hole: np.ndarray
    ring: np.ndarray

    def covers(self, ys: np.ndarray, xs: np.ndarray) -> bool:
        """Whether any of these pixels of the picture is to be filled."""
        x, y = xs - self.corner[0], ys - self.corner[1]
        rows, cols = self.hole.shape
        inside = (x >= 0) & (y >= 0) & (x < cols) & (y < rows)
        return bool(self.hole[y[inside], x[inside]].any())

    def places(self, of: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """(rows, columns) in the picture of the window's True pixels, those outside left out."""
        ys, xs = np.nonzero(of)
        ys, xs = ys + self.corner[1], xs + self.corner[0]
        kept = (ys >= 0) & (xs >= 0) & (ys < shape[0]) & (xs < shape[1])
        return ys[kept], xs[kept]


def contrast(pixels: np.ndarray, cut: CutOut) -> float:
    """How plainly a cut-out stands out: its mean colour's distance from what surrounds it, over
    how much that varies."""
    ring = pixels[_hole(cut).places(_hole(cut).ring, pixels.shape)].astype(np.float32)
    inside = cut.pixels(pixels).astype(np.float32)
    away = float(np.abs(inside.mean(0) - ring.mean(0)).sum())
    return away / (float(ring.std(0).sum()) + 15.0)


def outline(pixels: np.ndarray, cut: CutOut, shift: tuple[int, int] = (0, 0)) -> float:
    """Mean strength of edges (levels a pixel) along the border of a cut-out moved by (x, y)."""
    x, y = int(cut.box.x0) + shift[0] - _EDGE, int(cut.box.y0) + shift[1] - _EDGE
    mask = np.pad(cut.mask, _EDGE)
    border = _grown(mask, 2) & _grown(~mask, 2)
    ys, xs = np.nonzero(border[max(-y, 0) :, max(-x, 0) :])
    part = pixels[max(y, 0) : y + mask.shape[0], max(x, 0) : x + mask.shape[1]]
    strength = np.hypot(*np.gradient(part.astype(np.float32).mean(2)))
    inside = (ys < strength.shape[0]) & (xs < strength.shape[1])
    return float(strength[ys[inside], xs[inside]].mean())


def fill_shift(pixels: np.ndarray, cut: CutOut) -> tuple[int, int] | None:
    """From how far off (x, y) a cut-out's hole is best filled: where what surrounds it is alike.

    None where no such place lies inside the picture and off the hole.
    """
    hole = _hole(cut)
    ys, xs = _some(*hole.places(hole.ring, pixels.shape))
    inner_y, inner_x = hole.places(hole.hole, pixels.shape)
    here = pixels[ys, xs].astype(np.int16)
    best: tuple[float, tuple[int, int]] | None = None
    for dy in np.linspace(-_REACH, _REACH, _SHIFTS) * cut.box.height:
        for dx in np.linspace(-_REACH, _REACH, _SHIFTS) * cut.box.width:
            y, x = round(float(dy)), round(float(dx))
            if not _inside(ys + y, xs + x, pixels.shape) or hole.covers(ys + y, xs + x):
                continue
            if hole.covers(*_some(inner_y + y, inner_x + x)):
                continue
            cost = float(np.abs(here - pixels[ys + y, xs + x]).mean())
            if best is None or cost < best[0]:
                best = (cost, (x, y))
    return None if best is None else best[1]


def filled(pixels: np.ndarray, cut: CutOut, shift: tuple[int, int] | None) -> np.ndarray:
    """The picture without the cut-out: filled from `shift` away, in tone all along the edge.

    Without a shift the hole is filled smoothly from its edge.
    """
    hole = _hole(cut)
    x, y = hole.corner
    ys, xs = hole.places(hole.hole | hole.ring, pixels.shape)
    here, moved = np.zeros((2, *hole.hole.shape, 3), np.float32)
    known = np.zeros(hole.hole.shape, np.float32)
    here[ys - y, xs - x] = pixels[ys, xs]
    known[ys - y, xs - x] = hole.ring[ys - y, xs - x]
    if shift is not None:
        height, width = pixels.shape[:2]
        from_y = np.clip(ys + shift[1], 0, height - 1)
        from_x = np.clip(xs + shift[0], 0, width - 1)
        moved[ys - y, xs - x] = pixels[from_y, from_x]
    patch = moved + _smooth((here - moved) * known[..., None], known)
    out = pixels.copy()
    ys, xs = hole.places(hole.hole, pixels.shape)
    out[ys, xs] = np.clip(np.rint(patch[ys - y, xs - x]), 0, 255).astype(np.uint8)
    return out


def pasted(pixels: np.ndarray, source: np.ndarray, cut: CutOut, shift: tuple[int, int]) -> None:
    """Put a cut-out of `source` into `pixels`, moved by (x, y); its edge is softened inwards."""
    alpha = _soft(cut.mask)[..., None]
    there = pixels[cut.part(shift)]
    here = source[cut.part()].astype(np.float32)
    there[...] = np.rint(alpha * here + (1 - alpha) * there).astype(np.uint8)


def recolored(pixels: np.ndarray, cut: CutOut, chroma: tuple[int, int]) -> np.ndarray:
    """The picture with `chroma` added to the cut-out's Cb and Cr, its light kept."""
    part = pixels[cut.part()]
    planes = np.array(Image.fromarray(part).convert("YCbCr"), np.int16)
    planes[..., 1] += chroma[0]
    planes[..., 2] += chroma[1]
    tinted = Image.fromarray(np.clip(planes, 0, 255).astype(np.uint8), "YCbCr").convert("RGB")
    alpha = _soft(cut.mask)[..., None]
    out = pixels.copy()
    mixed = alpha * np.asarray(tinted, np.float32) + (1 - alpha) * part
    out[cut.part()] = np.rint(mixed).astype(np.uint8)
    return out


def _hole(cut: CutOut) -> _Hole:
    edge = HALO_PX + _RING_PX + 1
    hole = _grown(np.pad(cut.mask, edge), HALO_PX)
    ring = _grown(hole, _RING_PX) & ~hole
    return _Hole((int(cut.box.x0) - edge, int(cut.box.y0) - edge), hole, ring)


def _grown(mask: np.ndarray, by_px: int) -> np.ndarray:
    """The mask and everything within about `by_px` of it."""
    plane = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(plane.filter(ImageFilter.MaxFilter(2 * by_px + 1))) > 0


def _soft(mask: np.ndarray) -> np.ndarray:
    """The mask as float32 in [0, 1], falling to 0 at its edge: never beyond the mask."""
    plane = Image.fromarray(np.pad(mask, 1).astype(np.uint8) * 255)
    blurred = np.asarray(plane.filter(ImageFilter.BoxBlur(1)), np.float32)[1:-1, 1:-1] / 255
    return np.where(mask, np.clip(2 * blurred - 0.6, 0, 1), 0).astype(np.float32)


def _smooth(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Values (HWC, where weight is 1) carried on smoothly to everywhere: pull, then push."""
    if min(weight.shape) <= 2:
        mean = values.sum((0, 1)) / max(float(weight.sum()), 1e-6)
        return np.broadcast_to(mean, values.shape).copy()
    rows, cols = weight.shape[0] // 2 * 2, weight.shape[1] // 2 * 2
    small_weight = _halved(weight[:rows, :cols])
    small = _halved(values[:rows, :cols] * weight[:rows, :cols, None])
    known = small_weight > 0
    small[known] /= small_weight[known][:, None]
    coarse = _smooth(np.where(known[..., None], small, 0), known.astype(np.float32))
    size = (weight.shape[1], weight.shape[0])
    planes = [
        np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR))
        for plane in np.moveaxis(coarse.astype(np.float32), 2, 0)
    ]
    return np.where(weight[..., None] > 0, values, np.stack(planes, 2))


def _halved(plane: np.ndarray) -> np.ndarray:
    """Means of 2 × 2 pixels."""
    parts = plane[::2, ::2] + plane[1::2, ::2] + plane[::2, 1::2] + plane[1::2, 1::2]
    return np.asarray(parts / 4)


def _some(ys: np.ndarray, xs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    step = max(1, len(ys) // _SAMPLES)
    return ys[::step], xs[::step]


def _inside(ys: np.ndarray, xs: np.ndarray, shape: tuple[int, ...]) -> bool:
    if not len(ys):
        return False
    return bool(ys.min() >= 0 and xs.min() >= 0 and ys.max() < shape[0] and xs.max() < shape[1])
