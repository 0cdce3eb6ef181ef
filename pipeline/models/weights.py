"""Checkpoint files: which there are, where they lie, how they are fetched and checked.

A published file has a pinned SHA-256; of one without, the first download's is recorded beside it
and required from then on. Knows nothing of what is in a file.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.errors import ConfigError, ModelError, nearest

SHIPPED = Path(__file__).parent / "weights"
"""The folder of the checkpoints that come with the package."""
POCKET_LAVM = SHIPPED / "pocket_lavm"
"""The shipped LAVM's folder, as published ones are laid out, with its tokenizer in `vqgan`."""
POCKETS = {
    "pocket": ("pocket_sam.safetensors", "pocket-sam"),
    "pocket-reader": ("pocket_reader.safetensors", "pocket-reader"),
    "pocket-finder": ("pocket_finder.safetensors", "pocket-finder"),
    "pocket-u2netp": ("pocket_u2netp.safetensors", "pocket-u2netp"),
}
"""Shipped checkpoints by name: the file, and the recipe that makes it."""

_SAM_URL = "https://dl.fbaipublicfiles.com/segment_anything"
_U2NET_URL = "https://github.com/danielgatis/rembg/releases/download/v0.0.0"
_CHUNK = 1 << 20
_TRIES = 3
_TIMEOUT_S = 30.0
_RECORD = "digests.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A published file."""

    name: str
    url: str
    size: int | None
    """Bytes, where published."""
    digest: str | None
    """SHA-256 (hex), where published."""
    by_hand: tuple[str, ...] = ()
    """Where else below the folder the authors' own file may lie, put there by hand."""

    @property
    def file(self) -> str:
        return self.url.rpartition("/")[2]

    def found(self, folder: Path) -> Path:
        """The file in the folder: one that was put there by hand, else as it is fetched."""
        placed = (folder / place for place in self.by_hand)
        return next((path for path in placed if path.is_file()), folder / self.file)


