"""How the reader's lines look: letters seen from somewhere, on a ground or a plate, worn down.

Each function draws one thing from a generator; what a line says and how large it is are given.
"""

from __future__ import annotations

from math import degrees, exp, pi, sin

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from pipeline.models.pocket_reader_texts import random_text
from pipeline.scenes.lettering import (
    Margins,
    bend,
    cast_shadow,
    clutter,
    colors,
    defocus,
    ghost,
    ink_mask,
    jpeg,
    lettering,
    line_width,
    motion,
    noise,
    paint,
    posterise,
    shade,
    specks,
    warp,
)
from pipeline.scenes.plates import draw_look, draw_plate, fitted

_WEIGHTS = (400, 400, 700)


def seen(rng: np.random.Generator, text: str, family: str, cap_px: float) -> Image.Image:
    """The ink of a line seen from somewhere, L, its capitals about `cap_px` high."""
    big = min(max(2.0 * cap_px, 20.0), 56.0)
    big = 4.0 * round(big / 4)
    weight = _WEIGHTS[int(rng.integers(3))]
    font = lettering(family, big, weight)
    tracking = rng.uniform(-0.04, 0.35) * big if rng.random() < 0.3 else 0.0
    stroke = rng.uniform(0.0, 0.05) * big if rng.random() < 0.25 else 0.0
    tilt = float(np.clip(rng.normal(0, 0.045), -0.13, 0.13)) if rng.random() < 0.6 else 0.0
    rise = 0.5 * line_width(text, font, tracking) / big * abs(sin(tilt))
    margins = _margins(rng, rise, descends=any(c in "gjpqyQ" for c in text))
    mask = ink_mask(text, font, big, margins, tracking_px=tracking, stroke_px=stroke)
    if rng.random() < 0.25:
        for side in (-1, 1):
            if rng.random() < 0.6:
                baseline = 1 + margins.top + side * rng.uniform(1.45, 2.1)
                neighbour(rng, mask, family, big, baseline)
    if tilt or rng.random() < 0.5:
        shear = rng.normal(0, 0.12)
        fore = (rng.normal(0, 0.12), rng.normal(0, 0.06))
        mask = warp(mask, tilt_rad=tilt, shear=shear, fore=fore)
    if rng.random() < 0.2:
        mask = bend(mask, rng.uniform(-0.18, 0.18))
    stretch = exp(rng.normal(0, 0.14))
    size = (max(2, round(mask.width * cap_px / big * stretch)), round(mask.height * cap_px / big))
    return mask.resize((size[0], max(2, size[1])), Image.Resampling.HAMMING)


def on_plate(rng: np.random.Generator, text: str, family: str, cap_px: float) -> Image.Image:
    """A line of a plate with what stands near it, its capitals about `cap_px` high."""
    other = random_text(rng).upper()[:8]
    first = rng.random() < 0.4
    word, code = (text, other) if first else (other, text)
    look = fitted(draw_look(rng, fonts=[family]), [(word, code)])
    big = min(max(1.5 * cap_px, 16.0), 40.0)
    plate = draw_plate(look, word, code, big / (look.word_cap if first else 1.0), rng)
    behind, _ = colors(rng, 0.1)
    image = Image.new("RGB", plate.image.size, behind)
    image.paste(plate.image, (0, 0), plate.image)
    (x0, y0), _, (x1, y1), _ = plate.word_quad if first else plate.code_quad
    tilt = float(np.clip(rng.normal(0, 0.04), -0.1, 0.1))
    rise = 0.5 * (x1 - x0) * abs(sin(tilt))
    if tilt:
        image = image.rotate(
            -degrees(tilt),
            Image.Resampling.BICUBIC,
            center=((x0 + x1) / 2, (y0 + y1) / 2),
            fillcolor=behind,
        )
    around = _margins(rng, rise / big, descends=False)
    box = (
        x0 - around.left * big,
        y0 - around.top * big,
        x1 + around.right * big,
        y1 + around.bottom * big,
    )
    scale = cap_px / big
    size = (
        max(2, round((box[2] - box[0]) * scale * exp(rng.normal(0, 0.1)))),
        max(2, round((box[3] - box[1]) * scale)),
    )
    cut = (round(box[0]), round(box[1]), round(box[2]), round(box[3]))
    return image.crop(cut).resize(size, Image.Resampling.HAMMING)


