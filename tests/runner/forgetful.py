"""A disk that forgets, at a power cut, all that was not synced."""

from __future__ import annotations

import threading
from itertools import count
from pathlib import Path
from typing import IO

from pipeline.runner.disk import Disk


class PowerCut(Exception):
    """The machine stops here."""


class ForgetfulDisk(Disk):
    """Works on real files, and keeps beside them what would be there after a power cut.

    A file's bytes survive as they were when it was last synced; a name survives as it was when
    its folder was last synced. `cut_after` operations the power goes.
    """

    def __init__(self, root: Path, cut_after: int | None = None) -> None:
        self.root = root
        self.operations = 0
        self._cut_after = cut_after
        self._lock = threading.Lock()
        self._inodes = count()
        self._inode: dict[Path, int] = {}
        self._synced: dict[int, bytes] = {}
        self._durable: dict[Path, int | None] = {}

    def create(self, path: Path) -> IO[bytes]:
        self._count()
        file = super().create(path)
        self._new(path)
        return file

    def extend(self, path: Path) -> IO[bytes]:
        self._count()
        file = super().extend(path)
        if path not in self._inode:
            self._new(path)
        return file

    def sync(self, file: IO[bytes]) -> None:
        self._count()
        file.flush()
        path = Path(file.name)
        self._synced[self._inode[path]] = path.read_bytes()

    def rename(self, old: Path, new: Path) -> None:
        self._count()
        super().rename(old, new)
        self._inode[new] = self._inode.pop(old)

    def link(self, old: Path, new: Path) -> None:
        self._count()
        super().link(old, new)
        self._inode[new] = self._inode[old]

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self._inode.pop(path, None)

    def make_folder(self, path: Path) -> None:
        self._count()
        super().make_folder(path)

    def sync_folder(self, path: Path) -> None:
        self._count()
        with self._lock:
            self._keep_names(path)

    def _keep_names(self, path: Path) -> None:
        for name in [known for known in self._durable if known.parent == path]:
            del self._durable[name]
        for child in path.iterdir():
            self._durable[child] = self._inode.get(child)

    def survivors(self) -> dict[str, bytes]:
        """Files that are there after the cut, by path from the root."""
        return {
            str(path.relative_to(self.root)): self._synced[inode]
            for path, inode in self._durable.items()
            if inode is not None and self._reachable(path)
        }

    def _new(self, path: Path) -> None:
        self._inode[path] = next(self._inodes)
        self._synced[self._inode[path]] = b""

    def _reachable(self, path: Path) -> bool:
        folder = path.parent
        return folder == self.root or (folder in self._durable and self._reachable(folder))

    def _count(self) -> None:
        self.operations += 1
        if self._cut_after is not None and self.operations > self._cut_after:
            raise PowerCut