CHECKPOINTS: dict[str, Checkpoint] = {
    "vit_b": Checkpoint(
        "vit_b",
        f"{_SAM_URL}/sam_vit_b_01ec64.pth",
        375_042_383,
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    "vit_l": Checkpoint("vit_l", f"{_SAM_URL}/sam_vit_l_0b3195.pth", None, None),
    "vit_h": Checkpoint(
        "vit_h",
        f"{_SAM_URL}/sam_vit_h_4b8939.pth",
        2_564_550_879,
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
    "u2net": Checkpoint(
        "u2net",
        f"{_U2NET_URL}/u2net.onnx",
        None,
        None,
        ("saved_models/u2net/u2net.pth", "u2net.pth"),
    ),
    "u2netp": Checkpoint(
        "u2netp",
        f"{_U2NET_URL}/u2netp.onnx",
        4_574_861,
        "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
        ("saved_models/u2netp/u2netp.pth", "u2netp.pth"),
    ),
}


@dataclass(frozen=True, slots=True)
class Listed:
    """A checkpoint as `cofpipe models list` shows it."""

    name: str
    where: Path
    size: int | None
    """Bytes of the file that is there, else as published."""
    digest: str | None
    """SHA-256 (hex) that is required, or of the shipped file."""
    present: bool


def cache_dir() -> Path:
    """The folder for fetched checkpoints: `COFPIPE_CACHE`, else `~/.cache/cofpipe`."""
    return Path(os.environ.get("COFPIPE_CACHE") or Path.home() / ".cache" / "cofpipe")


def find(checkpoint: str | Path) -> Path:
    """The file of a shipped or a pulled checkpoint, or of a path; `ModelError` if there is none.

    A checkpoint that is missing is never replaced by another one.
    """
    name = str(checkpoint)
    if name in POCKETS:
        file, recipe = POCKETS[name]
        path, fix = SHIPPED / file, f"Run `cofpipe models train {recipe}`."
    elif name in CHECKPOINTS:
        known = CHECKPOINTS[name]
        path, fix = known.found(cache_dir()), f"Run `cofpipe models pull {name}`."
        if known.by_hand:
            fix = f"{fix[:-1]}, or put the authors' file at {cache_dir() / known.by_hand[0]}."
    else:
        path, fix = Path(name), f"Give a path, or one of: {', '.join((*POCKETS, *CHECKPOINTS))}."
    if not path.is_file():
        raise ModelError(f"There is no checkpoint at {path}.", fix)
    return path


def list_checkpoints(folder: Path | None = None) -> list[Listed]:
    """The shipped checkpoints and the published ones, present or not."""
    listed = []
    for path in sorted(SHIPPED.rglob("*.safetensors")):
        name = path.relative_to(SHIPPED).with_suffix("").as_posix()
        listed.append(Listed(name, path, path.stat().st_size, sha256_of(path), True))
    folder = folder or cache_dir()
    for known in CHECKPOINTS.values():
        path = known.found(folder)
        size = path.stat().st_size if path.exists() else known.size
        listed.append(Listed(known.name, path, size, required_digest(path), path.exists()))
    return listed


def pull(
    name: str,
    folder: Path | None = None,
    *,
    progress: Callable[[int, int | None], None] | None = None,
) -> Path:
    """Fetch a published checkpoint by name, or find it there already; returns its path."""
    if name not in CHECKPOINTS:
        raise ConfigError(f"There is no published checkpoint '{name}'.", nearest(name, CHECKPOINTS))
    return download(CHECKPOINTS[name], folder or cache_dir(), progress=progress)


def download(
    checkpoint: Checkpoint,
    folder: Path,
    *,
    progress: Callable[[int, int | None], None] | None = None,
) -> Path:
    """Fetch a file into `folder`, continuing where an earlier try was cut, and check its digest.

    `progress` is told (bytes so far, bytes in all or None). Raises `ModelError`.
    """
    path = folder / checkpoint.file
    if path.exists():
        check_digest(path, checkpoint.digest)
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{checkpoint.file}.part"
    for left in reversed(range(_TRIES)):
        try:
            if _fetch(checkpoint, part, progress):
                break
            reason = "the connection was cut"
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            reason = str(getattr(error, "reason", error))
        if not left:
            raise ModelError(
                f"{checkpoint.file} could not be fetched from {urlsplit(checkpoint.url).netloc}: "
                f"{reason}.",
                f"Run it again to continue, or put the file at {path}.",
            )
    digest = checkpoint.digest or _recorded(folder).get(checkpoint.file)
    found = sha256_of(part)
    if digest and found != digest:
        part.unlink()
        raise ModelError(_mismatch(checkpoint.file, found, digest), "Fetch it again.")
    part.rename(path)
    if not digest:
        _record(folder, checkpoint.file, found)
    return path


def check_digest(path: Path, pinned: str | None = None) -> str:
    """The file's SHA-256 (hex), which must be the one required of its name, if there is one."""
    found = sha256_of(path)
    required = pinned or required_digest(path)
    if required and found != required:
        raise ModelError(
            _mismatch(path.name, found, required), f"Delete {path} and fetch it again."
        )
    return found


def required_digest(path: Path) -> str | None:
    """The SHA-256 required of a file with this name: pinned, or recorded beside it."""
    pinned = {known.file: known.digest for known in CHECKPOINTS.values()}.get(path.name)
    return pinned or _recorded(path.parent).get(path.name)


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(
    checkpoint: Checkpoint, part: Path, progress: Callable[[int, int | None], None] | None
) -> bool:
    """One request for what is missing of `part`; whether the file is whole afterwards."""
    have = part.stat().st_size if part.exists() else 0
    if checkpoint.size and have >= checkpoint.size:
        return True
    request = urllib.request.Request(checkpoint.url)
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
        if response.status != 206:
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else checkpoint.size
        with part.open("ab" if have else "wb") as file:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                have += len(chunk)
                if progress:
                    progress(have, total)
    return total is None or have >= total


def _recorded(folder: Path) -> dict[str, str]:
    """Digests of earlier first downloads into this folder, by file name."""
    record = folder / _RECORD
    return json.loads(record.read_text()) if record.exists() else {}


def _record(folder: Path, file: str, digest: str) -> None:
    hidden = folder / f".{_RECORD}"
    hidden.write_text(json.dumps(_recorded(folder) | {file: digest}, indent=1, sort_keys=True))
    hidden.rename(folder / _RECORD)


def _mismatch(file: str, found: str, required: str) -> str:
    return f"{file} is not the published file: its SHA-256 is {found}, not {required}."
