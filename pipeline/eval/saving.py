"""What a method saves in visual tokens against uniform viewing, for equal accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite

import numpy as np

from pipeline.eval.resampling import DRAWS, ENDS, TINY, estimates, resampled
from pipeline.eval.tried import Key, Row, Tried, gathered
from pipeline.samples import rng_for

LARGEST = 3840
"""The budget of uniform viewing that savings are told against."""


@dataclass(frozen=True, slots=True)
class Saving:
    """What a method saves in visual tokens against uniform viewing, for equal accuracy."""

    subject: str
    benchmark: str
    method: str
    against: Key
    margin: float
    """By how much it may be less right."""
    items: int
    """Questions scored at every budget of both: no others count."""
    images: int
    aim: float | None = None
    """The accuracy to reach."""
    tokens: float | None = None
    """Mean visual tokens of a question where it is reached."""
    tokens_against: float | None = None
    value: float | None = None
    """1 − tokens / tokens_against; None where it cannot be measured, for `reason`."""
    low: float | None = None
    """None: open, since more than 2.5 % of the draws do not reach the aim."""
    high: float | None = None
    """None: open, since in more than 2.5 % of the draws the cheapest budget tried suffices."""
    at_least: bool = False
    """Whether the cheapest budget tried suffices, so that lower ones might save more."""
    reached: float | None = None
    """Share of the draws in which the aim is reached."""
    reason: str = ""


def savings(
    rows: Iterable[Row],
    *,
    seed: int,
    draws: int = DRAWS,
    margin: float = 0.0,
    chance: float = 0.0,
) -> list[Saving]:
    """`saving` of every method of every subject and benchmark."""
    found = gathered(rows)
    views = dict.fromkeys(key[:3] for key in found)
    return [_saving(found, *view, margin, chance, seed, draws) for view in views]


def saving(
    rows: Iterable[Row],
    subject: str,
    benchmark: str,
    method: str,
    *,
    seed: int,
    draws: int = DRAWS,
    margin: float = 0.0,
    chance: float = 0.0,
) -> Saving:
    """The visual tokens that a method saves where it is as right as `direct` at `LARGEST`.

    It may be less right by `margin`. `chance` is what guessing gets: uniform viewing that is not
    surely better has nothing to equal, and blind methods are equal at any price.
    """
    return _saving(gathered(rows), subject, benchmark, method, margin, chance, seed, draws)


def verdict(found: Saving, low: float = 0.40, high: float = 0.60) -> str:
    """What a measured saving says of a published one, `low` to `high`, in words."""
    published = f"the published {100 * low:.0f}–{100 * high:.0f} %"
    if found.value is None:
        return f"not measurable: {found.reason}"
    if found.low is not None and found.low > high:
        return f"above {published}"
    if found.high is not None and found.high < low:
        return f"below {published}"
    if found.low is not None and found.high is not None and low <= found.low <= found.high <= high:
        return f"within {published}"
    return f"not decided: the interval is on both sides of a bound of {published}"


def _saving(
    found: Mapping[Key, Mapping[str, Tried]],
    subject: str,
    benchmark: str,
    method: str,
    margin: float,
    chance: float,
    seed: int,
    draws: int,
) -> Saving:
    direct = Key(subject, benchmark, "direct", LARGEST)
    budgets = [view for key, view in found.items() if key[:3] == (subject, benchmark, method)]
    columns, images = _in_common([*budgets, found.get(direct, {})])
    begun = Saving(subject, benchmark, method, direct, margin, len(images), len(set(images)))
    if not images:
        why = f"no question has a score and its tokens by direct at {LARGEST} and all of {method}"
        return replace(begun, reason=why)
    rng = rng_for(seed, "saving", subject, benchmark, method)
    sure = estimates(columns[:, [len(budgets)]], images, rng, draws)[0]
    if sure.low <= chance + TINY:
        return replace(begun, reason=f"direct at {LARGEST} is not surely better than guessing")
    return _measured(begun, columns.mean(0), resampled(columns, images, rng, draws))


def _in_common(views: Sequence[Mapping[str, Tried]]) -> tuple[np.ndarray, list[str]]:
    """Values, then visual tokens, of each view: (n, 2 views); and the n questions' pictures.

    Of the questions that have both in every view.
    """
    lines, images = [], []
    for item in views[0]:
        tried = [view[item] for view in views if item in view]
        line = [*(t.value for t in tried), *(t.cost("visual_tokens") for t in tried)]
        if len(tried) == len(views) and None not in line:
            lines.append(line)
            images.append(tried[0].image_id)
    return np.asarray(lines, float).reshape(len(lines), 2 * len(views)), images


def _measured(begun: Saving, means: np.ndarray, drawn: np.ndarray) -> Saving:
    """From the means of `_in_common`'s columns, (2 views,), and of pictures drawn, (draws, …)."""
    right, tokens = np.split(np.concatenate([means[None], drawn]), 2, axis=1)
    aims = right[:, -1] - begun.margin
    at, suffices = cheapest(tokens[:, :-1], right[:, :-1], aims)
    saved = np.nan_to_num(1 - at / tokens[:, -1], nan=-inf)
    begun = replace(
        begun,
        aim=float(aims[0]),
        tokens_against=float(tokens[0, -1]),
        reached=float(np.isfinite(saved[1:]).mean()),
    )
    if not isfinite(saved[0]):
        best = right[0, :-1].max()
        return replace(begun, reason=f"{begun.method} gets to {best:.1%}, short of {aims[0]:.1%}")
    low = float(np.quantile(saved[1:], ENDS[0], method="inverted_cdf"))
    open_above = np.where(suffices[1:], inf, saved[1:])
    high = float(np.quantile(open_above, ENDS[1], method="inverted_cdf"))
    return replace(
        begun,
        tokens=float(at[0]),
        value=float(saved[0]),
        low=low if isfinite(low) else None,
        high=high if isfinite(high) else None,
        at_least=bool(suffices[0]),
    )


def cheapest(
    tokens: np.ndarray, right: np.ndarray, aims: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The fewest tokens at which each curve reaches its aim, (N,); NaN where it never does.

    `tokens`, `right` (N, m): the budgets tried, beyond which nothing is supposed; `aims` (N,). A
    budget that another equals or beats for no more tokens is passed over. Between those left the
    way is straight: to ask some of the questions at one and the rest at the other comes to just
    that. Also returned, bool (N,): whether the cheapest budget suffices already.
    """
    order = np.argsort(tokens, axis=-1, kind="stable")
    tokens = np.take_along_axis(tokens, order, -1).T
    right = np.take_along_axis(right, order, -1).T
    suffices = right[0] >= aims - TINY
    found = np.where(suffices, tokens[0], np.nan)
    at, best = tokens[0], right[0]
    for here, share in zip(tokens[1:], right[1:], strict=True):
        better = share > best
        part = np.clip((aims - best) / np.where(better, share - best, 1.0), 0.0, 1.0)
        passes = np.isnan(found) & (share >= aims - TINY)
        found = np.where(passes, at + part * (here - at), found)
        at, best = np.where(better, here, at), np.where(better, share, best)
    return found, suffices
