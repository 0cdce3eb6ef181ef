"""Rewards are the published numbers, stay in bounds, and pay for nothing that did not happen.

`goldens/rewards.json` was recorded from the published code with its judge stubbed.
"""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, ModelError
from pipeline.geometry import Box
from pipeline.train.agar import look_record, zoomed_rollouts
from pipeline.train.rewards import (
    REWARDS,
    agar,
    answer_reward,
    format_reward,
    group_advantage,
    named,
    turns_of,
)
from pipeline.train.rules import ANSWER_RULES, FORMAT_RULES
from pipeline.trajectory import Observation

LAW = settings(deadline=None, max_examples=60)  # a busy machine breaks no law
GOLDENS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "goldens" / "rewards.json").read_text()
)
PUBLISHED: Mapping[str, tuple[str, dict[str, Any]]] = {
    "reward0": ("published", {"answer_rule": "overlap", "format_rule": "enclosed"}),
    "reward1": ("f1", {}),
    "reward2": ("f1-majority", {}),
    "reward3": ("published", {"answer_rule": "judge", "format_rule": "tags"}),
    "reward4": ("zoom-bonus", {"answer_rule": "judge", "format_rule": "tags"}),
    "reward5": ("half-zoom-bonus", {"answer_rule": "judge", "format_rule": "tags"}),
    "reward6": ("wrong-zoom-bonus", {"answer_rule": "judge", "format_rule": "tags"}),
}
"""What the published code calls `reward` … `reward6`."""

CALL = (
    "<think> closer </think>\n<tool_call>\n"
    '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [1, 2, 30, 40]}}\n</tool_call>'
)
RED = "<think> It is red. </think>\n<answer> red </answer>"
BLUE = "<think> It is blue. </think>\n<answer> blue </answer>"
GAIN = {"zoomed": True, "no_gain": False}


def of(*prefixes: str) -> Any:
    """The cases whose names begin so, but for those where the published code breaks."""
    cases = [case for case in GOLDENS if case["name"].startswith(prefixes)]
    cases = [case for case in cases if "raises" not in str(case["expected"])]
    assert cases
    return pytest.mark.parametrize("case", cases, ids=[case["name"] for case in cases])


def reply(case: dict[str, Any]) -> Callable[[str, str, str], bool]:
    """The judge that the case was recorded with."""
    return lambda question, target, answer: case["inputs"]["judge_reply"][-1:] in ("1", "E")


def rollout(*texts: str) -> list[dict[str, Any]]:
    """The messages of a rollout: what was said, and a view after each turn but the last."""
    view = {"role": "tool", "content": [{"type": "image"}, {"type": "text", "text": RED}]}
    said = [{"role": "assistant", "content": text} for text in texts]
    return [m for one in said for m in (one, view)][:-1]


@of("reward")
def test_rewards_are_the_published_ones(case: dict[str, Any]) -> None:
    variant, _, what = case["name"].partition("/")
    text, expected = case["inputs"].get("solution_str", ""), case["expected"]
    if variant == "reward0_f1acc":
        answer, target = case["inputs"]["answer"], case["inputs"]["ground_truth"]
        answered = f"<answer>{answer}</answer>"
        assert answer_reward([answered], target=[target], answer_rule="overlap") == [expected]
    elif variant == "reward_format_error":
        long = "<think>a</think><answer>" + "a " * 1001 + "</answer>"
        text = long if what == "long_answer" else case["inputs"]["text"]
        assert format_reward([text], format_rule="tags") == [float(not expected)]
    else:
        name, rules = PUBLISHED[variant]
        if "math" in what:
            rules = rules | {"answer_rule": "numeric"}
        if variant > "reward2":
            rules = rules | {"judge": reply(case), "looks": [[]]}
        columns = {"target": [case["inputs"]["ground_truth"]], **rules}
        score = expected["score"] if isinstance(expected, dict) else expected
        assert REWARDS[name]([text], **columns) == [pytest.approx(score, abs=1e-6)]


