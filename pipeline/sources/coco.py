"""`coco:IMAGES_DIR:ANNOTATIONS.json`: COCO instances or keypoints beside a folder of pictures.

Several files, joined by `+`, tell of the same pictures: COCO's people have their outlines in one
file and their keypoints in another, under the same `id`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import BadImage, SourceError
from pipeline.sources.annotations import parse_json, positive_int, region_from_coco
from pipeline.sources.base import Entry, Picture, Region
from pipeline.sources.files import check_unchanged, entry_for, read_below, stamp_of
from pipeline.sources.names import is_harmless, key_of, member_key, path_of


@dataclass(frozen=True, slots=True)
class _Annotations:
    """Annotations by picture; loaded once, whole, for COCO's files are one JSON value."""

    images: dict[str, dict[str, Any]]
    """By key."""
    regions: dict[str, list[dict[str, Any]]]
    """By key; each with its category's name as `label`."""
    licenses: dict[str, str]
    """By key."""
    skipped: Counter[str]


class CocoSource:
    """The pictures that annotation files name; a key is the path below the images' folder."""

    def __init__(self, images: Path, *annotations: Path) -> None:
        self.root, self.paths = images, annotations
        self.name = "coco:" + "+".join(path.stem for path in annotations)
        self.skipped: Counter[str] = Counter()
        self._loaded: _Annotations | None = None

    def entries(self) -> Iterator[Entry]:
        """One entry for each picture named; its stamp changes with the annotations too."""
        known = self._annotations()
        self.skipped = Counter(known.skipped)
        suffix = self._suffix()
        for key in sorted(known.images):
            yield entry_for(self.root, key, suffix)

    def pictures(self, entry: Entry) -> Iterator[Picture]:
        """The one picture of a file, with its regions."""
        image_id = member_key(path_of(entry.key))
        try:
            if not is_harmless(entry.key):
                raise BadImage("outside_source", entry.key)
            check_unchanged(self.root, entry, self._suffix())
            masks, terms = self._annotated(entry.key)
            data = read_below(self.root, entry.key)
        except BadImage as error:
            yield Picture(image_id, source=self.name, error=error)
        else:
            yield Picture(image_id, data=data, source=self.name, license=terms, masks=masks)

    def _annotated(self, key: str) -> tuple[tuple[Region, ...], str]:
        """(regions, license) of a picture."""
        known = self._annotations()
        image = known.images.get(key)
        if image is None:
            raise BadImage("source_missing", key)
        height = positive_int(image.get("height"), "height")
        width = positive_int(image.get("width"), "width")
        regions = tuple(
            region_from_coco(one, height, width, one["label"]) for one in known.regions.get(key, [])
        )
        return regions, known.licenses[key]

    def _annotations(self) -> _Annotations:
        if self._loaded is None:
            self._loaded = _merged([_load(path) for path in self.paths])
        return self._loaded

    def _suffix(self) -> str:
        """What the annotation files add to every stamp."""
        try:
            return "".join("+" + stamp_of(path.stat()) for path in self.paths)
        except OSError as error:
            gone = Path(error.filename).name
            raise SourceError(f"The annotations '{gone}' are gone.") from error


def _load(path: Path) -> _Annotations:
    """An annotation file by picture; raises `SourceError` when it is none."""
    try:
        record = parse_json(path.read_bytes())
        images, skipped = _images(record["images"])
        labels = {one["id"]: str(one["name"]) for one in record.get("categories", [])}
        licenses = {one["id"]: str(one["name"]) for one in record.get("licenses", [])}
        by_id: dict[Any, list[dict[str, Any]]] = {}
        for annotation in record.get("annotations", []):
            annotation["label"] = labels.get(annotation.get("category_id"), "")
            by_id.setdefault(annotation["image_id"], []).append(annotation)
        regions = {key: by_id.get(image.get("id"), []) for key, image in images.items()}
        terms = {key: licenses.get(image.get("license"), "") for key, image in images.items()}
    except OSError as error:
        raise SourceError(f"The annotations '{path.name}' cannot be read.") from error
    except (BadImage, TypeError, KeyError, AttributeError) as error:
        message = f"'{path.name}' is no COCO annotation file ({type(error).__name__}: {error})."
        raise SourceError(message, "It must hold 'images' and 'annotations'.") from error
    return _Annotations(images, regions, terms, skipped)


def _merged(files: list[_Annotations]) -> _Annotations:
    """Several files as one: pictures by name, annotations by `id`; what is told first counts."""
    images: dict[str, dict[str, Any]] = {}
    regions: dict[str, list[dict[str, Any]]] = {}
    licenses: dict[str, str] = {}
    skipped: Counter[str] = Counter()
    for file in files:
        skipped += file.skipped
        for key, image in file.images.items():
            images.setdefault(key, image)
            licenses[key] = licenses.get(key) or file.licenses[key]
            regions[key] = _joined(key, regions.get(key, []), file.regions[key])
    return _Annotations(images, regions, licenses, skipped)


def _joined(
    key: str, told: list[dict[str, Any]], more: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """A picture's annotations from two files; the second tells what the first leaves open."""
    if not told:
        return more
    places = {_number(one): place for place, one in enumerate(told)}
    joined = list(told)
    for one in more:
        number = _number(one)
        if number is None or number not in places:
            joined.append(one)
            continue
        known = {name: v for name, v in joined[places[number]].items() if v not in (None, "")}
        for name in ("label", "bbox"):
            if one.get(name) and known.get(name, one[name]) != one[name]:
                message = f"Annotation {number} of '{key}' is two objects: '{name}' differs."
                raise SourceError(message, "Join only files that number the same objects alike.")
        joined[places[number]] = {**one, **known}
    return joined


def _number(annotation: dict[str, Any]) -> int | None:
    """An annotation's own number, where it has one."""
    number = annotation.get("id")
    return number if type(number) is int else None


def _images(rows: list[dict[str, Any]]) -> tuple[dict[str, dict[str, Any]], Counter[str]]:
    """(images by key, what was left out): the first of a doubled name counts."""
    images: dict[str, dict[str, Any]] = {}
    skipped: Counter[str] = Counter()
    for row in rows:
        key = key_of(row["file_name"])
        if key in images:
            skipped["doubled_name"] += 1
        else:
            images[key] = row
    return images, skipped
