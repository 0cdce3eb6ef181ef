"""A run as data for a trainer: a folder that is there whole or not at all.

Rows stream from the committed Parquet through `export_rows` into the trainer's own writer, in a
hidden folder that is renamed at the end. The same run and the same settings give the same bytes;
what was left out, and why, lies beside what was not. Where pictures may not be passed on, recipes
for them lie there instead.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import PIL
import pyarrow as pa

from pipeline.agent.families import FAMILIES, family_of
from pipeline.errors import CheckFailed, ConfigError, nearest
from pipeline.grammar import known_profile
from pipeline.runner.rundir import read_run, records
from pipeline.runner.storage import Storage, storage_at
from pipeline.synthesis.export_files import MANIFEST, damaged, write_files
from pipeline.synthesis.export_folder import hidden
from pipeline.synthesis.export_rows import Kind, PictureFormat, Reader, Wanted, rows_of
from pipeline.synthesis.licences import closed
from pipeline.synthesis.recipe_folder import RECIPE_COLUMNS, RECIPE_ONLY, Told, write_recipes

Trainer = Literal["trl", "llamafactory", "verl"]
KINDS: Mapping[str, tuple[Kind, ...]] = {
    "trl": ("sft", "rl"),
    "llamafactory": ("sft",),
    "verl": ("rl",),
}
"""What each trainer is given; the first is the default."""
KIND = "trajectories"
FORMAT = 1
"""Of the folder; raised when the same run would give other bytes."""


@dataclass(frozen=True, slots=True)
class Export:
    """What is asked for."""

    trainer: Trainer
    kind: Kind | None = None
    """The trainer's own where it is left open."""
    profile: str = "cof-v2"
    family: str = "qwen2.5-vl"
    split: float = 0.05
    only_verified: bool = True
    min_weight: float = 0.0
    pictures: PictureFormat = "png"
    pixels: bool | None = True
    """False: recipes in the place of pixels; None: so where a licence closes a picture."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What lies in the folder."""

    run_id: str
    rows: Mapping[str, int]
    """By split."""
    pictures: int
    left_out: Mapping[str, int]
    """Rows by the reason why they are no example."""
    stood: bool
    """Whether it was there already."""
    recipe_only: bool = False
    """Whether there are recipes in the place of pixels."""
    recipe_bytes: int = 0
    """Of the folder, where it has no pixels;"""
    pixel_bytes: int = 0
    """and of what is restored from it."""
    closed: Mapping[str, int] = field(default_factory=dict)
    """Rows of the run whose pictures may not be passed on, by source or licence."""


def export(run_dir: str | Path, out: Path, asked: Export) -> Exported:
    """Write the run's trajectories below `out` for a trainer; a second time changes nothing.

    Raises `ConfigError` for what cannot be asked, for a folder that holds something else, and where
    not one row can be exported; `CheckFailed` where an earlier export is damaged.
    """
    wanted = wanted_of(asked)
    storage, out = storage_at(str(run_dir)), out.absolute()
    paths = [f.path for record in records(storage) for f in record.files if f.kind == KIND]
    shut = closed(storage, paths)
    bare = bool(shut) if asked.pixels is None else not asked.pixels
    request = _request(storage, asked, wanted) | ({RECIPE_ONLY: True} if bare else {})
    if (out / MANIFEST).is_file():
        return replace(standing(out, request), closed=shut)
    free_folder(out)
    with hidden(out) as folder:
        told = _told_of(storage, paths, wanted)
        if bare:
            manifest = write_recipes(folder, read_run(storage), wanted, request, told)
        else:
            manifest = write_files(folder, asked.trainer, wanted, request, (e for _, e in told))
        if not put(folder, out):
            return replace(standing(out, request), closed=shut)
    return replace(_told(manifest, stood=False), closed=shut)


