"""What a run may still spend, and how that is shared out: the driver's purse.

Slices never add up to more than is left, so a run overshoots its budget by the calls that are in
flight when a slice is spent, and by no more. Knows nothing of shards or of time but the clock's.
"""

from __future__ import annotations

import math
import time

from pipeline.shards import Plan, Slice, Spent

_SHARES = 2
"""A slice is what is left, by workers and by this: so that something is left for who comes next."""
_LEAST = 32
"""No slice is smaller than the budget, by workers and by this, unless less is left."""


class Purse:
    """The budgets of a run: what was spent, and what is granted and may be."""

    def __init__(self, plan: Plan) -> None:
        self._usd = plan.budget_usd
        self._tokens = plan.budget_tokens
        self._hours = plan.budget_hours
        self._until: float | None = None
        self._workers = 1
        self._spent = Spent()
        self._held: dict[str, Slice] = {}
        self._why = ""

    def open(self, workers: int, spent: Spent, worked_s: float) -> None:
        """Begin a session after others that spent so much and took so many seconds."""
        self._workers, self._spent = workers, spent
        if self._hours is not None:
            self._until = time.time() + self._hours * 3600 - worked_s

    def hold(self, attempt: str) -> Slice | None:
        """A slice for an attempt; None while there is nothing to give."""
        if self._why or self._late() or not self._left():
            return None
        usd, tokens = self._free()
        tokens_share = _share(self._tokens, tokens, self._workers)
        whole = None if tokens_share is None else math.ceil(tokens_share)
        held = Slice(_share(self._usd, usd, self._workers), whole, self._until)
        self._held[attempt] = held
        return held

    def settle(self, attempt: str, spent: Spent, reason: str = "") -> None:
        """An attempt came back, having spent so much.

        `reason` is why it may go no further, if that is so: when its slice was not spent, the
        worker knows of an end that is nobody's here, and the run ends with it.
        """
        self._spent += spent
        held = self._held.pop(attempt, Slice())
        if reason and held.covers(spent):
            self._why = reason

    def over(self) -> str:
        """Why nothing more may be spent, in one sentence; empty while something may."""
        if self._why:
            return self._why
        if self._late():
            return f"The budget of {self._hours:g} hours is spent."
        if self._held or self._left():
            return ""
        if self._usd is not None and self._spent.usd >= self._usd:
            return f"The budget of {self._usd:g} USD is spent."
        return f"The budget of {self._tokens} tokens is spent."

    def _late(self) -> bool:
        return self._until is not None and time.time() >= self._until

    def _left(self) -> bool:
        usd, tokens = self._free()
        return (usd is None or usd > 0) and (tokens is None or tokens > 0)

    def _free(self) -> tuple[float | None, int | None]:
        """Money and tokens that are neither spent nor held."""
        usd = tokens = None
        if self._usd is not None:
            usd = self._usd - self._spent.usd - sum(s.usd or 0 for s in self._held.values())
        if self._tokens is not None:
            held = sum(s.tokens or 0 for s in self._held.values())
            tokens = self._tokens - self._spent.tokens - held
        return usd, tokens


def _share(budget: float | None, free: float | None, workers: int) -> float | None:
    """The next slice of what is free."""
    if budget is None or free is None:
        return None
    return min(free, max(free / (_SHARES * workers), budget / (_LEAST * workers)))
