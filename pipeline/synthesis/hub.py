"""Pushing a publication to the Hugging Face Hub, so that doing it again changes nothing.

One file is on the disk at a time. Each is compared with what the repository has by its digest;
what differs is uploaded at once and committed with others, the card with the last of them: a push
that was killed has left no card of its own, and the same command goes on where it stopped.
The token is the client's business, and is in nothing that is raised or told.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from pipeline.errors import CofpipeError, ConfigError
from pipeline.synthesis.card import FILE, Wording, card_of, facts_of
from pipeline.synthesis.card_examples import FOLDER as EXAMPLES
from pipeline.synthesis.card_examples import Shown
from pipeline.synthesis.dataset_statistics import numbers_of
from pipeline.synthesis.publish import Publication, refusals
from pipeline.synthesis.published_files import FOLDER as DATA
from pipeline.synthesis.published_files import RECIPES, SHARD_BYTES, Published, planned, write

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

COMMIT_FILES = 64
"""Files of a commit, the card and what is removed left out; the Hub asks for less than 100."""
OWN = (DATA, RECIPES, EXAMPLES)
"""Folders of the repository that hold what was pushed and nothing else."""

State = Literal["new", "changed", "same", "stale"]
"""What becomes of a file: it is added, replaced, left alone, or removed."""
OnFile = Callable[[State, str, int], None]
"""Is told of each file, with its bytes, once it is settled."""

_TOKEN = re.compile(r"hf_\w+|Bearer\s+\S+", re.IGNORECASE)
_REPO = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Target:
    """Where to, and in which pieces."""

    repo_id: str
    private: bool = False
    dry_run: bool = False
    shard_bytes: int = SHARD_BYTES
    commit_files: int = COMMIT_FILES


@dataclass(slots=True)
class Pushed:
    """What was done, or what would be done."""

    repo_id: str
    commits: int = 0
    sent_bytes: int = 0
    files: dict[str, tuple[State, int]] = field(default_factory=dict)
    """By path in the repository: its state and bytes."""
    created: bool = False
    """Whether the repository was not there before."""
    refused: tuple[ConfigError, ...] = ()
    """Of a dry run: why it could not be done."""


def push(
    publication: Publication,
    target: Target,
    wording: Wording,
    shown: Sequence[Shown],
    scratch: Path,
    *,
    api: HfApi | None = None,
    on_file: OnFile | None = None,
) -> Pushed:
    """Make the repository hold the publication, and nothing else below its folders.

    `scratch` holds one shard at a time. Raises `ConfigError` for what must not be published, which
    a dry run tells instead, and where the repository must not be pushed to; `CofpipeError` where
    the Hub does not do what is asked.
    """
    refused = refusals(publication, wording.licence, wording.allow, wording.allow_sources)
    if refused and not target.dry_run:
        raise refused[0]
    repository = _Repository(target, api, on_file)
    numbers = numbers_of(publication.tables)
    files = list[Published]()
    for plan in planned(publication.tables, target.shard_bytes):
        shard = scratch / "shard.parquet"
        files.append(write(plan, shard))
        repository.put_file(plan.path, shard, files[-1].sha256)
        shard.unlink()
    for path, file in sorted(publication.beside.items()):
        repository.put(path, file.read_bytes())
    for one in shown:
        repository.put(one.path, one.picture)
    text = card_of(publication, facts_of(files, numbers), wording, shown)
    repository.remove_stale()
    repository.put(FILE, text.encode())
    repository.commit()
    repository.pushed.refused = tuple(refused)
    return repository.pushed


class _Repository:
    """The repository on the Hub, and what waits to be committed to it."""

    def __init__(self, target: Target, api: HfApi | None, on_file: OnFile | None) -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.utils.tqdm import disable_progress_bars

        if not _REPO.fullmatch(target.repo_id):
            raise ConfigError(f"'{target.repo_id}' names no repository.", "Write ORG/NAME.")
        disable_progress_bars()
        self._api = api or HfApi()
        self._target, self._on_file = target, on_file
        self._waiting: list[CommitOperationAdd | CommitOperationDelete] = []
        self._put: set[str] = set()
        self.pushed = Pushed(target.repo_id)
        with _reached(target.repo_id, self._api):
            self._there = self._open()

    def put_file(self, path: str, file: Path, sha256: str) -> None:
        """Have a large file in the repository; it need not stay on the disk."""
        from huggingface_hub import CommitOperationAdd

        size = file.stat().st_size
        if self._settled(path, size, sha256, lambda: file.read_bytes()):
            return
        with _reached(self._target.repo_id, self._api):
            added = CommitOperationAdd(path, str(file))
            self._api.preupload_lfs_files(
                self._target.repo_id, [added], repo_type="dataset", num_threads=1
            )
            if added.path_or_fileobj:  # the Hub wants it in the commit itself: it is small
                added = CommitOperationAdd(path, file.read_bytes())
        self.pushed.sent_bytes += size
        self._wait(added)

    def put(self, path: str, content: bytes) -> None:
        """Have a small file in the repository."""
        import hashlib

        from huggingface_hub import CommitOperationAdd

        sha256 = hashlib.sha256(content).hexdigest()
        if not self._settled(path, len(content), sha256, lambda: content):
            self.pushed.sent_bytes += len(content)
            self._wait(CommitOperationAdd(path, content), last=path == FILE)

    def remove_stale(self) -> None:
        """Have no other files in the folders that are a push's own."""
        from huggingface_hub import CommitOperationDelete

        for path in sorted(self._there):
            if path not in self._put and path.partition("/")[0] in OWN:
                self._tell("stale", path, self._there[path].size)
                if not self._target.dry_run:
                    self._wait(CommitOperationDelete(path))

    def commit(self) -> None:
        """Commit what waits; nothing where nothing does."""
        if not self._waiting:
            return
        with _reached(self._target.repo_id, self._api):
            self._api.create_commit(
                self._target.repo_id,
                self._waiting,
                repo_type="dataset",
                commit_message=f"{len(self._waiting)} files of a cofpipe dataset",
            )
        self.pushed.commits += 1
        self._waiting = []

    def _open(self) -> Mapping[str, Any]:
        """What the repository holds, by path; it is made where it is not there."""
        from huggingface_hub import RepoFile
        from huggingface_hub.errors import RepositoryNotFoundError

        repo_id, private = self._target.repo_id, self._target.private
        try:
            found = self._api.repo_info(repo_id, repo_type="dataset")
        except RepositoryNotFoundError:
            self.pushed.created = True
            if self._target.dry_run:
                return {}
            self._api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        else:
            if private and not found.private:
                fix = "Make it private on the Hub first, or choose another name."
                raise ConfigError(f"'{repo_id}' is there already, and public.", fix)
        tree = self._api.list_repo_tree(repo_id, recursive=True, repo_type="dataset")
        there = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
        if FILE in there and not self._is_ours():
            fix = "Choose another name, or remove its README.md."
            raise ConfigError(f"'{repo_id}' holds a dataset that is not cofpipe's.", fix)
        return there

    def _is_ours(self) -> bool:
        """Whether the repository's card was written by a push: its folders are replaced then."""
        with TemporaryDirectory() as folder:
            card = self._api.hf_hub_download(
                self._target.repo_id, FILE, repo_type="dataset", local_dir=folder
            )
            return "\ncofpipe:\n" in Path(card).read_text("utf-8", "replace")

    def _settled(self, path: str, size: int, sha256: str, content: Callable[[], bytes]) -> bool:
        """Whether nothing is left to be done for a file."""
        from huggingface_hub.utils.sha import git_hash

        self._put.add(path)
        there, state = self._there.get(path), "changed"
        if there is None:
            state = "new"
        elif there.size == size and (
            there.lfs.sha256 == sha256 if there.lfs else there.blob_id == git_hash(content())
        ):
            state = "same"
        self._tell(state, path, size)  # type: ignore[arg-type]
        return state == "same" or self._target.dry_run

    def _wait(self, one: CommitOperationAdd | CommitOperationDelete, *, last: bool = False) -> None:
        """Have a change in the next commit, which is made before it would be too long."""
        if len(self._waiting) >= self._target.commit_files and not last:
            self.commit()
        self._waiting.append(one)

    def _tell(self, state: State, path: str, size: int) -> None:
        self.pushed.files[path] = state, size
        if self._on_file:
            self._on_file(state, path, size)


@contextmanager
def _reached(repo_id: str, api: HfApi) -> Iterator[None]:
    """Whatever the Hub's client raises, as one sentence without a token."""
    try:
        yield
    except CofpipeError:
        raise
    except Exception as error:  # noqa: BLE001 - its HTTP library's own errors are among them
        root = error.__cause__ or error
        response = getattr(root, "response", None)
        status = getattr(response, "status_code", None)
        told = f" {status}" if status else ""
        said = str(getattr(root, "server_message", None) or root).strip().split("\n")[0]
        said = _without_token(said, api)
        message = f"The Hub did not take '{repo_id}' ({type(root).__name__}{told}): {said}"
        fix = "Check `hf auth whoami` and the network; the same command goes on where it stopped."
        raise CofpipeError(message.rstrip(".: ") + ".", fix) from None


def _without_token(text: str, api: HfApi) -> str:
    """Text in which nothing is left of a token."""
    for token in (api.token, os.environ.get("HF_TOKEN")):
        if isinstance(token, str) and token:
            text = text.replace(token, "…")
    return _TOKEN.sub("…", text)
