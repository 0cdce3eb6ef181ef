"""What a rollout is worth, in the form that TRL calls: `(completions, **columns) -> list[float]`.

A completion is the text of one turn, or the messages of a whole rollout, of which only what the
assistant said counts; every column has one value for each completion. Pure: a judge is passed in.
Which rollouts zoomed is `agar`'s business and never read from a text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pipeline.answers import box_of, extract_answer, option_index
from pipeline.errors import ConfigError, ModelError, nearest
from pipeline.geometry import Box
from pipeline.grammar import known_profile
from pipeline.train.agar import Form, agar, group_advantage, groups, zoomed_rollouts
from pipeline.train.rules import ANSWER_RULES, FORMAT_RULES, AnswerRule, Asked, unjudged
from pipeline.trajectory import Profile

__all__ = [
    "REWARDS",
    "SETTINGS",
    "Completion",
    "Judge",
    "Reward",
    "agar",
    "agar_code_reward",
    "agar_reward",
    "answer_reward",
    "format_reward",
    "group_advantage",
    "named",
    "turns_of",
]

Completion = str | Sequence[Mapping[str, Any]]
RIGHT = 0.5
"""An answer is right, where that is yes or no, above this accuracy."""
_T = TypeVar("_T")
Judge = Callable[[str, str, str], bool | float | None]
"""(question, right answer, answer) -> whether it is right; raises where it cannot be asked."""
Reward = Callable[..., list[float]]
"""`(completions, **columns)`: what each rollout is worth; higher is better."""


def answer_reward(
    completions: Sequence[Completion],
    *,
    target: Sequence[str],
    options: Sequence[Sequence[str] | None] | None = None,
    question: Sequence[str] | None = None,
    target_boxes: Sequence[Sequence[Sequence[float]] | None] | None = None,
    answer_rule: str = "same",
    judge: Judge | None = None,
    **columns: Any,
) -> list[float]:
    """How right each answer is, in [0, 1]: what stands in the last turn's last `<answer>`.

    `answer_rule` is one of `ANSWER_RULES`. `target_boxes` are in the frame of targets and answers:
    a target that is one of them is met by a box that overlaps it. A judge is asked where a rule
    does not find an answer right and it names no option, under the rule `judge` always; an empty
    answer is wrong without asking. What the judge raises is raised, and so is `ModelError` where it
    gives no verdict: a broken endpoint is no reward of 0.
    """
    rule = _known(answer_rule, ANSWER_RULES, "rule for answers")
    if answer_rule == "judge" and judge is None:
        raise ConfigError("The rule 'judge' needs a judge.", "Pass one, or use the rule 'same'.")
    count = len(completions)
    truth = (options or [()] * count, question or [""] * count, target_boxes or [()] * count)
    asked = [
        Asked(right, tuple(offered or ()), text or "", _boxes(places or ()))
        for right, offered, text, places in zip(target, *truth, strict=True)
    ]
    answers = [extract_answer(turns_of(completion)[-1]) for completion in completions]
    return [
        _graded(answer, one, rule, judge) if answer else 0.0
        for answer, one in zip(answers, asked, strict=True)
    ]


def format_reward(
    completions: Sequence[Completion],
    *,
    format_rule: str = "grammar",
    profile: Profile = "cof-v2",
    **columns: Any,
) -> list[float]:
    """1 for each rollout of the right form, by one of `FORMAT_RULES`; 0 for any other."""
    rule = _known(format_rule, FORMAT_RULES, "rule for formats")
    known_profile(profile)
    return [float(rule(turns_of(completion), profile)) for completion in completions]


def outcome_reward(completions: Sequence[Completion], **columns: Any) -> list[float]:
    """Accuracy + 0.3·(1 if valid else −0.5): 1.3, 0.85, 0.3 and −0.15 where answers are 0 or 1."""
    parts = _parts(completions, columns)
    return [right + 0.3 * (1 if valid else -0.5) for right, valid in parts]


def published_reward(completions: Sequence[Completion], **columns: Any) -> list[float]:
    """0.9·accuracy + 0.1·format, the weights of arXiv 2505.15436's code; in [0, 1].

    That code's rules are `answer_rule="judge", format_rule="tags"`.
    """
    return [0.9 * right + 0.1 * valid for right, valid in _parts(completions, columns)]


def f1_reward(completions: Sequence[Completion], **columns: Any) -> list[float]:
    """0.9·F1 + 0.1·format, with answers of at most 10 words: published earlier."""
    columns = {"answer_rule": "f1", "format_rule": "few-words"} | columns
    return published_reward(completions, **columns)


def f1_majority_reward(completions: Sequence[Completion], **columns: Any) -> list[float]:
    """0.8·[F1 > 0.5] + 0.2·format, with answers of at most 10 words: published earlier."""
    columns = {"answer_rule": "f1-majority", "format_rule": "few-words"} | columns
    return [0.8 * right + 0.2 * valid for right, valid in _parts(completions, columns)]


def zoom_bonus_reward(
    completions: Sequence[Completion], *, bonus: float = 1.0, **columns: Any
) -> list[float]:
    """`published_reward`, and `bonus` more for a right answer after a zoom; in [0, 1 + bonus].

    It teaches to zoom where there is no need.
    """
    parts, zoomed = _parts(completions, columns), zoomed_rollouts(columns, len(completions))
    return [
        0.9 * right + 0.1 * valid + bonus * (looked and right > RIGHT)
        for (right, valid), looked in zip(parts, zoomed, strict=True)
    ]


def half_zoom_bonus_reward(completions: Sequence[Completion], **columns: Any) -> list[float]:
    """`zoom_bonus_reward` with half the bonus; in [0, 1.5]."""
    columns = {"bonus": 0.5} | columns
    return zoom_bonus_reward(completions, **columns)


def wrong_zoom_bonus_reward(completions: Sequence[Completion], **columns: Any) -> list[float]:
    """`published_reward`, and 0.5 more for a wrong answer after a zoom; in [0, 1.05].

    It teaches to zoom when unsure: with a sound form that is worth 0.6, not 0.1.
    """
    parts, zoomed = _parts(completions, columns), zoomed_rollouts(columns, len(completions))
    return [
        0.9 * right + 0.1 * valid + 0.5 * (looked and right <= RIGHT)
        for (right, valid), looked in zip(parts, zoomed, strict=True)
    ]


def agar_reward(
    completions: Sequence[Completion],
    *,
    form: Form = "paper",
    group_size: int | None = None,
    **columns: Any,
) -> list[float]:
    """`agar` over the rollouts of each question; in [0, 1].

    Needs the column `sample_id` (and `resolution`, where one question is asked at several), and one
    of those that `zoomed_rollouts` reads. `group_size` refuses groups that are not whole.
    """
    count = len(completions)
    parts, zoomed = _parts(completions, columns), zoomed_rollouts(columns, count)
    rewards = [0.0] * count
    for places in groups(columns, count, group_size):
        correct = [parts[place][0] > RIGHT for place in places]
        valid = [parts[place][1] > 0 for place in places]
        looked = [zoomed[place] for place in places]
        for place, reward in zip(places, agar(correct, looked, valid, form=form), strict=True):
            rewards[place] = reward
    return rewards


def agar_code_reward(completions: Sequence[Completion], **columns: Any) -> list[float]:
    """`agar_reward` in the form of the released code."""
    columns = {"form": "code"} | columns
    return agar_reward(completions, **columns)


REWARDS: Mapping[str, Reward] = {
    "answer": answer_reward,
    "format": format_reward,
    "outcome": outcome_reward,
    "published": published_reward,
    "f1": f1_reward,
    "f1-majority": f1_majority_reward,
    "zoom-bonus": zoom_bonus_reward,
    "half-zoom-bonus": half_zoom_bonus_reward,
    "wrong-zoom-bonus": wrong_zoom_bonus_reward,
    "agar-paper": agar_reward,
    "agar-code": agar_code_reward,
}

SETTINGS = ("answer_rule", "judge", "format_rule", "profile", "bonus", "group_size")
"""What `named` binds; everything else that a reward is called with is a column."""


def named(name: str, **settings: Any) -> Reward:
    """The reward of that name with its settings, under a `__name__` for the trainer's logs.

    Raises `ConfigError`, naming the nearest one, for an unknown name or setting.
    """
    chosen = _known(name, REWARDS, "reward")
    for setting in settings:
        _known(setting, dict.fromkeys(SETTINGS), "setting of a reward")

    def reward(completions: Sequence[Completion], **columns: Any) -> list[float]:
        return chosen(completions, **columns | settings)

    reward.__name__ = name
    return reward


def turns_of(completion: Completion) -> list[str]:
    """What the model said, turn by turn; a rollout that breaks off at a view ends with "".

    A text is one turn: tags that a tool or a prompt wrote are no part of it.
    """
    if isinstance(completion, str):
        return [completion]
    turns = [_said(message) for message in completion if message["role"] == "assistant"]
    ends_well = bool(completion) and completion[-1]["role"] == "assistant"
    return turns if ends_well else [*turns, ""]


def _said(message: Mapping[str, Any]) -> str:
    """A message as the model wrote it: thoughts and calls that were parsed out of it put back."""
    return "\n".join(piece for piece in _pieces(message) if piece)


def _pieces(message: Mapping[str, Any]) -> Iterator[str]:
    thought = message.get("reasoning_content") or message.get("thinking")
    if thought:
        yield f"<think> {thought} </think>"
    content = message.get("content") or ""
    if isinstance(content, str):
        yield content
    else:
        yield "".join(block["text"] for block in content if block.get("type") == "text")
    for call in message.get("tool_calls") or ():
        function = call.get("function", call)
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            text = f'{{"name": {json.dumps(function.get("name"))}, "arguments": {arguments}}}'
        else:
            text = json.dumps({"name": function.get("name"), "arguments": arguments})
        yield f"<tool_call>\n{text}\n</tool_call>"


def _parts(
    completions: Sequence[Completion], columns: Mapping[str, Any]
) -> list[tuple[float, float]]:
    """(accuracy, format) of each rollout; a judge is asked once."""
    right = answer_reward(completions, **columns)
    return list(zip(right, format_reward(completions, **columns), strict=True))


def _graded(answer: str, asked: Asked, rule: AnswerRule, judge: Judge | None) -> float:
    """A rule's verdict on an answer; the judge's where the rule cannot be sure that it is wrong."""
    value = rule(answer, asked)
    names_option = rule is not unjudged and option_index(answer, asked.options) is not None
    if judge is None or value == 1 or names_option:
        return value
    place = option_index(asked.target, asked.options)
    right = asked.target if place is None else asked.options[place]
    verdict = judge(asked.question, right, answer)
    if verdict is None or verdict not in (0, 1):
        raise ModelError(f"The judge gave no verdict but {verdict!r:.60}.")
    return max(value, float(verdict))


def _boxes(places: Sequence[Sequence[float]]) -> tuple[Box, ...]:
    """The boxes that can be told in a model's numbers; one may have vanished in rounding."""
    found = (box_of(json.dumps(list(place))) for place in places)
    return tuple(box for box in found if box)


def _known(name: str, table: Mapping[str, _T], what: str) -> _T:
    """The entry of that name; raises `ConfigError` naming the nearest one."""
    if name not in table:
        raise ConfigError(f"There is no {what} {name!r}.", nearest(name, table))
    return table[name]
