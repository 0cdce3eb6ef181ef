"""A rollout as text and messages: what a turn calls for, how it ends, what a step says of it.

Pure. A turn stays as the policy wrote it, so that its form can be judged; calls are read out of it
by the grammar of the data. Knows nothing of tokens and of the trainer's tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any, Literal

from pipeline.errors import ConfigError, GrammarError, nearest
from pipeline.grammar import TOOL_NAME, parse
from pipeline.train.agar import group_advantage
from pipeline.turns import ZoomCall

Message = Mapping[str, Any]
Algorithm = Literal["grpo", "rloo", "reinforce"]
Ending = Literal["whole", "over_long", "over_turns"]

MISREAD_TOOL = "misread"
"""The environment's method that answers what could not be read; no policy can name it."""
_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)


def message_of(text: str, *, ended: bool) -> dict[str, Any]:
    """A turn as TRL keeps it: its words whole, and beside them the calls to be carried out.

    A turn that was cut off (not `ended`) calls nothing. A call that cannot be read becomes one of
    `misread` with the reason. An answer beside a call does not count: the call is carried out.
    """
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if not ended or "<tool_call>" not in text:
        return message
    try:
        calls = [(TOOL_NAME, _arguments(call)) for call in zoom_calls(text)]
    except GrammarError as error:
        calls = [(MISREAD_TOOL, {"why": error.message})]
    return message | {
        "tool_calls": [
            {"type": "function", "function": {"name": name, "arguments": arguments}}
            for name, arguments in calls
        ]
    }


def zoom_calls(text: str) -> tuple[ZoomCall, ...]:
    """The calls of a turn, whatever stands between them; raises `GrammarError` for a bad one."""
    bodies = _CALL.findall(text)
    if len(bodies) != text.count("<tool_call>") or len(bodies) != text.count("</tool_call>"):
        raise GrammarError("A <tool_call> is not closed, or closed without being open.")
    written = "".join(f"<tool_call>{body}</tool_call>" for body in bodies)
    return parse(f"<think></think>{written}", "cof-v2").calls


def in_words(completion: Sequence[Message]) -> list[dict[str, Any]]:
    """A rollout as the rewards read it: every turn once, as it was written."""
    return [
        {name: value for name, value in message.items() if name != "tool_calls"}
        for message in completion
    ]


def views_shown(completion: Sequence[Message]) -> int:
    """How many pictures the tool put into a rollout."""
    return sum(
        block.get("type") == "image"
        for message in completion
        if message["role"] == "tool"
        for block in message["content"]
    )


def calls_answered(completion: Sequence[Message]) -> int:
    """How many zooms were answered, with a view or with why there is none."""
    return sum(m["role"] == "tool" and m["name"] == TOOL_NAME for m in completion)


def ending(completion: Sequence[Message], *, ended: bool, turns: int) -> Ending:
    """How a rollout of at most `turns` turns came to its end; `ended` tells of its last token.

    A call that nobody answered is over the turns where they are used up; before, its view did not
    fit the rollout's length.
    """
    last = completion[-1]
    if last["role"] == "assistant" and not last.get("tool_calls"):
        return "whole" if ended else "over_long"
    spoken = sum(message["role"] == "assistant" for message in completion)
    return "over_turns" if last["role"] == "assistant" and spoken >= turns else "over_long"


@dataclass(frozen=True, slots=True)
class Tally:
    """What is counted of one rollout."""

    ending: Ending
    turns: int
    views: int
    """Pictures that the tool showed."""
    gains: int
    """Views that brought new pixels."""
    invalid: int
    """Boxes that name no pixels of the picture."""
    malformed: int
    """Calls that could not be read."""

    def figures(self) -> dict[str, float]:
        """By the name under which a step's mean over its rollouts is logged."""
        return {
            "rollouts/turns": self.turns,
            "rollouts/views": self.views,
            "rollouts/zoomed": float(self.views > 0),
            "rollouts/gained": float(self.gains > 0),
            "rollouts/invalid_boxes": self.invalid,
            "rollouts/malformed_calls": self.malformed,
            "rollouts/over_turns": float(self.ending == "over_turns"),
            "rollouts/over_long": float(self.ending == "over_long"),
        }


def tally(completion: Sequence[Message], looks: Sequence[Mapping[str, Any]], end: Ending) -> Tally:
    """Count a rollout; `looks` are those that were shown to the policy."""
    return Tally(
        ending=end,
        turns=sum(message["role"] == "assistant" for message in completion),
        views=views_shown(completion),
        gains=sum(bool(look["zoomed"] and not look["no_gain"]) for look in looks),
        invalid=sum(not look["zoomed"] for look in looks),
        malformed=sum(m["role"] == "tool" and m["name"] == MISREAD_TOOL for m in completion),
    )


def advantages(
    rewards: Sequence[float], group_size: int, algorithm: Algorithm = "grpo"
) -> list[float]:
    """What each rollout's reward is above its baseline; groups stand one after another.

    `grpo` (arXiv 2402.03300): the group's mean, over its standard deviation. `rloo` (arXiv
    2402.14740): the mean of the others of the group, unscaled. `reinforce`: the mean of the whole
    batch, unscaled. Raises `ValueError` where groups are not whole or a reward is not finite.
    """
    if group_size < 2 or len(rewards) % group_size:
        raise ValueError(f"{len(rewards)} rewards are no whole groups of {group_size}.")
    starts = range(0, len(rewards), group_size)
    groups = [list(rewards[start : start + group_size]) for start in starts]
    if algorithm == "grpo":
        return [value for group in groups for value in group_advantage(group)]
    if algorithm == "rloo":
        share = group_size / (group_size - 1)
        return [share * value for group in groups for value in group_advantage(group, by_std=False)]
    if algorithm == "reinforce":
        mean = fsum(rewards) / len(rewards)
        return [reward - mean for reward in rewards]
    known = ("grpo", "rloo", "reinforce")
    raise ConfigError(f"There is no algorithm {algorithm!r}.", nearest(algorithm, known))


def without_variance(rewards: Sequence[float], group_size: int) -> float:
    """Share of the groups whose rewards are all equal: they teach nothing under a group's mean."""
    starts = range(0, len(rewards), group_size)
    groups = [rewards[start : start + group_size] for start in starts]
    return sum(min(group) == max(group) for group in groups) / len(groups)


def _arguments(call: ZoomCall) -> dict[str, Any]:
    return {"bbox_2d": list(call.box), "label": call.label}
