"""Reader `glyph`: reads the short code on a tag by matching rendered letterforms.

It sees one view and the tag's box in it, and nothing else: where the letters have too few pixels
their forms cannot be told apart, and it says so. It knows the alphabet, not the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from pipeline.scenes.tags import ALPHABET, TEXT_HEIGHT
from pipeline.views import ViewBox

SIDE = 120
"""Pixels a side that every tag is brought to before matching."""
LENGTH = 3
"""Characters in a code."""
SQUEEZES = (1.0, 0.9, 0.8)
"""How far a code may have been condensed to fit its shape."""
MATCH_CLEAR = 0.77
"""Least correlation with its form that every character of a clear reading has."""
MATCH_PLAIN = 0.9
"""Correlation from which on no other squeeze is tried, given twice the lead that is needed."""
MARGIN_CLEAR = 0.05
"""Least lead over any other form in its place."""

WIDEN = (1.0, 1.1, 0.92)
"""How much wider than the box asked for the tag may be."""
SMALLEST_PX = 16
"""A tag narrower than this has capitals of about 3 pixels: every code looks like some other."""

_CAP = round(SIDE * TEXT_HEIGHT)
_PAD = 2
_ROWS = slice(round(0.3 * SIDE), round(0.92 * SIDE))
_SLACK = 2
_FFT = (75, 150)
_MIN_CONTRAST = 6.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read, and how sure that is."""

    text: str
    """Empty when unclear."""
    confidence: float
    """In [0, 1]; at least 0.5 when, and only when, the reading is clear."""
    guess: str = ""
    """The best match even when unclear: for diagnosis, never an answer."""

    @property
    def clear(self) -> bool:
        return bool(self.text)


def read(view: np.ndarray, box: ViewBox) -> Reading:
    """The code on the tag at `box` of a view (uint8 HWC).

    Boxes are seldom exact: while the code is unclear, a wider and a narrower one are tried.
    """
    best = Reading("", 0.0)
    if min(box[2] - box[0], box[3] - box[1]) < SMALLEST_PX:
        return best
    for widen in WIDEN:
        reading = _read(view, _widened(box, widen))
        if reading.confidence > best.confidence:
            best = reading
        if best.clear:
            break
    return best


def _read(view: np.ndarray, box: ViewBox) -> Reading:
    side = min(box[2] - box[0], box[3] - box[1])
    gray, inner = _cut(view, box)
    blur = round(2 * 0.45 * SIDE / side) / 2
    best = _Line("", -1.0, -1.0, -1.0)
    for squeeze in SQUEEZES:
        best = max(best, _decode(_canonical(gray, inner, squeeze), blur), key=lambda at: at.score)
        if best.match >= MATCH_PLAIN and best.margin >= 2 * MARGIN_CLEAR:
            break
    clear = min(best.match / MATCH_CLEAR, best.margin / MARGIN_CLEAR)
    confidence = float(np.clip(clear / 2, 0.0, 1.0))
    return Reading(best.code if clear >= 1 else "", confidence, best.code)


def _widened(box: ViewBox, factor: float) -> ViewBox:
    cx, cy = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    w, h = (box[2] - box[0]) * factor / 2, (box[3] - box[1]) * factor / 2
    return cx - w, cy - h, cx + w, cy + h


def _cut(view: np.ndarray, box: ViewBox) -> tuple[Image.Image, ViewBox]:
    """The view around a box in grey, and the box in it."""
    x0, y0 = max(int(box[0]) - 4, 0), max(int(box[1]) - 4, 0)
    part = view[y0 : int(box[3]) + 5, x0 : int(box[2]) + 5]
    return Image.fromarray(part).convert("L"), (box[0] - x0, box[1] - y0, box[2] - x0, box[3] - y0)


@dataclass(frozen=True, slots=True)
class _Line:
    code: str
    score: float
    match: float
    margin: float


@dataclass(frozen=True, slots=True)
class _Forms:
    """Letterforms at canonical scale, blurred as the view is."""

    spectra: np.ndarray
    """Conjugate spectra of the zero-mean, unit-norm forms: (glyphs, rows, cols) of `_FFT`."""
    sizes: tuple[tuple[int, int], ...]
    advances: tuple[int, ...]


def _canonical(gray: Image.Image, box: ViewBox, squeeze: float) -> np.ndarray:
    """The text band of the tag, float32, its letters as wide as if not condensed."""
    width = round(SIDE / squeeze)
    patch = gray.resize((width, SIDE), Image.Resampling.BICUBIC, box=_clipped(box, gray.size))
    return np.asarray(patch, np.float32)[_ROWS]


def _clipped(box: ViewBox, size: tuple[int, int]) -> ViewBox:
    return max(box[0], 0), max(box[1], 0), min(box[2], size[0]), min(box[3], size[1])


