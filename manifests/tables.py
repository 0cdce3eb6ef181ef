"""Every table of a run as an Arrow schema: the one home of column names and types.

Data tables lie below `data/<name>/`, manifest tables below `manifest/<name>/`. Rows of manifest
tables are stamped with `shard`, `part` and `attempt` by the runner. Pictures are added by those
who write them; nothing here knows of pixels, of workers, or of how a row came about.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal

import pyarrow as pa

SCHEMA_VERSION = 3
"""Written into every file's metadata, and as a column where there are pictures.

1: the first. 2: `recipe`. 3: `kind`, and what was checked (`unaided_answer` to `weight`). A column
that older files lack reads as NULL.
"""

KEY = ("sample_id", "resolution", "rollout")
"""What names a row of the main kinds."""

STAMP = ("shard", "part", "attempt")
"""What the runner adds to rows of manifest tables: which attempt at which part wrote them."""

Folder = Literal["data", "manifest"]

_BOXES = pa.list_(pa.list_(pa.int32()))
_KEY = [("sample_id", pa.string()), ("resolution", pa.int32()), ("rollout", pa.int32())]
_STAMP = [("shard", pa.int32()), ("part", pa.int32()), ("attempt", pa.string())]
_VERSION = [("schema_version", pa.int32())]
_INSTANT = pa.timestamp("us", tz="UTC")

STEP = pa.struct(
    [
        ("thought", pa.string()),
        ("boxes", _BOXES),
        ("zoomed", pa.list_(pa.bool_())),
        ("label", pa.string()),
        ("tool", pa.string()),
        ("magnification", pa.float64()),
        ("crop_sha256", pa.string()),
    ]
)
"""One look inside a row of `trajectories`."""

FILE = pa.struct(
    [
        ("kind", pa.string()),
        ("path", pa.string()),
        ("rows", pa.int64()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("columns", pa.string()),
    ]
)
"""A committed file: path from the run directory, slashes forward, and a digest of its columns."""

_TRAJECTORY = [
    ("sample_id", pa.string()),
    ("image_id", pa.string()),
    ("resolution", pa.int32()),
    ("rollout", pa.int32()),
    ("image_sha256", pa.string()),
    ("source_sha256", pa.string()),
    ("source", pa.string()),
    ("license", pa.string()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("view_w", pa.int32()),
    ("view_h", pa.int32()),
    ("same_view_as", pa.int32()),
    ("question", pa.string()),
    ("options", pa.list_(pa.string())),
    ("target", pa.string()),
    ("target_boxes", _BOXES),
    ("kind", pa.string()),
    ("task", pa.string()),
    ("recipe", pa.string()),
    ("answer", pa.string()),
    ("final_thought", pa.string()),
    ("finish", pa.string()),
    ("verified", pa.bool_()),
    ("necessary", pa.bool_()),
    ("num_zooms", pa.int32()),
    ("visual_tokens", pa.int64()),
    ("policy", pa.string()),
    ("prompt_sha256", pa.string()),
    ("tokens_in", pa.int64()),
    ("tokens_out", pa.int64()),
    ("steps", pa.list_(STEP)),
    ("unaided_answer", pa.string()),
    ("crop_answer", pa.string()),
    ("sufficient", pa.bool_()),
    ("fewest_looks", pa.int32()),
    ("tries", pa.int32()),
    ("tries_right", pa.int32()),
    ("objections", pa.int32()),
    ("flaws", pa.list_(pa.string())),
    ("weight", pa.float64()),
]


def columns_digest(schema: pa.Schema) -> str:
    """Names and types of all columns in 8 hex digits; metadata do not count."""
    return hashlib.sha256(str(schema.remove_metadata()).encode()).hexdigest()[:8]


def _schema(*fields: tuple[str, pa.DataType]) -> pa.Schema:
    """A schema whose files say which version of it they follow."""
    return pa.schema(list(fields), {"cofpipe.schema_version": str(SCHEMA_VERSION)})


TRAJECTORIES = _schema(*_TRAJECTORY, *_VERSION)

REJECTED = _schema(
    *_TRAJECTORY,
    ("stage", pa.string()),
    ("reason", pa.string()),
    ("detail", pa.string()),
    *_VERSION,
)
"""Trajectories that failed: paid work too, and negatives for training."""

STEPS = _schema(
    *_KEY,
    ("step", pa.int32()),
    ("region", pa.int32()),
    ("thought", pa.string()),
    ("x0", pa.int32()),
    ("y0", pa.int32()),
    ("x1", pa.int32()),
    ("y1", pa.int32()),
    ("label", pa.string()),
    ("tool", pa.string()),
    ("zoomed", pa.bool_()),
    ("no_gain", pa.bool_()),
    ("parent", pa.int32()),
    ("view_w", pa.int32()),
    ("view_h", pa.int32()),
    ("magnification", pa.float64()),
    ("visual_tokens", pa.int64()),
    ("confidence", pa.float64()),
    ("target_iou", pa.float64()),
    ("mask_iou", pa.float64()),
    ("saliency_inside", pa.float64()),
    ("crop_sha256", pa.string()),
)

TRACES = _schema(
    *_KEY,
    ("turn", pa.int32()),
    ("role", pa.string()),
    ("text", pa.string()),
    ("tool", pa.string()),
    ("result", pa.string()),
)

PROMPT_OBJECT = pa.struct(
    [
        ("id", pa.int64()),
        ("category", pa.string()),
        ("bbox", pa.list_(pa.int32())),
        ("rle", pa.string()),
        ("saliency", pa.float64()),
        ("color", pa.list_(pa.int32())),
        ("keypoints", pa.list_(pa.float64())),
    ]
)
"""One object inside a row of `prompts`: tight XYXY box and COCO's compressed run lengths, both of
the whole picture; x, y, visibility of COCO's 17 joints where they are known."""