def _margins(rng: np.random.Generator, rise: float, *, descends: bool) -> Margins:
    """Boxes are seldom exact: ground on each side, seldom a cut."""
    left, right = rng.uniform(0.08, 0.9, 2) if rng.random() < 0.9 else rng.uniform(-0.08, 0.1, 2)
    top, bottom = rng.uniform(0.08, 0.65, 2) if rng.random() < 0.9 else rng.uniform(-0.08, 0.1, 2)
    return Margins(left, top + rise, right, bottom + rise + 0.25 * descends)


def neighbour(
    rng: np.random.Generator, mask: Image.Image, family: str, cap_px: float, baseline: float
) -> None:
    """Another line of the same sign at `baseline` × `cap_px` from the top, partly in the crop."""
    font = lettering(family, 4.0 * max(1, round(cap_px / 4)), 400)
    text = random_text(rng).upper()
    x = rng.uniform(-0.5, 0.3) * mask.width
    ImageDraw.Draw(mask).text((x, baseline * cap_px), text, fill=255, font=font, anchor="ls")


def strokes(rng: np.random.Generator, mask: Image.Image) -> None:
    """A few bars, rings and dots that spell nothing."""
    draw, (width, height) = ImageDraw.Draw(mask), mask.size
    for _ in range(int(rng.integers(1, 6))):
        x0, x1 = np.sort(rng.uniform(-0.2, 1.2, 2)) * width
        y0, y1 = np.sort(rng.uniform(-0.2, 1.2, 2)) * height
        thick = max(1, int(rng.uniform(0.03, 0.25) * height))
        kind = rng.random()
        if kind < 0.5:
            draw.line((x0, y0, x1, y1), fill=255, width=thick)
        elif kind < 0.75:
            draw.rectangle((x0, y0, x1, y1), fill=int(rng.integers(60, 256)))
        else:
            draw.ellipse((x0, y0, x1, y1), outline=255, width=thick)


def painted(rng: np.random.Generator, mask: Image.Image) -> Image.Image:
    """Ink on a flat, uneven or busy ground."""
    contrast = rng.uniform(0.35, 1.0) if rng.random() < 0.8 else rng.uniform(0.1, 0.4)
    ink, color = colors(rng, contrast)
    ground = Image.new("RGB", mask.size, color)
    if rng.random() < 0.4:
        rough = rng.integers(0, 256, (int(rng.integers(2, 8)), int(rng.integers(2, 24)), 3))
        cloud = Image.fromarray(rough.astype(np.uint8)).resize(mask.size, Image.Resampling.BILINEAR)
        ground = Image.blend(ground, cloud, rng.uniform(0.02, 0.35) * contrast)
    image = paint(mask, ink, ground)
    if rng.random() < 0.2:
        image = clutter(image, rng, int(rng.integers(1, 4)))
    return image


def worn(rng: np.random.Generator, image: Image.Image, cap_px: float) -> Image.Image:
    """What light, lens, sensor and file do; the more pixels a letter has, the more it can bear."""
    if rng.random() < 0.3:
        image = shade(image, rng, rng.uniform(0.1, 0.7))
    if rng.random() < 0.5:
        image = defocus(image, rng.uniform(0.15, 0.5) + rng.exponential(0.06) * cap_px)
    if rng.random() < 0.45:
        image = noise(image, rng, min(rng.exponential(8.0), 50.0))
    if rng.random() < 0.4:
        image = jpeg(image, int(rng.integers(25, 96)))
    return image


def worn_unlearnt(rng: np.random.Generator, image: Image.Image, cap_px: float) -> Image.Image:
    """Smeared or sharpened: what only the confidence learns from."""
    if rng.random() < 0.6:
        return motion(image, min(5.0, rng.uniform(0.1, 0.5) * cap_px), rng.uniform(0, pi))
    return image.filter(ImageFilter.UnsharpMask(1, int(rng.integers(50, 250)), 0))


def worn_otherwise(rng: np.random.Generator, image: Image.Image, cap_px: float) -> Image.Image:
    """One of the kinds of wear that no training line has."""
    kind = int(rng.integers(5))
    if kind == 0:
        return specks(image, rng, rng.uniform(0.002, 0.04))
    if kind == 1:
        reach = max(1, round(0.15 * cap_px))
        shift = (int(rng.integers(-reach, reach + 1)), int(rng.integers(-reach, reach + 1)))
        return ghost(image, shift, rng.uniform(0.1, 0.4))
    if kind == 2:
        return posterise(image, int(rng.integers(3, 9)))
    if kind == 3:
        return cast_shadow(image, rng, rng.uniform(0.2, 0.7))
    return image
