"""SOURCE as text: which source a specification means, and what to say when it means none."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import ConfigError, nearest
from pipeline.sources.base import Source
from pipeline.sources.files import is_image_name

FORMS = {
    "folder": "folder:DIR",
    "sa1b": "sa1b:TARS",
    "wds": "wds:TARS",
    "coco": "coco:IMAGES_DIR:ANNOTATIONS.json[+MORE.json]",
    "parquet": "parquet:FILE_OR_DIR",
    "hf": "hf://datasets/ORG/NAME",
    "vstar": "vstar:DIR",
    "scenes": "scenes:N[@WxH]",
}


@dataclass(frozen=True, slots=True)
class _Asked:
    """What an opener is given: the text after the prefix, and the settings."""

    rest: str
    columns: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    count: int | None = None


def open_source(
    spec: str,
    *,
    columns: Mapping[str, str] | None = None,
    seed: int = 0,
    count: int | None = None,
) -> Source:
    """The source that `spec` names.

    `columns` maps roles (`image`, `question`, …) to columns, for the forms that have any; `seed`
    is for drawn pictures and shuffled options; `count` is how many `scenes` are drawn when the
    specification does not say. Raises `ConfigError` naming the nearest form.
    """
    form, rest = _split(spec)
    asked = _Asked(rest, dict(columns or {}), seed, count)
    if asked.columns and form not in ("wds", "parquet", "hf"):
        message = f"A source of the form '{FORMS[form]}' has no columns to map."
        raise ConfigError(message, "Drop the column map.")
    return _OPENERS[form](asked)


def _split(spec: str) -> tuple[str, str]:
    """The form's name and what follows it."""
    spec = spec.strip()
    prefix, colon, rest = spec.partition(":")
    if spec == "scenes":
        return "scenes", ""
    if prefix in FORMS and colon:
        if not rest:
            raise ConfigError(f"'{spec}' names nothing.", f"Write {FORMS[prefix]}.")
        return prefix, rest
    return _form_of_path(spec), spec


def _form_of_path(spec: str) -> str:
    """`folder` or `parquet` for a bare path that exists; what is wrong with it otherwise."""
    path = Path(spec).expanduser()
    if spec and path.is_dir():
        return "parquet" if _holds_parquet(path) else "folder"
    if spec.endswith(".parquet"):
        return "parquet"
    if path.is_file():
        raise ConfigError(f"'{path.name}' is one file.", _fix_for_file(path))
    raise ConfigError(*_unknown(spec))


def _holds_parquet(folder: Path) -> bool:
    """Whether a folder is a dataset: Parquet files in it or one folder down."""
    return any(next(folder.glob(pattern), None) for pattern in ("*.parquet", "*/*.parquet"))


def _fix_for_file(path: Path) -> str:
    """What to write instead of a bare file."""
    if path.suffix in (".tar", ".tgz") or path.name.endswith(".tar.gz"):
        return f"Write wds:{path} or sa1b:{path}."
    if is_image_name(path.name):
        return f"Give its folder: {path.parent}"
    if path.suffix == ".json":
        return f"Write coco:IMAGES_DIR:{path}."
    return "Give a folder of pictures, or one of: " + ", ".join(FORMS.values()) + "."


def _unknown(spec: str) -> tuple[str, str]:
    """Message and fix for text that is neither a form nor a path."""
    word = re.match(r"[A-Za-z0-9_]*", spec)
    head = word[0] if word else ""
    if "://" in spec:
        return f"No source is read from '{head}://'.", f"Use a folder or {FORMS['hf']}."
    if ":" in spec or "/" not in spec:
        hint = nearest(head, FORMS)
        form = next((FORMS[name] for name in FORMS if f"'{name}'" in hint), None)
        kind = f"'{head}:' is no form of source" if ":" in spec else f"There is no folder '{spec}'"
        return f"{kind}.", f"{hint} Write {form}." if form else hint
    return f"There is no folder '{spec}'.", "Give a folder of pictures, or 'scenes'."


def _folder(asked: _Asked) -> Source:
    from pipeline.sources.folder import FolderSource

    return FolderSource(existing_folder(asked.rest))


def existing_folder(text: str) -> Path:
    """The folder that `text` names, or `ConfigError`."""
    path = Path(text).expanduser()
    if not path.is_dir():
        raise ConfigError(f"There is no folder '{text}'.", "Check the path.")
    return path


def _scenes(asked: _Asked) -> Source:
    from pipeline.sources.scenes import DEFAULT_COUNT, SIZE, ScenesSource

    found = re.fullmatch(r"(\d+)?(?:@(\d+)x(\d+))?", asked.rest)
    if found is None:
        fix = "Write scenes:1000, or scenes:1000@4096x3072."
        raise ConfigError(f"'scenes:{asked.rest}' names no number.", fix)
    chosen = int(found[1]) if found[1] else asked.count
    size = (int(found[2]), int(found[3])) if found[2] else SIZE
    return ScenesSource(DEFAULT_COUNT if chosen is None else chosen, asked.seed, size)


def _sa1b(asked: _Asked) -> Source:
    from pipeline.sources.sa1b import sa1b_source

    return sa1b_source(asked.rest)


def _wds(asked: _Asked) -> Source:
    from pipeline.sources.wds import wds_source

    return wds_source(asked.rest, asked.columns)


def _coco(asked: _Asked) -> Source:
    from pipeline.sources.coco import CocoSource

    images, colon, annotations = asked.rest.rpartition(":")
    if not colon or not images:
        raise ConfigError(f"'coco:{asked.rest}' lacks a part.", f"Write {FORMS['coco']}.")
    whole = Path(annotations).expanduser()
    names = [annotations] if whole.is_file() else annotations.split("+")
    paths = [Path(name).expanduser() for name in names]
    for name, path in zip(names, paths, strict=True):
        if not path.is_file():
            raise ConfigError(f"There is no file '{name}'.", f"Write {FORMS['coco']}.")
    return CocoSource(existing_folder(images), *paths)


def _parquet(asked: _Asked) -> Source:
    from pipeline.sources.parquet import local_parquet

    return local_parquet(asked.rest, asked.columns)


def _hub(asked: _Asked) -> Source:
    from pipeline.sources.hub import HubSource

    return HubSource(asked.rest, asked.columns)


def _vstar(asked: _Asked) -> Source:
    from pipeline.sources.vstar import VstarSource

    return VstarSource(existing_folder(asked.rest), asked.seed)


_OPENERS: dict[str, Callable[[_Asked], Source]] = {
    "folder": _folder,
    "sa1b": _sa1b,
    "wds": _wds,
    "coco": _coco,
    "parquet": _parquet,
    "hf": _hub,
    "vstar": _vstar,
    "scenes": _scenes,
}
