"""How a published picture comes back from its source: a recipe in the place of its pixels.

A published picture is its source file byte for byte, that file without the place it was taken at,
or a drawing on its pixels that follows from what the run has recorded. Sources are named by digest,
so this knows nothing of where anyone keeps them; nothing comes back that is not bit for bit the
picture that was published.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import Any, Literal

import numpy as np
import PIL
from PIL import Image, features

from pipeline.errors import BadImage
from pipeline.samples import rng_for
from pipeline.scenes import changes, closeups, counts, fonts, framed
from pipeline.scenes.needles import plant
from pipeline.scenes.signs import replant
from pipeline.sources.base import Entry
from pipeline.sources.decode import decode, encode
from pipeline.sources.gps import strip_gps
from pipeline.sources.scenes import ScenesSource
from pipeline.sources.specs import open_source

Row = Mapping[str, Any]
Recipe = Mapping[str, Any]
Way = Literal["as_found", "without_gps", "drawn"]
Versions = Mapping[str, str]

SCENES = "scenes"
"""The source whose pictures are drawn, by the name that rows have."""
AS_FOUND = ("source", "written", "annotated", "imported")
"""Kinds of task that publish a file's own bytes, without GPS."""
CODECS = {"libjpeg": ("libjpeg_turbo", "jpg"), "zlib": ("zlib_ng", "zlib")} | {
    name: (name,) for name in ("libtiff", "webp", "freetype2", "raqm")
}
"""What Pillow rests on, by Pillow's own names, the first that it has."""
GENERATOR = ("scenes", "sources/decode.py", "samples.py", "geometry.py")
"""Sources that drawn pixels follow from, below `pipeline/`."""


@dataclass(frozen=True, slots=True)
class PixelRecipe:
    """How to have one published picture again."""

    image_id: str
    image_sha256: str
    """Of the published bytes."""
    bytes: int
    """How many there are."""
    source_sha256: str
    """Of the file as found; of the pixels where the source itself is drawn."""
    source: str
    license: str
    way: Way
    drawing: str | None
    """JSON: what is drawn on the source's pixels; None for `drawn`: nothing but the scene."""
    scene: str | None
    """JSON `number`, `seed`, `size`: the drawn picture that stands for a source file."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What of a run's settings its pictures follow from."""

    seed: int
    budgets: tuple[int, ...]
    """None are known of imports and of runs whose settings say nothing of them."""
    scenes: ScenesSource | None


def origin_of(run: Mapping[str, Any]) -> Origin:
    """The settings in a run's `run.json`."""
    config = run.get("config") or {}
    seed, spec = int(run.get("seed") or 0), str(config.get("source") or "")
    source = open_source(spec, seed=seed) if spec.partition(":")[0] == SCENES else None
    budgets = tuple(map(int, (config.get("task") or {}).get("budgets") or ()))
    return Origin(seed, budgets, source if isinstance(source, ScenesSource) else None)


def recipe_of(row: Row, origin: Origin) -> PixelRecipe | None:
    """How a row's picture can be had again; None where the row does not say.

    Needs the columns `image_id`, `image_sha256`, `source_sha256`, `source`, `license`, `kind`,
    `recipe` and the picture's bytes.
    """
    drawn, scene = _drawing(row, origin), None
    if row["source"] == SCENES:
        if origin.scenes is None:
            return None
        size, seed = origin.scenes.size, origin.scenes.seed
        scene = json.dumps({"number": row["image_id"], "seed": seed, "size": list(size)})
    way: Way | None = "drawn"
    if scene is None and drawn is None:
        way = _own_bytes(row)
    if way is None or not row["source_sha256"]:
        return None
    return PixelRecipe(
        image_id=row["image_id"],
        image_sha256=row["image_sha256"],
        bytes=len(row["image"]["bytes"]),
        source_sha256=row["source_sha256"],
        source=row["source"] or "",
        license=row["license"] or "",
        way=way,
        drawing=drawn,
        scene=scene,
    )


def published(recipe: PixelRecipe, found: bytes) -> bytes:
    """The published picture from the bytes of its source file.

    Raises `BadImage`: `not_the_same` for anything but the picture that was published.
    """
    if recipe.way == "as_found":
        return _proven(recipe, found)
    if recipe.way == "without_gps":
        return _proven(recipe, strip_gps(found))
    return _proven(recipe, encode(_drawn_on(decode(found), recipe)))