def test_a_branch_that_raises_in_the_published_code_rewards_here() -> None:
    (case,) = [case for case in GOLDENS if case["name"] == "reward4/math_branch_bug"]
    text, target = case["inputs"]["solution_str"], case["inputs"]["ground_truth"]
    columns = {"target": [target], "answer_rule": "numeric", "looks": [[GAIN]]}
    assert REWARDS["zoom-bonus"]([text], **columns) == [2.0]


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [("zoom-bonus", 2.0, 0.1), ("half-zoom-bonus", 1.5, 0.1), ("wrong-zoom-bonus", 1.0, 0.6)],
)
def test_rewards_after_a_zoom_are_the_published_ones(name: str, right: float, wrong: float) -> None:
    completions = [rollout(CALL, RED), rollout(CALL, BLUE)]
    told = REWARDS[name](completions, target=["red"] * 2, looks=[[GAIN]] * 2)
    assert told == pytest.approx([right, wrong])


def test_an_article_costs_f1_but_no_majority() -> None:
    text = ["<think>a</think><answer>the red bus</answer>"]
    assert REWARDS["f1"](text, target=["red bus"]) == [pytest.approx(0.82)]
    assert REWARDS["f1-majority"](text, target=["red bus"]) == [1.0]


def test_the_outcome_has_four_values() -> None:
    completions = [RED, "<answer> red </answer>", BLUE, "blue"]
    told = REWARDS["outcome"](completions, target=["red"] * 4)
    assert told == [1.3, 0.85, 0.3, -0.15]


@of("agar_scores/")
def test_agar_scores_are_those_of_the_released_code(case: dict[str, Any]) -> None:
    given = case["inputs"]
    floor = 0.0 if "core_algos1" in case["function"] else 0.1
    zoomed = [path == "zoomin" for path in given["formats"]]
    valid = [score in (0.1, 1.0) for score in given["scores"]]
    told = agar(given["corrects"], zoomed, valid, form="code", floor=floor)
    assert told == pytest.approx(case["expected"])


@of("agar_paper/")
def test_agar_rewards_are_those_of_the_paper(case: dict[str, Any]) -> None:
    given = case["inputs"]
    flags = (list(map(bool, given[name])) for name in ("correct", "zoom", "format_ok"))
    told = agar(*flags, discount=given["delta"], floor=given["gamma"])
    assert told == pytest.approx(case["expected"])


@of("agar/", "agar1/")
def test_advantages_are_those_of_the_released_code(case: dict[str, Any]) -> None:
    given = case["inputs"]
    index = given.get("index", ["a"] * len(given["rewards"]))
    advantages = dict.fromkeys(range(len(index)), 0.0)
    for key in set(index):
        places = [place for place, own in enumerate(index) if own == key]
        rewards = [given["rewards"][place] for place in places]
        zoomed = [given["formats"][place] == "zoom" for place in places]
        correct, valid = [r > 0.5 for r in rewards], [r in (0.1, 1.0) for r in rewards]
        floor = 0.0 if case["name"].startswith("agar1") else 0.1
        scores = agar(correct, zoomed, valid, form="code", floor=floor)
        told = group_advantage(scores, by_std=given["norm_adv_by_std"])
        advantages |= dict(zip(places, told, strict=True))
    assert list(advantages.values()) == pytest.approx(case["expected"]["adv"], abs=2e-6)


def test_agar_of_a_group_that_is_all_wrong_pays_the_zoom_in_the_code_alone() -> None:
    flags = [False] * 4, [True, False, False, True], [True, True, False, False]
    told = group_advantage(agar(*flags, form="code"), by_std=False)
    assert told == pytest.approx([0.225, -0.175, -0.275, 0.225])
    assert agar(*flags) == [0.1, 0.1, 0.0, 0.0]


def test_a_rollout_that_is_alone_keeps_its_own_reward_in_the_released_code() -> None:
    assert agar([False], [True], [True], form="code") == [0.1]
    assert agar([True], [True], [False], form="code") == [0.9]


