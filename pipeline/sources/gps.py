"""Originals that keep their bytes but not where they were taken.

Everything is blanked in place, so that no offset moves and the compressed picture stays as it is:
the GPS directory of EXIF, any XMP packet that speaks of GPS, and, in a JPEG, whatever follows its
end (other pictures with EXIF of their own, films). EXIF that cannot be followed is blanked whole.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

from pipeline.errors import BadImage
from pipeline.sources.decode import format_of

_GPS_POINTER, _XMP_TAG = 0x8825, 700
_DIRECTORY_POINTERS = (0x8769, 0x014A)
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_MAX_DIRECTORIES = 64
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/x"
_EMPTY_TIFF = b"II*\0\x08" + bytes(9)
_EMPTY_XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_PNG_TEXTS = (b"iTXt", b"tEXt", b"zTXt")
_STANDALONE = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})


def strip_gps(data: bytes) -> bytes:
    """The same encoded picture without GPS; raises `BadImage` for what is no picture."""
    kind = format_of(data)
    buffer = bytearray(data)
    if kind == "JPEG":
        _strip_jpeg(buffer)
    elif kind == "PNG":
        _strip_png(buffer)
    elif kind == "WEBP":
        _strip_webp(buffer)
    elif kind == "TIFF":
        _strip_tiff_file(buffer)
    elif kind == "GIF":
        start, end = data.find(b"<x:xmpmeta"), data.rfind(b"</x:xmpmeta>")
        if 0 <= start < end:
            _strip_xmp(buffer, start, end + len(b"</x:xmpmeta>"))
    return bytes(buffer)


def _strip_jpeg(buffer: bytearray) -> None:
    """Blank the APP segments and cut after the end of the picture."""
    place = 2
    while place + 4 <= len(buffer):
        marker = buffer[place + 1]
        if buffer[place] != 0xFF:
            raise BadImage("corrupt", f"no marker at byte {place}")
        if marker == 0xFF:
            place += 1
            continue
        if marker == 0xD9:
            del buffer[place + 2 :]
            return
        if marker in _STANDALONE:
            place += 2
            continue
        end = place + 2 + int.from_bytes(buffer[place + 2 : place + 4], "big")
        _strip_segment(buffer, marker, place + 4, min(end, len(buffer)))
        place = _after_scan(buffer, end) if marker == 0xDA else end


def _after_scan(buffer: bytearray, start: int) -> int:
    """Where the marker after a scan's compressed data begins."""
    match = _END_OF_SCAN.search(buffer, start)
    return match.start() if match else len(buffer)


def _strip_segment(buffer: bytearray, marker: int, start: int, end: int) -> None:
    """Blank what an APP segment tells of places, and the index of pictures that are cut off."""
    if marker == 0xE1 and buffer.startswith(_EXIF, start, end):
        _strip_exif(buffer, start, end)
    elif marker == 0xE1 and buffer.startswith(_XMP, start, end):
        _strip_xmp(buffer, max(start, buffer.find(b"\0", start, end) + 1), end)
    elif marker == 0xE2 and buffer.startswith(b"MPF\0", start, end):
        buffer[start:end] = bytes(end - start)


def _strip_png(buffer: bytearray) -> None:
    """Blank within chunks and renew their checksums."""
    place = 8
    while place + 12 <= len(buffer):
        end = place + 8 + int.from_bytes(buffer[place : place + 4], "big")
        if end + 4 > len(buffer):
            return
        kind = bytes(buffer[place + 4 : place + 8])
        if kind == b"eXIf":
            _strip_exif(buffer, place + 8, end)
        elif kind in _PNG_TEXTS and _tells_places(bytes(buffer[place + 8 : end])):
            buffer[place + 4 : end] = b"tEXtblank\0".ljust(end - place - 4)
        if kind in (b"eXIf", *_PNG_TEXTS):
            buffer[end : end + 4] = struct.pack(">I", zlib.crc32(buffer[place + 4 : end]))
        place = end + 4


def _tells_places(text: bytes) -> bool:
    """Whether a text chunk may hold GPS: EXIF as text, XMP that is compressed or speaks of it."""
    keyword, _, rest = text.partition(b"\0")
    if keyword.lower().startswith(b"raw profile type"):
        return True
    is_xmp = keyword.lower() == b"xml:com.adobe.xmp"
    return is_xmp and (rest[:1] != b"\0" or b"gps" in rest.lower())


