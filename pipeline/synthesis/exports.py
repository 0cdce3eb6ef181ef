"""A run as data for a trainer: a folder that is there whole or not at all.

Rows stream from the committed Parquet through `export_rows` into the trainer's own writer, in a
hidden folder that is renamed at the end. The same run and the same settings give the same bytes;
what was left out, and why, lies beside what was not.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import PIL
import pyarrow as pa

from pipeline.agent.families import FAMILIES, family_of
from pipeline.errors import CheckFailed, ConfigError, nearest
from pipeline.grammar import known_profile
from pipeline.runner.rundir import read_run, records
from pipeline.runner.storage import Storage, storage_at
from pipeline.synthesis.export_folder import hidden, sha256_of, sync
from pipeline.synthesis.export_llamafactory import LlamaFactoryWriter
from pipeline.synthesis.export_rows import (
    Example,
    Kind,
    LeftOut,
    PictureFormat,
    Reader,
    Row,
    Wanted,
    rows_of,
)
from pipeline.synthesis.export_trl import TrlWriter
from pipeline.synthesis.export_verl import VerlWriter

Trainer = Literal["trl", "llamafactory", "verl"]
KINDS: Mapping[str, tuple[Kind, ...]] = {
    "trl": ("sft", "rl"),
    "llamafactory": ("sft",),
    "verl": ("rl",),
}
"""What each trainer is given; the first is the default."""
KIND = "trajectories"
MANIFEST = "manifest.json"
LEFT_OUT = "left_out.jsonl"
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


class Writer(Protocol):
    """A trainer's files."""

    def add(self, example: Example) -> None:
        """Write an example."""

    def close(self) -> str:
        """End the files; what a reader of the folder must know."""


def export(run_dir: str | Path, out: Path, asked: Export) -> Exported:
    """Write the run's trajectories below `out` for a trainer; a second time changes nothing.

    Raises `ConfigError` for what cannot be asked, for a folder that holds something else, and where
    not one row can be exported; `CheckFailed` where an earlier export is damaged.
    """
    wanted = _wanted(asked)
    storage, out = storage_at(str(run_dir)), out.absolute()
    request = _request(storage, asked, wanted)
    if (out / MANIFEST).is_file():
        return _standing(out, request)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"'{out}' is not empty.", "Choose a folder that is not there yet.")
    with hidden(out) as folder:
        manifest = _write(storage, folder, asked.trainer, wanted, request)
        try:
            folder.rename(out)
        except OSError:  # another process was first
            if not (out / MANIFEST).is_file():
                raise
            return _standing(out, request)
    return _told(manifest, stood=False)


def _wanted(asked: Export) -> Wanted:
    """The settings, checked."""
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
    versions = {"pillow": PIL.__version__, "pyarrow": pa.__version__}
    settings = {**asdict(asked), "kind": wanted.kind, "family": wanted.family.name}
    return {"format": FORMAT, "run_id": run_id, "data": data, **settings, "versions": versions}


def _write(
    storage: Storage, folder: Path, trainer: Trainer, wanted: Wanted, request: dict[str, Any]
) -> dict[str, Any]:
    """Fill the folder; its manifest."""
    paths = [f.path for record in records(storage) for f in record.files if f.kind == KIND]
    reader, writer = Reader(wanted), _writer(trainer, folder, wanted)
    rows, reasons, pictures = Counter[str](), Counter[str](), 0
    with (folder / LEFT_OUT).open("w", encoding="utf-8") as aside:
        for path in paths:
            for told in map(reader.read, _rows(storage, path)):
                if isinstance(told, LeftOut):
                    reasons[told.reason] += 1
                    aside.write(json.dumps(asdict(told)) + "\n")
                    continue
                writer.add(told)
                rows[told.split] += 1
                pictures += len(told.pictures)
    notes = writer.close()
    counts = {"rows": dict(sorted(rows.items())), "pictures": pictures}
    left_out = dict(sorted(reasons.items()))
    if not rows:
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        fix = "--all exports what no verifier has accepted." if "not_verified" in reasons else None
        raise ConfigError(f"Not one row can be exported: {why or 'the run is empty'}.", fix)
    (folder / "README.md").write_text(_readme(request, counts["rows"], notes), "utf-8")
    manifest = {"request": request, **counts, "left_out": left_out, "files": _listed(folder)}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
    sync(folder / MANIFEST)
    return manifest


def _rows(storage: Storage, path: str) -> Iterator[Row]:
    try:
        yield from rows_of(storage, path)
    except (OSError, pa.ArrowException) as error:
        fix = "Look with: cofpipe fsck RUN"
        raise CheckFailed(f"{path} cannot be read: {error}.", fix) from error


def _writer(trainer: Trainer, folder: Path, wanted: Wanted) -> Writer:
    if trainer == "trl":
        return TrlWriter(folder, wanted.kind)
    if trainer == "llamafactory":
        return LlamaFactoryWriter(folder, wanted.family, wanted.profile)
    return VerlWriter(folder)


def _readme(request: Mapping[str, Any], rows: Any, notes: str) -> str:
    counts = ", ".join(f"{count} in {split}" for split, count in rows.items())
    return f"""\
# {request["run_id"]} for {request["trainer"]} ({request["kind"]}, {request["profile"]})

Rows: {counts}. No picture is in two splits. Boxes are as {request["family"]} writes them.
What was left out and why: `{LEFT_OUT}`; digests: `{MANIFEST}`.

{notes}"""


def _listed(folder: Path) -> list[dict[str, Any]]:
    """The folder's files with their digests, synced; loose pictures have a list of their own."""
    listed = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if not name.startswith("images/"):
            sync(path)
            listed.append({"path": name, "bytes": path.stat().st_size, "sha256": sha256_of(path)})
    return listed


def _standing(out: Path, request: Mapping[str, Any]) -> Exported:
    """The export that is there already, once it is proven to be this one, and whole."""
    try:
        manifest = json.loads((out / MANIFEST).read_text("utf-8"))
        there, files = manifest["request"], manifest["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"'{out}' holds something else.", "Choose another folder.") from error
    if there != request:
        raise ConfigError(
            f"'{out}' holds another export: {_differing(there, request)}.",
            "Choose another folder, or remove it first.",
        )
    for name, sha256 in _digests(out, files):
        path = out / name
        if not path.is_file() or sha256_of(path) != sha256:
            raise CheckFailed(f"'{path}' is gone or damaged.", "Remove the folder; export again.")
    return _told(manifest, stood=True)


def _digests(out: Path, files: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """(path, digest) of every file of an export, loose pictures too."""
    yield from ((file["path"], file["sha256"]) for file in files)
    if (out / "images.sha256").is_file():
        with (out / "images.sha256").open(encoding="utf-8") as lines:
            for line in lines:
                sha256, _, name = line.rstrip("\n").partition("  ")
                yield name, sha256


def _differing(there: Any, request: Mapping[str, Any]) -> str:
    known = there if isinstance(there, dict) else {}
    names = [name for name, value in request.items() if known.get(name) != value]
    return "its " + ", ".join(names)


def _told(manifest: Mapping[str, Any], *, stood: bool) -> Exported:
    run_id = manifest["request"]["run_id"]
    rows, pictures = manifest["rows"], manifest["pictures"]
    return Exported(run_id, rows, pictures, manifest["left_out"], stood)
