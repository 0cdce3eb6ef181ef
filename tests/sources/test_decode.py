"""Laws of the decoder: known pictures come out right, everything else is a `BadImage`."""

from __future__ import annotations

import io
import random
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, JpegImagePlugin

from pipeline.errors import BadImage
from pipeline.sources.decode import decode, encode
from tests.sources.pictures import SIZE, encoded, gradient, pixels

KINDS = ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"]


def reason_for(data: bytes, **caps: int) -> str:
    with pytest.raises(BadImage) as caught:
        decode(data, **caps)
    return caught.value.reason


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_decodes_to_plain_rgb(kind: str) -> None:
    image = decode(encoded(kind=kind))
    assert (image.mode, image.size, image.info) == ("RGB", SIZE, {})
    tolerance = {"GIF": 60, "JPEG": 40, "WEBP": 40}.get(kind, 0)
    assert np.abs(pixels(image) - pixels(gradient())).max() <= tolerance


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    turned: Any = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
        7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda a: a.transpose(1, 0, 2)[::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100}}
    image = decode(encoded(kind=kind, exif=exif, **options.get(kind, {})))
    expected = turned(pixels(gradient()))
    assert pixels(image).shape == expected.shape
    assert np.abs(pixels(image) - expected).mean() < 5


@pytest.mark.filterwarnings("ignore")
def test_damaged_exif_does_not_spoil_the_picture() -> None:
    data = encoded(kind="JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(40))
    assert decode(data).size == SIZE


def test_cmyk_comes_out_as_it_looks() -> None:
    data = encoded(gradient().convert("CMYK"), "JPEG", quality=95)
    assert np.abs(pixels(decode(data)) - pixels(gradient())).mean() < 10


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bits_are_scaled_not_clipped(kind: str, order: str) -> None:
    ramp = np.linspace(0, 65535, 48 * 32).reshape(32, 48).astype(order)
    image = decode(encoded(Image.fromarray(ramp), kind))
    assert np.abs(pixels(image)[..., 0] - ramp / 257).max() <= 1


def test_sixteen_bit_colour_is_scaled() -> None:
    ramp = np.linspace(0, 65535, 48 * 32 * 3).reshape(32, 48, 3).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in ramp)
    header = struct.pack(">IIBBBBB", 48, 32, 16, 2, 0, 0, 0)
    image = decode(png([(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]))
    assert np.abs(pixels(image) - ramp / 257).max() <= 1


@pytest.mark.parametrize("top", [1.0, 255.0, 65535.0, 1e6])
def test_float_grey_uses_its_whole_range(top: float) -> None:
    ramp = np.linspace(0, top, 48 * 32, dtype=np.float32).reshape(32, 48)
    ramp[0, 0] = np.nan
    grey = pixels(decode(encoded(Image.fromarray(ramp), "TIFF")))
    assert (grey.min(), grey.max()) == (0, 255)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    layer = Image.new("RGBA", SIZE, (255, 0, 0, 255))
    layer.paste((0, 0, 255, 0), (0, 0, 24, 32))
    data = encoded(layer.convert(mode), "TIFF" if mode == "PA" else "PNG")
    image = decode(data)
    assert image.getpixel((2, 2)) == (255, 255, 255)
    assert image.getpixel((40, 2)) != (255, 255, 255)


def test_a_transparent_palette_colour_is_white() -> None:
    layer = Image.new("P", SIZE, 0)
    layer.putpalette([10, 20, 30, 200, 100, 0])
    layer.paste(1, (24, 0, 48, 32))
    image = decode(encoded(layer, "PNG", transparency=0))
    assert image.getpixel((2, 2)) == (255, 255, 255)
    assert image.getpixel((40, 2)) == (200, 100, 0)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_stands_for_an_animation(kind: str) -> None:
    red, blue = Image.new("RGB", SIZE, "red"), Image.new("RGB", SIZE, "blue")
    image = decode(encoded(red, kind, save_all=True, append_images=[blue]))
    colour = np.array(image.getpixel((5, 5)))
    assert np.abs(colour - (255, 0, 0)).max() < 12


@pytest.mark.parametrize("kind", KINDS)
def test_half_a_file_is_a_bad_image(kind: str) -> None:
    data = encoded(gradient((200, 120)), kind)
    assert reason_for(data[: len(data) // 2]) in ("truncated", "corrupt")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_a_cut_file_is_called_truncated(kind: str) -> None:
    data = encoded(gradient((200, 120)), kind)
    assert reason_for(data[:-200]) == "truncated"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\xff", "not_an_image"),
        (b"hello, I am text", "not_an_image"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "unsupported_format"),
        (b"%PDF-1.7 and so on", "unsupported_format"),
        (b"\0\0\0\x1cftypavif" + bytes(40), "unsupported_format"),
        (b"\x89PNG\r\n\x1a\n", "corrupt"),
        (b"RIFF\x04\0\0\0WEBP", "truncated"),
    ],
)
def test_what_is_no_picture_says_so(data: bytes, reason: str) -> None:
    assert reason_for(data) == reason


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((1, 1), "too_small"),
        ((27, 500), "too_small"),
        ((1, 20000), "too_thin"),
        ((30, 6001), "too_thin"),
        ((800, 200), "too_large"),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_sizes_are_capped(size: tuple[int, int], reason: str, kind: str) -> None:
    data = encoded(Image.new("L", size), kind)
    assert reason_for(data, max_pixels=150_000 if reason == "too_large" else 10**7) == reason


def test_bytes_are_capped() -> None:
    data = encoded()
    assert reason_for(data, max_bytes=len(data) - 1) == "too_large"


def test_a_bomb_is_refused_from_its_header_without_a_warning() -> None:
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    bomb = png([(b"IHDR", header), (b"IDAT", zlib.compress(bytes(10**6))), (b"IEND", b"")])
    canvas = b"VP8X\x0a\0\0\0" + bytes(4) + b"\xff\xff\0" * 2
    webp = b"RIFF" + struct.pack("<I", len(canvas) + 4) + b"WEBP" + canvas
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reason_for(bomb) == "too_large"
        assert reason_for(webp) == "too_large"


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 80}, {"save_all": True}])
def test_a_webp_is_measured_before_it_is_opened(options: dict[str, Any]) -> None:
    more = [gradient()] if "save_all" in options else []
    data = encoded(Image.new("RGB", SIZE, "red"), "WEBP", append_images=more, **options)
    broken = data[:30] + b"\xff" * (len(data) - 30)
    if options != {"quality": 80}:  # the lossy decoder makes something of anything
        assert reason_for(broken) == "corrupt"
    assert reason_for(broken, max_pixels=SIZE[0] * SIZE[1] - 1) == "too_large"


