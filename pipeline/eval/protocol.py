"""What an evaluation asks, in full: which benchmark, ways of looking, budgets and tries.

Every score carries it, so that two figures can be told to be comparable.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from pipeline.config import BUDGETS
from pipeline.errors import ConfigError, nearest
from pipeline.eval.looks import Method
from pipeline.geometry import FACTOR

VERSION = 1
"""Changes when the same settings come to mean other questions, views or scores."""
ALL_METHODS: tuple[Method, ...] = get_args(Method)
ON_ITS_OWN: tuple[Method, ...] = ("coarse-to-fine",)
"""Methods that need a model in this process."""
Option = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Protocol:
    """One evaluation; raises `ConfigError` for one that cannot be made."""

    benchmark: str
    source: str | None = None
    """A folder, a file or `hf://…`; None: where it is published, or drawn here."""
    methods: tuple[Method, ...] = ("direct", "zoom")
    resolutions: tuple[int, ...] = (672,)
    """Budgets R: no view has more than R² pixels."""
    rollouts: int = 1
    """Tries at each question, k of Avg@k."""
    limit: int | None = None
    """About so many questions: categories take turns, pairs and cycles stay whole."""
    preset: str = "exact"
    """Of `coarse-to-fine`."""
    judge: str = ""
    """Address of the server whose model judges what no rule can; empty: that is unscored."""
    judge_model: str = ""
    options: Mapping[str, Option] = field(default_factory=dict)
    """The benchmark's own."""

    def __post_init__(self) -> None:
        for name in ("methods", "resolutions"):
            given: Sequence[Any] = getattr(self, name)
            if not given or len(set(given)) < len(given):
                raise ConfigError(f"An evaluation needs {name}, each one once.")
        for method in self.methods:
            if method not in ALL_METHODS:
                raise ConfigError(f"There is no method '{method}'.", nearest(method, ALL_METHODS))
        if min(self.resolutions) < 2 * FACTOR:
            raise ConfigError(f"A budget is at least {2 * FACTOR}.")
        if self.rollouts < 1 or (self.limit is not None and self.limit < 1):
            raise ConfigError("Tries and questions are counted from 1.")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Protocol:
        """A protocol from plain values, as `describe` gives them."""
        lists = {name: tuple(values[name]) for name in ("methods", "resolutions")}
        return cls(**{**values, **lists})

    def describe(self) -> dict[str, Any]:
        """As plain values."""
        lists = {"methods": list(self.methods), "resolutions": list(self.resolutions)}
        return asdict(self) | lists | {"options": dict(self.options)}


def budgets(text: str) -> tuple[int, ...]:
    """Budgets from the words of a flag: the name of a preset, or numbers between commas."""
    if text in BUDGETS:
        return BUDGETS[text]
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        fix = f"Numbers between commas, or one of: {', '.join(BUDGETS)}."
        raise ConfigError(f"'{text}' are no budgets.", fix) from None


def told(protocol: Protocol, facts: Mapping[str, Option], more: Mapping[str, Option]) -> str:
    """What is stored with each score: the benchmark's own facts and how it was asked, as JSON."""
    own = {"version": VERSION, "rollouts": protocol.rollouts, "crops": "source"}
    return json.dumps({**own, **facts, **more}, sort_keys=True)
