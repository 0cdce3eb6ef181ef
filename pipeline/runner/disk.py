"""The system calls that durability rests on, one by one, and nothing that uses them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO


class Disk:
    """The system calls that durability rests on, so that a test can forget what was not synced."""

    def create(self, path: Path) -> IO[bytes]:
        return path.open("xb")

    def extend(self, path: Path) -> IO[bytes]:
        return path.open("ab")

    def sync(self, file: IO[bytes]) -> None:
        file.flush()
        os.fsync(file.fileno())

    def rename(self, old: Path, new: Path) -> None:
        old.replace(new)

    def link(self, old: Path, new: Path) -> None:
        new.hardlink_to(old)

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def make_folder(self, path: Path) -> None:
        path.mkdir(exist_ok=True)

    def sync_folder(self, path: Path) -> None:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
