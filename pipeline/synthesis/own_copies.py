"""Where a user's own copy of the sources is searched: folders, tars, or any source there is.

Knows nothing of what is looked for but the names under which a run had it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from pipeline.errors import BadImage
from pipeline.sources.base import Entry, Picture, Source
from pipeline.sources.files import is_image_name
from pipeline.sources.folder import FolderSource
from pipeline.sources.specs import FORMS, open_source
from pipeline.sources.tars import SUFFIXES, OpenTar, TarSource


def copies_at(text: str) -> list[Source]:
    """What of a user's copies is searched: a source as `synthesize` takes it, a folder, tars."""
    form, colon, rest = text.partition(":")
    if colon and form in ("sa1b", "wds"):
        return [TarSource(form, rest, _members)]
    if "://" in text or (colon and form in FORMS):
        return [open_source(text)]
    path = Path(text).expanduser()
    if not path.is_dir():
        return [TarSource("tars", text, _members)]
    holds_tars = any(next(path.rglob(f"*{suffix}"), None) for suffix in SUFFIXES)
    tars: list[Source] = [TarSource("tars", text, _members)] if holds_tars else []
    return [FolderSource(path), *tars]


def likely_first(entries: Iterable[Entry], keys: Collection[str]) -> list[Entry]:
    """All entries, those first that are called as a run's were: by key, then by the last name."""
    names = {key.rpartition("/")[2] for key in keys}

    def unlikely(entry: Entry) -> int:
        return 0 if entry.key in keys else 1 if entry.key.rpartition("/")[2] in names else 2

    return sorted(entries, key=unlikely)


def _members(tar: OpenTar) -> Iterator[Picture]:
    """The pictures of a tar; nothing else in it is read."""
    for member in tar.members:
        if is_image_name(member.key):
            try:
                yield Picture(tar.image_id(member.key), data=tar.read(member))
            except BadImage as error:
                yield Picture(tar.image_id(member.key), error=error)
