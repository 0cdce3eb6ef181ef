"""What an attempt was working on, line by line, so that its death can be laid to a picture.

One file per attempt, `journal/shard-00012.<attempt>.jsonl`: `{"open": runner}`, then `{"start":
key}` and `{"end": key}` around every unit, then `{"close": why}` unless the attempt died. Whoever
sees it die adds `{"died": why}`. Finished model calls lie beside it, in `pipeline/runner/calls.py`.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from pipeline.runner.storage import Storage

FOLDER = "journal"
DEATHS = 2
"""Workers that must die at a unit before it is given up as `crashed_worker`."""


def journal_path(shard: int, attempt: str) -> str:
    return f"{FOLDER}/shard-{shard:05d}.{attempt}.jsonl"


class Journal:
    """The journal of one attempt, written by the worker that makes it."""

    def __init__(self, storage: Storage, shard: int, attempt: str, runner: str) -> None:
        self._add = storage.append(journal_path(shard, attempt))
        self._lock = threading.Lock()
        self._line({"open": runner})

    def start(self, key: str) -> None:
        self._line({"start": key})

    def end(self, key: str) -> None:
        self._line({"end": key})

    def close(self, why: str) -> None:
        """The attempt ended by its own will: whatever is open is nobody's fault."""
        self._line({"close": why})

    def _line(self, entry: dict[str, str]) -> None:
        with self._lock:
            self._add(json.dumps(entry).encode() + b"\n")


def mark_died(storage: Storage, shard: int, attempt: str, why: str) -> None:
    """Note in an attempt's journal that its worker was seen to die, or was killed as hung."""
    line = json.dumps({"died": why}).encode() + b"\n"
    storage.append(f"{journal_path(shard, attempt)}.died")(line)


def crashed(storage: Storage, shard: int) -> frozenset[str]:
    """Keys of units at which workers of this shard died at least twice."""
    return _crashed(life for life in _lives(storage, shard).values() if life.died)


def doubted(
    storage: Storage, shard: int, *, living: Collection[str] = frozenset()
) -> frozenset[str]:
    """Keys of units at which a worker died once, and that nobody has finished since.

    Threads die together, and a worker may have many units open: one of them may be guilty.
    `living` are attempts that are known to be under way.
    """
    lives = _lives(storage, shard)
    dead = [life for name, life in lives.items() if life.died and name not in living]
    ended = [life.ended for life in lives.values()]
    return frozenset().union(*(life.open for life in dead)).difference(*ended) - _crashed(dead)


def shards(storage: Storage) -> set[int]:
    """Shards that have been attempted."""
    return {int(file.name.split(".")[0].removeprefix("shard-")) for file in storage.list(FOLDER)}


@dataclass(slots=True)
class _Life:
    """One attempt as its journal tells it."""

    runner: str = ""
    open: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    closed: bool = False
    seen_to_die: bool = False

    @property
    def died(self) -> bool:
        """On Ray a death counts when the driver saw it: a driver's own end takes workers along.

        In one process nobody is left to see it, so an attempt that did not close has died.
        """
        return self.seen_to_die or (self.runner == "local" and not self.closed)

    def read(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
        except ValueError:
            return  # torn by the death itself
        self.runner = entry.get("open", self.runner)
        if "start" in entry:
            self.open.add(entry["start"])
        if "end" in entry:
            self.open.discard(entry["end"])
            self.ended.add(entry["end"])
        self.closed |= "close" in entry
        self.seen_to_die |= "died" in entry


def _crashed(dead: Iterable[_Life]) -> frozenset[str]:
    deaths = Counter(key for life in dead for key in life.open)
    return frozenset(key for key, count in deaths.items() if count >= DEATHS)


def _lives(storage: Storage, shard: int) -> dict[str, _Life]:
    """Every attempt at the shard that left a journal."""
    lives: dict[str, _Life] = {}
    for file in storage.list(FOLDER):
        number, attempt, kind = file.name.split(".")[:3]
        if number != f"shard-{shard:05d}" or kind != "jsonl":
            continue
        life = lives.setdefault(attempt, _Life())
        for line in storage.read(file.path).splitlines():
            life.read(line)
    return lives
