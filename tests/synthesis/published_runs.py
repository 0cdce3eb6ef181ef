"""Runs of many small pictures, written by the runner's own writers without waiting for the disk."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from manifests import tables
from pipeline.agent.scripted import ScriptedPolicy
from pipeline.config import config_from
from pipeline.geometry import Box
from pipeline.runner.compact import compact
from pipeline.runner.disk import Disk
from pipeline.runner.parts import Part
from pipeline.runner.rundir import Record, publish, write_run
from pipeline.runner.storage import LocalStorage
from pipeline.samples import rng_for
from pipeline.shards import Unit
from pipeline.sources.decode import encode
from pipeline.synthesis.dataset_pictures import data_digest
from pipeline.synthesis.decontaminate import FILE, METHOD, Checked, Overlap, Overlaps
from pipeline.synthesis.prompts_worker import schemas as prompt_schemas
from pipeline.synthesis.worker import schemas
from pipeline.views import look_at, whole_at

Row = dict[str, Any]
SIZE = (96, 72)
BUDGETS = (224, 672)
REJECTED_EVERY = 8
"""One entry of so many is rejected."""
PRICE_USD = 0.002
"""Of each call: there is one for each row."""
WHEN = datetime(2026, 1, 1, tzinfo=UTC)


class Unsynced(Disk):
    """No test here is about a crash of the machine."""

    def sync(self, file: IO[bytes]) -> None:
        file.flush()

    def sync_folder(self, path: Path) -> None:
        pass


def make_run(
    runs_dir: Path,
    run_id: str,
    entries: int,
    shards: int,
    *,
    source: str = "scenes",
    filler_bytes: int = 0,
) -> Path:
    """A run below `runs_dir`: two rows for every entry but each eighth, which it rejects.

    With `filler_bytes`, pictures are as many bytes of noise that no one can decode.
    """
    storage = LocalStorage(runs_dir / run_id, Unsynced())
    known = {k: v for k, v in schemas().items() if k in ("trajectories", "steps")}
    known |= {name: tables.MANIFEST[name] for name in ("rejections", "calls")}
    per_shard = entries // shards
    for shard in range(shards):
        stamp = {"shard": shard, "part": 0, "attempt": "a0"}
        part = Part(storage, known, "trajectories", stamp)
        for index in range(shard * per_shard, (shard + 1) * per_shard):
            part.add(_unit(index, source, filler_bytes))
        files = part.finish()
        sizes = (part.rows, part.rejected, sum(f.bytes for f in files), "", 0.0, "w", WHEN)
        record = Record(run_id, "trajectories", shard, 0, "a0", files, *sizes, 0, 0, 1, 0, True)
        assert publish(storage, record)
    write_run(storage, _told(run_id, entries, shards))
    compact(storage)
    return runs_dir / run_id


def make_prompts(runs_dir: Path, run_id: str, count: int) -> Path:
    """A run of so many visual prompts of two objects each."""
    storage = LocalStorage(runs_dir / run_id, Unsynced())
    part = Part(storage, prompt_schemas(), "prompts", {"shard": 0, "part": 0, "attempt": "a0"})
    for index in range(count):
        key = f"photo-{index:04d}.jpg"
        part.add(Unit(key, 1, {"prompts": [_prompt(index, key)]}))
    files = part.finish()
    sizes = (part.rows, 0, sum(f.bytes for f in files), "", 0.0, "w", WHEN)
    record = Record(run_id, "prompts", 0, 0, "a0", files, *sizes, 0, 0, 1, 0, True)
    assert publish(storage, record)
    write_run(storage, _told(run_id, count, 1) | {"kind": "prompts", "recipe": "prompts"})
    return runs_dir / run_id


def looked(run_dir: Path, *shown: str) -> None:
    """Write down that somebody looked for benchmarks and found these pictures."""
    found = Overlaps(
        method=METHOD,
        data=data_digest(run_dir),
        against=(Checked("bench", 191, "0" * 64),),
        pictures=7,
        plain=1,
        overlaps=tuple(Overlap(name, "bench", "b.jpg", "near", 0.9) for name in shown),
        inside=(("photo-0000.jpg", "photo-0001.jpg"),),
        unreadable=(),
    )
    (run_dir / FILE).write_text(json.dumps(asdict(found)))


def _told(run_id: str, entries: int, shards: int) -> Row:
    config = config_from({"source": "/home/me/photos", "task": {"budgets": list(BUDGETS)}})
    return {
        "run_id": run_id,
        "kind": "trajectories",
        "recipe": "needles",
        "created_at": "2026-01-01T00:00:00+00:00",
        "seed": 3,
        "shards_total": shards,
        "entries": entries,
        "config": config.describe(),
        "determined_by": {"source": "folder:photos", "prompts": ScriptedPolicy.prompt_sha256},
        "versions": {"cofpipe": "0.1.0"},
    }


def _unit(index: int, source: str, filler_bytes: int) -> Unit:
    key = f"photo-{index:04d}.jpg"
    sample = {"sample_id": f"{key}#0", "rollout": 0}
    if index % REJECTED_EVERY == REJECTED_EVERY - 1:
        why = {"resolution": 224, "stage": "agent", "reason": "unclear", "detail": "/home/me"}
        return Unit(key, 0, {"rejections": [{**sample, "image_id": key, **why}]})
    data = _picture(index, filler_bytes)
    sha256 = hashlib.sha256(data).hexdigest()
    known = {"image_sha256": sha256, "source_sha256": sha256, "source": source}
    picture = {**sample, **known, "image_id": key, "image": {"bytes": data, "path": key}}
    rows = [_row(budget, source) | picture for budget in BUDGETS]
    looks = [{**sample, **_LOOK, "resolution": row["resolution"]} for row in rows[:1]]
    calls = [{**sample, **_CALL, "resolution": row["resolution"]} for row in rows]
    return Unit(key, len(rows), {"trajectories": rows, "steps": looks, "calls": calls})


def _row(budget: int, source: str) -> Row:
    zooms, view = int(budget == BUDGETS[0]), whole_at(SIZE, budget).size
    look = look_at(SIZE, Box(8, 8, 40, 32), budget, 0)
    step = {"thought": "Small.", "boxes": [[8, 8, 40, 32]], "zoomed": [True], "tool": "zoom"}
    step["magnification"] = look.magnification
    return {
        "resolution": budget,
        "license": "CC0-1.0" if source == "scenes" else "",
        "width": SIZE[0],
        "height": SIZE[1],
        "view_w": view[0],
        "view_h": view[1],
        "question": "What is written on the <tag>?",
        "options": [],
        "target": "K7",
        "target_boxes": [[10, 10, 30, 30]],
        "kind": "needles" if source == "scenes" else "source",
        "task": "read",
        "answer": "K7",
        "final_thought": "It reads K7.",
        "finish": "answered",
        "verified": True,
        "num_zooms": zooms,
        "visual_tokens": 54 + 12 * zooms,
        "policy": "scripted",
        "prompt_sha256": ScriptedPolicy.prompt_sha256,
        "tokens_in": 100,
        "tokens_out": 10,
        "steps": [step] * zooms,
        "weight": 1.0,
        "flaws": [],
        "schema_version": tables.SCHEMA_VERSION,
    }


def _prompt(index: int, key: str) -> Row:
    picture = {"bytes": _picture(index, 0), "path": key}
    found = {"category": "bird", "bbox": [1, 2, 30, 40], "rle": "", "color": [9, 9, 9]}
    return {
        "sample_id": f"{key}#seg",
        "image_id": key,
        "role": "pool",
        "task": "seg",
        "num_objects": 2,
        "level_sizes": [1, 2],
        "saliency_scores": [3.0, 2.0],
        "flat_saliency": index == 0,
        "objects": [{**found, "id": n, "saliency": 3.0 - n} for n in range(2)],
        "width": SIZE[0],
        "height": SIZE[1],
        "source": "coco",
        "license": "Attribution License",
        "net": "0" * 64,
        "schema_version": tables.SCHEMA_VERSION,
        "image": picture,
        "saliency": picture,
        "frames": [picture, picture],
    }


def _picture(index: int, filler_bytes: int) -> bytes:
    rng = rng_for(index, "published", "picture")
    if filler_bytes:
        return rng.bytes(filler_bytes)
    return encode(Image.fromarray(rng.integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8)))


_CALL = {
    "turn": 0,
    "role": "planner",
    "model": "loopback",
    "status": "ok",
    "tries": 1,
    "latency_s": 0.1,
    "tokens_in": 100,
    "tokens_out": 10,
    "cost_usd": PRICE_USD,
}
_LOOK = {
    "step": 1,
    "region": 0,
    "thought": "Small.",
    "x0": 8,
    "y0": 8,
    "x1": 40,
    "y1": 32,
    "tool": "zoom",
    "zoomed": True,
    "no_gain": False,
}
