"""`wds:TARS`: WebDataset tars, one sample being the files of one name up to its first dot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from pipeline.errors import BadImage
from pipeline.sources.annotations import parse_json
from pipeline.sources.base import Picture
from pipeline.sources.files import is_image_name
from pipeline.sources.questions import asked_from, check_roles, column_for, text_of
from pipeline.sources.tars import Member, OpenTar, TarSource

_TEXT = frozenset({"txt", "text", "cls", "caption", "question", "answer", "label"})
_MAX_TEXT = 4 * 2**20


def wds_source(text: str, columns: Mapping[str, str]) -> TarSource:
    """The source for a tar, a folder of tars, or a pattern.

    Roles map to fields of the sample's `.json` or to the extensions of its text files.
    """
    check_roles(columns)
    return TarSource("wds", text, partial(pictures_of, columns=columns))


def pictures_of(tar: OpenTar, columns: Mapping[str, str]) -> Iterator[Picture]:
    """One picture for each sample that has an image, in the order the samples begin."""
    samples: dict[str, dict[str, Member]] = {}
    for member in tar.members:
        base, extension = split_name(member.key)
        samples.setdefault(base, {})[extension] = member
    for files in samples.values():
        image = _image_extension(files, columns)
        if image is not None:
            yield _picture(tar, files, image, columns)


def split_name(key: str) -> tuple[str, str]:
    """(`dir/000`, `seg.png`) of `dir/000.seg.png`, the extension in lower case."""
    folder, slash, name = key.rpartition("/")
    base, _, extension = name.partition(".")
    return folder + slash + base, extension.lower()


def _image_extension(files: Mapping[str, Member], columns: Mapping[str, str]) -> str | None:
    """The extension of a sample's picture: the mapped one, else the shortest of a picture."""
    named = [extension for extension in files if is_image_name("x." + extension)]
    wanted = column_for("image", columns, ())
    if wanted is not None:
        return wanted if wanted in files else None
    return min(named, key=lambda extension: extension.count("."), default=None)


def _picture(
    tar: OpenTar, files: Mapping[str, Member], extension: str, columns: Mapping[str, str]
) -> Picture:
    member = files[extension]
    image_id = tar.image_id(member.key)
    try:
        row = _row(tar, files)
        asked = asked_from(row, columns)
        data = tar.read(member)
    except BadImage as error:
        return Picture(image_id, source=tar.source, error=error)
    terms = text_of(row, "license", columns)
    return Picture(image_id, data=data, source=tar.source, license=terms, asked=asked)


def _row(tar: OpenTar, files: Mapping[str, Member]) -> dict[str, Any]:
    """The fields of a sample: those of its `.json`, and its text files by extension."""
    row: dict[str, Any] = {}
    if "json" in files:
        fields = parse_json(tar.read(files["json"], _MAX_TEXT))
        if isinstance(fields, dict):
            row.update(fields)
    for extension in _TEXT & files.keys():
        row[extension] = tar.read(files[extension], _MAX_TEXT).decode("utf-8", "replace").strip()
    return row