texts = st.one_of(
    st.sampled_from([RED, BLUE, CALL, "<answer> red </answer>", "red", "", "<think>", "<answer>"]),
    st.text(max_size=20).map(lambda text: f"<think> a </think>\n<answer> {text} </answer>"),
    st.lists(
        st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "<tool_call>", "1", " "]),
        max_size=8,
    ).map("".join),
)
completions_ = st.one_of(texts, st.lists(texts, min_size=1, max_size=3).map(lambda t: rollout(*t)))
looks_ = st.lists(
    st.fixed_dictionaries(
        {
            "zoomed": st.booleans(),
            "no_gain": st.sampled_from([True, False, None]),
        }
    ),
    max_size=3,
)
rollouts_ = st.lists(
    st.tuples(completions_, looks_, st.sampled_from(["red", "8", "B"]), st.sampled_from("ab")),
    min_size=1,
    max_size=6,
)
ALL = [(name, rule) for name in REWARDS for rule in sorted({*ANSWER_RULES} - {"option", "judge"})]
BOUNDS = {
    "outcome": (-0.15, 1.3),
    "zoom-bonus": (0.0, 2.0),
    "half-zoom-bonus": (0.0, 1.5),
    "wrong-zoom-bonus": (0.0, 1.05),
}


def rewarded(name: str, rule: str, rollouts: list[Any], **more: Any) -> list[float]:
    completions, looks, target, key = zip(*rollouts, strict=True)
    columns = {"looks": looks, "target": target, "sample_id": key, "answer_rule": rule} | more
    return REWARDS[name](completions, **columns)


@LAW
@given(st.sampled_from(ALL), st.sampled_from(sorted(FORMAT_RULES)), rollouts_)
def test_rewards_are_bounded(which: tuple[str, str], form: str, rollouts: list[Any]) -> None:
    low, high = BOUNDS.get(which[0], (0.0, 1.0))
    for profile in ("cof-v2", "cof-v1"):
        told = rewarded(*which, rollouts, format_rule=form, profile=profile)
        assert len(told) == len(rollouts)
        assert all(low - 1e-9 <= reward <= high + 1e-9 for reward in told)


@LAW
@given(st.sampled_from(ALL), rollouts_, st.randoms())
def test_rewards_do_not_depend_on_order(
    which: tuple[str, str], rollouts: list[Any], chance: Any
) -> None:
    places = list(range(len(rollouts)))
    chance.shuffle(places)
    told = rewarded(*which, rollouts)
    shuffled = rewarded(*which, [rollouts[place] for place in places])
    assert shuffled == [told[place] for place in places]


@LAW
@given(st.sampled_from(ALL), rollouts_)
def test_a_zoom_that_was_not_carried_out_or_gained_nothing_earns_nothing(
    which: tuple[str, str], rollouts: list[Any]
) -> None:
    void = [
        (c, [look for look in looks if not (look["zoomed"] and look["no_gain"] is False)], t, k)
        for c, looks, t, k in rollouts
    ]
    never = [(completion, [], target, key) for completion, _, target, key in rollouts]
    assert rewarded(*which, void) == rewarded(*which, never)


@LAW
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=8))
def test_agar_is_bounded_and_pays_a_right_answer_most(
    flags: list[tuple[bool, bool, bool]],
) -> None:
    columns = [[flag[place] for flag in flags] for place in range(3)]
    for told in (agar(*columns), agar(*columns, form="code")):
        assert all(0 <= reward <= 1 for reward in told)
        right = [r for r, (correct, _, _) in zip(told, flags, strict=True) if correct]
        wrong = [r for r, (correct, _, _) in zip(told, flags, strict=True) if not correct]
        assert not right or not wrong or min(right) > max(wrong)


@LAW
@given(st.lists(st.floats(-10, 10), max_size=8), st.randoms(), st.booleans())
def test_advantages_sum_to_nothing_and_follow_their_rollouts(
    rewards: list[float], chance: Any, by_std: bool
) -> None:
    told = group_advantage(rewards, by_std=by_std)
    if len(rewards) > 1:
        assert sum(told) == pytest.approx(0, abs=1e-6)
    places = list(range(len(rewards)))
    chance.shuffle(places)
    shuffled = group_advantage([rewards[place] for place in places], by_std=by_std)
    assert shuffled == [told[place] for place in places]


