"""Which files lie in a folder of runs, on this machine or behind a URL."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import duckdb
import fsspec
import fsspec.core


class Lister(Protocol):
    """The folder of runs; paths are relative to it."""

    def at(self, path: str) -> str:
        """The path as DuckDB is to read it, and as it names it."""

    def folders(self, folder: str) -> list[str]:
        """Names of the folders in it, sorted; none when it is missing."""

    def files(self, folder: str) -> list[str]:
        """Names of the Parquet files in it, sorted, hidden ones left out; none when missing."""

    def read(self, path: str) -> bytes | None:
        """Content; None when there is no such file."""


def lister_for(connection: duckdb.DuckDBPyConnection, runs_dir: str) -> Lister:
    """The lister of a local folder or of a URL, which the connection then reads, too."""
    if "://" not in runs_dir:
        return _Local(runs_dir)
    protocol = runs_dir.partition("://")[0]
    if not connection.filesystem_is_registered(protocol):
        connection.register_filesystem(fsspec.filesystem(protocol))
    return _Remote(runs_dir)


class _Local:
    def __init__(self, root: str) -> None:
        self._root = Path(root).absolute().as_posix()

    def at(self, path: str) -> str:
        return f"{self._root}/{path}"

    def folders(self, folder: str) -> list[str]:
        return sorted(entry.name for entry in self._entries(folder) if entry.is_dir())

    def files(self, folder: str) -> list[str]:
        return _segments(entry.name for entry in self._entries(folder))

    def read(self, path: str) -> bytes | None:
        try:
            return Path(self.at(path)).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.at(folder)) as entries:
                return list(entries)
        except FileNotFoundError:
            return []


class _Remote:
    def __init__(self, url: str) -> None:
        self._files, root = fsspec.core.url_to_fs(url)
        self._root = str(root).rstrip("/")

    def at(self, path: str) -> str:
        return str(self._files.unstrip_protocol(f"{self._root}/{path}"))

    def folders(self, folder: str) -> list[str]:
        return sorted(_name(i["name"]) for i in self._infos(folder) if i["type"] == "directory")

    def files(self, folder: str) -> list[str]:
        return _segments(_name(info["name"]) for info in self._infos(folder))

    def read(self, path: str) -> bytes | None:
        try:
            return bytes(self._files.cat_file(self.at(path)))
        except FileNotFoundError:
            return None

    def _infos(self, folder: str) -> list[dict[str, Any]]:
        try:
            return list(self._files.ls(f"{self._root}/{folder}".rstrip("/"), detail=True))
        except FileNotFoundError:
            return []


def _segments(names: Iterable[str]) -> list[str]:
    return sorted(n for n in names if n.endswith(".parquet") and not n.startswith("."))


def _name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]
