"""Pictures of a published dataset: inside the record, below a folder, or in a zip beside it.

Names come from other people's files: they stay below their folder, and nothing is unpacked.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.errors import BadImage, SourceError
from pipeline.sources.files import MAX_BYTES, entry_for, read_below
from pipeline.sources.names import is_harmless, key_of, member_key

_ORIENTATION = 0x0112


class Pictures:
    """Where pictures are looked for: folders first, then the zip files that lie in them."""

    def __init__(self, roots: tuple[Path, ...]) -> None:
        self._folders = tuple(root for root in roots if root.is_dir())
        zips = [path for folder in self._folders for path in sorted(folder.glob("*.zip"))]
        zips += [root for root in roots if root.suffix == ".zip" and root.is_file()]
        self._zips = [_open_zip(path) for path in zips]

    def read(self, cell: Any) -> bytes:
        """Encoded bytes of a picture; raises `BadImage`, `missing_image` when there is none."""
        held = _bytes_in(cell)
        if held is not None:
            if len(held) > MAX_BYTES:
                raise BadImage("too_large", f"{len(held)} bytes, at most {MAX_BYTES}")
            return held
        names = self._names(cell)
        for name in names:
            for folder in self._folders:
                try:
                    return read_below(folder, name)
                except BadImage as error:
                    if error.reason not in ("source_missing", "not_a_file"):
                        raise
            for file, members in self._zips:
                if name in members:
                    return _read_member(file, members[name])
        raise BadImage("missing_image", names[0])

    def identity(self, cell: Any) -> str:
        """What changes when the picture does: size and time of a file, a checksum in a zip."""
        try:
            names = [] if _bytes_in(cell) is not None else self._names(cell)
        except BadImage as error:
            return error.reason
        for name in names:
            for folder in self._folders:
                entry = entry_for(folder, name)
                if entry.stamp:
                    return f"{name}:{entry.size}:{entry.stamp}"
            for _, members in self._zips:
                if name in members:
                    return f"{name}:{members[name].file_size}:{members[name].CRC}"
        return ""

    def close(self) -> None:
        """Let go of the zip files."""
        for file, _ in self._zips:
            file.close()

    def _names(self, cell: Any) -> list[str]:
        """Keys that the picture may have; raises `BadImage` for names that lead elsewhere."""
        if isinstance(cell, dict):
            cell = cell.get("path")
        names = [cell] if isinstance(cell, str) else cell
        if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
            raise BadImage("missing_image", "the record names no picture")
        keys = [key for name in names if (key := self._key(name))]
        if not keys or not is_harmless(keys[0]):
            raise BadImage("outside_source", str(names[0])[:200] if names else "")
        return [key for key in keys if is_harmless(key)]

    def _key(self, name: str) -> str:
        """The key for a name; one that is absolute is taken from its folder on."""
        if name.startswith("/"):
            for folder in map(Path.absolute, self._folders):
                if name.startswith(f"{folder}/"):
                    name = name[len(str(folder)) + 1 :]
                    break
        while name.startswith("./"):
            name = name[2:]
        try:
            return key_of(name)
        except UnicodeEncodeError as error:
            raise BadImage("outside_source", repr(name)[:200]) from error


def is_turned(data: bytes) -> bool:
    """Whether EXIF turns or mirrors the picture: who published boxes did not see it upright."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.getexif().get(_ORIENTATION, 1) not in (0, 1)
    except Exception:  # noqa: BLE001 the decoder takes a damaged EXIF block for none, too
        return False


def _bytes_in(cell: Any) -> bytes | None:
    held = cell.get("bytes") if isinstance(cell, dict) else cell
    return held if isinstance(held, bytes) else None


def _open_zip(path: Path) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    """An open zip file and its members by their harmless names."""
    try:
        file = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise SourceError(f"'{path.name}' is not a zip file: {error}.", "Get it again.") from error
    return file, dict(_members(file))


def _members(file: zipfile.ZipFile) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    for info in file.infolist():
        if not info.is_dir():
            yield member_key(info.filename), info


def _read_member(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.file_size > MAX_BYTES:
        raise BadImage("too_large", f"{info.file_size} bytes, at most {MAX_BYTES}")
    try:
        with file.open(info) as member:
            return member.read(MAX_BYTES)
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        raise BadImage("unreadable", f"{info.filename}: {error}"[:200]) from error
    except Exception as error:
        if type(error).__module__ not in ("zlib", "_lzma"):
            raise
        raise BadImage("unreadable", f"{info.filename}: {error}"[:200]) from error
