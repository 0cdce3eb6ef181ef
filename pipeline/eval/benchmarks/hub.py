"""Where a benchmark lies: a folder or file of one's own, or its repository on the Hugging Face Hub.

A repository is read at a pinned revision where one is known, else at the commit it stands at, which
is recorded. Knows nothing of what the files hold.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import BadImage, ConfigError
from pipeline.sources.files import read_below
from pipeline.sources.names import key_of

_PREFIX = "hf://datasets/"
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Published:
    """A benchmark's repository on the Hub."""

    repository: str
    revision: str | None
    """A commit; None where the newest is taken and recorded."""
    files: tuple[str, ...]
    """Patterns of what is fetched."""
    holds: str
    """What a folder of one's own must hold, in words."""


PUBLISHED: dict[str, Published] = {
    "vstar": Published(
        "craigwu/vstar_bench",
        "eed4d0e89077fabfeb792be9cee004019abe3528",
        ("test_questions.jsonl", "direct_attributes/*", "relative_position/*"),
        "test_questions.jsonl, or folders of paired .jpg and .json files",
    ),
    "hrbench-4k": Published(
        "DreamMr/HR-Bench", None, ("hr_bench_4k.parquet",), "hr_bench_4k.tsv or .parquet"
    ),
    "hrbench-8k": Published(
        "DreamMr/HR-Bench", None, ("hr_bench_8k.parquet",), "hr_bench_8k.tsv or .parquet"
    ),
    "mme": Published(
        "lmms-lab/MME",
        "d6c9023f017b564f7b3ccccf5348166bce8fdbcd",
        ("data/test-*.parquet",),
        "a folder for each task with pictures and .txt files",
    ),
    "mmbench": Published(
        "lmms-lab/MMBench_EN",
        "ecd23e001f5c649c959eda84b846a01cc6fafbde",
        ("data/dev-*.parquet",),
        "a .tsv of MMBench",
    ),
    "pope": Published(
        "lmms-lab/POPE",
        "4db1276663dfa5eb8ad16a52d24c31a09e470896",
        ("data/test-*.parquet",),
        "coco_pope_random.json, coco_pope_popular.json, coco_pope_adversarial.json and the pictures"
        " in images/",
    ),
}
"""Where each benchmark is published, as far as it can be fetched."""


@dataclass(frozen=True, slots=True)
class Located:
    """Files at hand."""

    path: Path
    """A folder, or a file."""
    root: Path
    """Nothing outside this is read: the folder, or the Hub's cache of the repository."""
    told: dict[str, str | int | float | bool]
    """For the protocol: `source`, and `revision` where there is one; no path of this machine."""
    holds: str
    """What there must be, in words."""

    @property
    def folder(self) -> Path:
        return self.path if self.path.is_dir() else self.path.parent

    def lacks(self, what: str) -> ConfigError:
        """What to raise where the folder has not what it must have."""
        return ConfigError(f"There is no {what} in '{self.path.name}'.", f"Wanted: {self.holds}.")

    def read(self, path: Path) -> bytes:
        """The bytes of a file; raises `BadImage`."""
        below = os.path.relpath(path, self.root)
        try:
            return read_below(self.root, key_of(Path(below).as_posix()))
        except (UnicodeEncodeError, ValueError) as error:
            raise BadImage("unreadable", type(error).__name__) from error

    def size(self, path: Path) -> int:
        """Bytes of a file, 0 where there is none."""
        try:
            return path.stat().st_size
        except (OSError, ValueError):
            return 0


def located(name: str, source: str | None) -> Located:
    """The files of a benchmark; fetches them where they are not at hand.

    `name` is one of `PUBLISHED`. Raises `ConfigError` saying what to place where.
    """
    known = PUBLISHED[name]
    if source is None:
        return _fetched(known, known.repository, known.revision)
    if source.startswith(_PREFIX):
        repository, _, revision = source.removeprefix(_PREFIX).strip("/").partition("@")
        if repository.count("/") != 1:
            message = f"'{source}' names no dataset."
            raise ConfigError(message, f"Write {_PREFIX}ORG/NAME or {_PREFIX}ORG/NAME@REVISION.")
        pinned = known.revision if repository == known.repository else None
        return _fetched(known, repository, revision or pinned)
    return at_hand(source, known.holds)


def at_hand(source: str, holds: str) -> Located:
    """A folder or a file of one's own; raises `ConfigError` where there is none."""
    path = Path(source).expanduser()
    if not path.exists():
        raise ConfigError(f"There is nothing at '{source}'.", f"It is to hold {holds}.")
    path = path.resolve()
    root = path if path.is_dir() else path.parent
    return Located(path, root, {"source": "local"}, holds)


def _fetched(known: Published, repository: str, revision: str | None) -> Located:
    """A snapshot of the repository in the Hub's own cache, which also serves without a network."""
    from huggingface_hub import snapshot_download

    try:
        path = snapshot_download(
            repository, repo_type="dataset", revision=revision, allow_patterns=list(known.files)
        )
    except Exception as error:  # the client raises its HTTP library's own errors
        kind = type(error).__name__
        raise ConfigError(
            f"The dataset '{repository}' could not be fetched ({kind}).",
            f"Fetch it where there is a network, or give a folder that holds {known.holds}.",
        ) from error
    folder = Path(path)
    commit = folder.name if _COMMIT.fullmatch(folder.name) else revision or ""
    told: dict[str, str | int | float | bool] = {
        "source": _PREFIX + repository,
        "revision": commit,
    }
    root = folder.parents[1] if folder.parent.name == "snapshots" else folder
    return Located(folder, root, told, known.holds)
