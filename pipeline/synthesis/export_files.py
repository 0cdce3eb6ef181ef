"""What lies in an export's folder: the trainer's files, what was left out, a README, a manifest.

Takes examples from wherever they come: an export and a rehydration write the same bytes through it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import ConfigError
from pipeline.synthesis.export_folder import sha256_of, sync
from pipeline.synthesis.export_llamafactory import LlamaFactoryWriter
from pipeline.synthesis.export_rows import Example, LeftOut, Wanted
from pipeline.synthesis.export_trl import TrlWriter
from pipeline.synthesis.export_verl import VerlWriter

MANIFEST = "manifest.json"
LEFT_OUT = "left_out.jsonl"
README = "README.md"
LOOSE = "images.sha256"
"""Digests of pictures that are files of their own."""


class Writer(Protocol):
    """A trainer's files."""

    def add(self, example: Example) -> None:
        """Write an example."""

    def close(self) -> str:
        """End the files; what a reader of the folder must know."""


def write_files(
    folder: Path,
    trainer: str,
    wanted: Wanted,
    request: Mapping[str, Any],
    told: Iterable[Example | LeftOut],
) -> dict[str, Any]:
    """Fill a folder with examples, and tell of those that are none; its manifest.

    Raises `ConfigError` where there is no example at all.
    """
    writer = writer_for(trainer, folder, wanted)
    rows, reasons, pictures = Counter[str](), Counter[str](), 0
    with (folder / LEFT_OUT).open("w", encoding="utf-8") as aside:
        for one in told:
            if isinstance(one, LeftOut):
                reasons[one.reason] += 1
                aside.write(json.dumps(asdict(one)) + "\n")
                continue
            writer.add(one)
            rows[one.split] += 1
            pictures += len(one.pictures)
    notes = writer.close()
    counts = {"rows": dict(sorted(rows.items())), "pictures": pictures}
    left_out = dict(sorted(reasons.items()))
    if not rows:
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        fix = "--all exports what no verifier has accepted." if "not_verified" in reasons else None
        raise ConfigError(f"Not one row can be exported: {why or 'the run is empty'}.", fix)
    (folder / README).write_text(_readme(request, counts["rows"], notes), "utf-8")
    return sealed(folder, {"request": request, **counts, "left_out": left_out})


def sealed(folder: Path, told: Mapping[str, Any]) -> dict[str, Any]:
    """Write the manifest of a folder that is filled: what is told, and every file's digest."""
    manifest = {**told, "files": _listed(folder)}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
    sync(folder / MANIFEST)
    return manifest


def writer_for(trainer: str, folder: Path, wanted: Wanted) -> Writer:
    """The files of a trainer, in an empty folder."""
    if trainer == "trl":
        return TrlWriter(folder, wanted.kind)
    if trainer == "llamafactory":
        return LlamaFactoryWriter(folder, wanted.family, wanted.profile)
    return VerlWriter(folder)


def digests(out: Path, files: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """(path, digest) of every file of an export, loose pictures too."""
    yield from ((file["path"], file["sha256"]) for file in files)
    if (out / LOOSE).is_file():
        with (out / LOOSE).open(encoding="utf-8") as lines:
            for line in lines:
                sha256, _, name = line.rstrip("\n").partition("  ")
                yield name, sha256


def damaged(out: Path, manifest: Mapping[str, Any]) -> Path | None:
    """The first file of an export that is not as its manifest says."""
    for name, sha256 in digests(out, manifest["files"]):
        path = out / name
        if not path.is_file() or sha256_of(path) != sha256:
            return path
    return None


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