def test_equal_rewards_have_no_advantage_and_nan_is_refused() -> None:
    for reward in (0.1, 0.8, 0.85):
        assert group_advantage([reward] * 3) == [0.0] * 3
    with pytest.raises(ValueError, match="finite"):
        group_advantage([1.0, float("nan")])


def test_a_zoom_is_a_look_that_brought_pixels_whatever_the_text_says() -> None:
    whole = Observation(Box(0, 0, 400, 300), (100, 75))
    part = Observation(Box(0, 0, 100, 75), (100, 75), 0)
    assert look_record(part, [whole]) == GAIN
    assert look_record(part, [whole, part])["no_gain"]
    assert look_record(whole, [whole]) == {"zoomed": True, "no_gain": True}
    assert look_record(None, [whole]) == {"zoomed": False, "no_gain": True}
    looks = [[look_record(part, [whole])], [look_record(whole, [whole])], [], None]
    assert zoomed_rollouts({"looks": looks}, 4) == [True, False, False, False]
    spoken = [rollout(CALL, RED)] * 2
    told = REWARDS["zoom-bonus"](spoken, target=["red"] * 2, looks=looks[:2])
    assert told == [2.0, 1.0]


def test_zooms_are_read_from_each_kind_of_column_and_never_guessed() -> None:
    flags = [[np.False_], [True, None], [], None]
    assert zoomed_rollouts({"no_gain": flags}, 4) == [True, False, False, False]
    kept = [SimpleNamespace(looks=[GAIN]), SimpleNamespace(looks=[]), SimpleNamespace(looks=[GAIN])]
    assert zoomed_rollouts({"environments": kept}, 2) == [True, False]
    with pytest.raises(ConfigError, match="looks"):
        REWARDS["agar-paper"]([CALL], target=["red"], sample_id=["a"])
    with pytest.raises(ValueError, match="2 values for 1"):
        zoomed_rollouts({"looks": [[], []]}, 1)


def test_agar_rewards_each_question_by_its_own_rollouts() -> None:
    completions = [RED, rollout(CALL, RED), rollout(CALL, RED), BLUE]
    columns = {"target": ["red"] * 4, "looks": [[], [GAIN], [GAIN], []]}
    apart = REWARDS["agar-paper"](completions, sample_id=["a", "a", "b", "b"], **columns)
    assert apart == [1.0, 0.8, 1.0, 0.1]
    together = REWARDS["agar-paper"](completions, sample_id=["a"] * 4, **columns)
    assert together == [1.0, 0.8, 0.8, 0.1]
    budgets = REWARDS["agar-paper"](
        completions, sample_id=["a"] * 4, resolution=[224, 224, 448, 448], **columns
    )
    assert budgets == apart
    with pytest.raises(ConfigError, match="multiple of the group"):
        REWARDS["agar-paper"](completions, sample_id=["a", "a", "a", "b"], group_size=2, **columns)


def test_a_judge_is_asked_only_where_the_rule_leaves_room_and_its_failure_is_raised() -> None:
    asked: list[tuple[str, str, str]] = []

    def judge(question: str, target: str, answer: str) -> bool:
        asked.append((question, target, answer))
        return True

    def broken(question: str, target: str, answer: str) -> bool:
        raise ModelError("The judge is down.")

    said = ["red", "crimson", "", "(B)", "deep red"]
    completions = [f"<answer>{answer}</answer>" for answer in said]
    options = [None, None, None, ["red", "blue"], ["red", "blue"]]
    columns = {"target": ["red"] * 3 + ["A"] * 2, "question": ["Colour?"] * 5, "options": options}
    assert answer_reward(completions, judge=judge, **columns) == [1.0, 1.0, 0.0, 0.0, 1.0]
    assert asked == [("Colour?", "red", "crimson"), ("Colour?", "red", "deep red")]
    for name in ("answer", "outcome", "published"):
        with pytest.raises(ModelError, match="down"):
            REWARDS[name](completions, judge=broken, **columns)
    with pytest.raises(ModelError, match="no verdict"):
        answer_reward([BLUE], target=["red"], judge=lambda q, t, a: None)
    with pytest.raises(ConfigError, match="needs a judge"):
        answer_reward([BLUE], target=["red"], answer_rule="judge")


