"""Laws of the roles' templates and parsers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.agent import roles
from pipeline.agent.chat import Reply, ToolUse
from pipeline.agent.review import leaks
from pipeline.errors import GrammarError
from pipeline.geometry import Frame
from pipeline.samples import Sample, Truth
from tests.agent.fakes import board, sample_of

FRAME = Frame("pixels", (640, 448), (640, 448))


def plan(text: str, *tools: ToolUse, finish: str = "stop") -> roles.Plan:
    return roles.read_plan(Reply(text, finish, tools))


def test_a_turn_with_tools_is_read_in_text_and_natively_alike() -> None:
    arguments = {"box": [1, 2, 30, 40], "label": "a sign"}
    call = json.dumps({"name": "zoom", "arguments": arguments})
    written = plan(f"<think> closer </think>\n<tool_call>\n{call}\n</tool_call>")
    native = plan("closer", ToolUse("zoom", json.dumps(arguments)))
    assert written == native == roles.Plan("closer", (roles.Use("zoom", arguments),))


def test_several_tools_in_a_turn_are_read_in_order() -> None:
    calls = [{"name": "locate", "arguments": {"phrase": str(n)}} for n in range(3)]
    text = "".join(f"<tool_call>{json.dumps(call)}</tool_call>" for call in calls)
    assert [use.arguments["phrase"] for use in plan(text).uses] == ["0", "1", "2"]


def test_an_answer_is_what_stands_in_its_tag() -> None:
    assert plan("<think> I see it. </think> <answer> A7K </answer>") == roles.Plan(
        "I see it.", (), "A7K"
    )
    assert plan("It is plain. <answer>A7K</answer>").thought == "It is plain."


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "0 answers"),
        ("I do not know.", "0 answers"),
        ("<think> hm <answer> A </answer>", "<think> has no partner"),
        ("<answer> A </answer></think>", "no partner"),
        ("<answer> </answer>", "empty"),
        ("<answer>A</answer><answer>B</answer>", "2 answers"),
        (
            '<tool_call>{"name": "zoom", "arguments": {"box": [1]}}</tool_call><answer>A</answer>',
            "both",
        ),
        ("<tool_call>{broken</tool_call>", "no JSON"),
        ("<tool_call>[1, 2]</tool_call>", "object"),
        ('<tool_call>{"name": "delete_files", "arguments": {}}</tool_call>', "no tool"),
        ('<tool_call>{"name": "zoom", "arguments": {"label": "x"}}</tool_call>', "'box'"),
        ('<tool_call>{"name": "zoom", "arguments": [1]}</tool_call>', "object"),
    ],
)
def test_a_turn_that_breaks_the_form_says_how(text: str, why: str) -> None:
    with pytest.raises(GrammarError, match=why):
        plan(text)


def test_a_turn_cut_off_at_its_length_is_no_turn() -> None:
    with pytest.raises(GrammarError, match="longer"):
        plan("<answer> A </answer>", finish="length")


@given(text=st.text(), tools=st.lists(st.tuples(st.text(), st.text()), max_size=2))
def test_whatever_a_model_says_is_a_plan_or_a_grammar_error(
    text: str, tools: list[tuple[str, str]]
) -> None:
    try:
        said = plan(text, *(ToolUse(*tool) for tool in tools))
    except GrammarError:
        return
    assert (said.answer is None) == bool(said.uses)
    assert said.answer is None or said.answer == said.answer.strip() != ""


def test_boxes_are_found_in_prose_and_an_empty_list_is_none() -> None:
    assert roles.read_boxes("It is at [1, 2, 3, 4] or ```[5.5,6,7,8]```.") == [
        [1, 2, 3, 4],
        [5.5, 6, 7, 8],
    ]
    assert roles.read_boxes('[{"bbox_2d": [1, 2, 3, 4]}]') == [[1, 2, 3, 4]]
    assert roles.read_boxes("[]") == roles.read_boxes("none: [ ]") == []
    with pytest.raises(GrammarError):
        roles.read_boxes("I cannot find it.")


def test_a_verdict_needs_a_plain_true_or_false() -> None:
    said = 'Sure: {"supported": false, "advice": "Look to the left."}'
    assert roles.read_verdict(said, "supported") == (False, "Look to the left.")
    for bad in ("no", "{}", '{"supported": "false"}', '{"right": true}'):
        with pytest.raises(GrammarError):
            roles.read_verdict(bad, "supported")


def test_a_summary_chooses_looks_that_there_are_and_says_a_thought_for_each() -> None:
    good = {"needed": [2, 1], "thoughts": ["a", "b", "c"]}
    assert roles.read_summary(json.dumps(good), 3) == ([1, 2], ["a", "b", "c"])
    for bad in (
        {**good, "needed": [4, 1]},
        {**good, "needed": []},
        {**good, "thoughts": ["a", "b"]},
        {**good, "thoughts": ["a", "", "c"]},
        {**good, "needed": [True, 2]},
        [],
    ):
        with pytest.raises(GrammarError):
            roles.read_summary(json.dumps(bad), 3)


def test_the_planner_is_told_its_tools_its_frame_and_its_limit() -> None:
    for native in (True, False):
        text = roles.planner_system(FRAME, 5, native=native)
        assert "640 x 448" in text and "At most 5" in text
        assert all(f"{tool['function']['name']}(" in text for tool in roles.TOOL_SCHEMAS)
        assert ("<tool_call>" in text) is not native


def test_every_template_counts_in_the_digest() -> None:
    told = [v for k, v in vars(roles).items() if k.isupper() and isinstance(v, str)]
    templates = [text for text in told if text != roles.PROMPTS_SHA256]
    assert set(templates) == set(roles._TEMPLATES)


PICTURE = board(())


@pytest.mark.parametrize(
    "advice",
    [
        "It says A7K.",
        "Look for a 7 k.",
        "The code begins A-7-K",
        "the answer is a7k!",
    ],
)
def test_advice_with_the_truth_in_it_leaks(advice: str) -> None:
    assert leaks(advice, sample_of(PICTURE, "?"), Truth("s", "A7K"))


def test_advice_that_names_the_right_option_leaks() -> None:
    sample = Sample("s#0", "s", PICTURE, PICTURE.size, "?", ("a red kite", "a blue car"))
    truth = Truth("s#0", "B")
    for advice in ("Choose option B.", "(b) fits", "It is a blue car", "B is right"):
        assert leaks(advice, sample, truth)
    assert not leaks("Zoom in on the left edge.", sample, truth)
    assert not leaks("Enlarge the box a little.", sample_of(PICTURE, "?"), Truth("s", "A7K"))
