"""`sa1b:TARS`: SA-1B's tars of `sa_N.jpg` and `sa_N.json`, whose masks stand in for a segmenter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline.errors import BadImage
from pipeline.sources.annotations import bad_annotation, parse_json, positive_int, region_from_coco
from pipeline.sources.base import Picture, Region
from pipeline.sources.files import is_image_name
from pipeline.sources.tars import Member, OpenTar, TarSource

_MAX_JSON = 64 * 2**20


def sa1b_source(text: str) -> TarSource:
    """The source for a tar, a folder of tars, or a pattern."""
    return TarSource("sa1b", text, pictures_of)


def pictures_of(tar: OpenTar) -> Iterator[Picture]:
    """Every image of a tar with the masks of the JSON beside it."""
    notes = {_stem(member): member for member in tar.members if member.key.endswith(".json")}
    for member in tar.members:
        if is_image_name(member.key):
            yield _picture(tar, member, notes.pop(_stem(member), None))
    for member in notes.values():
        error = BadImage("source_missing", "annotations without a picture")
        yield Picture(tar.image_id(member.key), source=tar.source, error=error)


def _picture(tar: OpenTar, member: Member, notes: Member | None) -> Picture:
    image_id = tar.image_id(member.key)
    try:
        data = tar.read(member)
        masks = () if notes is None else regions_of(parse_json(tar.read(notes, _MAX_JSON)))
    except BadImage as error:
        return Picture(image_id, source=tar.source, error=error)
    return Picture(image_id, data=data, source=tar.source, masks=masks)


def regions_of(record: Any) -> tuple[Region, ...]:
    """The regions of one `sa_N.json`."""
    try:
        image, annotations = record["image"], record["annotations"]
        height = positive_int(image["height"], "height")
        width = positive_int(image["width"], "width")
        return tuple(region_from_coco(one, height, width) for one in annotations)
    except (TypeError, KeyError, AttributeError) as error:
        raise bad_annotation(f"{type(error).__name__}: {error}") from error


def _stem(member: Member) -> str:
    return member.key.rpartition(".")[0]