@pytest.mark.parametrize(
    ("rule", "answer", "target", "options", "value"),
    [
        ("same", "B", "blue", ["red", "blue"], 1.0),
        ("same", "[0, 0, 10, 10]", "[1, 0, 10, 10]", [], 1.0),
        ("same", "[0, 0, 10, 10]", "[50, 0, 60, 10]", [], 0.0),
        ("exact", "The  red-bus", "the redbus.", [], 1.0),
        ("exact", "B", "blue", ["red", "blue"], 0.0),
        ("option", "(B) blue", "B", ["red", "blue"], 1.0),
        ("option", "a bus", "B", ["red", "blue"], 0.0),
        ("numeric", "0.50", "1/2", [], 1.0),
        ("numeric", "1,000", "1000.0", [], 1.0),
        ("numeric", "−5", "-5.", [], 1.0),
        ("numeric", "50%", "0.5", [], 0.0),
        ("numeric", "50 %", "50%", [], 1.0),
        ("numeric", "3 cm", "3 CM", [], 1.0),
        ("numeric", "3 cm", "3 m", [], 0.0),
        ("numeric", "1/0", "1/0", [], 1.0),
        ("numeric", "0.0000001", "0.0000002", [], 0.0),
        ("numeric", "9" * 5000, "9" * 5001, [], 0.0),
        ("numeric", "5.0", "B", ["3", "5"], 1.0),
        ("numeric", "3.0", "B", ["3", "5"], 0.0),
        ("f1", "red car", "red bus", [], 0.5),
    ],
)
def test_answers_are_graded_by_the_rule(
    rule: str, answer: str, target: str, options: list[str], value: float
) -> None:
    question = "Where is it? Answer with its box."
    columns = {"target": [target], "options": [options], "question": [question]}
    assert answer_reward([f"<answer>{answer}</answer>"], answer_rule=rule, **columns) == [value]


def test_a_target_among_its_boxes_is_met_by_a_box_that_overlaps_it() -> None:
    said = ["<answer>[0, 0, 10, 10]</answer>", "<answer>[0, 0, 4, 10]</answer>"]
    boxes = [[1.0, 0.0, 10.0, 10.0], [5, 5, 5, 9]]  # the second vanished in rounding
    columns = {"target": ["[1, 0, 10, 10]"] * 2}
    assert answer_reward(said, target_boxes=[boxes, boxes], **columns) == [1.0, 0.0]
    assert answer_reward(said, target_boxes=[None, []], **columns) == [0.0, 0.0]


def test_an_option_that_is_none_of_the_options_is_a_fault_of_the_data() -> None:
    with pytest.raises(ConfigError, match="none of its 2 options"):
        columns = {"target": ["green"], "options": [["red", "blue"]]}
        answer_reward([RED], answer_rule="option", **columns)


@pytest.mark.parametrize(
    ("completion", "valid"),
    [
        (RED, True),
        (rollout(CALL, RED), True),
        (rollout(RED, RED), False),
        (rollout(CALL, CALL), False),
        (rollout(CALL, CALL, RED)[:-1], False),
        ([], False),
        ("", False),
        (CALL, False),
        (f"{CALL}\n{RED}", False),
        (f"Sure. {RED}", False),
        ("<answer> red </answer>", False),
        (rollout(CALL.replace("image_zoom_in_tool", "other"), RED), False),
        (rollout(CALL.replace("[1, 2, 30, 40]", "[1, 2, 30]"), RED), False),
    ],
)
def test_a_rollout_has_the_form_when_every_turn_has_it(completion: Any, valid: bool) -> None:
    assert format_reward([completion]) == [float(valid)]


