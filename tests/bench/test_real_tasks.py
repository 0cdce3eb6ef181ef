"""How many real tasks the scripts solve at each view size, on photographs, and what they cost."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from manifests.database import query
from pipeline.config import config_from
from pipeline.synthesis.recheck import recheck
from pipeline.synthesis.run import synthesize
from tests.bench.test_row_cost import report

pytestmark = [pytest.mark.bench, pytest.mark.torch]

PHOTOS = Path(__file__).parents[3] / "shared" / "photos"
BUDGETS = (112, 224, 336, 448, 672, 1024)
SHARES = """
SELECT resolution, avg(verified::INT) AS solved, avg(num_zooms) AS looks
FROM (
    SELECT resolution, num_zooms, verified FROM base.trajectories
    UNION ALL SELECT resolution, num_zooms, verified FROM base.rejected
)
GROUP BY resolution ORDER BY resolution
"""


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="no photographs beside the project")
@pytest.mark.parametrize("kind", ["closeup", "change", "count", "where"])
def test_solved_share_by_view_size_on_photographs(tmp_path: Path, kind: str) -> None:
    task = {"kind": kind, "per_image": 2, "budgets": list(BUDGETS)}
    settings = {"source": str(PHOTOS), "run": {"dir": str(tmp_path)}, "task": task}
    started = time.process_time()
    runs = [
        synthesize(config_from({**settings, "seed": seed}), shards=1, address="none")
        for seed in range(3)
    ]
    seconds, kept = time.process_time() - started, sum(run.kept for run in runs)
    checks = [recheck(run.run_dir) for run in runs]
    shares = query(tmp_path, SHARES).to_pylist()
    figures = {f"solved_{row['resolution']}": row["solved"] for row in shares}
    figures |= {f"looks_{row['resolution']}": row["looks"] for row in shares}
    report(
        f"real_tasks_{kind}",
        rows_kept=kept,
        proven=sum(c.agreed for c in checks) / max(sum(c.looked_at for c in checks), 1),
        cpu_ms_a_row=1000 * seconds / max(kept, 1),
        **figures,
    )
    assert all(check.holds for check in checks)
    assert figures["solved_1024"] >= 0.5