PROMPTS = _schema(
    ("sample_id", pa.string()),
    ("image_id", pa.string()),
    ("role", pa.string()),
    ("task", pa.string()),
    ("num_objects", pa.int32()),
    ("level_sizes", pa.list_(pa.int32())),
    ("saliency_scores", pa.list_(pa.float64())),
    ("saliency_peak", pa.float64()),
    ("flat_saliency", pa.bool_()),
    ("overlap", pa.string()),
    ("objects", pa.list_(PROMPT_OBJECT)),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("image_sha256", pa.string()),
    ("source_sha256", pa.string()),
    ("source", pa.string()),
    ("license", pa.string()),
    ("net", pa.string()),
    ("segmenter", pa.string()),
    *_VERSION,
)
"""Visual prompts, objects by descending saliency. The map that the scores were summed over is the
picture `saliency` / 255 * `saliency_peak`; `net` and `segmenter` are SHA-256 of checkpoints, the
latter where objects were proposed and not annotated."""

SHARDS = _schema(
    ("run_id", pa.string()),
    ("kind", pa.string()),
    *_STAMP,
    ("files", pa.list_(FILE)),
    ("rows", pa.int64()),
    ("rejected", pa.int64()),
    ("bytes", pa.int64()),
    ("sha256", pa.string()),
    ("seconds", pa.float64()),
    ("worker", pa.string()),
    ("committed_at", _INSTANT),
    ("first_index", pa.int64()),
    ("first_skip", pa.int64()),
    ("next_index", pa.int64()),
    ("next_skip", pa.int64()),
    ("last", pa.bool_()),
    ("tally", pa.map_(pa.string(), pa.int64())),
)
"""Commit records: a part holds listing rows from the first to the next cursor."""

CALLS = _schema(
    *_STAMP,
    *_KEY,
    ("turn", pa.int32()),
    ("role", pa.string()),
    ("model", pa.string()),
    ("status", pa.string()),
    ("tries", pa.int32()),
    ("latency_s", pa.float64()),
    ("tokens_in", pa.int64()),
    ("tokens_out", pa.int64()),
    ("cost_usd", pa.float64()),
    ("replayed", pa.bool_()),
)

REJECTIONS = _schema(
    *_STAMP,
    ("sample_id", pa.string()),
    ("image_id", pa.string()),
    ("resolution", pa.int32()),
    ("rollout", pa.int32()),
    ("stage", pa.string()),
    ("reason", pa.string()),
    ("detail", pa.string()),
)

TIMINGS = _schema(*_STAMP, *_KEY, ("seconds", pa.float64()))
"""Volatile values, kept out of the data files so that those can be compared byte by byte."""

SCORES = _schema(
    *_STAMP,
    ("benchmark", pa.string()),
    ("category", pa.string()),
    ("method", pa.string()),
    ("resolution", pa.int32()),
    ("rollout", pa.int32()),
    ("sample_id", pa.string()),
    ("item_id", pa.string()),
    ("image_id", pa.string()),
    ("subject", pa.string()),
    ("scorer", pa.string()),
    ("value", pa.float64()),
    ("explanation", pa.string()),
    ("answer", pa.string()),
    ("target", pa.string()),
    ("zooms", pa.int32()),
    ("visual_tokens", pa.int64()),
    ("tokens_in", pa.int64()),
    ("tokens_out", pa.int64()),
    ("invalid_calls", pa.int32()),
    ("finish", pa.string()),
    ("outcome", pa.string()),
    ("seconds", pa.float64()),
    ("protocol", pa.string()),
)

EVENTS = _schema(
    ("run_id", pa.string()),
    ("at", _INSTANT),
    ("event", pa.string()),
    ("detail", pa.string()),
)

PREDICTIONS = _schema(
    ("sample_id", pa.string()),
    ("item_id", pa.string()),
    ("method", pa.string()),
    ("exemplars", pa.list_(pa.string())),
    ("jaccard", pa.list_(pa.float64())),
    ("richness", pa.list_(pa.int32())),
    ("codes", pa.list_(pa.int32())),
    *_VERSION,
)
"""What a large autoregressive vision model painted for a query; pictures are added to the files."""

DATA: Mapping[str, pa.Schema] = {
    "trajectories": TRAJECTORIES,
    "rejected": REJECTED,
    "steps": STEPS,
    "traces": TRACES,
    "prompts": PROMPTS,
    "predictions": PREDICTIONS,
}

MANIFEST: Mapping[str, pa.Schema] = {
    "shards": SHARDS,
    "calls": CALLS,
    "rejections": REJECTIONS,
    "timings": TIMINGS,
    "scores": SCORES,
    "events": EVENTS,
}
