"""A turn keeps its words, its calls are the grammar's, and a rollout's reward has its baseline."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.grammar import render_turn
from pipeline.train.agar import group_advantage
from pipeline.train.rewards import format_reward, turns_of
from pipeline.train.rl_presets import known_algorithm
from pipeline.train.rollouts import (
    advantages,
    calls_answered,
    ending,
    in_words,
    message_of,
    tally,
    without_variance,
)
from pipeline.turns import Turn, ZoomCall

LAW = settings(deadline=None, max_examples=40)
CALL = render_turn(Turn("Closer.", (ZoomCall((1, 2, 30, 40), "a sign"),)), "cof-v2")
ANSWER = render_turn(Turn("It is blue.", answer="blue"), "cof-v2")
VIEW = {"role": "tool", "name": "image_zoom_in_tool", "content": [{"type": "image", "image": 0}]}
TOLD = {"role": "tool", "name": "misread", "content": [{"type": "text", "text": "?"}]}
REWARDS = st.lists(st.sampled_from([0.0, 0.1, 0.8, 1.0]), min_size=4, max_size=4)


def said(text: str, *, ended: bool = True) -> dict[str, Any]:
    return message_of(text, ended=ended)


def called(message: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    functions = [call["function"] for call in message.get("tool_calls", ())]
    return [(function["name"], function["arguments"]) for function in functions]


def test_the_calls_of_a_turn_are_those_the_grammar_writes() -> None:
    boxes = [(1, 2, 30, 40), (5.5, 6, 70, 80)]
    turn = Turn(
        "Both.", tuple(ZoomCall(box, label) for box, label in zip(boxes, ("", "a"), strict=True))
    )
    told = said(render_turn(turn, "cof-v2"))
    assert called(told) == [
        ("image_zoom_in_tool", {"bbox_2d": list(box), "label": label})
        for box, label in zip(boxes, ("", "a"), strict=True)
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<tool_call>{", "not closed"),
        ("<tool_call>{</tool_call>", "JSON"),
        ('<tool_call>{"name": "zoom", "arguments": {}}</tool_call>', "no tool 'zoom'"),
        (CALL.replace("30, 40", "30"), "four numbers"),
        (CALL.replace("bbox_2d", "box"), "bbox_2d"),
        (CALL + CALL.replace("30", '"30"'), "numbers"),
        (CALL + "</tool_call>", "not closed"),
    ],
)
def test_a_call_that_cannot_be_read_is_answered_with_why(text: str, why: str) -> None:
    ((name, arguments),) = called(said(text))
    assert name == "misread"
    assert why in arguments["why"]


def test_no_policy_can_call_the_answer_to_what_was_not_read() -> None:
    text = CALL.replace("image_zoom_in_tool", "misread")
    assert "no tool 'misread'" in called(said(text))[0][1]["why"]


def test_a_turn_that_was_cut_off_calls_nothing() -> None:
    assert "tool_calls" not in said(CALL, ended=False)
    assert "tool_calls" not in said(ANSWER)


def test_a_rollout_is_rewarded_for_its_words_and_each_of_them_once() -> None:
    sloppy = f"So. {CALL} Then."
    completion = [said(CALL), VIEW, said(sloppy), VIEW, said(ANSWER)]
    assert turns_of(in_words(completion)) == [CALL, sloppy, ANSWER]
    assert format_reward([in_words(completion)]) == [0.0]
    assert format_reward([in_words([said(CALL), VIEW, said(ANSWER)])]) == [1.0]
    assert json.dumps(in_words([said(CALL)])).count("<tool_call>") == 1


@pytest.mark.parametrize(
    ("completion", "ended", "end"),
    [
        ([said(ANSWER)], True, "whole"),
        ([said("I do not know.")], True, "whole"),
        ([said(CALL), VIEW, said(ANSWER)], True, "whole"),
        ([said(ANSWER, ended=False)], False, "over_long"),
        ([said(CALL), VIEW], False, "over_long"),
        ([said(CALL)], True, "over_long"),  # its view did not fit
        ([said(CALL), VIEW, said(CALL)], True, "over_turns"),
        ([said(CALL), VIEW, said("<tool_call>{")], True, "over_turns"),
    ],
)
def test_how_a_rollout_of_two_turns_ended(completion: Any, ended: bool, end: str) -> None:
    assert ending(completion, ended=ended, turns=2) == end


def test_a_rollout_is_counted_by_what_the_policy_was_shown() -> None:
    completion = [said(CALL), VIEW, said("<tool_call>"), TOLD, said(CALL), VIEW, said(ANSWER)]
    looks = [{"zoomed": True, "no_gain": False}, {"zoomed": True, "no_gain": True}]
    told = tally(completion, looks, "whole")
    assert (told.turns, told.views, told.gains, told.invalid, told.malformed) == (4, 2, 1, 0, 1)
    assert calls_answered(completion) == 2
    assert told.figures()["rollouts/malformed_calls"] == 1


@LAW
@given(REWARDS, REWARDS)
def test_each_algorithm_has_its_baseline(one: list[float], other: list[float]) -> None:
    grpo = advantages([*one, *other], 4, "grpo")
    assert grpo == [*group_advantage(one), *group_advantage(other)]
    rloo = advantages([*one, *other], 4, "rloo")
    for place, (reward, value) in enumerate(zip(one, rloo, strict=False)):
        others = one[:place] + one[place + 1 :]
        assert value == pytest.approx(reward - sum(others) / 3, abs=1e-9)
    mean = sum(one + other) / 8
    reinforce = advantages([*one, *other], 4, "reinforce")
    assert reinforce == pytest.approx([r - mean for r in one + other], abs=1e-9)


def test_groups_without_variance_teach_nothing_and_are_counted() -> None:
    rewards = [1.0, 1.0, 0.0, 1.0, 0.1, 0.1]
    assert without_variance(rewards, 2) == pytest.approx(2 / 3)
    assert advantages(rewards, 2, "grpo")[:2] == [0.0, 0.0]


@pytest.mark.parametrize("rewards", [[1.0] * 5, [1.0, float("nan")], []])
def test_a_group_that_is_not_whole_is_refused(rewards: list[float]) -> None:
    if not rewards:
        assert advantages(rewards, 2) == []
        return
    with pytest.raises(ValueError, match=r"groups|finite"):
        advantages(rewards, 2)


def test_ppo_is_sent_to_verl_and_a_slip_to_the_nearest() -> None:
    assert known_algorithm("rloo") == "rloo"
    with pytest.raises(ConfigError, match=r"verl_ppo\.yaml"):
        known_algorithm("ppo")
    with pytest.raises(ConfigError, match="'grpo'"):
        known_algorithm("gpro")
