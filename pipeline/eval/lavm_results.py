"""What came of a LAVM's evaluation: the mean of each scorer, and what each part is worth.

`chain` less `no-chain` is what the levels are worth, less `nearest` what richness is, less `random`
what choosing at all is. Takes rows; knows nothing of models.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.eval.compare import Paired, paired, table
from pipeline.eval.lavm_pictures import Pictures
from pipeline.eval.lavm_pool import open_prompts, open_queries
from pipeline.eval.lavm_protocol import MAIN_SCORER, RETRIEVAL, SCORERS, LavmProtocol
from pipeline.eval.lavm_rows import predictions
from pipeline.eval.resampling import Estimate
from pipeline.eval.tried import Key
from pipeline.runner.storage import storage_at
from pipeline.sources.decode import decode

RESULTS = "ablation.json"
"""Beside `run.json`: what the command printed."""
_SHOWN = (
    *("item_id", "method", "exemplars", "jaccard", "richness"),
    *("picture.bytes", "truth.bytes"),
)
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """One scorer of one method over all queries."""

    method: str
    scorer: str
    queries: int
    unscored: int
    reasons: Mapping[str, int]
    """Why, and how often each."""
    mean: Estimate | None
    """Over the scored queries; None where there are none."""


@dataclass(frozen=True, slots=True)
class Gap:
    """What a method is worth: its scores less another's, on the queries that both have scored."""

    one: str
    other: str
    scorer: str
    queries: int
    difference: Estimate | None
    """Its interval draws pictures anew."""
    better: int
    worse: int
    p: float
    """Two-sided, of the exact sign test over queries."""


Record = Line | Gap


def results(rows: Sequence[Row], asked: LavmProtocol, seed: int) -> list[Record]:
    """Each scorer of each method, then what `chain` is worth against every other method.

    `rows` are those of one run. The exemplars of `chain` and `no-chain` are the same, so these two
    are not compared in what choosing alone is worth.
    """
    scorers = {scorer: [row for row in rows if row["scorer"] == scorer]
               for scorer in SCORERS[asked.task]}  # fmt: skip
    found: list[Record] = [
        _line(cell.method, scorer, mine, cell.accuracy)
        for scorer, mine in scorers.items()
        for cell in sorted(table(mine, seed=seed), key=lambda c: _rank(asked, c.method))
    ]
    for scorer, mine in scorers.items():
        keys = {row["method"]: _key(row) for row in mine}
        if scorer == "black_rate":  # no score: neither more nor less of it is better
            continue
        left_out = {"chain", *(["no-chain"] if scorer == RETRIEVAL else [])}
        for other in [method for method in asked.methods if method not in left_out]:
            if "chain" in keys and other in keys:
                found.append(_gap(scorer, paired(mine, keys["chain"], keys[other], seed=seed)))
    return found


def _rank(asked: LavmProtocol, method: str) -> int:
    return [str(one) for one in asked.methods].index(method)


def _key(row: Row) -> Key:
    return Key(row["subject"], row["benchmark"], row["method"], row["resolution"])


def _line(method: str, scorer: str, rows: Sequence[Row], mean: Estimate | None) -> Line:
    mine = [row for row in rows if row["method"] == method]
    why = Counter(row["explanation"] for row in mine if row["value"] is None)
    return Line(method, scorer, len(mine), why.total(), dict(sorted(why.items())), mean)


def _gap(scorer: str, pair: Paired) -> Gap:
    queries = pair.difference.items if pair.difference else 0
    told = (queries, pair.difference, pair.better, pair.worse, pair.p)
    return Gap(pair.one.method, pair.other.method, scorer, *told)


def keep_results(run_dir: Path, found: Sequence[Record]) -> None:
    """Write the results beside `run.json`, whole or not at all."""
    text = json.dumps([asdict(record) for record in found], indent=1) + "\n"
    with storage_at(str(run_dir)).create(RESULTS) as file:
        file.write(text.encode())


def cards(run_dir: Path, asked: LavmProtocol, rows: Sequence[Row], count: int) -> list[Row]:
    """Up to `count` queries with all that was shown of and predicted for each, pictures decoded.

    From the worst to the best by the first method's main score, evenly; those without one last.
    Plain records, as `report.lavm` takes them.
    """
    scores = {
        (row["item_id"], row["method"]): row["value"]
        for row in rows
        if row["scorer"] == MAIN_SCORER
    }
    pool, queries = open_prompts(asked), open_queries(asked)
    exemplars = {known.image_id: place for place, known in enumerate(pool.known)}
    places = {known.image_id: place for place, known in enumerate(queries.known)}
    pictured = [row["item_id"] for row in predictions(run_dir, ["item_id"])]
    ranked = {name: scores[name, asked.methods[0]] for name in pictured}
    found: dict[str, Row] = {
        name: {"item_id": name, "image": decode(queries.read(places[name]).image), "predicted": []}
        for name in _spread(ranked, count)
    }
    for row in predictions(run_dir, _SHOWN):
        if card := found.get(row["item_id"]):
            value = scores[row["item_id"], row["method"]]
            card["truth"] = decode(row["truth"]["bytes"]) if row["truth"] else None
            card["predicted"].append(_predicted(row, value, pool, exemplars, asked))
    return list(found.values())


def _spread(scores: Mapping[str, float | None], count: int) -> list[str]:
    """Queries over the whole range of their scores, in that order."""
    ranked = sorted(scores, key=lambda name: (scores[name] is None, scores[name] or 0.0, name))
    if len(ranked) <= count:
        return ranked
    return [ranked[round(place)] for place in np.linspace(0, len(ranked) - 1, count)]


def _predicted(
    row: Row,
    value: float | None,
    pool: Pictures,
    places: Mapping[str, int],
    asked: LavmProtocol,
) -> Row:
    """One method's prediction and the exemplars it was shown."""
    exemplars = []
    for name, like, rich in zip(row["exemplars"], row["jaccard"], row["richness"], strict=True):
        shown = pool.read(places[name])
        frames = [decode(frame) for frame in shown.frames[-asked.shown(row["method"]) :]]
        told = {"image_id": name, "jaccard": like, "richness": rich}
        exemplars.append({**told, "image": decode(shown.image), "frames": frames})
    picture = decode(row["picture"]["bytes"])
    scores = {MAIN_SCORER: value}
    return {"method": row["method"], "picture": picture, "scores": scores, "exemplars": exemplars}
