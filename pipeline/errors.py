"""The error tree, and nothing else.

CofpipeError
├── ConfigError      the user asked for something impossible (exit 2)
├── SourceError      the source as a whole cannot be read (exit 1)
├── BadImage         one picture cannot be used: becomes a `Rejection`, never leaves a worker
├── InvalidBox       a box that names no pixels of its picture: an error observation
├── GrammarError     text that is not a turn of its profile
├── ModelError       a model or an endpoint is broken, after retries (exit 1)
│   └── ContextOverflow  more than the model can take at once: a rejection of that sample
├── BudgetReached    money, tokens or hours are spent (exit 4)
└── CheckFailed      a proof did not hold (exit 5)

A bad sample is data (`Rejection`), a bad program is an uncaught exception, a broken machine is a
retry.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CofpipeError(Exception):
    """An expected error: one sentence, and what to do about it when that is known."""

    exit_code = 1

    def __init__(self, message: str, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message} {self.fix}" if self.fix else self.message

    def __reduce__(self) -> tuple[type[CofpipeError], tuple[str, str | None]]:
        return type(self), (self.message, self.fix)


class ConfigError(CofpipeError):
    """A setting or an argument that cannot be used."""

    exit_code = 2


class SourceError(CofpipeError):
    """The source as a whole is missing or unreadable."""


class BadImage(CofpipeError):
    """One picture that cannot be used; `reason` is the short name that is counted."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class InvalidBox(CofpipeError, ValueError):
    """A box that is not four finite numbers, is empty, or names no pixel of its picture."""


class GrammarError(CofpipeError, ValueError):
    """Text that is not a turn of the profile it was read with."""


class ModelError(CofpipeError):
    """A model or an endpoint that keeps failing; never a score, never a rejection."""


class ContextOverflow(ModelError):
    """A request that is too long or too large for the model."""


class BudgetReached(CofpipeError):
    """A budget is spent; the run can be continued."""

    exit_code = 4


class CheckFailed(CofpipeError):
    """A check that was asked for did not hold."""

    exit_code = 5


def nearest(word: str, known: Iterable[str]) -> str:
    """A sentence naming the known word nearest to `word`, or all of them."""
    choices = list(known)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return f"Did you mean '{close[0]}'?" if close else f"Known: {', '.join(sorted(choices))}."