def free_folder(out: Path) -> None:
    """Raise `ConfigError` for a folder in which something lies."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"'{out}' is not empty.", "Choose a folder that is not there yet.")


def put(folder: Path, out: Path) -> bool:
    """Give a filled folder its name; False where another process was first."""
    try:
        folder.rename(out)
    except OSError:
        if not (out / MANIFEST).is_file():
            raise
        return False
    return True


def wanted_of(asked: Export) -> Wanted:
    """The settings, checked; raises `ConfigError`."""
    if asked.trainer not in KINDS:
        raise ConfigError(f"There is no trainer '{asked.trainer}'.", nearest(asked.trainer, KINDS))
    kinds = KINDS[asked.trainer]
    kind = asked.kind or kinds[0]
    if kind not in kinds:
        fix = " or ".join(f"--trainer {name}" for name, can in KINDS.items() if kind in can)
        raise ConfigError(f"There is no {kind} export for {asked.trainer}.", f"Choose {fix}.")
    if not 0 <= asked.split < 1:
        raise ConfigError(f"A split is a share of the pictures in [0, 1), not {asked.split:g}.")
    if asked.pictures not in get_args(PictureFormat):
        raise ConfigError(f"Pictures are png or jpeg, not '{asked.pictures}'.")
    family = family_of(asked.family, asked.family)
    if family.kind not in ("pixels", "thousand"):
        known = sorted(f.name for f in FAMILIES.values() if f.kind in ("pixels", "thousand"))
        raise ConfigError(
            f"{family.name} is taught no boxes of the view it is shown.",
            f"Choose one of {', '.join(known)}.",
        )
    profile = known_profile(asked.profile)
    if profile == "cof-v1" and asked.trainer == "verl":
        raise ConfigError("verl's tool agent knows no special tokens.", "Choose --profile cof-v2.")
    return Wanted(
        family, kind, profile, asked.split, asked.only_verified, asked.min_weight, asked.pictures
    )


def _request(storage: Storage, asked: Export, wanted: Wanted) -> dict[str, Any]:
    """What the bytes of an export follow from: the run's data, the settings, the codecs."""
    run_id = read_run(storage)["run_id"]
    files = [f for record in records(storage) for f in record.files if f.kind == KIND]
    if not files:
        raise ConfigError(f"Run '{run_id}' has no trajectories to export.")
    data = hashlib.sha256("".join(f"{f.sha256}\n" for f in files).encode()).hexdigest()
    settings = {**asdict(asked), "kind": wanted.kind, "family": wanted.family.name}
    del settings["pixels"]
    return {"format": FORMAT, "run_id": run_id, "data": data, **settings, "versions": encoders()}


def encoders() -> dict[str, str]:
    """What the bytes of the files follow from, beside the rows."""
    return {"pillow": PIL.__version__, "pyarrow": pa.__version__}


def _told_of(storage: Storage, paths: Sequence[str], wanted: Wanted) -> Iterator[Told]:
    """Every row of the run with the example that it is, or why it is none."""
    reader = Reader(wanted)
    for path in paths:
        try:
            for row in rows_of(storage, path, RECIPE_COLUMNS):
                yield row, reader.read(row)
        except (OSError, pa.ArrowException) as error:
            fix = "Look with: cofpipe fsck RUN"
            raise CheckFailed(f"{path} cannot be read: {error}.", fix) from error


def standing(out: Path, request: Mapping[str, Any]) -> Exported:
    """The export that is there already, once it is proven to be this one, and whole."""
    manifest = manifest_of(out)
    if manifest["request"] != request:
        raise ConfigError(
            f"'{out}' holds another export: {_differing(manifest['request'], request)}.",
            "Choose another folder, or remove it first.",
        )
    if (path := damaged(out, manifest)) is not None:
        raise CheckFailed(f"'{path}' is gone or damaged.", "Remove the folder; export again.")
    return _told(manifest, stood=True)


def manifest_of(out: Path) -> dict[str, Any]:
    """The manifest of an export's folder; raises `ConfigError` where it holds something else."""
    try:
        manifest: dict[str, Any] = json.loads((out / MANIFEST).read_text("utf-8"))
        if isinstance(manifest["request"], dict) and isinstance(manifest["files"], list):
            return manifest
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise ConfigError(f"'{out}' holds something else.", "Choose another folder.")


def _differing(there: Mapping[str, Any], request: Mapping[str, Any]) -> str:
    names = [n for n in {**request, **there} if there.get(n) != request.get(n)]
    return "its " + ", ".join(names)


def _told(manifest: Mapping[str, Any], *, stood: bool) -> Exported:
    bare = RECIPE_ONLY in manifest["request"]
    return Exported(
        run_id=manifest["request"]["run_id"],
        rows=manifest["rows"],
        pictures=manifest["pictures"],
        left_out=manifest["left_out"],
        stood=stood,
        recipe_only=bare,
        recipe_bytes=sum(file["bytes"] for file in manifest["files"]) if bare else 0,
        pixel_bytes=manifest["restored"]["bytes"] if bare else 0,
    )
