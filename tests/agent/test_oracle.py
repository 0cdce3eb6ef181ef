"""The oracle path: straight to the annotated boxes, right by its nature, and labelled so."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from PIL import Image

from pipeline.agent.actions import Heard
from pipeline.agent.critic import verify
from pipeline.agent.episode import Limits, run_episode
from pipeline.agent.oracle import OraclePolicy
from pipeline.agent.tools import Tools
from pipeline.config import config_from
from pipeline.geometry import Box
from pipeline.samples import Sample, Truth
from pipeline.synthesis.run import synthesize
from pipeline.trajectory import Trajectory
from pipeline.views import first_view
from tests.agent.fakes import GroundSegmenter

IMAGE = Image.effect_noise((1200, 900), 60).convert("RGB")
SMALL = (Box(100, 100, 140, 150), Box(900, 700, 960, 730))


def path(boxes: tuple[Box, ...], resolution: int = 224, looks: int = 5) -> Trajectory:
    truth = Truth("p#0", "three", boxes)
    sample = Sample("p#0", "p", IMAGE, IMAGE.size, "How many?")
    policy, tools = OraclePolicy(truth, looks), Tools(IMAGE, GroundSegmenter())
    episode = asyncio.run(run_episode(sample, policy, tools, Limits(resolution, looks)))
    return verify(episode.trajectory, truth)


def test_it_looks_at_every_box_that_is_small_and_says_the_annotated_answer() -> None:
    found = path(SMALL)
    assert [step.boxes[0] for step in found.steps] == list(SMALL)
    assert found.verified and found.finish == "answered" and found.policy == "oracle"
    assert [step.checks["target_iou"] for step in found.steps] == [1, 1]


def test_what_is_large_in_the_first_view_needs_no_look() -> None:
    assert path((Box(100, 100, 900, 800),)).num_zooms == 0
    assert path(SMALL, 3840).num_zooms < path(SMALL).num_zooms


@pytest.mark.parametrize("looks", [0, 1, 2])
def test_it_takes_no_more_looks_than_it_may(looks: int) -> None:
    boxes = tuple(Box(100 * n, 50, 100 * n + 30, 90) for n in range(1, 9))
    found = path(boxes, looks=looks)
    assert found.num_zooms == min(looks, 1) and found.verified
    assert all(Box(100, 50, 830, 90).contains(box) for s in found.steps for box in s.boxes)


def test_a_truth_without_boxes_is_answered_from_the_first_view() -> None:
    assert (path(()).num_zooms, path(()).answer) == (0, "three")


def test_it_refuses_another_question() -> None:
    with pytest.raises(ValueError, match="truth of p#0"):
        OraclePolicy(Truth("p#0", "three"), 5).begin("q#0", "How many?", ())


def test_objections_do_not_change_its_mind() -> None:
    planner = OraclePolicy(Truth("p#0", "three"), 5).begin("p#0", "How many?", ())
    asyncio.run(planner.act(Heard("", kind="opening", view=first_view(IMAGE, 224))))
    again = asyncio.run(planner.act(Heard("No.", kind="critique")))
    assert getattr(again, "text", "") == "three"


@pytest.mark.torch
def test_a_run_says_that_its_policy_was_the_oracle(tmp_path: Path) -> None:
    from manifests.database import query
    from tests.synthesis.conftest import drawn

    (tmp_path / "in").mkdir()
    drawn(0, (800, 600)).save(tmp_path / "in" / "0.png")
    settings = {
        "source": str(tmp_path / "in"),
        "run": {"dir": str(tmp_path / "runs")},
        "task": {"budgets": [224, 672]},
    }
    blind = synthesize(config_from(settings), shards=1, address="none")
    told = synthesize(
        config_from({**settings, "policy": {"kind": "oracle"}}), shards=1, address="none"
    )
    assert told.run_id != blind.run_id and told.kept == 2 and told.rejected == 0
    (row,) = query(
        tmp_path / "runs", "SELECT DISTINCT policy FROM trajectories", told.run_id
    ).to_pylist()
    assert row == {"policy": "oracle"}
