"""What the filters catch of known flaws, over the whole recipe, and what they throw away for it.

A flawed model (`tests/loopback/flawed.py`) plays every role: it writes the questions about its
pictures, walks the paths and sums them up, and notes what it does wrong.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from manifests.database import query
from pipeline.config import Config, config_from
from pipeline.geometry import view_size
from pipeline.synthesis.run import synthesize
from tests.bench.test_row_cost import report
from tests.loopback.flawed import Flawed
from tests.loopback.flawed_pictures import SIZE, make_scene
from tests.loopback.server import Loopback

pytestmark = [pytest.mark.bench, pytest.mark.torch]

PICTURES = int(os.environ.get("COFPIPE_BENCH_PICTURES", "200"))
BUDGETS = (224, 448, 1024)
PER_IMAGE = 3
SHARE = 0.3
"""Of questions, and of paths, that are flawed."""
SLIPS = 0.02
"""Share of the probes' and auditors' replies that are wrong by bad luck."""
MOST_SURVIVORS = 0.01
"""Share of the kept rows that may have a flaw."""

TRIES = "select image_id, question, resolution, num_zooms, stage, reason, flaws from tries"
REFUSED = "select reason, detail, sample_id from rejections where stage = 'task'"


@dataclass(frozen=True)
class Judged:
    """A question or a path: what was wrong with it, and what became of it."""

    flaw: str
    """"" for none."""
    reason: str
    """Why it was rejected; "" where it was kept."""


def settings(folder: Path, runs: Path, url: str) -> Config:
    """The recipe with every check and every filter."""
    flaws = ("unnecessary", "insufficient", "off_target", "needless", "unfaithful")
    return config_from(
        {
            "source": str(folder),
            "task": {"kind": "written", "per_image": PER_IMAGE, "budgets": list(BUDGETS)},
            "policy": {"kind": "endpoint", "model": "loopback", "family": "qwen2.5-vl"},
            "endpoint": {"urls": [url], "in_flight": 8},
            "checks": {"probes": True, "faithful": "model"},
            "filters": dict.fromkeys(flaws, "reject"),
            "run": {"dir": str(runs)},
        }
    )


@pytest.mark.timeout(3600)
def test_few_flaws_survive_the_filters(tmp_path: Path) -> None:
    scenes = [make_scene(number, 0) for number in range(PICTURES)]
    folder = tmp_path / "pictures"
    folder.mkdir()
    for scene in scenes:
        (folder / scene.name).write_bytes(scene.data)
    brain = Flawed(scenes, BUDGETS, SHARE, SHARE, SLIPS)
    with Loopback(brain) as server:
        summary = synthesize(
            settings(folder, tmp_path / "runs", server.url), shards=1, address="none"
        )
    assert summary.status == "done"
    tries = query(tmp_path / "runs", TRIES, summary.run_id).to_pylist()
    refused = query(tmp_path / "runs", REFUSED, summary.run_id).to_pylist()
    asked, walked = questions(brain, tries, refused), paths(brain, tries)
    figures = told("question", asked) | told("path", walked)
    kept = [row for row in tries if row["stage"] is None]
    flawed = [row for row in kept if brain.questions[row["image_id"], row["question"]]]
    survivors = sum(one.flaw != "" for one in walked if not one.reason) + len(flawed)
    report(
        "quality",
        pictures=PICTURES,
        questions=len(asked),
        paths=len(walked),
        kept=len(kept),
        survivors=survivors / len(kept),
        **figures,
    )
    assert len(kept) >= PICTURES
    assert survivors <= MOST_SURVIVORS * len(kept)


def questions(
    brain: Flawed, tries: Iterable[Mapping[str, Any]], refused: Iterable[Mapping[str, Any]]
) -> list[Judged]:
    """Every question that was written; one that was refused has its filter's reason."""
    kept = {(row["image_id"], row["question"]) for row in tries}
    why: dict[tuple[str, str], str] = {}
    for row in refused:
        image_id = row["sample_id"].rpartition("#")[0]
        for image, question in brain.questions:
            if image == image_id and row["detail"].startswith(f"{question} ("):
                why.setdefault((image, question), row["reason"])
    lost = [key for key in brain.questions if key not in kept and key not in why]
    assert not lost, lost
    return [Judged(flaw, "" if key in kept else why[key]) for key, flaw in brain.questions.items()]


def paths(brain: Flawed, tries: Iterable[Mapping[str, Any]]) -> list[Judged]:
    """Every path about a question without a flaw."""
    done = []
    for row in tries:
        key = row["image_id"], row["question"]
        size = view_size(SIZE, row["resolution"])
        if not brain.questions[key]:
            done.append(Judged(brain.paths[*key, size], row["reason"] or ""))
    return done


def told(what: str, judged: Iterable[Judged]) -> dict[str, float | int]:
    """Prints what was planted and caught by flaw, and how precise each filter is; the figures."""
    judged = list(judged)
    planted = Counter(one.flaw for one in judged)
    caught = Counter(one.flaw for one in judged if one.reason)
    by_reason = Counter(one.reason for one in judged if one.reason)
    hits = Counter(one.reason for one in judged if one.reason and one.flaw)
    kept = sum(not one.reason for one in judged)
    print(f"\n{what:<16}{'planted':>9}{'caught':>9}{'recall':>9}{'survive':>9}")
    for flaw, count in sorted(planted.items()):
        left = count - caught[flaw]
        share = f"{caught[flaw] / count:>9.3f}{left / max(kept, 1):>9.4f}"
        print(f"{flaw or '(none)':<16}{count:>9}{caught[flaw]:>9}{share}")
    print(f"{'filter':<24}{'rejected':>9}{'flawed':>9}{'precision':>10}")
    for reason, count in sorted(by_reason.items()):
        print(f"{reason:<24}{count:>9}{hits[reason]:>9}{hits[reason] / count:>10.3f}")
    flawed, rejected = planted.total() - planted[""], by_reason.total()
    return {
        f"{what}_planted": flawed,
        f"{what}_recall": (caught.total() - caught[""]) / max(flawed, 1),
        f"{what}_precision": hits.total() / max(rejected, 1),
        f"{what}_survive": (flawed - caught.total() + caught[""]) / max(kept, 1),
    }
