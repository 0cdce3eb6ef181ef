"""Recipes back to data with pixels, from the user's own copy of the sources.

Pictures are found by the digest of their bytes, whatever they are called and wherever they lie;
every one is proven bit for bit, and every view cut from it, before the folder gets its name. It is
the folder that the export with pixels writes, or there is none.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pipeline.errors import BadImage, CheckFailed, CofpipeError, ConfigError
from pipeline.sources.base import Picture
from pipeline.synthesis.export_files import damaged, write_files
from pipeline.synthesis.export_folder import hidden
from pipeline.synthesis.export_rows import Example, LeftOut, Reader
from pipeline.synthesis.exports import (
    FORMAT,
    Export,
    encoders,
    free_folder,
    manifest_of,
    put,
    standing,
    wanted_of,
)
from pipeline.synthesis.own_copies import copies_at, likely_first
from pipeline.synthesis.pixel_recipes import (
    PixelRecipe,
    differing,
    drawing_versions,
    published,
    published_scene,
)
from pipeline.synthesis.recipe_folder import (
    RECIPE_ONLY,
    VIEWS,
    read_left_out,
    read_recipes,
    read_rows,
)

_SPOOL = "pictures"
_NOT_A_RECIPE = (
    *(ValueError, LookupError, TypeError, AttributeError, AssertionError),
    *(ArithmeticError, MemoryError, CofpipeError),
)
"""What drawing by a recipe raises that nobody's run has written."""
Key = tuple[str, str]
"""(image_id, image_sha256)."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A picture that did not come back, and why."""

    image_id: str
    reason: str
    """`missing`, `changed`, `other_versions`, `not_the_same`, `view`, `recipe`, or what is wrong
    with a file, as sources name it."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored; where anything is lost, nothing is."""

    run_id: str
    rows: Mapping[str, int]
    """By split."""
    pictures: int
    """Published ones, proven."""
    lost: tuple[Lost, ...]
    stood: bool = False
    """Whether the folder was there already."""
    encoded_otherwise: str = ""
    """Pixels are the recorded ones but files are not: which versions are others than recorded."""

    @property
    def reasons(self) -> dict[str, int]:
        """How many pictures are lost, by reason."""
        return dict(sorted(Counter(one.reason for one in self.lost).items()))


def rehydrate(
    folder: Path, sources: Sequence[str], out: Path, *, other_versions: bool = False
) -> Restored:
    """Write below `out` what the export in `folder` has recipes for; a second time changes nothing.

    `sources` are folders, tars, or specifications as `synthesize` takes them. Drawings are refused
    where the versions that made them are others here, unless `other_versions` has them tried.
    Raises `ConfigError` for what is no such export, `CheckFailed` for one that is damaged.
    """
    out, manifest = out.absolute(), _recipes_in(folder)
    request = _restored(manifest)
    recipes = list(read_recipes(folder))
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        there = standing(out, request)
        return Restored(there.run_id, there.rows, len(recipes), (), stood=True)
    free_folder(out)
    with hidden(out) as made:
        spool = _Spool(made / _SPOOL)
        lost = _gathered(recipes, sources, spool, {} if other_versions else manifest["drawn_with"])
        if not lost:
            lost, written = _written(folder, made, request, spool)
        if lost:
            back = len(recipes) - len({one.image_id for one in lost})
            return Restored(request["run_id"], {}, back, tuple(lost))
        otherwise = _otherwise(manifest, written)
        if not put(made, out):
            standing(out, request)
    return Restored(
        request["run_id"], written["rows"], len(recipes), (), encoded_otherwise=otherwise
    )


def _recipes_in(folder: Path) -> dict[str, Any]:
    """The manifest of a folder without pixels, once the folder is proven whole."""
    manifest = manifest_of(folder)
    request = manifest["request"]
    if not request.get(RECIPE_ONLY):
        fix = "Give a folder from cofpipe export --recipe-only."
        raise ConfigError(f"'{folder}' is no export without pixels.", fix)
    if request.get("format") != FORMAT:
        raise ConfigError(f"'{folder}' is of another version of cofpipe.", "Use that version.")
    if (path := damaged(folder, manifest)) is not None:
        raise CheckFailed(f"'{path}' is gone or damaged.", "Fetch it again.")
    return manifest


