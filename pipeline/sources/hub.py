"""`hf://datasets/ORG/NAME[@REVISION][/FOLDER]`: Parquet on the Hugging Face Hub, streamed.

Only the byte ranges of the row groups asked for are fetched. Datasets in other forms are read from
the Parquet copy that the Hub keeps of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.errors import CofpipeError, ConfigError, SourceError
from pipeline.sources.base import Entry, Picture
from pipeline.sources.parquet import ParquetSource

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_CONVERTED = "@refs/convert/parquet"


class HubSource(ParquetSource):
    """A dataset on the Hub; a key is `file#group`, a stamp the file's content id."""

    def __init__(
        self,
        text: str,
        columns: Mapping[str, str],
        filesystem: AbstractFileSystem | None = None,
    ) -> None:
        parts = text.removeprefix("//").strip("/").split("/")
        if len(parts) < 3 or parts[0] != "datasets" or not all(parts):
            raise ConfigError(f"'hf:{text}' names no dataset.", "Write hf://datasets/ORG/NAME.")
        name = "hf://" + "/".join(parts)
        super().__init__(filesystem or _hub(), "/".join(parts), columns, name=name)
        self._looked = len(parts) > 3 or "@" in parts[2]

    def entries(self) -> Iterator[Entry]:
        """One entry for each row group."""
        with _reached(self.name):
            self._look()
            yield from super().entries()

    def pictures(self, entry: Entry) -> Iterator[Picture]:
        """The pictures of a row group, row by row."""
        with _reached(self.name):
            self._look()
            yield from super().pictures(entry)

    def _look(self) -> None:
        """Turn to the Hub's own Parquet copy where the dataset has no Parquet itself."""
        if not self._looked:
            found = self.filesystem.find(self.root)
            if not any(path.endswith(".parquet") for path in found):
                self.root += _CONVERTED
            self._looked = True


def _hub() -> AbstractFileSystem:
    from huggingface_hub import HfFileSystem

    return HfFileSystem()


@contextmanager
def _reached(name: str) -> Iterator[None]:
    """Whatever the Hub's client raises, as one sentence."""
    try:
        yield
    except CofpipeError:
        raise
    except FileNotFoundError as error:
        fix = "Check the name, and `hf auth login` for a private one."
        raise SourceError(f"There is no dataset '{name}'.", fix) from error
    except Exception as error:  # the client raises its HTTP library's own errors
        kind = type(error).__name__
        fix = "Check the network and HF_HUB_OFFLINE, or download it and give the folder."
        raise SourceError(f"The Hub could not be read for '{name}' ({kind}).", fix) from error
