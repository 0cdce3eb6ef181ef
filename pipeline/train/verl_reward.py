"""What verl calls to score a rollout on exported prompts: one text in, one number out.

A group, and which calls brought new pixels, are not told there: rewards that need them are
`cofpipe train rl`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.train.rewards import published_reward


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    **_: Any,
) -> float:
    """0.9·accuracy + 0.1·format in [0, 1] of a rollout's text, its views left out.

    The text has lost the marks between turns, so the form is judged by its tags alone.
    """
    told = extra_info or {}
    (score,) = published_reward(
        [solution_str],
        target=[ground_truth],
        options=[told.get("options")],
        question=[told.get("question")],
        target_boxes=[told.get("target_boxes")],
        format_rule="tags",
    )
    return score
