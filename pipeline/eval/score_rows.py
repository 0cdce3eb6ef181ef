"""Rows of the tables that an evaluation writes: `scores`, and what was said as `traces`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.eval.looks import Method
from pipeline.eval.readings import Reading
from pipeline.samples import Score

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Put:
    """A question as it was put: what names its row, and what it is compared with."""

    benchmark: str
    category: str
    item_id: str
    image_id: str
    target: str
    """The right answer."""
    subject: str
    method: Method
    resolution: int
    rollout: int
    protocol: str

    @property
    def sample_id(self) -> str:
        """The question's id and how it is looked at: a method is a task of its own."""
        return f"{self.item_id}#{self.method}"


def score_row(put: Put, score: Score, reading: Reading, seconds: float) -> Row:
    """A row of `scores`."""
    return {
        "benchmark": put.benchmark,
        "category": put.category,
        "method": put.method,
        "resolution": put.resolution,
        "rollout": put.rollout,
        "sample_id": put.sample_id,
        "item_id": put.item_id,
        "image_id": put.image_id,
        "subject": put.subject,
        "scorer": score.scorer,
        "value": score.value,
        "explanation": score.explanation,
        "answer": reading.answer,
        "target": put.target,
        "zooms": reading.zooms,
        "visual_tokens": reading.visual_tokens,
        "tokens_in": reading.usage.tokens_in,
        "tokens_out": reading.usage.tokens_out,
        "invalid_calls": reading.invalid_calls,
        "finish": reading.finish,
        "outcome": reading.outcome,
        "seconds": seconds,
        "protocol": put.protocol,
    }


def trace_rows(put: Put, reading: Reading) -> Iterator[Row]:
    """Rows of `traces`: what was said."""
    for number, turn in enumerate(reading.turns):
        yield {
            "sample_id": put.sample_id,
            "resolution": put.resolution,
            "rollout": put.rollout,
            "turn": number,
            "role": turn.role,
            "text": turn.text,
            "tool": turn.tool,
            "result": turn.result,
        }
