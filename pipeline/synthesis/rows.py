"""Records as rows of the run's tables: the one place where a trajectory becomes columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from manifests.tables import SCHEMA_VERSION
from pipeline.agent.episode import Episode
from pipeline.geometry import Box
from pipeline.samples import Rejection
from pipeline.sources.base import Picture
from pipeline.synthesis.tasks import Prepared, Problem
from pipeline.trajectory import FocusStep, Trajectory

Row = dict[str, Any]


def trajectory_row(
    trajectory: Trajectory,
    problem: Problem,
    prepared: Prepared,
    picture: Picture,
    *,
    prompt_sha256: str,
    same_view_as: int | None,
    crops: Sequence[str | None],
) -> Row:
    """A row of `trajectories`, picture included; `crops` are digests of what each step shows."""
    sample, truth = problem.sample, problem.truth
    return {
        "sample_id": sample.sample_id,
        "image_id": sample.image_id,
        "resolution": trajectory.resolution,
        "rollout": trajectory.rollout,
        "image_sha256": prepared.image_sha256,
        "source_sha256": prepared.source_sha256,
        "source": picture.source,
        "license": picture.license,
        "width": sample.size[0],
        "height": sample.size[1],
        "view_w": trajectory.view.size[0],
        "view_h": trajectory.view.size[1],
        "same_view_as": same_view_as,
        "question": sample.question,
        "options": list(sample.options),
        "target": truth.target,
        "target_boxes": [_ints(box) for box in truth.target_boxes],
        "kind": prepared.kind,
        "task": problem.task,
        "recipe": problem.recipe,
        "answer": trajectory.answer,
        "final_thought": trajectory.final_thought,
        "finish": trajectory.finish,
        "verified": trajectory.verified,
        "necessary": None,
        "unaided_answer": None,
        "crop_answer": None,
        "sufficient": None,
        "fewest_looks": None,
        "tries": None,
        "tries_right": None,
        "objections": None,
        "flaws": [],
        "weight": 1.0,
        "num_zooms": trajectory.num_zooms,
        "visual_tokens": trajectory.visual_tokens,
        "policy": trajectory.policy,
        "prompt_sha256": prompt_sha256,
        "tokens_in": trajectory.usage.tokens_in,
        "tokens_out": trajectory.usage.tokens_out,
        "steps": [_step(s, c) for s, c in zip(trajectory.steps, crops, strict=True)],
        "schema_version": SCHEMA_VERSION,
        "image": {"bytes": prepared.data, "path": sample.image_id},
    }


def rejected_row(row: Row, why: Rejection) -> Row:
    """A row of `rejected`: a trajectory, and why it is not kept."""
    return row | {"stage": why.stage, "reason": why.reason, "detail": why.detail}


def step_rows(trajectory: Trajectory, crops: Sequence[str | None]) -> Iterator[Row]:
    """Rows of `steps`: one for each box of each look, numbered from 1."""
    for number, step in enumerate(trajectory.steps, start=1):
        look, checks = step.observation, step.checks
        for region, (box, zoomed) in enumerate(zip(step.boxes, step.zoomed, strict=True)):
            x0, y0, x1, y1 = _ints(box)
            yield {
                **_key(trajectory),
                "step": number,
                "region": region,
                "thought": step.thought,
                "x0": x0,
                "y0": y0,
                "x1": x1,
                "y1": y1,
                "label": step.label,
                "tool": step.tool,
                "zoomed": zoomed,
                "no_gain": checks.get("no_gain"),
                "parent": look.parent if look else None,
                "view_w": look.size[0] if look else None,
                "view_h": look.size[1] if look else None,
                "magnification": look.magnification if look else None,
                "visual_tokens": look.visual_tokens if look else None,
                "confidence": checks.get("confidence"),
                "target_iou": checks.get("target_iou"),
                "mask_iou": checks.get("mask_iou"),
                "saliency_inside": checks.get("saliency_inside"),
                "crop_sha256": crops[number - 1],
            }


def trace_rows(episode: Episode) -> Iterator[Row]:
    """Rows of `traces`: every raw turn, dead ends included, numbered from 0."""
    for number, turn in enumerate(episode.turns):
        yield {
            **_key(episode.trajectory),
            "turn": number,
            "role": turn.role,
            "text": turn.text,
            "tool": turn.tool,
            "result": turn.result,
        }


def rejection_row(rejection: Rejection, image_id: str) -> Row:
    """A row of `rejections`."""
    return {
        "sample_id": rejection.sample_id,
        "image_id": image_id,
        "resolution": rejection.resolution,
        "rollout": rejection.rollout,
        "stage": rejection.stage,
        "reason": rejection.reason,
        "detail": rejection.detail,
    }


def timing_row(trajectory: Trajectory, seconds: float) -> Row:
    """A row of `timings`."""
    return {**_key(trajectory), "seconds": seconds}


def _key(trajectory: Trajectory) -> Row:
    return {
        "sample_id": trajectory.sample_id,
        "resolution": trajectory.resolution,
        "rollout": trajectory.rollout,
    }


def _step(step: FocusStep, crop: str | None) -> Row:
    return {
        "thought": step.thought,
        "boxes": [_ints(box) for box in step.boxes],
        "zoomed": list(step.zoomed),
        "label": step.label,
        "tool": step.tool,
        "magnification": step.observation.magnification if step.observation else None,
        "crop_sha256": crop,
    }


def _ints(box: Box) -> list[int]:
    return [int(value) for value in box.as_list()]
