"""`coco:IMAGES_DIR:ANNOTATIONS.json`: COCO instances or keypoints beside a folder of pictures."""

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
    """An annotation file by picture; loaded once, whole, for COCO's files are one JSON value."""

    images: dict[str, dict[str, Any]]
    """By key."""
    regions: dict[Any, list[dict[str, Any]]]
    """By the image's `id`."""
    labels: dict[Any, str]
    licenses: dict[Any, str]
    skipped: Counter[str]


class CocoSource:
    """The pictures that an annotation file names; a key is the path below the images' folder."""

    def __init__(self, images: Path, annotations: Path) -> None:
        self.root, self.path = images, annotations
        self.name = f"coco:{annotations.stem}"
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
            region_from_coco(one, height, width, known.labels.get(one.get("category_id"), ""))
            for one in known.regions.get(image.get("id"), [])
        )
        return regions, known.licenses.get(image.get("license"), "")

    def _annotations(self) -> _Annotations:
        if self._loaded is None:
            self._loaded = _load(self.path)
        return self._loaded

    def _suffix(self) -> str:
        """What the annotation file adds to every stamp."""
        try:
            return "+" + stamp_of(self.path.stat())
        except OSError as error:
            raise SourceError(f"The annotations '{self.path.name}' are gone.") from error


def _load(path: Path) -> _Annotations:
    """An annotation file by picture; raises `SourceError` when it is none."""
    try:
        record = parse_json(path.read_bytes())
        images, skipped = _images(record["images"])
        regions: dict[Any, list[dict[str, Any]]] = {}
        for annotation in record.get("annotations", []):
            regions.setdefault(annotation["image_id"], []).append(annotation)
        labels = {one["id"]: str(one["name"]) for one in record.get("categories", [])}
        licenses = {one["id"]: str(one["name"]) for one in record.get("licenses", [])}
    except OSError as error:
        raise SourceError(f"The annotations '{path.name}' cannot be read.") from error
    except (BadImage, TypeError, KeyError, AttributeError) as error:
        message = f"'{path.name}' is no COCO annotation file ({type(error).__name__}: {error})."
        raise SourceError(message, "It must hold 'images' and 'annotations'.") from error
    return _Annotations(images, regions, labels, licenses, skipped)


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
