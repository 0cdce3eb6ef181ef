"""A worker that answers one question about a drawn picture at two budgets, for a run to look at."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from manifests import tables
from pipeline.runner.local import run_local
from pipeline.shards import Outcome, Passed, Plan, Unit, Work

_IMAGE = pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


class Questions:
    """Keeps two rows for every entry but the third, which it rejects."""

    main = "trajectories"
    at_once = 1
    schemas: Mapping[str, pa.Schema] = {
        "trajectories": pa.schema([*tables.TRAJECTORIES, _IMAGE], tables.TRAJECTORIES.metadata),
        "steps": tables.STEPS,
    }
    manifest: Mapping[str, pa.Schema] = {
        "rejections": tables.REJECTIONS,
        "timings": tables.TIMINGS,
    }

    def units(self, work: Work) -> Generator[Unit | Passed, None, None]:
        for index in work.entries:
            if index > work.entries.start or not work.skip:
                yield from self._units(index, work.started)
            yield Passed(index)

    def _units(self, index: int, started: Callable[[str], None]) -> Iterator[Unit]:
        key = f"photo-{index}.png"
        started(key)
        sample = {"sample_id": f"{key}#0", "image_id": key, "rollout": 0}
        if index == 2:
            reason = {"resolution": 224, "stage": "agent", "reason": "unclear", "detail": "blurred"}
            yield Unit(key, 0, {"rejections": [{**sample, **reason}]})
            return
        paths = [{**sample, **_path(budget)} for budget in (224, 672)]
        looks = [{**sample, **_look(path)} for path in paths if path["num_zooms"]]
        times = [{**sample, "resolution": p["resolution"], "seconds": 0.5} for p in paths]
        rows = {"trajectories": paths, "steps": looks, "timings": times}
        yield Unit(key, len(paths), {name: _without_image_id(name, r) for name, r in rows.items()})

    def close(self) -> None:
        pass


def questions(settings: dict[str, Any]) -> Questions:
    return Questions()


def make_run(runs_dir: Path, run_id: str, entries: int = 4) -> Outcome:
    """A whole run below `runs_dir`."""
    run_dir = runs_dir / run_id
    run_dir.mkdir(parents=True)
    fields = {
        "run_id": run_id,
        "kind": "trajectories",
        "recipe": "synthesize",
        "entries": entries,
        "shards": 2,
        "shards_total": 2,
        "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    (run_dir / "run.json").write_text(json.dumps(fields))
    plan = Plan(str(run_dir), run_id, "trajectories", entries=entries, shards=2)
    return run_local(plan, "tests.cli.workers:questions", {})


def _path(budget: int) -> dict[str, Any]:
    zooms = int(budget == 224)
    return {
        "resolution": budget,
        "width": 320,
        "height": 240,
        "view_w": 252 if zooms else 308,
        "view_h": 168 if zooms else 224,
        "question": "What is written on the tag?",
        "target": "K7",
        "target_boxes": [[100, 80, 140, 110]],
        "task": "needle",
        "answer": "K7",
        "final_thought": "It reads K7.",
        "finish": "answered",
        "verified": True,
        "num_zooms": zooms,
        "visual_tokens": 54 + 12 * zooms,
        "policy": "scripted",
        "source": "tests",
        "image": {"bytes": _picture(), "path": "photo.png"},
    }


def _look(path: dict[str, Any]) -> dict[str, Any]:
    seen = {"view_w": 112, "view_h": 84, "magnification": 1.9, "visual_tokens": 12}
    box = {"x0": 98, "y0": 78, "x1": 142, "y1": 112, "zoomed": True, "no_gain": False}
    asked = {"step": 1, "region": 0, "thought": "Too small to read.", "tool": "zoom"}
    return {"resolution": path["resolution"], **asked, **box, **seen}


def _without_image_id(table: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the columns their table has."""
    if table == "trajectories":
        return rows
    return [{key: row[key] for key in row if key != "image_id"} for row in rows]


def _picture() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (320, 240), (120, 130, 140)).save(out, "PNG")
    return out.getvalue()
