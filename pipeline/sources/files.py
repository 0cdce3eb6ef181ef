"""Reading one file below a folder: unchanged since it was listed, inside the folder, not too big.

Every failure is a `BadImage`; only the loss of the folder itself is a `SourceError`.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pipeline.errors import BadImage, SourceError
from pipeline.sources.base import Entry
from pipeline.sources.names import path_of

IMAGE_SUFFIXES = frozenset(
    {"jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "tif", "tiff", "bmp"}
)
MAX_BYTES = 256 * 2**20
"""Largest encoded picture that is read, in bytes."""


def is_image_name(name: str) -> bool:
    """Whether a name ends as a picture's does; what it holds is the decoder's question."""
    return name.rpartition(".")[2].lower() in IMAGE_SUFFIXES


def stamp_of(status: os.stat_result) -> str:
    """A file's modification time in ns, as the listing keeps it."""
    return str(status.st_mtime_ns)


def is_inside(root: str, path: str) -> bool:
    """Whether `path`, links followed, lies below `root`, which is a real path."""
    real = os.path.realpath(path)
    return real == root or real.startswith(root.rstrip("/") + "/")


def entry_for(root: Path, key: str, stamp_suffix: str = "") -> Entry:
    """The entry of a file below `root`; size 0 and no stamp where there is no such file."""
    try:
        status = (root / path_of(key)).stat()
    except (OSError, ValueError):
        return Entry(key, 0, stamp_suffix)
    return Entry(key, status.st_size, stamp_of(status) + stamp_suffix)


def read_below(root: Path, key: str, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of the file with this key below `root`."""
    path = _checked(root, key)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadImage("not_a_file", key)
        if status.st_size > max_bytes:
            raise BadImage("too_large", f"{status.st_size} bytes, at most {max_bytes}")
        with path.open("rb") as file:
            return file.read(max_bytes + 1)[:max_bytes]
    except FileNotFoundError as error:
        raise _missing(root, key) from error
    except OSError as error:
        raise BadImage("unreadable", error.strerror or type(error).__name__) from error


def read_listed(root: Path, entry: Entry, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a listed file; `source_changed` unless size and time are as listed."""
    check_unchanged(root, entry)
    data = read_below(root, entry.key, max_bytes)
    if entry.stamp and len(data) != entry.size:
        raise BadImage("source_changed", f"listed with {entry.size} bytes, read {len(data)}")
    return data


def check_unchanged(root: Path, entry: Entry, stamp_suffix: str = "") -> None:
    """Raise `source_changed` or `source_missing` unless the file is as it was listed."""
    try:
        status = _checked(root, entry.key).stat()
    except FileNotFoundError as error:
        raise _missing(root, entry.key) from error
    except OSError as error:
        raise BadImage("unreadable", error.strerror or type(error).__name__) from error
    if not entry.stamp:
        return
    if status.st_size != entry.size:
        detail = f"listed with {entry.size} bytes, now {status.st_size}"
        raise BadImage("source_changed", detail)
    if stamp_of(status) + stamp_suffix != entry.stamp:
        raise BadImage("source_changed", "modified since it was listed")


def _checked(root: Path, key: str) -> Path:
    """The path for a key, refused when it leads out of `root`."""
    path = root / path_of(key)
    if "\0" in str(path) or not is_inside(os.path.realpath(root), str(path)):
        raise BadImage("outside_source", key)
    return path


def _missing(root: Path, key: str) -> Exception:
    """`source_missing` for one file, `SourceError` when the whole folder is gone."""
    if not root.exists():
        return SourceError(f"The source '{root.name}' is gone.", "Put it back and continue.")
    return BadImage("source_missing", key)
