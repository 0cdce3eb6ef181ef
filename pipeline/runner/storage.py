"""Where a run's files lie, and what it takes for one to be there for good.

Four verbs: create, put if absent, list, read (and remove, for cleaning). A file is either absent
or whole. `LocalStorage` is durable against a crash of the machine: data, then name, then folder
are synced. `FsspecStorage` leaves durability to the object store. Neither knows what a run is.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Protocol

import fsspec

from pipeline.runner.disk import Disk

TEMPORARY = ".tmp"
"""Suffix of hidden files that are still being written; their names begin with a dot."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A file as listed."""

    path: str
    """From the root, slashes forward."""
    bytes: int
    modified: float
    """Seconds since 1970."""

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def temporary(self) -> bool:
        return self.name.startswith(".") and self.name.endswith(TEMPORARY)


class Storage(Protocol):
    """A folder of files; paths are relative to it."""

    def create(self, path: str) -> AbstractContextManager[IO[bytes]]:
        """A file to write; it appears, whole and for good, when the block ends without error."""

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Create the file unless it exists; False when it did. One of two callers wins."""

    def append(self, path: str, *, durable: bool = False) -> Callable[[bytes], None]:
        """A function that adds to the file: handed to the system at once, and synced if asked."""

    def list(self, folder: str) -> Sequence[Stored]:
        """Files directly in the folder by name, temporary ones too; none when it is missing."""

    def folders(self, folder: str) -> Sequence[str]:
        """Names of the folders directly in the folder."""

    def read(self, path: str) -> bytes:
        """Content; raises `FileNotFoundError`."""

    def open(self, path: str) -> IO[bytes]:
        """The file for reading; raises `FileNotFoundError`."""

    def remove(self, path: str) -> None:
        """Remove the file; no error when it is gone."""

    def alone(self) -> AbstractContextManager[None]:
        """A block that no other process of this machine is in at the same time.

        For tidying up only: commits rest on `put_if_absent`, which holds everywhere.
        """


def storage_at(location: str) -> Storage:
    """The storage of a local path or of a URL that fsspec knows."""
    return FsspecStorage(location) if "://" in location else LocalStorage(location)


class LocalStorage:
    """Files below a folder of this machine (or one it has mounted)."""

    def __init__(self, root: str | Path, disk: Disk | None = None) -> None:
        self.root = Path(root)
        self._disk = disk or Disk()
        self._known: set[Path] = set()

    @contextmanager
    def create(self, path: str) -> Iterator[IO[bytes]]:
        with self._hidden(path) as (file, hidden):
            yield file
            self._disk.sync(file)
            self._disk.rename(hidden, self.root / path)
            self._disk.sync_folder(hidden.parent)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        with self._hidden(path) as (file, hidden):
            file.write(data)
            self._disk.sync(file)
            try:
                self._disk.link(hidden, self.root / path)
            except FileExistsError:
                return False
            self._disk.sync_folder(hidden.parent)
        return True

    def append(self, path: str, *, durable: bool = False) -> Callable[[bytes], None]:
        target = self.root / path
        self._make(target.parent)
        named = False

        def add(data: bytes) -> None:
            nonlocal named
            with self._disk.extend(target) as file:
                file.write(data)
                if durable:
                    self._disk.sync(file)
            if durable and not named:
                self._disk.sync_folder(target.parent)
                named = True

        return add

    def list(self, folder: str) -> Sequence[Stored]:
        return sorted(self._entries(folder), key=lambda file: file.path)

    def folders(self, folder: str) -> Sequence[str]:
        try:
            with os.scandir(self.root / folder) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except FileNotFoundError:
            return []

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def open(self, path: str) -> IO[bytes]:
        return (self.root / path).open("rb")

    def remove(self, path: str) -> None:
        self._disk.unlink(self.root / path)

    @contextmanager
    def alone(self) -> Iterator[None]:
        self._make(self.root)
        folder = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _entries(self, folder: str) -> Iterator[Stored]:
        """Files in the folder, in no order, leaving out those that vanish meanwhile."""
        try:
            entries = os.scandir(self.root / folder)
        except FileNotFoundError:
            return
        with entries:
            for entry in entries:
                try:
                    if entry.is_file():
                        stat = entry.stat()
                        yield Stored(f"{folder}/{entry.name}", stat.st_size, stat.st_mtime)
                except FileNotFoundError:
                    continue

    @contextmanager
    def _hidden(self, path: str) -> Iterator[tuple[IO[bytes], Path]]:
        """A temporary file beside `path`, removed at the end unless it was renamed."""
        target = self.root / path
        self._make(target.parent)
        hidden = target.with_name(f".{target.name}.{secrets.token_hex(4)}{TEMPORARY}")
        file = self._disk.create(hidden)
        try:
            with file:
                yield file, hidden
        finally:
            self._disk.unlink(hidden)

    def _make(self, folder: Path) -> None:
        """The folder and those above it, each one's name synced."""
        if folder in self._known:
            return
        if not folder.exists():
            self._make(folder.parent)
            self._disk.make_folder(folder)
            self._disk.sync_folder(folder.parent)
        self._known.add(folder)


