"""The queries that the documents show are queries that work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from manifests.database import connect

ROOT = Path(__file__).parents[2]
BLOCKS = [
    query
    for page in ("README.md", "docs/sql.md")
    for query in re.findall(r"```sql\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
]


def test_there_are_such_queries() -> None:
    assert len(BLOCKS) >= 12


@pytest.mark.parametrize("query", BLOCKS, ids=range(len(BLOCKS)))
def test_it_works_on_runs_that_have_nothing_yet(query: str, tmp_path: Path) -> None:
    answer = connect(tmp_path).execute(query)
    assert answer.description and answer.fetchall() in ([], [(0, 0, 0)])


def test_the_chance_of_a_right_one_among_k_tries() -> None:
    cases = [(4, 1, 1), (4, 1, 2), (4, 0, 2), (4, 4, 3), (2, 1, 3)]
    asked = ", ".join(f"pass_at{case}" for case in cases)
    with connect(":nowhere:") as connection:
        assert connection.execute(f"SELECT {asked}").fetchone() == (0.25, 0.5, 0.0, 1.0, None)