def test_a_tile_larger_than_any_picture_is_refused() -> None:
    data = bytearray(encoded(kind="TIFF"))
    tiled = {278: (322, 60000), 284: (323, 60000), 273: (324, 8), 279: (325, 100)}
    for place in range(10, 10 + 12 * data[8], 12):
        tag = int.from_bytes(data[place : place + 2], "little")
        if tag in tiled:
            data[place : place + 12] = struct.pack("<HHII", tiled[tag][0], 4, 1, tiled[tag][1])
    assert reason_for(bytes(data)) == "too_large"


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    data = encoded(kind="JPEG", progressive=True)
    scan = data[data.index(b"\xff\xda") : -2]
    assert reason_for(data[:-2] + scan * 300 + data[-2:]) == "too_large"


def test_valid_checksums_over_garbage_are_corrupt() -> None:
    header = struct.pack(">IIBBBBB", 48, 32, 8, 2, 0, 0, 0)
    data = png([(b"IHDR", header), (b"IDAT", random.Random(0).randbytes(999)), (b"IEND", b"")])
    assert reason_for(data) in ("corrupt", "truncated")


def test_pillow_is_left_as_it_was() -> None:
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(Image.ID))
    decode(encoded())
    reason_for(encoded()[:-50])
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(Image.ID)) == before


def test_encoding_is_full_colour_and_depends_on_the_pixels_only() -> None:
    image = gradient()
    dressed = image.copy()
    dressed.info.update(comment=b"secret", icc_profile=b"x" * 100, exif=b"Exif\0\0", dpi=(3, 3))
    data = encode(image)
    assert data == encode(dressed) == encode(image.convert("RGBA"))
    assert b"secret" not in data
    with JpegImagePlugin.JpegImageFile(io.BytesIO(data)) as opened:
        assert opened.layer == [(1, 1, 1, 0), (2, 1, 1, 1), (3, 1, 1, 1)]
    assert dressed.info["comment"] == b"secret"


SEEDS = [encoded(kind=kind) for kind in KINDS] + [
    encoded(kind="JPEG", progressive=True),
    encoded(gradient().convert("P"), "PNG"),
    encoded(kind="TIFF", compression="tiff_lzw"),
]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Bytes flipped, cut, doubled or moved, headers most of all."""
    buffer = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(min(len(buffer), rng.choice([40, 200, len(buffer)])) or 1)
        match rng.randrange(5):
            case 0:
                buffer[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                buffer[place : place + 4] = rng.choice([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"])
            case 2:
                del buffer[place : place + rng.randint(1, 50)]
            case 3:
                buffer[place:place] = buffer[place : place + rng.randint(1, 50)]
            case _:
                buffer[place:] = buffer[place : max(place, len(buffer) - rng.randint(1, 99))]
        if not buffer:
            break
    return bytes(buffer)


def decode_or_refuse(data: bytes) -> None:
    """Decode under small caps; only a countable `BadImage` may come out."""
    try:
        image = decode(data, max_pixels=10**6)
    except BadImage as error:
        assert error.reason.replace("_", "").isalpha()
    else:
        assert image.mode == "RGB"


@pytest.mark.filterwarnings("ignore")
def test_mutated_pictures_are_only_ever_bad_images() -> None:
    rng = random.Random(7)
    for number in range(400):
        decode_or_refuse(mutate(SEEDS[number % len(SEEDS)], rng))


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SEEDS), st.integers(0, 40), st.binary(max_size=200))
def test_any_bytes_behind_a_header_are_only_ever_bad_images(
    seed: bytes, keep: int, tail: bytes
) -> None:
    decode_or_refuse(seed[:keep] + tail)


def png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """A PNG of these chunks with right checksums."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, body in chunks:
        parts += [struct.pack(">I", len(body)), kind, body]
        parts.append(struct.pack(">I", zlib.crc32(kind + body)))
    return b"".join(parts)