class FsspecStorage:
    """Files below a URL: written on this machine, then put as a whole, as object stores have it."""

    def __init__(self, url: str) -> None:
        self._fs, root = fsspec.core.url_to_fs(url)
        self._root = str(root).rstrip("/")

    @contextmanager
    def create(self, path: str) -> Iterator[IO[bytes]]:
        with tempfile.NamedTemporaryFile(suffix=TEMPORARY) as file:
            yield file
            file.flush()
            self._fs.put_file(file.name, self._at(path))

    def put_if_absent(self, path: str, data: bytes) -> bool:
        try:
            self._fs.pipe_file(self._at(path), data, mode="create")
        except FileExistsError:
            return False
        return True

    def append(self, path: str, *, durable: bool = False) -> Callable[[bytes], None]:
        """Objects cannot grow: what is added is an object of its own, numbered after the path."""
        count = 0

        def add(data: bytes) -> None:
            nonlocal count
            self._fs.pipe_file(f"{self._at(path)}.{count:08d}", data)
            count += 1

        return add

    def list(self, folder: str) -> Sequence[Stored]:
        files = [
            Stored(f"{folder}/{_name(info)}", int(info["size"] or 0), _modified(info))
            for info in self._infos(folder)
            if info["type"] == "file"
        ]
        return sorted(files, key=lambda file: file.path)

    def folders(self, folder: str) -> Sequence[str]:
        return sorted(_name(info) for info in self._infos(folder) if info["type"] == "directory")

    def read(self, path: str) -> bytes:
        return bytes(self._fs.cat_file(self._at(path)))

    def open(self, path: str) -> IO[bytes]:
        file: IO[bytes] = self._fs.open(self._at(path), "rb")
        return file

    def remove(self, path: str) -> None:
        try:
            self._fs.rm_file(self._at(path))
        except FileNotFoundError:
            return

    def alone(self) -> AbstractContextManager[None]:
        return nullcontext()

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"

    def _infos(self, folder: str) -> Sequence[dict[str, Any]]:
        try:
            infos: Sequence[dict[str, Any]] = self._fs.ls(
                self._at(folder), detail=True, refresh=True
            )
            return infos
        except FileNotFoundError:
            return []


def _name(info: dict[str, Any]) -> str:
    return str(info["name"]).rstrip("/").rpartition("/")[2]


def _modified(info: dict[str, Any]) -> float:
    """Seconds since 1970, under whichever name the file system gives it."""
    for key in ("mtime", "LastModified", "last_modified", "created"):
        value = info.get(key)
        if isinstance(value, datetime):
            return value.timestamp()
        if value is not None:
            return float(value)
    raise ValueError(f"The file system tells no time for {info['name']}.")
