"""Ways of looking side by side: how often right and how sure, and at what cost.

Rows of the view `scores` in, frozen records out. Pictures are what is drawn anew for an interval,
each with all its questions: questions about one picture are no independent witnesses. What is
unscored is counted and never wrong. Nothing here knows of benchmarks, models or pages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.eval.disagreements import Disagreement
from pipeline.eval.resampling import DRAWS, TINY, Estimate, estimates, sign_test
from pipeline.eval.saving import Saving, verdict
from pipeline.eval.tried import Key, Row, Tried, gaps, gathered, mean_of
from pipeline.samples import rng_for


@dataclass(frozen=True, slots=True)
class Cell:
    """One method at one budget: a line of the table."""

    subject: str
    benchmark: str
    method: str
    resolution: int
    items: int
    """Questions that were asked."""
    rollouts: int
    """Tries at a question, k."""
    unscored: int
    """Tries without a verdict."""
    accuracy: Estimate | None
    """Avg@k: the mean over tries, then over questions; None where nothing is scored."""
    categories: Mapping[str, Estimate]
    best_of: float | None
    """pass@k: share of questions that one try at least got right; None for a single try."""
    looks: float | None
    """Mean over what is scored; so are the next four, None where it is not known of any."""
    visual_tokens: float | None
    tokens_in: float | None
    """What was read, as the model counted it: over all turns, pictures included."""
    tokens_out: float | None
    seconds: float | None
    invalid: float | None
    """Invalid calls as a share of looks and invalid calls; None where nothing was called."""
    unfinished: float | None
    """Share of the scored tries that never came to an answer."""
    outcomes: Mapping[str, int]
    """What became of the first stage of coarse-to-fine: how often each."""
    protocols: tuple[str, ...]
    """More than one: what is compared was not asked alike."""


@dataclass(frozen=True, slots=True)
class Paired:
    """Two cells on the questions that both have scored."""

    one: Key
    other: Key
    difference: Estimate | None
    """Accuracy of `one` less that of `other`, in [-1, 1]."""
    better: int
    """Questions on which `one` did better."""
    worse: int
    p: float
    """Two-sided, of the exact sign test over those (with one try each: McNemar's exact test); it
    takes questions as independent, which the interval does not."""


Record = Cell | Paired | Saving | Disagreement


def plain(record: Record) -> dict[str, Any]:
    """A record as pages and JSON take it; a saving with its verdict."""
    told = {"verdict": verdict(record)} if isinstance(record, Saving) else {}
    return asdict(record) | told


def table(rows: Iterable[Row], *, seed: int, draws: int = DRAWS) -> list[Cell]:
    """A cell for each subject, benchmark, method and budget; intervals do not hang on each other.

    Raises `ConfigError` as `gathered`.
    """
    found = gathered(rows)
    return [_cell(key, found[key], rng_for(seed, "table", *key), draws) for key in found]


def _cell(key: Key, items: Mapping[str, Tried], rng: np.random.Generator, draws: int) -> Cell:
    rows = [row for tried in items.values() for row in tried.scored]
    looks, invalid = (
        sum(row.get(name) or 0 for row in rows) for name in ("zooms", "invalid_calls")
    )
    ends = [row["finish"] for row in rows if row.get("finish")]
    whole, categories = _accuracy(items, rng, draws)
    tries = [len(tried.rows) for tried in items.values()]
    return Cell(
        *key,
        items=len(items),
        rollouts=max(tries),
        unscored=sum(tries) - len(rows),
        accuracy=whole,
        categories=categories,
        best_of=_best_of(items.values()) if max(tries) > 1 else None,
        looks=_over(items, "zooms"),
        visual_tokens=_over(items, "visual_tokens"),
        tokens_in=_over(items, "tokens_in"),
        tokens_out=_over(items, "tokens_out"),
        seconds=_over(items, "seconds"),
        invalid=invalid / (looks + invalid) if looks + invalid else None,
        unfinished=ends.count("unfinished") / len(ends) if ends else None,
        outcomes=dict(sorted(Counter(r["outcome"] for r in rows if r.get("outcome")).items())),
        protocols=tuple(sorted({str(row["protocol"]) for row in rows if row.get("protocol")})),
    )


def _over(items: Mapping[str, Tried], name: str) -> float | None:
    """Mean over tries, then over questions, of what is known."""
    return mean_of(({name: tried.cost(name)} for tried in items.values()), name)


def _best_of(items: Iterable[Tried]) -> float | None:
    known = ([float(row["value"]) for row in tried.scored] for tried in items)
    return mean_of(({"best": max(values)} for values in known if values), "best")


def _accuracy(
    items: Mapping[str, Tried], rng: np.random.Generator, draws: int
) -> tuple[Estimate | None, dict[str, Estimate]]:
    """Avg@k of all that is scored, and of each category."""
    scored = [tried for tried in items.values() if tried.value is not None]
    if not scored:
        return None, {}
    values = np.asarray([tried.value for tried in scored], float)
    kinds = [str(tried.rows[0].get("category") or "") for tried in scored]
    names = sorted(set(kinds) - {""})
    apart = [np.where(np.asarray(kinds) == name, values, np.nan) for name in names]
    images = [tried.image_id for tried in scored]
    whole, *each = estimates(np.stack([values, *apart], 1), images, rng, draws)
    return whole, dict(zip(names, each, strict=True))


def paired(rows: Iterable[Row], one: Key, other: Key, *, seed: int, draws: int = DRAWS) -> Paired:
    """How much more often `one` is right than `other`, on the questions that both have scored."""
    found = gathered(rows)
    return _paired(found, Key(*one), Key(*other), seed, draws)


def against(
    rows: Iterable[Row], method: str = "direct", *, seed: int, draws: int = DRAWS
) -> list[Paired]:
    """Every other method against this one at the same budget."""
    found = gathered(rows)
    pairs = [(key, key._replace(method=method)) for key in found if key.method != method]
    return [_paired(found, one, base, seed, draws) for one, base in pairs if base in found]


def _paired(
    found: Mapping[Key, Mapping[str, Tried]], one: Key, other: Key, seed: int, draws: int
) -> Paired:
    first, second = found.get(one, {}), found.get(other, {})
    apart = gaps(first, second)
    if not apart:
        return Paired(one, other, None, 0, 0, 1.0)
    column = np.asarray(list(apart.values()))[:, None]
    rng = rng_for(seed, "paired", *one, *other)
    images = [first[item].image_id for item in apart]
    difference = estimates(column, images, rng, draws, least=-1.0)[0]
    better, worse = int((column > TINY).sum()), int((column < -TINY).sum())
    return Paired(one, other, difference, better, worse, sign_test(better, worse))
