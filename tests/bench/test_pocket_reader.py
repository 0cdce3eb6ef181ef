"""How well the shipped reader and finder do on what they were never trained on, and how fast."""

from __future__ import annotations

import time

import numpy as np
import pytest

from pipeline.models import pocket_finder, pocket_reader
from pipeline.models.pocket_finder_eval import evaluate
from pipeline.models.pocket_reader import CLEAR
from pipeline.models.pocket_reader_eval import (
    blank_lines,
    by_height,
    calibration_error,
    held_out_lines,
    outcomes,
)
from pipeline.models.pocket_reader_lines import held_out_line
from tests.bench.test_row_cost import report

pytestmark = [pytest.mark.bench, pytest.mark.torch]

HEIGHTS_PX = range(3, 25)


def test_held_out_lines() -> None:
    found = outcomes(pocket_reader.load(), held_out_lines(4000))
    report(
        "pocket_reader",
        accuracy=found.accuracy,
        calibration_error=calibration_error(found),
        **{
            f"{name}_{level}": value(level / 100)
            for level in (50, 80, round(100 * CLEAR))
            for name, value in (("clear", found.clear_share), ("wrong", found.confident_wrong))
        },
    )


def test_crops_without_text() -> None:
    found = outcomes(pocket_reader.load(), blank_lines(2000))
    report("pocket_reader_blank", clear=found.clear_share())


def test_accuracy_by_height() -> None:
    found = by_height(pocket_reader.load(), HEIGHTS_PX, 300, held_out_line)
    for height, at in found.items():
        report(
            f"pocket_reader_{height}px",
            accuracy=at.accuracy,
            confidence=float(at.confidence.mean()),
            clear=at.clear_share(),
            wrong=at.confident_wrong(),
        )


def test_finder() -> None:
    report("pocket_finder", **evaluate(pocket_finder.load()))


def test_times() -> None:
    reader, finder = pocket_reader.load(), pocket_finder.load()
    lines = [line.image for line in held_out_lines(64)]
    view = np.random.default_rng(0).integers(0, 256, (448, 448, 3), np.uint8)
    jobs = {
        "read_64_ms_a_line": (lambda: reader.read(lines), 64),
        "read_one_ms": (lambda: reader.read(lines[:1]), 1),
        "find_448_ms": (lambda: finder.find(view), 1),
    }
    figures = {}
    for name, (job, count) in jobs.items():
        job()
        started = time.process_time()
        for _ in range(10):
            job()
        figures[name] = (time.process_time() - started) * 100 / count
    report("pocket_reader_times", **figures)