def _restored(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The request of the export with pixels; of a part of it, where rows have no recipe."""
    request = {**manifest["request"], "versions": encoders()}
    if "no_recipe" not in manifest["left_out"]:
        del request[RECIPE_ONLY]
    return request


class _Spool:
    """Published pictures on disk, by the rows' key, until they are written."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self._places: dict[Key, Path] = {}

    def put(self, recipe: PixelRecipe, data: bytes) -> None:
        path = self.folder / str(len(self._places))
        path.write_bytes(data)
        self._places[recipe.image_id, recipe.image_sha256] = path

    def get(self, key: Key) -> bytes:
        """The picture's bytes; none where there is no such picture."""
        path = self._places.get(key)
        return path.read_bytes() if path else b""


def _gathered(
    recipes: Iterable[PixelRecipe],
    sources: Sequence[str],
    spool: _Spool,
    drawn_with: Mapping[str, str],
) -> list[Lost]:
    """Every published picture into the spool; what is lost, in the order of the recipes."""
    others = differing(drawn_with, drawing_versions())
    lost: dict[Key, Lost] = {}
    wanted: defaultdict[str, list[PixelRecipe]] = defaultdict(list)
    order = []
    for recipe in recipes:
        order.append((recipe.image_id, recipe.image_sha256))
        if recipe.way == "drawn" and others:
            lost[order[-1]] = Lost(recipe.image_id, "other_versions", others)
        elif recipe.scene is not None:
            _have(recipe, None, spool, lost)
        else:
            wanted[recipe.source_sha256].append(recipe)
    seen = _found(wanted, sources, spool, lost)
    for left in wanted.values():
        for one in left:
            why, detail = seen.get(one.image_id, ("missing", f"sha256 {one.source_sha256}"))
            lost[one.image_id, one.image_sha256] = Lost(one.image_id, why, detail)
    return [lost[key] for key in order if key in lost]


def _found(
    wanted: dict[str, list[PixelRecipe]],
    sources: Sequence[str],
    spool: _Spool,
    lost: dict[Key, Lost],
) -> dict[str, tuple[str, str]]:
    """Look for source files by digest, taking those found out of `wanted`.

    Where nothing of that digest is there: what lies under a picture's name, by reason and detail.
    """
    seen: dict[str, tuple[str, str]] = {}
    names = {one.image_id for some in wanted.values() for one in some}
    keys = {name.partition("#")[0] for name in names}
    for source in (one for text in sources for one in copies_at(text)):
        for entry in likely_first(source.entries(), keys):
            if not wanted:
                return seen
            for picture in source.pictures(entry):
                data = picture.data or b""
                digest = hashlib.sha256(data).hexdigest()
                for recipe in wanted.pop(digest, ()):
                    _have(recipe, data, spool, lost)
                if picture.image_id in names:
                    seen[picture.image_id] = _instead(picture, digest)
                if not wanted:
                    break
    return seen


def _have(recipe: PixelRecipe, found: bytes | None, spool: _Spool, lost: dict[Key, Lost]) -> None:
    """A published picture from its source's bytes, or from nothing where that is drawn."""
    try:
        data = published_scene(recipe) if found is None else published(recipe, found)
        spool.put(recipe, data)
    except BadImage as error:
        why = Lost(recipe.image_id, error.reason, error.detail)
        lost[recipe.image_id, recipe.image_sha256] = why
    except _NOT_A_RECIPE as error:
        why = Lost(recipe.image_id, "recipe", f"{type(error).__name__}: {error}"[:200])
        lost[recipe.image_id, recipe.image_sha256] = why


def _written(
    folder: Path, made: Path, request: Mapping[str, Any], spool: _Spool
) -> tuple[list[Lost], dict[str, Any]]:
    """The trainer's files from rows and spooled pictures; what is lost, and the manifest."""
    names = {field.name for field in fields(Export)}
    wanted = wanted_of(Export(**{k: v for k, v in request.items() if k in names}))
    reader, lost = Reader(wanted), list[Lost]()

    def told() -> Iterator[Example | LeftOut]:
        yield from read_left_out(folder)
        for row in read_rows(folder):
            data = spool.get((row["image_id"], row["image_sha256"]))
            one = reader.read({**row, "image": {"bytes": data}})
            if isinstance(one, LeftOut):
                lost.append(Lost(row["image_id"], one.reason, one.detail))
            elif list(one.view_sha256) != row[VIEWS]:
                lost.append(Lost(row["image_id"], "view", f"of {one.sample_id}: other pixels"))
            else:
                yield one
        shutil.rmtree(spool.folder)

    try:
        return lost, write_files(made, request["trainer"], wanted, request, told())
    except ConfigError:
        if lost:  # not one row was left
            return lost, {}
        raise


def _otherwise(manifest: Mapping[str, Any], written: Mapping[str, Any]) -> str:
    """Why the files are not byte for byte as recorded, their pixels being so; "" where they are."""
    promised = manifest["restored"]
    if written["files"] == promised["files"]:
        return ""
    recorded = {**promised["written_with"], **manifest["request"]["versions"]}
    others = differing(recorded, {**drawing_versions(), **encoders()})
    if not others:
        raise CheckFailed("The restored files are not those that were recorded.")
    return others


def _instead(picture: Picture, digest: str) -> tuple[str, str]:
    """What lies where a picture was: why it cannot be read, else that it is another now."""
    if picture.error is not None:
        return picture.error.reason, picture.error.detail
    return "changed", f"sha256 {digest}"
