"""Whether a dataset shows pictures of a benchmark, and pictures of its own twice.

Every picture of a run or of a dataset's folder against every picture of the sets it must not hold,
by the law of `sources/matching.py`; what was found is written beside the data and is worth no more
than that data: once the data is another, nobody has looked. Knows nothing of how a benchmark is
opened.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import BadImage, ConfigError
from pipeline.runner.storage import LocalStorage
from pipeline.sources.base import Picture
from pipeline.sources.decode import encode
from pipeline.sources.fingerprints import Fingerprint, fingerprint, side_by_side
from pipeline.sources.matching import FEWEST, Index
from pipeline.synthesis.dataset_pictures import Shown, data_digest, pictures_of

FILE = "decontamination.json"
METHOD = 1
"""Of comparison; raised when the same pictures would compare otherwise."""
INSIDE_THUMB, INSIDE_PLACES = 64, 48
"""Kept of each picture of the dataset, to compare it with the others: about 10 kB in all."""
NAMED = 5
"""Pictures that an error names."""


@dataclass(frozen=True, slots=True)
class Against:
    """Pictures that the dataset must not hold."""

    name: str
    """For the record; never a path of this machine."""
    pictures: Iterable[Picture]


@dataclass(frozen=True, slots=True)
class Checked:
    """A set that was compared with."""

    name: str
    pictures: int
    """Of them compared."""
    digest: str
    """SHA-256 (hex) over the names of its pictures and the digests of their bytes."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """A picture of the dataset that shows what one of a set does."""

    image_id: str
    set: str
    name: str
    """Of the picture in the set."""
    how: str
    """`exact`, `pixels`, `near` or `crop` (`sources.matching.Match`)."""
    score: float
    """Agreement in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A picture that could not be compared, and why."""

    set: str
    """Empty for the dataset itself."""
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Overlaps:
    """What was found."""

    method: int
    data: str
    """Digest of what was looked at (`data_digest`)."""
    against: tuple[Checked, ...]
    pictures: int
    """Of the dataset, compared."""
    plain: int
    """Of these, how many show too little to be known by anything but the whole of them."""
    overlaps: tuple[Overlap, ...]
    inside: tuple[tuple[str, ...], ...]
    """Groups of pictures of the dataset that show the same, by name."""
    unreadable: tuple[Unreadable, ...]


def decontaminate(
    folder: Path, against: Sequence[Against], *, threads: int | None = None
) -> Overlaps:
    """Compare the pictures of a run's or dataset's folder with sets, and with each other.

    Writes `decontamination.json` into the folder; the same pictures give the same bytes, and what
    was found in this data with other sets stays in it. Raises `ConfigError` for a set without a
    picture that can be read, and where there is none to compare.
    """
    if not against:
        raise ConfigError("There is nothing to compare with.", "Name a folder: --against DIR")
    threads = threads or min(8, os.cpu_count() or 1)
    data = data_digest(folder)
    sets = _Sets(against, threads)
    looked = _Looked(folder, sets, threads)
    if not looked.kept:
        raise ConfigError(f"There is no picture to compare in '{folder.name}'.")
    found = Overlaps(
        method=METHOD,
        data=data,
        against=tuple(sets.checked),
        pictures=looked.count,
        plain=looked.plain,
        overlaps=tuple(sorted(set(looked.overlaps), key=_order)),
        inside=_inside(looked.kept),
        unreadable=(*sets.unreadable, *dict.fromkeys(looked.unreadable)),
    )
    _write(folder, _joined(read_overlaps(folder), found))
    return found


def _joined(earlier: Overlaps | None, found: Overlaps) -> Overlaps:
    """What was found, and what was found before with sets that were not looked at again."""
    if earlier is None or earlier.method != found.method:
        return found
    again = {"", *(one.name for one in found.against)}
    kept = tuple(one for one in earlier.overlaps if one.set not in again)
    return replace(
        found,
        against=(*(one for one in earlier.against if one.name not in again), *found.against),
        overlaps=tuple(sorted({*kept, *found.overlaps}, key=_order)),
        unreadable=(*(u for u in earlier.unreadable if u.set not in again), *found.unreadable),
    )


def read_overlaps(folder: Path) -> Overlaps | None:
    """What was found in the data that is there now; None where nobody has looked at that."""
    try:
        told = json.loads((folder / FILE).read_text("utf-8"))
        found = _from_json(told)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if found.data == data_digest(folder) else None


def require_clean(found: Overlaps | None, allow: Sequence[str] = ()) -> None:
    """Raise `ConfigError` unless somebody looked and all that was found is allowed by name.

    `allow` names pictures: of the dataset, or those that could not be compared.
    """
    if found is None or not found.against:
        raise ConfigError(
            "Nobody has looked for pictures of benchmarks in this data.",
            "Look with: cofpipe decontaminate RUN --against DIR",
        )
    shown = dict.fromkeys(o.image_id for o in found.overlaps if o.image_id not in allow)
    if shown:
        sets = ", ".join(sorted({o.set for o in found.overlaps if o.image_id in shown}))
        fix = "Leave them out, or allow each by its name."
        raise ConfigError(f"{len(shown)} pictures are those of {sets}: {_named(shown)}.", fix)
    unknown = dict.fromkeys(u.name for u in found.unreadable if u.name not in allow)
    if unknown:
        message = f"{len(unknown)} pictures could not be compared: {_named(unknown)}."
        raise ConfigError(message, "Make them readable and look again, or allow each by its name.")


class _Sets:
    """The fingerprints of all sets in one index, and what each number is called."""

    def __init__(self, against: Sequence[Against], threads: int) -> None:
        self.names: list[tuple[str, str]] = []
        self.checked: list[Checked] = []
        self.unreadable: list[Unreadable] = []
        prints: list[Fingerprint] = []
        for one in against:
            prints += self._read(one, threads)
        self.index = Index(prints)

    def _read(self, one: Against, threads: int) -> list[Fingerprint]:
        """The fingerprints of a set; raises `ConfigError` where it has none."""
        prints, listing = list[Fingerprint](), hashlib.sha256()
        for name, told in side_by_side(_of_picture, one.pictures, threads):
            if isinstance(told, str):
                self.unreadable.append(Unreadable(one.name, name, told))
                continue
            prints.append(told)
            self.names.append((one.name, name))
            listing.update(f"{told.sha256} {name}\n".encode("utf-8", "surrogateescape"))
        if not prints:
            fix = "Check the folder; a link that leads out of it is not followed."
            raise ConfigError(f"There is no picture in '{one.name}' that can be read.", fix)
        self.checked.append(Checked(one.name, len(prints), listing.hexdigest()))
        return prints


class _Looked:
    """One pass over the dataset: what overlaps, and what is left to compare inside."""

    def __init__(self, folder: Path, sets: _Sets, threads: int) -> None:
        self.overlaps: list[Overlap] = []
        self.unreadable: list[Unreadable] = []
        self.kept: list[tuple[str, Fingerprint]] = []
        self.count = self.plain = 0
        for shown, told in side_by_side(_of_shown, pictures_of(folder), threads):
            for number in sets.index.of_bytes(shown.source_sha256):
                self.overlaps.append(Overlap(shown.image_id, *sets.names[number], "exact", 1.0))
            if isinstance(told, str):
                self.unreadable.append(Unreadable("", shown.image_id, told))
                continue
            self._compare(shown, told, sets)

    def _compare(self, shown: Shown, told: Fingerprint, sets: _Sets) -> None:
        self.count += 1
        self.plain += len(told.codes) < FEWEST
        known = set(sets.index.of_bytes(shown.source_sha256))
        for match in sets.index.matches(told):
            if match.number not in known:
                name = sets.names[match.number]
                self.overlaps.append(Overlap(shown.image_id, *name, match.how, match.score))
        if shown.whole:
            self.kept.append((shown.image_id, told.reduced(INSIDE_THUMB, INSIDE_PLACES)))


def _inside(kept: Sequence[tuple[str, Fingerprint]]) -> tuple[tuple[str, ...], ...]:
    """Groups of names whose pictures show the same; two pictures of one name are no group."""
    index = Index([one for _, one in kept])
    group = {name: name for name, _ in kept}

    def head(name: str) -> str:
        while group[name] != name:
            name = group[name]
        return name

    for number, (name, one) in enumerate(kept):
        for match in index.matches(one, before=number):
            heads = sorted({head(name), head(kept[match.number][0])})
            group[heads[-1]] = heads[0]
    groups: dict[str, list[str]] = {}
    for name in group:
        groups.setdefault(head(name), []).append(name)
    return tuple(sorted(tuple(sorted(names)) for names in groups.values() if len(names) > 1))


def _of_picture(picture: Picture) -> tuple[str, Fingerprint | str]:
    """A set's picture by name: its fingerprint, or why there is none."""
    if picture.error is not None:
        return picture.image_id, picture.error.reason
    data = picture.data
    if data is None and picture.image is not None:
        data = encode(picture.image)
    return picture.image_id, _print(data or b"")


def _of_shown(shown: Shown) -> tuple[Shown, Fingerprint | str]:
    return shown, shown.error or _print(shown.data)


def _print(data: bytes) -> Fingerprint | str:
    try:
        return fingerprint(data)
    except BadImage as error:
        return error.reason


def _order(one: Overlap) -> tuple[str, str, str, str]:
    return one.image_id, one.set, one.name, one.how


def _named(names: Iterable[str]) -> str:
    known = list(names)
    return ", ".join(known[:NAMED]) + (", …" if len(known) > NAMED else "")


def _write(folder: Path, found: Overlaps) -> None:
    text = json.dumps(asdict(found), indent=1, ensure_ascii=True)
    with LocalStorage(folder).create(FILE) as file:
        file.write((text + "\n").encode())


def _from_json(told: dict[str, Any]) -> Overlaps:
    """The record as it was written; raises `KeyError` or `TypeError` for anything else."""
    return Overlaps(
        **told
        | {
            "against": tuple(Checked(**one) for one in told["against"]),
            "overlaps": tuple(Overlap(**one) for one in told["overlaps"]),
            "inside": tuple(tuple(names) for names in told["inside"]),
            "unreadable": tuple(Unreadable(**one) for one in told["unreadable"]),
        }
    )
