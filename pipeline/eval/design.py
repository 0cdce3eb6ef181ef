"""What an evaluation of needles asks: which factors, how often, with which methods, how large."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.errors import ConfigError, nearest
from pipeline.eval.looks import Method
from pipeline.eval.stimuli import FACTORS, Item, items
from pipeline.eval.subjects import METHODS

BENCHMARK = "needles"
PROTOCOL = "needles-1"
"""Changes when the same settings come to mean other pictures, questions or scores."""


@dataclass(frozen=True, slots=True)
class Design:
    """The sweep; raises `ConfigError` for one that cannot be made."""

    resolution: int = 672
    """The budget R of every view: the first view has at most R² pixels."""
    per_level: int = 20
    """Pictures for each level of each factor."""
    factors: tuple[str, ...] = tuple(FACTORS)
    methods: tuple[Method, ...] = METHODS

    def __post_init__(self) -> None:
        if self.per_level < 1:
            raise ConfigError("A level needs at least one picture.")
        if not self.factors or not self.methods:
            raise ConfigError("An evaluation needs a factor and a method.")
        if len(set(self.factors)) < len(self.factors) or len(set(self.methods)) < len(self.methods):
            raise ConfigError("A factor or a method is named twice.")
        for method in self.methods:
            if method not in METHODS:
                raise ConfigError(f"There is no method '{method}'.", nearest(method, METHODS))
        self.items()

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Design:
        """A design from plain values, as `describe` gives them."""
        lists = {name: tuple(values[name]) for name in ("factors", "methods")}
        return cls(**{**values, **lists})

    def describe(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self) | {"factors": list(self.factors), "methods": list(self.methods)}

    def items(self) -> list[Item]:
        """Every picture, in the order in which they are worked on."""
        return items(self.factors, self.per_level)