def _strip_webp(buffer: bytearray) -> None:
    """Blank within the EXIF and XMP chunks."""
    place = 12
    while place + 8 <= len(buffer):
        start = place + 8
        end = min(start + int.from_bytes(buffer[place + 4 : start], "little"), len(buffer))
        if buffer[place:start].startswith(b"EXIF"):
            _strip_exif(buffer, start, end)
        elif buffer[place:start].startswith(b"XMP "):
            _strip_xmp(buffer, start, end)
        place = end + (end - start) % 2


def _strip_xmp(buffer: bytearray, start: int, end: int) -> None:
    """Put an empty packet of the same length where one speaks of GPS."""
    if b"gps" in buffer[start:end].lower():
        buffer[start:end] = _EMPTY_XMP.ljust(end - start)[: end - start]


def _strip_exif(buffer: bytearray, start: int, end: int) -> None:
    """Remove GPS from an EXIF block, or put an empty one of the same length where that fails."""
    if buffer.startswith(_EXIF, start, end):  # JPEG's prefix, which some writers put everywhere
        start += len(_EXIF)
    try:
        buffer[start:end] = _without_gps(buffer[start:end])
    except struct.error:
        buffer[start:end] = _EMPTY_TIFF.ljust(end - start, b"\0")[: end - start]


def _strip_tiff_file(buffer: bytearray) -> None:
    """Remove GPS from a TIFF; `BadImage` where its directories cannot be followed."""
    if bytes(buffer[2:4]) in (b"+\0", b"\0+"):
        raise BadImage("unsupported_format", "GPS is not taken out of BigTIFF")
    try:
        buffer[:] = _without_gps(buffer)
    except struct.error as error:
        raise BadImage("corrupt", str(error)) from error


def _without_gps(tiff: bytearray) -> bytearray:
    """The same TIFF, no longer and no shorter, without GPS; `struct.error` when it is none."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(tiff[:4]))
    if order is None:
        raise struct.error("no classic TIFF")
    tiff = bytearray(tiff)
    todo, seen = [struct.unpack_from(f"{order}I", tiff, 4)[0]], {0}
    while todo and len(seen) <= _MAX_DIRECTORIES:
        place = todo.pop(0)
        if place not in seen:
            seen.add(place)
            _strip_directory(tiff, place, order)
            todo.extend(_following(tiff, place, order))
    return tiff


def _following(tiff: bytearray, place: int, order: str) -> Iterator[int]:
    """Offsets of the directories that the one at `place` leads to."""
    count = struct.unpack_from(f"{order}H", tiff, place)[0]
    for entry in range(place + 2, place + 2 + 12 * count, 12):
        tag, _, length, value = struct.unpack_from(f"{order}HHII", tiff, entry)
        if tag in _DIRECTORY_POINTERS and length == 1:
            yield value
    after = place + 2 + 12 * count
    if after + 4 <= len(tiff):
        yield struct.unpack_from(f"{order}I", tiff, after)[0]


def _strip_directory(tiff: bytearray, place: int, order: str) -> None:
    """Take the GPS pointer and XMP with GPS out of a directory; what they point to is blanked."""
    count = struct.unpack_from(f"{order}H", tiff, place)[0]
    entry = place + 2
    while entry < place + 2 + 12 * count:
        tag, kind, length, value = struct.unpack_from(f"{order}HHII", tiff, entry)
        if tag == _GPS_POINTER:
            _blank_directory(tiff, value, order)
            after = place + 2 + 12 * count + 4
            tiff[entry:after] = tiff[entry + 12 : after] + bytes(12)
            count -= 1
            struct.pack_into(f"{order}H", tiff, place, count)
            continue
        if tag == _XMP_TAG:
            _strip_xmp(tiff, value, min(value + length * _TYPE_BYTES.get(kind, 1), len(tiff)))
        entry += 12


def _blank_directory(tiff: bytearray, place: int, order: str) -> None:
    """Overwrite a directory and what it points to with zeros, as far as they lie inside."""
    if not 8 <= place <= len(tiff) - 2:
        return
    count = struct.unpack_from(f"{order}H", tiff, place)[0]
    end = min(place + 2 + 12 * count, len(tiff))
    for entry in range(place + 2, end - 11, 12):
        _, kind, length, value = struct.unpack_from(f"{order}HHII", tiff, entry)
        size = length * _TYPE_BYTES.get(kind, 1)
        if size > 4 and value + size <= len(tiff):
            tiff[value : value + size] = bytes(size)
    tiff[place:end] = bytes(end - place)