def published_scene(recipe: PixelRecipe) -> bytes:
    """The published picture whose source is a scene; raises `BadImage` as `published` does."""
    told = json.loads(recipe.scene or "{}")
    source = ScenesSource(seed=told["seed"], size=tuple(told["size"]))
    (picture,) = source.pictures(Entry(told["number"], 0, ""))
    if picture.image is None:
        raise picture.error or BadImage("source_missing")
    if hashlib.sha256(picture.image.tobytes()).hexdigest() != recipe.source_sha256:
        raise BadImage("not_the_same", "the scene is another than the one that was published")
    return _proven(recipe, encode(_drawn_on(picture.image, recipe)))


@cache
def drawing_versions() -> Versions:
    """What pixels that are drawn here follow from: codecs, numpy, and a digest of what draws."""
    codecs = {name: _codec(*names) for name, names in CODECS.items()}
    own = {"pillow": PIL.__version__, "numpy": np.__version__, "generator": _generator()}
    return own | codecs


def versions_of(run: Mapping[str, Any]) -> Versions:
    """The same of the machine that made a run; older runs have recorded two of them only."""
    told: Versions | None = run.get("drawn_with")
    if told:
        return dict(told)
    known = run.get("versions") or {}
    return {name: known[name] for name in ("pillow", "numpy") if name in known}


def differing(then: Versions, now: Versions) -> str:
    """Which of the recorded versions are others now, in words; "" where none is."""
    return ", ".join(
        f"{name} {version_} then, {now.get(name, 'none')} now"
        for name, version_ in then.items()
        if now.get(name) != version_
    )


def _own_bytes(row: Row) -> Way | None:
    """How a picture on which nothing is drawn was published."""
    if row["source_sha256"] == row["image_sha256"]:
        return "as_found"
    return "without_gps" if row["kind"] in AS_FOUND and not row["recipe"] else None


def _drawing(row: Row, origin: Origin) -> str | None:
    """JSON of what is drawn on a row's picture: the puzzle's recipe, or how tags are planted."""
    if row["kind"] == "needles" and origin.budgets:
        told = {"kind": "needles", "seed": origin.seed, "image_id": row["image_id"]}
        return json.dumps({**told, "budgets": list(origin.budgets)})
    recipe: str | None = row["recipe"]
    try:
        return recipe if recipe and json.loads(recipe)["kind"] in DRAWINGS else None
    except (ValueError, KeyError, TypeError):
        return None  # of no kind that is known here


def _drawn_on(image: Image.Image, recipe: PixelRecipe) -> Image.Image:
    """A source's pixels with what the recipe draws on them."""
    if recipe.drawing is None:
        return image
    told = json.loads(recipe.drawing)
    return DRAWINGS[told["kind"]](image, told)


def _tags(image: Image.Image, told: Recipe) -> Image.Image:
    """Needles, as `tasks.KINDS` plants them."""
    rng = rng_for(told["seed"], told["image_id"], "needles")
    return plant(image, rng, told["budgets"])[0]


DRAWINGS: Mapping[str, Callable[[Image.Image, Recipe], Image.Image]] = {
    "needles": _tags,
    "signs": replant,
    "closeup": lambda image, told: closeups.derive(image, told)[0],
    "where": lambda image, told: closeups.derive(image, told)[0],
    "change": lambda image, told: changes.derive(image, told)[0],
    "count": lambda image, told: counts.derive(image, told)[0],
    "framed": lambda image, told: framed.derive(image, told)[0],
}
"""By the recipe's `kind`: the published pixels from those of the source."""


def _proven(recipe: PixelRecipe, data: bytes) -> bytes:
    """The bytes, if they are the published ones."""
    if hashlib.sha256(data).hexdigest() != recipe.image_sha256:
        raise BadImage("not_the_same", f"the published picture has another digest ({recipe.way})")
    return data


def _codec(*names: str) -> str:
    """Version of the first of some of Pillow's libraries that it was built with; "none"."""
    for name in names:
        told = features.version(name)
        if told:
            return f"{name} {told}"
    return "none"


def _generator() -> str:
    """A digest of the sources that drawn pixels follow from, and of the fonts' versions."""
    digest = hashlib.sha256()
    root = files("pipeline")
    for name in GENERATOR:
        place = root.joinpath(name)
        parts = [place] if place.is_file() else sorted(place.iterdir(), key=lambda p: p.name)
        for part in parts:
            if part.name.endswith(".py"):
                digest.update(part.name.encode() + b"\0" + part.read_bytes())
    for package in sorted({family.package for family in fonts.FAMILIES.values()}):
        try:
            digest.update(f"{package} {version(package)}\n".encode())
        except PackageNotFoundError:
            digest.update(f"{package} missing\n".encode())
    return digest.hexdigest()[:16]
