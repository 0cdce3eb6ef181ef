"""Rows that a LAVM's evaluation writes: `scores`, one for each scorer, and `predictions`.

Owns the columns of the second, and reads them again. Knows nothing of models.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from manifests.tables import SCHEMA_VERSION
from pipeline.errors import ConfigError
from pipeline.eval.lavm_protocol import MAIN_SCORER, LavmMethod, Metrics, Pick
from pipeline.runner.rundir import records
from pipeline.runner.storage import storage_at
from pipeline.sources.decode import decode, encode

if TYPE_CHECKING:
    import pyarrow as pa

PREDICTIONS = "predictions"
UNDEFINED = "undefined"
"""Why a scorer has no value where there is a truth."""
Row = dict[str, Any]
Call = Mapping[str, Any]
"""A frame that was drawn, as the ledger keeps it: `codes`, and what they took."""


@dataclass(frozen=True, slots=True)
class Told:
    """What all rows of an evaluation say."""

    benchmark: str
    subject: str
    side: int
    """Of a prediction, pixels."""
    protocol: str
    """JSON."""


def schema() -> pa.Schema:
    """Columns of `predictions`, with the metadata that `datasets` reads its pictures by.

    A row is a query as one method predicted it: its exemplars in the order shown, how like the
    query each is and how rich, the codes drawn, their picture, and the truth through the same view
    (null where there is none); both are PNG.
    """
    from datasets import Features, Image

    from manifests.tables import DATA

    plain = DATA["predictions"].remove_metadata()
    features = Features.from_arrow_schema(plain) | {"picture": Image(), "truth": Image()}
    arrow = Features(features).arrow_schema
    version = {"cofpipe.schema_version": str(SCHEMA_VERSION)}
    return arrow.with_metadata({**(arrow.metadata or {}), **version})


def score_rows(
    told: Told, item_id: str, method: LavmMethod, values: Metrics, why: str, more: Row
) -> list[Row]:
    """A row of `scores` for each scorer; `why` is the explanation of those without a value.

    The main scorer's carries the sample id of its prediction, the others' end in their scorer: a
    run has no sample twice.
    """
    common = {
        "benchmark": told.benchmark,
        "category": "",
        "method": method,
        "resolution": told.side,
        "rollout": 0,
        "item_id": item_id,
        "image_id": item_id,
        "subject": told.subject,
        "finish": "answered" if more else "unfinished",
        "protocol": told.protocol,
        **more,
    }
    return [
        {
            **common,
            "sample_id": f"{item_id}#{method}" + (f"#{scorer}" if scorer != MAIN_SCORER else ""),
            "scorer": scorer,
            "value": value,
            "explanation": why if value is None else "",
        }
        for scorer, value in values.items()
    ]


def call_row(
    told: Told,
    item_id: str,
    method: LavmMethod,
    model: str,
    length: int,
    codes: np.ndarray,
    seconds: float,
) -> Call:
    """A frame that a model drew after a sentence of so many codes."""
    return {
        "sample_id": f"{item_id}#{method}",
        "resolution": told.side,
        "rollout": 0,
        "turn": 0,
        "role": "lavm",
        "model": model,
        "status": "ok",
        "tries": 1,
        "latency_s": seconds,
        "tokens_in": length,
        "tokens_out": len(codes),
        "cost_usd": None,
        "codes": codes.tolist(),
    }


def prediction_row(
    item_id: str,
    method: LavmMethod,
    names: Sequence[str],
    pick: Pick,
    codes: Sequence[int],
    picture: np.ndarray,
    truth: np.ndarray | None,
) -> Row:
    """A row of `predictions`; `names` are the exemplars', pictures uint8 HWC."""
    return {
        "sample_id": f"{item_id}#{method}",
        "item_id": item_id,
        "method": method,
        "exemplars": list(names),
        "jaccard": list(pick.jaccard),
        "richness": list(pick.richness),
        "codes": list(codes),
        "schema_version": SCHEMA_VERSION,
        "picture": {"bytes": _png(picture), "path": None},
        "truth": None if truth is None else {"bytes": _png(truth), "path": None},
    }


def predictions(run_dir: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Committed rows of a run, a few at a time, in the order of the queries."""
    storage = storage_at(str(run_dir))
    paths = [f.path for r in records(storage) for f in r.files if f.kind == PREDICTIONS]
    for path in paths:
        with storage.open(path) as stream:
            for batch in pq.ParquetFile(stream).iter_batches(16, columns=list(columns)):
                yield from batch.to_pylist()


def save_images(run_dir: Path, out: Path, method: str) -> int:
    """Write a method's predictions as `result_<image name>` JPEGs; how many.

    Each file appears whole or not at all. Images that share a name are called by their whole key;
    raises `ConfigError` where that is no name for one file alone.
    """
    listed = predictions(run_dir, ["item_id", "method"])
    names = _names([row["item_id"] for row in listed if row["method"] == method])
    out.mkdir(parents=True, exist_ok=True)
    for row in predictions(run_dir, ["item_id", "method", "picture.bytes"]):
        if row["method"] == method:
            name = f"result_{names[row['item_id']]}.jpg"
            hidden = out / f".{name}"
            hidden.write_bytes(encode(decode(row["picture"]["bytes"])))
            hidden.replace(out / name)
    return len(names)


def _names(keys: Sequence[str]) -> Mapping[str, str]:
    """A file's stem for each image: its own, or its whole key where others have that."""
    often = Counter(map(_stem, keys))
    whole = str.maketrans("/#", "--")
    names = {key: _stem(key) if often[_stem(key)] == 1 else key.translate(whole) for key in keys}
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if twice:
        raise ConfigError(f"Two images would be called '{twice[0]}'.", "Rename one of them.")
    return names


def _stem(key: str) -> str:
    """`012` of `train/012.jpg` or `part.tar#012.jpg`."""
    return PurePosixPath(key.rpartition("#")[2]).stem


def _png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()