def _decode(ink: np.ndarray, blur: float) -> _Line:
    """The best code in a text band, dark on light or light on dark."""
    forms = _forms(blur)
    match = _correlate(ink, forms)
    return max((_best_line(signed, forms) for signed in (match, -match)), key=lambda p: p.score)


def _correlate(ink: np.ndarray, forms: _Forms) -> np.ndarray:
    """Correlation of each form, its corner at each place: (glyphs, rows, cols); 0 off the band."""
    rows, cols = ink.shape
    spectrum = np.fft.rfft2(ink - ink.mean(), _FFT)
    raw = np.fft.irfft2(spectrum * forms.spectra, _FFT)[:, :rows, :cols]
    out = np.zeros(raw.shape, np.float32)
    sums, squares = _integral(ink - ink.mean()), _integral((ink - ink.mean()) ** 2)
    for h, w in set(forms.sizes):
        total, energy = _windows(sums, h, w), _windows(squares, h, w)
        deviation = np.sqrt(np.maximum(energy - total**2 / (h * w), 0.0))
        scale = np.maximum(deviation, _MIN_CONTRAST * (h * w) ** 0.5)
        glyphs = [g for g, size in enumerate(forms.sizes) if size == (h, w)]
        y, x = deviation.shape
        out[glyphs, :y, :x] = raw[glyphs, :y, :x] / scale
    return out[:, : rows - min(h for h, _ in forms.sizes) + 1]


def _integral(values: np.ndarray) -> np.ndarray:
    return np.pad(values.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))


def _windows(integral: np.ndarray, h: int, w: int) -> np.ndarray:
    return integral[h:, w:] - integral[:-h, w:] - integral[h:, :-w] + integral[:-h, :-w]


def _best_line(match: np.ndarray, forms: _Forms) -> _Line:
    """The three forms in a row, one after another at their advances, that match best."""
    ahead = [match]
    for _ in range(LENGTH - 1):
        best = _spread(ahead[0].max(axis=0))
        padded = np.pad(best, ((0, 0), (0, max(forms.advances))), constant_values=-1.0)
        follow = np.stack([padded[:, a : a + best.shape[1]] for a in forms.advances])
        ahead.insert(0, match + follow)
    top = np.unravel_index(int(ahead[0].argmax()), match.shape)
    glyph, row, col = (int(index) for index in top)
    score = float(ahead[0][glyph, row, col]) / LENGTH
    code, hits, leads = ALPHABET[glyph], [], []
    for place in range(LENGTH):
        if place:
            col = _next_column(ahead[place][:, row], col + forms.advances[glyph])
            glyph = int(ahead[place][:, row, col].argmax())
            code += ALPHABET[glyph]
        hit = float(match[glyph, row, col])
        hits.append(hit)
        leads.append(hit - _rival(match, glyph, row, col))
    return _Line(code, score, min(hits), min(leads))


def _spread(best: np.ndarray) -> np.ndarray:
    """Each place's best within `_SLACK` columns."""
    padded = np.pad(best, ((0, 0), (_SLACK, _SLACK)), constant_values=-1.0)
    reach = [padded[:, shift : shift + best.shape[1]] for shift in range(2 * _SLACK + 1)]
    return np.maximum.reduce(reach)


def _next_column(scores: np.ndarray, expected: int) -> int:
    low = max(expected - _SLACK, 0)
    window = scores[:, low : expected + _SLACK + 1].max(axis=0)
    return low + int(window.argmax()) if window.size else scores.shape[1] - 1


def _rival(match: np.ndarray, glyph: int, row: int, col: int) -> float:
    """The best match of any other form near the same place."""
    near = match[:, max(row - 1, 0) : row + 2, max(col - 3, 0) : col + 4].max(axis=(1, 2))
    return float(np.delete(near, glyph).max())


@lru_cache(maxsize=64)
def _forms(blur: float) -> _Forms:
    font = ImageFont.load_default(_CAP / 0.7)
    _, top, _, bottom = font.getbbox("H", stroke_width=0.5)
    spectra, sizes, advances = [], [], []
    for char in ALPHABET:
        left, _, right, _ = font.getbbox(char, stroke_width=0.5)
        size = (round(right - left) + 2 * _PAD, round(bottom - top) + 2 * _PAD)
        cell = Image.new("L", size)
        ImageDraw.Draw(cell).text(
            (_PAD - left, _PAD - top), char, fill=255, font=font, stroke_width=0.5
        )
        form = np.asarray(cell.filter(ImageFilter.GaussianBlur(blur)), np.float32)
        form = form - form.mean()
        spectra.append(np.conj(np.fft.rfft2(form / np.linalg.norm(form), _FFT)))
        sizes.append(form.shape)
        advances.append(round(font.getlength(char)))
    return _Forms(np.stack(spectra), tuple(sizes), tuple(advances))