def test_a_cof_v1_rollout_is_one_turn_cut_by_its_views() -> None:
    box = "<|box_start|>[1, 2, 30, 40]<|box_end|>"
    pieces = (f"<think> It is there {box} <|image_zoomin|>", "</think>\n<answer> red </answer>")
    whole = "".join(pieces)
    for completion in (whole, rollout(*pieces)):
        assert format_reward([completion], profile="cof-v1") == [1.0]
        assert format_reward([completion]) == [0.0]


def test_what_a_trainer_parsed_out_of_a_message_is_put_back() -> None:
    arguments = {"bbox_2d": [1, 2, 30, 40]}
    for form in (arguments, json.dumps(arguments)):
        function = {"name": "image_zoom_in_tool", "arguments": form}
        first = {
            "role": "assistant",
            "content": None,
            "reasoning_content": "closer",
            "tool_calls": [{"type": "function", "function": function}],
        }
        assert turns_of([first]) == [CALL]
        blocks = {"role": "assistant", "content": [{"type": "text", "text": RED}]}
        rolled = [first, {"role": "tool", "content": "view"}, blocks]
        assert turns_of(rolled) == [CALL, RED]
        assert format_reward([rolled]) == [1.0]


def test_an_answer_is_what_the_model_said_last_and_nobody_else() -> None:
    target = {"target": ["red"]}
    assert answer_reward([rollout(CALL, RED)], **target) == [1.0]
    assert answer_reward([rollout(CALL, "<think> a </think>")], **target) == [0.0]
    assert answer_reward([rollout(RED, "no")], **target) == [0.0]
    assert answer_reward([rollout(RED, "no")[:-1]], **target) == [0.0]  # breaks off at a view


@pytest.mark.parametrize("name", REWARDS)
def test_rewards_are_called_as_trl_calls_them(name: str) -> None:
    reward = named(name, answer_rule="same", format_rule="grammar")
    environments = [SimpleNamespace(looks=[GAIN])] * 3  # one for each place of a whole batch
    for completions in ([RED, BLUE], [rollout(CALL, RED), rollout(CALL, BLUE)]):
        told = reward(
            prompts=["?", "?"],
            completions=completions,
            completion_ids=[[1], [2]],
            trainer_state=object(),
            log_extra=print,
            log_metric=print,
            environments=environments,
            target=["red", "red"],
            question=["What colour?"] * 2,
            options=[[], []],
            sample_id=["a", "a"],
            resolution=[448, 448],
        )
        assert len(told) == 2 and all(isinstance(value, float) for value in told)
    assert named("answer", answer_rule="f1")(["<answer>red car</answer>"], target=["red bus"]) == [
        0.5
    ]
    assert reward.__name__ == name and not inspect.iscoroutinefunction(reward)


def test_an_unknown_name_or_setting_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'outcome'"):
        named("outcom")
    with pytest.raises(ConfigError, match="Did you mean 'answer_rule'"):
        named("outcome", answer_rul="exact")
    with pytest.raises(ConfigError, match="Did you mean 'grammar'"):
        format_reward([RED], format_rule="gramar")
    with pytest.raises(ConfigError, match="no form"):
        agar([True], [True], [True], form="papers")  # type: ignore[arg-type]


def test_a_column_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        answer_reward([RED, RED], target=["red"])


def test_a_hostile_rollout_takes_no_time() -> None:
    hostile = [
        "<think>" * 20_000,
        "<think>a</think><answer>" * 5_000 + "</answer>",
        "<think>" + "</think>" * 20_000 + "</answer>",
        f"<answer>1{',000' * 5_000}</answer>",
        f"<answer>{chr(92)}frac{'{1}' * 5_000}</answer>",
    ]
    started = time.process_time()
    for rule in FORMAT_RULES:
        format_reward(hostile, format_rule=rule)
    for rule in {*ANSWER_RULES} - {"option", "judge"}:
        answer_reward(hostile, target=["8"] * len(hostile), answer_rule=rule)
    assert time.process_time() - started < 3
