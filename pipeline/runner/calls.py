"""Finished model calls in files: the turn journal that keeps them, and the table they end up in.

`journal/shard-00012.<attempt>.calls` holds one frame a call: length, CRC-32, JSON. What follows a
torn frame is not there. `manifest/calls/shard-00012.<attempt>.<first>.parquet` holds the calls of
that journal from number `first` on, and the next segment begins where it ends: whoever finds calls
that are in no segment yet, the attempt itself or somebody after its death, competes for one name,
so each call is in the table once. Knows nothing of budgets or of who waits for what.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.tables import CALLS, STAMP
from pipeline.runner.compact import CALLS as TABLE
from pipeline.runner.compact import standing
from pipeline.runner.journal import FOLDER
from pipeline.runner.storage import Storage
from pipeline.shards import Spent

COUNTED = tuple(name for name in CALLS.names if name not in (*STAMP, "replayed"))
"""What is counted of a call."""

_HEAD = struct.Struct(">II")
_DONE = "done"
"""Ends the name of the mark that all calls of a journal are in the table for good."""

Entry = dict[str, Any]
"""A journalled call: `key`, `call`, `part`, `replayed`."""
_SPENT = ("cost_usd", "tokens_in", "tokens_out", "replayed")


def journal_path(shard: int, attempt: str) -> str:
    return f"{FOLDER}/shard-{shard:05d}.{attempt}.calls"


def segment_path(shard: int, attempt: str, first: int) -> str:
    """Where an attempt's calls from number `first` on are published."""
    return f"{TABLE}/shard-{shard:05d}.{attempt}.{first:08d}.parquet"


def frame(entry: Mapping[str, Any]) -> bytes:
    """A journalled call as bytes."""
    payload = json.dumps(entry, separators=(",", ":")).encode()
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def frames(data: bytes) -> Iterator[Entry]:
    """The calls of a journal up to the first frame that is not whole."""
    at = 0
    while at + _HEAD.size <= len(data):
        length, checksum = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        payload = data[at : at + length]
        if len(payload) != length or zlib.crc32(payload) != checksum:
            return
        yield json.loads(payload)
        at += length


def read_shard(storage: Storage, shard: int) -> Iterator[Entry]:
    """The finished calls of every attempt at a shard, without those that were replayed."""
    for paths in _journals(storage, shard).values():
        yield from (entry for entry in _read(storage, paths) if not entry["replayed"])


def spent_by(storage: Storage, shard: int, attempt: str) -> Spent:
    """What an attempt's journal says that it has paid for."""
    paths = _journals(storage, shard).get((shard, attempt), [])
    return sum_of({**e["call"], "replayed": e["replayed"]} for e in _read(storage, paths))


def sum_of(calls: Iterable[Mapping[str, Any]]) -> Spent:
    """What calls have cost, those that were replayed left out."""
    usd, tokens = 0.0, 0
    for call in calls:
        if not call.get("replayed"):
            usd += call.get("cost_usd") or 0.0
            tokens += (call.get("tokens_in") or 0) + (call.get("tokens_out") or 0)
    return Spent(usd, tokens)


def total(storage: Storage) -> Spent:
    """What the calls in the table have cost."""
    whole = Spent()
    for path in standing(storage, TABLE):
        with storage.open(path) as file:
            whole += sum_of(pq.ParquetFile(file).read(columns=list(_SPENT)).to_pylist())
    return whole


def publish(
    storage: Storage, shard: int, attempt: str, entries: Sequence[Entry], first: int = 0
) -> None:
    """Bring an attempt's calls, from number `first` on, into the table, unless they are there."""
    while entries:
        path = segment_path(shard, attempt, first)
        if storage.put_if_absent(path, _segment(shard, attempt, entries)):
            return
        with storage.open(path) as file:
            there = pq.read_metadata(file).num_rows
        first, entries = first + there, entries[there:]


def salvage(storage: Storage, shard: int | None = None, *, for_good: bool = False) -> None:
    """Bring what dead attempts have paid for into the table.

    Safe while they live after all. `for_good`: nobody will look at their journals again.
    """
    for (number, attempt), paths in _journals(storage, shard).items():
        if paths[-1].endswith(_DONE):
            continue
        publish(storage, number, attempt, list(_read(storage, paths)))
        if for_good:
            mark_done(storage, number, attempt)


def mark_done(storage: Storage, shard: int, attempt: str) -> None:
    """Note that all of a journal is in the table."""
    storage.put_if_absent(f"{journal_path(shard, attempt)}.{_DONE}", b"")


def _journals(storage: Storage, shard: int | None) -> dict[tuple[int, str], list[str]]:
    """Files of each call journal by shard and attempt, in the order in which they were written."""
    found: dict[tuple[int, str], list[str]] = {}
    for file in storage.list(FOLDER):
        name, attempt, kind = file.name.split(".")[:3]
        number = int(name.removeprefix("shard-")) if kind == "calls" else None
        if number is not None and shard in (None, number):
            found.setdefault((number, attempt), []).append(file.path)
    return {attempt: sorted(paths) for attempt, paths in found.items()}


def _read(storage: Storage, paths: Iterable[str]) -> Iterator[Entry]:
    return frames(b"".join(storage.read(path) for path in paths))


def _segment(shard: int, attempt: str, entries: Iterable[Entry]) -> bytes:
    rows = [
        {name: entry["call"].get(name) for name in COUNTED}
        | {"shard": shard, "part": entry["part"], "attempt": attempt}
        | {"replayed": entry["replayed"]}
        for entry in entries
    ]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, CALLS), sink, compression="zstd")
    return sink.getvalue()
