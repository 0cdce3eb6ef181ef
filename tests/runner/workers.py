"""Small real workers for the laws of the runners: every way to behave, and to misbehave.

An entry is a number; its unit is `e<index>` and keeps `per_unit` rows, a few of them not.
Settings: per_unit, units_per_entry, picture (times), pause_s, delay_s (by key), mark (a folder);
poison, hang, freeze, kill_once, bug (lists of keys); broken, lie, extra.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from manifests import tables
from pipeline.shards import Unit

NUMBERS = "tests.runner.workers:numbers"

SCHEMA = pa.schema(
    [
        *tables.TRAJECTORIES,
        pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
    ],
    tables.TRAJECTORIES.metadata,
)


class Numbers:
    """Makes rows of numbers."""

    main = "trajectories"
    schemas: Mapping[str, pa.Schema] = {"trajectories": SCHEMA, "steps": tables.STEPS}
    manifest: Mapping[str, pa.Schema] = {
        "rejections": tables.REJECTIONS,
        "timings": tables.TIMINGS,
        "calls": tables.CALLS,
    }

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    def units(
        self,
        index: int,
        *,
        skip: int,
        rows_left: int | None,
        crashed: frozenset[str],
        started: Callable[[str], None],
    ) -> Iterator[Unit]:
        for place in range(skip, self.settings.get("units_per_entry", 1)):
            key = f"e{index}" if not place else f"e{index}-{place}"
            if key in crashed:
                yield rejected(key, "crashed_worker")
                continue
            started(key)
            self._behave(key)
            unit = self._unit(key, index, rows_left)
            rows_left = None if rows_left is None else rows_left - unit.kept
            yield unit

    def close(self) -> None:
        self._mark("closed")

    def _behave(self, key: str) -> None:
        delay = self.settings.get("delay_s", {})
        time.sleep(delay.get(key, self.settings.get("pause_s", 0)))
        self._mark(key)
        if key in self.settings.get("poison", ()):
            os._exit(13)
        if key in self.settings.get("hang", ()):
            time.sleep(3600)
        if key in self.settings.get("freeze", ()):
            os.kill(os.getpid(), signal.SIGSTOP)
        if key in self.settings.get("kill_once", ()) and self._first(key):
            os.kill(os.getpid(), signal.SIGKILL)
        if key in self.settings.get("bug", ()):
            raise ZeroDivisionError(f"a bug at {key}")

    def _first(self, key: str) -> bool:
        """Whether this key is met for the first time, by anyone."""
        try:
            (Path(self.settings["mark"]) / f"once-{key}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def _mark(self, key: str) -> None:
        if folder := self.settings.get("mark"):
            with (Path(folder) / "seen").open("a") as file:
                file.write(f"{key} {os.getpid()} {os.environ.get('NODE', '')}\n")

    def _unit(self, key: str, index: int, rows_left: int | None) -> Unit:
        if index % 7 == 3:
            return rejected(key, "unlucky")
        count = self.settings.get("per_unit", 2)
        if rows_left is not None:
            count = min(count, rows_left)
        picture = key.encode() * self.settings.get("picture", 1)
        extra = self.settings.get("extra", {})
        rows = [{**row(key, number, picture), **extra} for number in range(count)]
        names = [{"sample_id": r["sample_id"], "resolution": 224, "rollout": 0} for r in rows]
        made = {
            "trajectories": rows,
            "steps": [{**name, "step": 0, "region": 0} for name in names],
            "timings": [{**name, "seconds": time.time()} for name in names],
            "calls": [{**name, "cost_usd": 0.5, "tokens_in": 3} for name in names[:1]],
        }
        return Unit(key, self.settings.get("lie", count), made)


def row(key: str, number: int, picture: bytes) -> dict[str, Any]:
    return {
        "sample_id": f"{key}#{number}",
        "image_id": key,
        "resolution": 224,
        "rollout": 0,
        "question": f"What is {key}?",
        "target_boxes": [[1, 2, 3, 4]],
        "num_zooms": number,
        "image": {"bytes": picture, "path": f"{key}.jpg"},
    }


def rejected(key: str, reason: str) -> Unit:
    line = {
        "sample_id": f"{key}#0",
        "image_id": key,
        "resolution": 0,
        "rollout": 0,
        "stage": "worker",
        "reason": reason,
    }
    return Unit(key, 0, {"rejections": [line]})


def numbers(settings: dict[str, Any]) -> Numbers:
    """The worker all laws are tried with."""
    if settings.get("broken"):
        raise ZeroDivisionError("a bug before the first picture")
    return Numbers(settings)
