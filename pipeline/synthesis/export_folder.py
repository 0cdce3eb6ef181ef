"""A folder that is there whole or not at all, and how to tell that it still is.

Filled under a hidden name, then renamed. Knows nothing of what is in it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.runner.storage import TEMPORARY


@contextmanager
def hidden(out: Path) -> Iterator[Path]:
    """A folder beside `out` that is gone at the end unless it was renamed.

    It is locked while it is filled, so that those of processes that died are told from others'.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    for left in out.parent.iterdir():
        if left.name.startswith(f".{out.name}.") and left.name.endswith(TEMPORARY):
            with _locked(left) as mine:
                if mine:
                    shutil.rmtree(left, ignore_errors=True)
    folder = out.parent / f".{out.name}.{secrets.token_hex(4)}{TEMPORARY}"
    folder.mkdir()
    try:
        with _locked(folder):
            yield folder
            sync(out.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Whether the folder could be locked; nobody else can while the block lasts."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(handle)


def sync(path: Path) -> None:
    """Have a file, or a folder's names, on the disk for good."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """Digest of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
