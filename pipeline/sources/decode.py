"""Encoded pictures to upright RGB and back, safely: hostile bytes are only ever a `BadImage`.

The format is read from the content and must be one of six; size caps hold before any pixel is
decoded; Pillow's global settings are never touched.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from pipeline.errors import BadImage
from pipeline.geometry import FACTOR, MAX_ASPECT, Size
from pipeline.sources.files import MAX_BYTES

MAX_PIXELS = 120_000_000
"""Largest picture that is decoded, in pixels: 360 MB as RGB."""
MAX_SCANS = 256
"""Most scans of a progressive JPEG; each costs a pass over the whole picture."""

_OPENERS: dict[str, Any] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION, _TILE_WIDTH, _TILE_LENGTH = 0x0112, 322, 323


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> Image.Image:
    """The first frame as upright RGB on white, without metadata; raises `BadImage` only."""
    if len(data) > max_bytes:
        raise BadImage("too_large", f"{len(data)} bytes, at most {max_bytes}")
    with _opened(data, max_pixels) as image:
        _check_tiles(image, max_pixels)
        image.load()
        return _plain(_transpose(_to_rgb(image), _orientation(image)))


def pixels_of(data: bytes) -> int:
    """Pixels of the picture as its header says; raises `BadImage` as `decode` does."""
    with _opened(data, MAX_PIXELS) as image:
        return image.width * image.height


@contextmanager
def _opened(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """The picture with its header read and checked; what goes wrong with it is a `BadImage`."""
    kind = format_of(data)
    _check_header(data, kind, max_pixels)
    try:
        with _OPENERS[kind](io.BytesIO(data)) as image:
            check_size(image.size, max_pixels)
            yield image
    except BadImage:
        raise
    except Exception as error:  # plugins raise anything on hostile bytes
        raise _as_bad_image(error) from error


def encode(image: Image.Image, quality: int = 95) -> bytes:
    """JPEG 4:4:4 without metadata; the same pixels give the same bytes."""
    plain = _plain(image.convert("RGB"))
    # Into a file, as Pillow lets other threads go on only while it writes to one.
    with _scratch() as file:
        plain.save(file, "JPEG", quality=quality, subsampling=0, optimize=False)
        file.seek(0)
        return file.read()


def _scratch() -> IO[bytes]:
    """An unnamed file, in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("picture"), "w+b")
    return tempfile.TemporaryFile()


def format_of(data: bytes) -> str:
    """JPEG, PNG, WEBP, GIF, TIFF or BMP, by content; raises `BadImage` for anything else."""
    head = data[:16]
    if not head:
        raise BadImage("empty")
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head[4:8] == b"ftyp" or head.startswith(_KNOWN_OTHERS):
        raise BadImage("unsupported_format", repr(head[:12]))
    raise BadImage("not_an_image", repr(head[:12]))


_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
)
_KNOWN_OTHERS = (b"\0\0\0\x0cjP", b"\xff\x0a", b"8BPS", b"\0\0\x01\0", b"%PDF", b"<svg", b"<?xml")


def check_size(size: Size, max_pixels: int = MAX_PIXELS) -> None:
    """Raise `BadImage` unless (width, height) is within the caps."""
    width, height = size
    if width < 1 or height < 1:
        raise BadImage("corrupt", f"{width} x {height} pixels")
    if width * height > max_pixels:
        raise BadImage("too_large", f"{width} x {height} pixels, at most {max_pixels}")
    if max(size) > MAX_ASPECT * min(size):
        raise BadImage("too_thin", f"{width} x {height} pixels")
    if min(size) < FACTOR:
        raise BadImage("too_small", f"{width} x {height} pixels")


def _check_header(data: bytes, kind: str, max_pixels: int) -> None:
    """What must be known before Pillow's plugin may see the bytes."""
    if kind == "JPEG" and data.count(b"\xff\xda") > MAX_SCANS:
        raise BadImage("too_large", f"more than {MAX_SCANS} scans")
    if kind != "WEBP":
        return
    if int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise BadImage("truncated", f"{len(data)} bytes")
    size = _webp_size(data)
    if size is not None:
        check_size(size, max_pixels)


def _webp_size(data: bytes) -> Size | None:
    """(width, height) of a WebP's canvas; opening one allocates all of it at once."""
    chunk, body = data[12:16], data[20:30]
    if len(body) < 10:
        raise BadImage("truncated", f"{len(data)} bytes")
    if chunk == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if chunk == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 ":
        return (
            int.from_bytes(body[6:8], "little") & 0x3FFF,
            int.from_bytes(body[8:10], "little") & 0x3FFF,
        )
    return None


def _check_tiles(image: Image.Image, max_pixels: int) -> None:
    """Refuse a TIFF whose single tile is larger than any picture may be."""
    tags = getattr(image, "tag_v2", None)
    if not tags:
        return
    width, length = tags.get(_TILE_WIDTH), tags.get(_TILE_LENGTH)
    if isinstance(width, int) and isinstance(length, int) and width * length > max_pixels:
        raise BadImage("too_large", f"tiles of {width} x {length} pixels")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation that is still to be applied, 1 where EXIF cannot be read."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 a damaged EXIF block does not spoil a picture
        return 1
    return value if isinstance(value, int) else 1


def _transpose(image: Image.Image, orientation: int) -> Image.Image:
    """The picture turned upright from an EXIF orientation."""
    method = _UPRIGHT.get(orientation)
    return image if method is None else image.transpose(method)


def _to_rgb(image: Image.Image) -> Image.Image:
    """RGB of any mode: deep grey scaled to 8 bits, transparency laid on white."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _from_deep_grey(image)
    if "transparency" in image.info or image.mode in ("LA", "PA", "La", "RGBA", "RGBa"):
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    if image.mode == "LAB":
        raise BadImage("unsupported_format", "colour mode LAB")
    return image.convert("RGB")


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit or float grey, whole range onto 0..255, nothing clipped."""
    if image.mode.startswith("I;16"):
        table = ((np.arange(65536) * 255 + 32767) // 65535).astype(np.uint8)
        return Image.fromarray(table[np.asarray(image)]).convert("RGB")
    values = np.nan_to_num(np.asarray(image, dtype=np.float32), nan=0, posinf=0, neginf=0)
    top = float(values.max())
    steps = (1, 255, 65535) if image.mode == "F" else (65535,)
    full = next((step for step in steps if top <= step), top)
    grey = np.clip(values * (255 / full), 0, 255).round().astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def _plain(image: Image.Image) -> Image.Image:
    """The same pixels with nothing beside them."""
    image.info = {}
    return image


def _as_bad_image(error: Exception) -> BadImage:
    """The countable reason for what Pillow raised."""
    detail = f"{type(error).__name__}: {error}"[:200]
    if isinstance(error, MemoryError | Image.DecompressionBombError):
        return BadImage("too_large", detail)
    if "truncated" in str(error).lower() or isinstance(error, EOFError):
        return BadImage("truncated", detail)
    if isinstance(error, NotImplementedError):
        return BadImage("unsupported_format", detail)
    return BadImage("corrupt", detail)
