"""What the chain, the choice and richness are worth to the pocket LAVM, on held-out scenes.

Fixed before any run: ten held-out conventions of 20 queries and a pool of 60 each, one exemplar of
two levels from a shortlist of 10, DeLVM's sampling, seed 0; differences of foreground IoU with 95 %
intervals that draw queries anew.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config import config_from
from pipeline.eval.compare import paired
from pipeline.eval.exemplars import jaccard
from pipeline.eval.lavm_protocol import MAIN_SCORER, RETRIEVAL, THRESHOLD, mask_of
from pipeline.eval.lavm_results import Gap, Line, results
from pipeline.eval.lavm_run import POCKET, asked_of, plan_lavm
from pipeline.eval.outcome import rows_of
from pipeline.eval.pocket_lavm_scenes import held_out
from pipeline.eval.run import evaluate
from pipeline.eval.scorers import mask_metrics
from pipeline.eval.token_cache import open_tokenizer, pixels_of
from pipeline.eval.tried import Key
from pipeline.models.weights import POCKET_LAVM
from tests.bench.test_row_cost import report

pytest.importorskip("torch")

pytestmark = [pytest.mark.bench, pytest.mark.torch, pytest.mark.timeout(1800)]

CONVENTIONS, MORE_CONVENTIONS = 10, 50
SHORTLIST = 10


def test_what_each_part_is_worth_on_200_held_out_scenes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COFPIPE_CACHE", str(tmp_path / "cache"))
    config = config_from({"run": {"dir": str(tmp_path / "runs")}, "seed": 0})
    runs = []
    for number in range(CONVENTIONS):
        place = Path(f"scenes:{number}")
        asked = asked_of(prompts=place, queries=place, model=Path(POCKET), shortlist=SHORTLIST)
        planned = plan_lavm(config, asked, shards=2)
        assert evaluate(planned).status == "done"
        runs.append(planned.plan.run_id)
    rows = rows_of(tmp_path / "runs", runs)
    found = results(rows, asked, 0)
    for line in found:
        if isinstance(line, Line) and line.scorer in (MAIN_SCORER, RETRIEVAL) and line.mean:
            mean = line.mean
            report(line.method, scorer=line.scorer, mean=mean.value, low=mean.low, high=mean.high,
                   queries=line.queries - line.unscored)  # fmt: skip
    by = {row["method"]: Key(row["subject"], row["benchmark"], row["method"], row["resolution"])
          for row in rows}  # fmt: skip
    for scorer in (MAIN_SCORER, RETRIEVAL):
        mine = [row for row in rows if row["scorer"] == scorer]
        found_by = paired(mine, by["nearest"], by["random"], seed=0).difference
        assert found_by is not None
        report("nearest - random", scorer=scorer, by=found_by.value, low=found_by.low,
               high=found_by.high, queries=found_by.items)  # fmt: skip
    gaps = [gap for gap in found if isinstance(gap, Gap) and gap.scorer in (MAIN_SCORER, RETRIEVAL)]
    for gap in gaps:
        assert gap.difference is not None and gap.queries >= 200
        end = gap.difference
        report(f"{gap.one} - {gap.other}", scorer=gap.scorer, by=end.value, low=end.low,
               high=end.high, p=gap.p, queries=gap.queries)  # fmt: skip
    assert {gap.other for gap in gaps} == {"no-chain", "nearest", "random"}


def test_retrieval_by_itself_beats_random_on_1000_held_out_scenes() -> None:
    """IoU of the nearest exemplar's marks with the query's, less the mean over the whole pool."""
    tokenizer = open_tokenizer(POCKET_LAVM / "vqgan")
    gains = []
    for number in range(MORE_CONVENTIONS):
        (convention, pool), (_, queries) = held_out(number, "pool"), held_out(number, "query")
        told, asked = (
            tokenizer.encode(pixels_of(Image.fromarray(scene.image())) for scene in scenes)
            for scenes in (pool, queries)
        )
        shown, wanted = (
            [mask_of(scene.frame(convention, len(scene.things)), THRESHOLD) for scene in scenes]
            for scenes in (pool, queries)
        )
        for codes, truth in zip(asked, wanted, strict=True):
            overlaps = [mask_metrics(mask, truth)["iou"] for mask in shown]
            gains.append(overlaps[int(jaccard(told, codes).argmax())] - np.mean(overlaps))
    mean, error = float(np.mean(gains)), 1.96 * float(np.std(gains) / np.sqrt(len(gains)))
    report("retrieval", queries=len(gains), by=mean, low=mean - error, high=mean + error)
    assert mean > error
