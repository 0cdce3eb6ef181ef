"""A dataset as it was published, in a folder or on the Hub: its files, and SQL over them.

Of a repository on the Hub only footers and the columns that are asked about are fetched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError
from pipeline.synthesis.dataset_statistics import connection_over
from pipeline.synthesis.published_files import Published, place_of, published

if TYPE_CHECKING:
    import duckdb
    from fsspec import AbstractFileSystem

HUB = "hf://datasets/"


@dataclass(frozen=True, slots=True)
class Dataset:
    """A published dataset, wherever it lies."""

    files: AbstractFileSystem
    root: str
    paths: Mapping[str, dict[str, Any]]
    """Its files by path in it, with what the file system tells of each."""

    def read(self, path: str) -> bytes | None:
        """Content; None where there is no such file."""
        return bytes(self.files.cat_file(self._at(path))) if path in self.paths else None

    def tables(self) -> list[Published]:
        """Its Parquet files, by configuration, split and number; other files are left out."""
        found = list[Published]()
        for path, told in sorted(self.paths.items()):
            try:
                place_of(path)
            except ValueError:
                continue
            with self.files.open(self._at(path)) as file:
                found.append(published(path, file, told["size"], self._sha256(path, told)))
        return found

    def connection(self) -> duckdb.DuckDBPyConnection:
        """SQL over its tables, a view for each configuration."""
        import duckdb

        connection = duckdb.connect(":memory:")
        if "hf" in self.files.protocol:
            connection.register_filesystem(self.files)
        shown: dict[str, list[str]] = {}
        for path in sorted(self.paths):
            try:
                config, _ = place_of(path)
            except ValueError:
                continue
            shown.setdefault(config, []).append(str(self._named(path)))
        return connection_over(shown, connection)

    def _sha256(self, path: str, told: Mapping[str, Any]) -> str:
        """Digest of a file; the Hub knows it, and need not send the file."""
        known = told.get("lfs")
        if known is not None:
            return str(known.sha256)
        with self.files.open(self._at(path)) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _at(self, path: str) -> str:
        return f"{self.root}/{path}"

    def _named(self, path: str) -> str:
        at = self._at(path)
        return f"hf://{at}" if "hf" in self.files.protocol else at


def open_dataset(location: str) -> Dataset:
    """A published dataset in a folder or at `hf://datasets/ORG/NAME`.

    Raises `ConfigError` where there is none.
    """
    import fsspec
    from huggingface_hub import HfFileSystem

    class DatedHub(HfFileSystem):
        """DuckDB asks when a file was changed; a commit's files are not."""

        def modified(self, path: str, **settings: Any) -> datetime:
            return datetime.fromtimestamp(0, UTC)

    remote = location.startswith(HUB)
    files = DatedHub() if remote else fsspec.filesystem("file")
    root = location.removeprefix("hf://").rstrip("/") if remote else location.rstrip("/")
    try:
        found: Mapping[str, Any] = files.find(root, detail=True)  # type: ignore[assignment]
    except Exception as error:  # the Hub's client raises its HTTP library's own errors
        kind = type(error).__name__
        fix = "Check the name, the network, and `hf auth login` for a private one."
        raise ConfigError(f"There is no dataset '{location}' ({kind}).", fix) from error
    start = root if remote else str(files._strip_protocol(root))
    paths = {name.removeprefix(start).lstrip("/"): told for name, told in found.items()}
    if not paths:
        raise ConfigError(f"There is no dataset '{location}'.", "Check the name.")
    return Dataset(files, start, paths)
