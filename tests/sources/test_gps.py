"""No place is readable after `strip_gps`, and nothing else is lost."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import pytest
from PIL import Image

from pipeline.errors import BadImage
from pipeline.sources.decode import decode
from pipeline.sources.gps import strip_gps
from tests.sources.pictures import encoded, gradient, pixels

GPS, ORIENTATION, CAMERA, EXIF = 0x8825, 0x0112, 0x010F, 0x8769
SECRET = b"SECRETPLACE"
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r exif:GPSLatitude="51,30N"/></x:xmpmeta>'


def placed(orientation: int = 6) -> Image.Exif:
    """EXIF with a camera, a time, an orientation and a place."""
    exif = Image.Exif()
    exif[CAMERA], exif[ORIENTATION] = "Camera", orientation
    exif.get_ifd(EXIF)[0x9003] = "2024:01:02 03:04:05"
    exif.get_ifd(GPS).update({1: "N", 2: (51.0, 30.0, 26.46), 3: "W", 29: SECRET.decode()})
    return exif


def opened(data: bytes) -> Image.Exif:
    with Image.open(io.BytesIO(data)) as image:
        return image.getexif()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_no_place_is_readable_and_the_rest_stays(kind: str) -> None:
    options: dict[str, Any] = {"exif": placed()}
    if kind == "TIFF":
        place = {1: "N", 2: (51.0, 30.0, 26.46), 29: SECRET.decode()}
        times = {0x9003: "2024:01:02 03:04:05"}
        options = {"tiffinfo": {CAMERA: "Camera", GPS: place, EXIF: times}}
    data = encoded(gradient((90, 60)), kind, **options)
    assert opened(data).get_ifd(GPS)
    assert SECRET in data
    stripped = strip_gps(data)
    after = opened(stripped)
    assert not after.get_ifd(GPS)
    assert GPS not in after
    assert after[CAMERA] == "Camera"
    assert after.get_ifd(EXIF)[0x9003] == "2024:01:02 03:04:05"
    assert SECRET not in stripped
    assert len(stripped) == len(data)
    assert (pixels(decode(stripped)) == pixels(decode(data))).all()
    assert strip_gps(stripped) == stripped


@pytest.mark.parametrize("progressive", [False, True])
def test_the_compressed_scan_of_a_jpeg_stays(progressive: bool) -> None:
    data = encoded(gradient((90, 60)), "JPEG", exif=placed(), progressive=progressive)
    start = data.index(b"\xff\xdb")
    assert strip_gps(data)[start:] == data[start:]


def test_big_endian_exif_is_followed() -> None:
    place = struct.pack(">HHHI4sI", 1, 1, 2, 2, b"N\0\0\0", 0)
    exif = struct.pack(">2sHIHHHIII", b"MM", 42, 8, 1, GPS, 4, 1, 26, 0) + place
    data = encoded(kind="JPEG", exif=b"Exif\0\0" + exif)
    assert opened(data).get_ifd(GPS) == {1: "N"}
    assert not opened(strip_gps(data)).get_ifd(GPS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_xmp_that_speaks_of_gps_is_blanked(kind: str) -> None:
    options = {"tiffinfo": {700: XMP}} if kind == "TIFF" else {"xmp": XMP}
    if kind == "PNG":
        data = with_chunk(encoded(), b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)
    else:
        data = encoded(kind=kind, **options)
    assert b"GPSLatitude" in data
    stripped = strip_gps(data)
    assert b"GPSLatitude" not in stripped
    assert (pixels(decode(stripped)) == pixels(decode(data))).all()


def test_xmp_in_a_gif_is_blanked() -> None:
    data = encoded(kind="GIF")
    block = b"!\xff\x0bXMP DataXMP" + XMP + b"\1" + bytes(range(255, -1, -1)) + b"\0"
    place = data.index(b",\0\0\0\0")
    stripped = strip_gps(data[:place] + block + data[place:])
    assert b"GPSLatitude" not in stripped
    assert (pixels(decode(stripped)) == pixels(decode(data))).all()


def test_exif_as_text_in_a_png_is_blanked() -> None:
    text = zlib.compress(b"\nexif\n 20\n" + SECRET.hex().encode())
    data = with_chunk(encoded(), b"zTXt", b"Raw profile type exif\0\0" + text)
    stripped = strip_gps(data)
    assert text not in stripped
    with Image.open(io.BytesIO(stripped)) as image:
        image.load()
        assert list(image.info) == ["blank"]


def test_what_follows_the_end_of_a_jpeg_is_cut_off() -> None:
    data = encoded(kind="JPEG")
    assert strip_gps(data + encoded(kind="JPEG", exif=placed())) == data


def test_exif_that_cannot_be_followed_is_blanked_whole() -> None:
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 500) + SECRET * 9
    stripped = strip_gps(encoded(kind="JPEG", exif=exif))
    assert SECRET not in stripped
    assert dict(opened(stripped)) == {}


def test_directories_that_point_at_each_other_end() -> None:
    exif = struct.pack("<2sHIHHHIII", b"II", 42, 8, 1, EXIF, 4, 1, 8, 8)
    data = encoded(kind="JPEG", exif=b"Exif\0\0" + exif)
    assert strip_gps(data) == data


def test_what_cannot_be_cleaned_is_refused() -> None:
    for data in (b"text", b"\xff\xd8\xff\xe1\0\x04abgarbage", b"II+\0" + bytes(40), b"II*\0" * 4):
        with pytest.raises(BadImage):
            strip_gps(data)


def with_chunk(png: bytes, kind: bytes, body: bytes) -> bytes:
    """A PNG with one more chunk after its header."""
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return png[:33] + chunk + png[33:]
