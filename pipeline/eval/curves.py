"""A run's scores as curves: the share that was read at each level, and where it passes one half."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from math import isfinite
from pathlib import Path
from typing import Any

from manifests.database import query
from pipeline.eval.design import BENCHMARK, Design
from pipeline.eval.looks import Method
from pipeline.eval.statistics import Threshold, threshold, wilson
from pipeline.eval.stimuli import FACTORS, Item, Level
from pipeline.samples import rng_for

HARDER_UPWARDS = frozenset({"tilt_deg"})
"""Factors whose higher levels are harder to read."""
LOGARITHMIC = frozenset({"height_px", "contrast"})
"""Factors whose levels are ratios of one another."""
UNORDERED = frozenset({"clutter"})
"""Factors whose levels are names: no line joins them and nothing is crossed."""
UNITS: Mapping[str, str] = {"height_px": " px", "contrast": "", "tilt_deg": "°"}


@dataclass(frozen=True, slots=True)
class Point:
    """One level with one method."""

    factor: str
    level: Level
    method: Method
    right: int
    scored: int
    unscored: int
    """Rows without a verdict."""
    missing: int
    """Pictures that were not come to yet."""
    zooms: float | None
    """Mean number of looks."""

    @property
    def accuracy(self) -> float | None:
        return self.right / self.scored if self.scored else None

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 %."""
        return wilson(self.right, self.scored)

    def as_dict(self) -> dict[str, Any]:
        low, high = self.interval
        return {
            "benchmark": BENCHMARK,
            "factor": self.factor,
            "level": self.level,
            "method": self.method,
            "right": self.right,
            "scored": self.scored,
            "unscored": self.unscored,
            "missing": self.missing,
            "accuracy": self.accuracy,
            "low": low,
            "high": high,
            "zooms": self.zooms,
        }


@dataclass(frozen=True, slots=True)
class Curve:
    """One factor with one method: its points by level, and its threshold."""

    factor: str
    method: Method
    points: tuple[Point, ...]
    threshold: Threshold | None
    """None for names, and where nothing is scored."""

    @property
    def reads(self) -> str:
        """`all` or `none` of the levels better than half, or `some`."""
        found = self.threshold
        if found is None:
            return ""
        if found.crossed:
            return "some"
        easy_first = self.factor in HARDER_UPWARDS
        return "all" if (found.value > 0) == easy_first else "none"

    @property
    def at(self) -> str:
        """The threshold in a few signs, such as `4.7` or `< 3`."""
        return _told(self.threshold.value, self._levels) if self.threshold else "–"

    @property
    def between(self) -> str:
        """Its interval, such as `4.0–5.6`; open where it reaches beyond the levels."""
        found = self.threshold
        if found is None:
            return "–"
        ends = [_told(value, self._levels) for value in (found.low, found.high)]
        return "–".join(dict.fromkeys(ends))

    @property
    def words(self) -> str:
        """What the curve says, for people."""
        if not any(p.scored for p in self.points):
            return "nothing is scored"
        if self.threshold is None:
            share = [f"{p.level} {p.right / p.scored:.0%}" for p in self.points if p.scored]
            return ", ".join(share)
        if self.reads != "some":
            return f"{'more' if self.reads == 'all' else 'less'} than half at every level"
        unit = UNITS[self.factor]
        way = "down to" if self.factor not in HARDER_UPWARDS else "up to"
        return f"half and more {way} {self.at}{unit} (95 %: {self.between}{unit})"

    def as_dict(self) -> dict[str, Any]:
        """The threshold; what lies beyond the levels is null, and `reads` tells on which side."""
        found = self.threshold
        ends = (found.value, found.low, found.high) if found else (None,) * 3
        at, low, high = (v if v is not None and isfinite(v) else None for v in ends)
        return {
            "benchmark": BENCHMARK,
            "factor": self.factor,
            "method": self.method,
            "threshold": at,
            "low": low,
            "high": high,
            "reads": self.reads or None,
            "scale": "names" if self.factor in UNORDERED else self._scale,
            "at": self.at,
            "between": self.between,
            "words": self.words,
        }

    @property
    def _scale(self) -> str:
        return "log" if self.factor in LOGARITHMIC else "linear"

    @property
    def _levels(self) -> list[float]:
        return [float(p.level) for p in self.points]


def curves(run_dir: Path, design: Design) -> list[Curve]:
    """The curves of a run as far as it is, by factor and method."""
    sql = files("pipeline.eval").joinpath("queries", "needles.sql").read_text("utf-8")
    rows = query(str(run_dir.parent), sql, run_dir.name).to_pylist()
    found = {(row["category"], row["method"]): row for row in rows}
    return [
        _curve(factor, method, found, design)
        for factor in design.factors
        for method in design.methods
    ]


def _curve(
    factor: str, method: Method, found: dict[tuple[str, str], dict[str, Any]], design: Design
) -> Curve:
    points = tuple(
        _point(factor, level, method, found.get((Item(factor, level, 0).category, method)), design)
        for level in FACTORS[factor]
    )
    if factor in UNORDERED:
        return Curve(factor, method, points, None)
    passes = threshold(
        [float(p.level) for p in points],
        [p.right for p in points],
        [p.scored for p in points],
        rng_for(0, "threshold", factor, method),
        harder_upwards=factor in HARDER_UPWARDS,
        logarithmic=factor in LOGARITHMIC,
    )
    return Curve(factor, method, points, passes)


def _told(value: float, levels: list[float]) -> str:
    """A place on the axis, or that it lies beyond the levels."""
    if isfinite(value):
        return f"{value:.2g}"
    return f"> {max(levels):g}" if value > 0 else f"< {min(levels):g}"


def _point(
    factor: str, level: Level, method: Method, row: dict[str, Any] | None, design: Design
) -> Point:
    row = row or {"right": 0, "scored": 0, "unscored": 0, "zooms": None}
    right, scored, unscored = row["right"], row["scored"], row["unscored"]
    missing = design.per_level - scored - unscored
    return Point(factor, level, method, right, scored, unscored, missing, row["zooms"])
