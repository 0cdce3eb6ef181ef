"""`DIR` or `folder:DIR`: every picture file below a folder.

Hidden names are left out, and so are links that lead out of the folder and links to folders.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import BadImage, SourceError
from pipeline.sources.base import Entry, Picture
from pipeline.sources.files import is_image_name, is_inside, read_listed, stamp_of
from pipeline.sources.names import key_of, path_of


class FolderSource:
    """Pictures of a folder; a key is the path relative to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = f"folder:{root.resolve().name}"
        self.skipped: Counter[str] = Counter()

    def entries(self) -> Iterator[Entry]:
        """One entry for each picture file, by ascending key."""
        self.skipped.clear()
        if not self.root.is_dir():
            raise SourceError(f"There is no folder '{self.root}'.")
        real = os.path.realpath(self.root)
        for key in _walk(real, "", self.skipped):
            try:
                status = os.stat(f"{real}/{path_of(key)}")  # noqa: PTH116 Path costs far more on 10⁶ names
            except OSError:
                self.skipped["vanished"] += 1
                continue
            yield Entry(key, status.st_size, stamp_of(status))

    def pictures(self, entry: Entry) -> Iterator[Picture]:
        """The one picture of a file."""
        try:
            data = read_listed(self.root, entry)
        except BadImage as error:
            yield Picture(entry.key, source=self.name, error=error)
        else:
            yield Picture(entry.key, data=data, source=self.name)


def _walk(root: str, below: str, skipped: Counter[str]) -> Iterator[str]:
    """Keys of the picture files below `root/below`, ascending.

    Sorting each folder with `/` after the names of folders makes the whole walk ascending, so
    that no more than the names of one folder at a time are held.
    """
    for name in sorted(_names(root, below, skipped)):
        if name.endswith("/"):
            yield from _walk(root, below + name, skipped)
        else:
            yield below + name


def _names(root: str, below: str, skipped: Counter[str]) -> list[str]:
    """Keys within one folder, unsorted, folders with `/` at the end; the rest is counted."""
    found = []
    try:
        with os.scandir(f"{root}/{path_of(below)}") as listed:
            for node in listed:
                kind = _kind(root, node)
                if kind not in ("picture", "folder"):
                    skipped[kind] += 1
                elif (key := _storable(node.name)) is None:
                    skipped["unstorable_name"] += 1
                else:
                    found.append(key if kind == "picture" else key + "/")
    except OSError:
        skipped["unreadable_folder"] += 1
    return found


def _storable(name: str) -> str | None:
    """The key for a name, None where there can be none."""
    try:
        return key_of(name)
    except UnicodeEncodeError:
        return None


def _kind(root: str, node: os.DirEntry[str]) -> str:
    """`folder`, `picture`, or the reason for leaving a node out."""
    if node.name.startswith("."):
        return "hidden"
    if node.is_file(follow_symlinks=False):
        return "picture" if is_image_name(node.name) else "not_an_image"
    if node.is_dir():
        return "folder_link" if node.is_symlink() else "folder"
    if not is_image_name(node.name):
        return "not_an_image"
    if not node.is_file():
        return "not_a_file"
    return "picture" if is_inside(root, node.path) else "link_outside"
