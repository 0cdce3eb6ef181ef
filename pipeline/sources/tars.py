"""Tar files of pictures: planned by file, read member by member, nothing ever unpacked to disk.

What the members mean is the business of `sa1b` and `wds`, which give a function from an open tar
to its pictures.
"""

from __future__ import annotations

import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Self

from pipeline.errors import BadImage, ConfigError
from pipeline.sources.base import Entry, Picture
from pipeline.sources.files import MAX_BYTES, check_unchanged, entry_for
from pipeline.sources.names import key_of, member_key, path_of

SUFFIXES = (".tar", ".tar.gz", ".tgz")
_MAX_HEADER = 2**20
_LONG_HEADERS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar, by a name that is harmless and unique there."""

    key: str
    info: tarfile.TarInfo


@dataclass(frozen=True, slots=True)
class OpenTar:
    """An open tar: its members in the order they lie there, and what broke the reading, if so."""

    file: tarfile.TarFile
    key: str
    source: str
    members: tuple[Member, ...]
    error: BadImage | None

    def image_id(self, member_key: str) -> str:
        """`tar#member`."""
        return f"{self.key}#{member_key}"

    def read(self, member: Member, max_bytes: int = MAX_BYTES) -> bytes:
        """A member's bytes; raises `BadImage`."""
        if member.info.size > max_bytes:
            raise BadImage("too_large", f"{member.info.size} bytes, at most {max_bytes}")
        try:
            stream = self.file.extractfile(member.info)
            return b"" if stream is None else stream.read()
        except (tarfile.TarError, OSError, EOFError) as error:
            raise BadImage("truncated", str(error)) from error


class TarSource:
    """Tars below `root`; a key is a tar's path relative to it."""

    def __init__(
        self, form: str, text: str, pictures_of: Callable[[OpenTar], Iterator[Picture]]
    ) -> None:
        self.root, self._keys = find_tars(text)
        if not self._keys:
            raise ConfigError(f"'{text}' matches no tar file.", "Check the path or the pattern.")
        self.name = f"{form}:{self.root.resolve().name}"
        self.skipped: Counter[str] = Counter()
        self._pictures_of = pictures_of

    def entries(self) -> Iterator[Entry]:
        """One entry for each tar file."""
        for key in self._keys:
            yield entry_for(self.root, key)

    def pictures(self, entry: Entry) -> Iterator[Picture]:
        """The pictures of a tar, in the order they lie there."""
        try:
            check_unchanged(self.root, entry)
            file = _open(self.root / path_of(entry.key))
        except BadImage as error:
            yield Picture(entry.key, source=self.name, error=error)
            return
        with file:
            tar = _index(file, entry.key, self.name)
            yield from self._pictures_of(tar)
            if tar.error is not None:
                yield Picture(tar.key, source=self.name, error=tar.error)


def find_tars(text: str) -> tuple[Path, list[str]]:
    """(folder, ascending keys below it) for a tar, a folder of tars, or a pattern.

    Patterns take `*`, `?`, `[…]`, `**` and `{000..127}`; the folder is the part without any.
    """
    path = Path(text).expanduser()
    if path.is_dir():
        found = [child for child in path.rglob("*") if child.name.endswith(SUFFIXES)]
        root = path
    else:
        fixed = re.split(r"[*?\[{]", str(path), maxsplit=1)[0]
        root = path.parent if fixed == str(path) else Path(fixed + "x").parent
        named = (name for one in expand_braces(str(path)) for name in _matches(one))
        found = [Path(name) for name in named]
    files = {key_of(child.relative_to(root).as_posix()) for child in found if child.is_file()}
    return root, sorted(files)


def expand_braces(text: str) -> list[str]:
    """`a-{08..10}` as `a-08`, `a-09`, `a-10`, as WebDataset writes its shards."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}", text)
    if match is None:
        return [text]
    first, last = match[1], match[2]
    numbers = range(int(first), int(last) + 1)
    if len(numbers) > 1_000_000:
        raise ConfigError(f"'{match[0]}' names too many files.", "Use a pattern with '*'.")
    return [
        name
        for number in numbers
        for name in expand_braces(
            text[: match.start()] + f"{number:0{len(first)}d}" + text[match.end() :]
        )
    ]


def _matches(pattern: str) -> list[str]:
    """Existing paths for a pattern; a plain name may hold the pattern's own characters."""
    return [pattern] if Path(pattern).is_file() else glob(pattern, recursive=True)  # noqa: PTH207 takes absolute patterns


class _SafeInfo(tarfile.TarInfo):
    """Headers that say when they are broken, where the library would quietly stop reading."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            info = super().frombuf(buf, encoding, errors)
        except (tarfile.EmptyHeaderError, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error
        if info.type in _LONG_HEADERS and info.size > _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {info.size} bytes")
        return info


def _open(path: Path) -> tarfile.TarFile:
    """An open tar, plain or gzip; raises `BadImage`."""
    try:
        return tarfile.open(path, mode="r:*", tarinfo=_SafeInfo)
    except (tarfile.TarError, OSError, EOFError) as error:
        detail = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise BadImage("corrupt_tar", detail.splitlines()[0][:200]) from error


def _index(file: tarfile.TarFile, key: str, source: str) -> OpenTar:
    """The regular files of a tar; links and devices are left out, doubled names numbered."""
    members: list[Member] = []
    taken: set[str] = set()
    broken: BadImage | None = None
    try:
        for info in file:
            if info.isreg():
                name = _free_name(member_key(info.name), taken)
                taken.add(name)
                members.append(Member(name, info))
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        broken = BadImage("corrupt_tar", f"after {len(members)} files: {error}"[:200])
    return OpenTar(file, key, source, tuple(members), broken)


def _free_name(name: str, taken: set[str]) -> str:
    """`name`, or with `~2`, `~3`, … before its suffix where it is taken."""
    if name not in taken:
        return name
    stem, dot, suffix = name.rpartition(".")
    number = 2
    while (free := f"{stem}~{number}{dot}{suffix}") in taken:
        number += 1
    return free
