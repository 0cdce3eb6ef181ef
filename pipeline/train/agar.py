"""Group-aware reward: what a zoom is worth beside the other rollouts of the same question.

Owns what counts as a zoom: a call that was carried out and brought new pixels. Knows nothing of
texts; numbers and flags in, numbers out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import fsum, isfinite
from typing import Any, Literal, TypedDict

from pipeline.errors import ConfigError, nearest
from pipeline.trajectory import Observation

Form = Literal["paper", "code"]

DISCOUNT = 0.2
"""What a right answer by zooming loses where another rollout was right without (δ)."""
FLOOR = 0.1
"""What a wrong answer earns by its form (γ)."""
WRONG_ZOOM = 0.5
"""What the released code pays for a wrong answer after a zoom, whatever its form."""
_SPREAD = 1e-6


class Look(TypedDict):
    """How a rollout's call for a zoom is kept for the rewards."""

    zoomed: bool
    """It was carried out: a box that could be cut, and a view that was shown."""
    no_gain: bool
    """It brought no source pixels that were not seen as finely before."""


def look_record(view: Observation | None, seen: Sequence[Observation]) -> Look:
    """How a call is kept: `view` is what it showed, None where it was not carried out.

    `seen` are the views before it, the first of them the whole picture's.
    """
    if not seen:
        raise ValueError("The first view comes before any look.")
    return Look(zoomed=view is not None, no_gain=view is None or not view.gains_on(seen))


def zoomed_rollouts(columns: Mapping[str, Any], count: int) -> list[bool]:
    """Whether each of `count` rollouts zoomed: some look of it was carried out and gained.

    Reads the first of these columns that is there: `looks` (for each rollout a list of `Look`),
    `no_gain` (for each rollout a flag for each look that was carried out), `environments` (objects
    whose `looks` are that list; there may be more of them than rollouts). What is not known to have
    gained has not. Raises `ConfigError` without any of them: a text cannot tell.
    """
    if "looks" in columns:
        rollouts = _column(columns["looks"], "looks", count)
        return [any(map(_gained, looks or ())) for looks in rollouts]
    if "no_gain" in columns:
        rollouts = _column(columns["no_gain"], "no_gain", count)
        return [any(_is(flag, False) for flag in flags or ()) for flags in rollouts]
    if "environments" in columns:
        rollouts = _column(list(columns["environments"])[:count], "environments", count)
        return [any(map(_gained, environment.looks)) for environment in rollouts]
    raise ConfigError(
        "Nothing tells which rollouts zoomed.",
        "Pass a column 'looks' or 'no_gain', or 'environments' that keep their looks.",
    )


def agar(
    correct: Sequence[bool],
    zoomed: Sequence[bool],
    valid: Sequence[bool],
    *,
    form: Form = "paper",
    discount: float = DISCOUNT,
    floor: float = FLOOR,
) -> list[float]:
    """Rewards of one question's rollouts, each in [0, 1]; arXiv 2505.15436 (AGAR).

    `paper`: c·[d + z·(1 − δ·g)] + (1 − c)·γ·f, where g tells that some rollout is right without a
    zoom. `code`, as released: the same for right answers; a wrong one after a zoom earns 0.5
    whatever its form, a wrong direct one γ·f; a rollout that is alone keeps 0.9·c + 0.1·f.
    An earlier version of that code has `floor` 0. Raises `ValueError` for unequal lengths.
    """
    if form not in ("paper", "code"):
        raise ConfigError(f"There is no form {form!r} of AGAR.", nearest(form, ("paper", "code")))
    rollouts = list(zip(correct, zoomed, valid, strict=True))
    if form == "code" and len(rollouts) == 1:
        return [0.9 * bool(right) + 0.1 * bool(formed) for right, _, formed in rollouts]
    unaided = any(right and not looked for right, looked, _ in rollouts)
    wrong_zoom = WRONG_ZOOM if form == "code" else None
    rewards = []
    for right, looked, formed in rollouts:
        if right:
            rewards.append(1.0 - discount if looked and unaided else 1.0)
        elif looked and wrong_zoom is not None:
            rewards.append(wrong_zoom)
        else:
            rewards.append(floor if formed else 0.0)
    return rewards


def group_advantage(rewards: Sequence[float], *, by_std: bool = True) -> list[float]:
    """How much better each rollout of a group is than their mean (GRPO).

    `by_std` divides by the unbiased standard deviation + 1e-6. A group of one has, as in verl, the
    mean 0 and the deviation 1. Equal rewards are exactly 0. Raises `ValueError` for NaN and
    infinities.
    """
    if not all(map(isfinite, rewards)):
        raise ValueError("A reward is not a finite number.")
    mean, deviation = 0.0, 1.0
    if len(rewards) > 1:
        if min(rewards) == max(rewards):
            return [0.0] * len(rewards)
        mean = fsum(rewards) / len(rewards)
        squares = fsum((reward - mean) ** 2 for reward in rewards)
        deviation = (squares / (len(rewards) - 1)) ** 0.5
    scale = deviation + _SPREAD if by_std else 1.0
    return [(reward - mean) / scale for reward in rewards]


def groups(
    columns: Mapping[str, Any], count: int, group_size: int | None = None
) -> list[list[int]]:
    """The places of the rollouts of each question: same `sample_id`, and `resolution` if given.

    With `group_size`, raises `ConfigError` unless every group is whole: a trainer that spreads one
    question over several processes shows each of them a part, and a part tells another story.
    """
    if "sample_id" not in columns:
        raise ConfigError("Nothing tells rollouts of one question.", "Pass a column 'sample_id'.")
    samples = _column(columns["sample_id"], "sample_id", count)
    budgets = _column(columns.get("resolution") or [None] * count, "resolution", count)
    found: dict[tuple[Any, Any], list[int]] = {}
    for place, key in enumerate(zip(samples, budgets, strict=True)):
        found.setdefault(key, []).append(place)
    for (sample, _), places in found.items():
        if group_size is not None and len(places) % group_size:
            raise ConfigError(
                f"Sample '{sample}' has {len(places)} rollouts here; a group has {group_size}.",
                "Make the batch of each process a multiple of the group.",
            )
    return list(found.values())


def _column(values: Sequence[Any], name: str, count: int) -> Sequence[Any]:
    if len(values) != count:
        raise ValueError(f"Column '{name}' has {len(values)} values for {count} completions.")
    return values


def _gained(look: Mapping[str, Any]) -> bool:
    """Whether a look was carried out and is known to have brought new pixels."""
    return _is(look.get("zoomed"), True) and _is(look.get("no_gain"), False)


def _is(flag: Any, wanted: bool) -> bool:
    """Whether a flag (Python's, numpy's, a 0 or a 1) is the wanted one; None is neither."""
    return flag in (wanted,)
