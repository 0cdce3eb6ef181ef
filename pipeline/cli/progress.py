"""A run's progress for people: a live line on a terminal, elsewhere a line every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pipeline.cli.printing import for_people, say

EVERY_S = 5.0
"""Between two plain lines."""

Event = dict[str, Any]
OnEvent = Callable[[Event], None]


@dataclass(slots=True)
class Tally:
    """What the runner's events add up to."""

    shards: int
    done: set[int] = field(default_factory=set)
    kept: int = 0
    rejected: int = 0
    began: float = field(default_factory=time.monotonic)

    def take(self, event: Event) -> None:
        """Count a commit, and take the plan's number of shards; other events change nothing."""
        if event.get("event") == "planned":
            self.shards = event.get("shards_total", self.shards)
        if event.get("event") != "committed":
            return
        self.kept += event["rows"]
        self.rejected += event["rejected"]
        if event.get("last", True):
            self.done.add(event["shard"])

    def line(self) -> str:
        """Shards, rows and speed of this session."""
        seconds = max(time.monotonic() - self.began, 1e-3)
        speed = (self.kept + self.rejected) / seconds
        return (
            f"{len(self.done)} of {self.shards} shards, {self.kept} kept, "
            f"{self.rejected} rejected, {speed:.1f} rows/s"
        )


@contextmanager
def progress(shards: int) -> Iterator[OnEvent]:
    """A function for the runner's events that keeps people informed while the block runs."""
    tally = Tally(shards)
    with _live(tally) if for_people() else _plain(tally) as show:

        def on_event(event: Event) -> None:
            tally.take(event)
            notice = _notice(event)
            if notice:
                say(notice)
            show()

        yield on_event


def _notice(event: Event) -> str:
    """The sentence for events that people should not miss."""
    if event.get("event") == "planned":
        return f"{event['run_id']} {'continues' if event['continued'] else 'begins'}."
    if event.get("event") == "planned":
        how = "continues" if event["continued"] else "is new"
        return (
            f"Run {event['run_id']} {how}: {event['entries']} inputs in {event['shards']} shards."
        )
    if event.get("event") in ("lost", "worker_lost"):
        why = event.get("why") or event.get("detail") or "no reason given"
        return f"A worker was lost ({why}); its shard goes to another."
    return ""


@contextmanager
def _plain(tally: Tally) -> Iterator[Callable[[], None]]:
    last = time.monotonic()

    def show() -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY_S:
            last = time.monotonic()
            say(tally.line())

    yield show


@contextmanager
def _live(tally: Tally) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(24), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(tally.line(), total=tally.shards)

        def show() -> None:
            bar.update(task, completed=len(tally.done), description=tally.line())

        yield show
