"""A turn survives being written and read; what is not a turn is refused with one sentence."""

from __future__ import annotations

import contextlib
import itertools
import json
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, GrammarError
from pipeline.geometry import Frame
from pipeline.grammar import PROFILES, Profile, parse, read_segments, render_turn
from pipeline.instructions import instructions
from pipeline.turns import Mark, Segment, Turn, ZoomCall, tidy

LAW = settings(deadline=None, max_examples=40)  # a busy machine breaks no law
ZOOMIN = Mark.ZOOMIN
MARKS = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<answer>",
    "</answer>",
    "<|box_start|>",
    "<|box_end|>",
    "<|image_zoomin|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<image>",
]

numbers = st.integers(-5000, 5000) | st.floats(-1e6, 1e6)
boxes = st.tuples(numbers, numbers, numbers, numbers)
characters = st.characters(exclude_categories=["Cs"])
texts = st.text(characters | st.sampled_from(list('<>/|[]{}" \n')), max_size=40).filter(
    lambda text: not any(mark in text for mark in MARKS) and "<|" not in text
)
answers = texts.filter(str.strip)
calls = st.builds(ZoomCall, boxes, texts)
v2_turns = st.builds(Turn, texts, st.lists(calls, min_size=1, max_size=3).map(tuple)) | st.builds(
    Turn, texts, answer=answers
)
looks = st.tuples(
    texts, st.lists(boxes.flatmap(lambda b: texts.map(lambda t: [b, t])), min_size=1, max_size=3)
).map(lambda look: [look[0], *itertools.chain(*look[1]), ZOOMIN])
v1_turns = st.builds(
    lambda looks, rest, answer: Turn(answer=answer, segments=(*itertools.chain(*looks), *rest)),
    st.lists(looks, max_size=3),
    st.lists(texts | boxes, max_size=4),
    answers,
)


@LAW
@given(v2_turns)
def test_a_cof_v2_turn_survives_being_written_and_read(turn: Turn) -> None:
    assert parse(render_turn(turn, "cof-v2"), "cof-v2") == turn


@LAW
@given(v1_turns)
def test_a_cof_v1_turn_survives_being_written_and_read(turn: Turn) -> None:
    assert parse(render_turn(turn, "cof-v1"), "cof-v1") == turn


def test_the_published_forms_are_written_to_the_byte() -> None:
    call = Turn("The sticker is small.", (ZoomCall((107, 455, 249, 498)),))
    assert render_turn(call, "cof-v2") == (
        "<think> The sticker is small. </think>\n<tool_call>\n"
        '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [107, 455, 249, 498]}}\n'
        "</tool_call>"
    )
    answer = Turn("It reads CC.", answer="cc")
    assert render_turn(answer, "cof-v2") == "<think> It reads CC. </think>\n<answer> cc </answer>"
    inline = Turn(answer="cc", segments=("At ", (1, 2, 3, 4), " it is small. ", ZOOMIN, " CC."))
    assert render_turn(inline, "cof-v1") == (
        "<think> At <|box_start|>[1, 2, 3, 4]<|box_end|> it is small. <|image_zoomin|> CC. </think>"
        "\n<answer> cc </answer>"
    )


def test_ints_stay_ints_and_floats_floats() -> None:
    turn = Turn("", (ZoomCall((1, 2.0, 3, 0.25)),))
    box = parse(render_turn(turn, "cof-v2"), "cof-v2").calls[0].box
    assert [type(value) for value in box] == [int, float, int, float]


def test_a_label_is_written_in_its_own_script() -> None:
    assert '"label": "犬"' in render_turn(Turn("", (ZoomCall((1, 2, 3, 4), "犬"),)), "cof-v2")


def test_white_space_between_and_inside_the_tags_does_not_matter() -> None:
    call = {
        "arguments": {"label": "dog", "bbox_2d": [10, 10, 50, 50]},
        "name": "image_zoom_in_tool",
    }
    text = f"\n <think>look</think>\n\n<tool_call>{json.dumps(call, indent=2)}</tool_call> \n"
    assert parse(text, "cof-v2") == Turn("look", (ZoomCall((10, 10, 50, 50), "dog"),))
    assert parse("<think>\na\n</think><answer>b</answer>", "cof-v1") == Turn("a", answer="b")


def test_a_zoom_takes_all_boxes_named_since_the_last_one() -> None:
    segments = ("a", (1, 1, 2, 2), " and ", (3, 3, 4, 4), ZOOMIN, "b", (5, 5, 6, 6), ZOOMIN, "c")
    turn = Turn(answer="x", segments=(*segments, (7, 7, 8, 8)))
    assert [call.box for call in turn.calls] == [(1, 1, 2, 2), (3, 3, 4, 4), (5, 5, 6, 6)]
    assert turn.thought == "a and b c"
    named = Turn(answer="x", segments=("only named ", (1, 1, 2, 2)))
    assert named.calls == () and parse(render_turn(named, "cof-v1"), "cof-v1") == named


def test_a_thought_cut_off_at_a_zoom_can_be_read_so_far() -> None:
    text = "Look <|box_start|>[1, 2, 3, 4]<|box_end|> <|image_zoomin|>"
    assert read_segments(text) == ("Look ", (1, 2, 3, 4), " ", ZOOMIN)


# What is refused


def call(arguments: str, name: str = "image_zoom_in_tool") -> str:
    body = f'{{"name": "{name}", "arguments": {arguments}}}'
    return f"<think> look </think>\n<tool_call>\n{body}\n</tool_call>"


GOOD = call('{"bbox_2d": [1, 2, 3, 4]}')


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "begins with <think>"),
        ("The answer is A", "text outside the tags"),
        ("<answer> A </answer>", "begins with <think>"),
        (GOOD.removeprefix("<think> look </think>\n"), "begins with <think>"),
        ("<answer> A </answer><think> a </think>", "begins with <think>"),
        ("<think> a </think>", "does neither"),
        ("<think> a <answer> b </answer>", "<think> is not closed, <answer> comes first"),
        ("<think> a </think><answer> b", "<answer> is not closed"),
        (GOOD.removesuffix("</tool_call>"), "<tool_call> is not closed"),
        ("</think> a <think>", "closes a tag that is not open"),
        ("<think> a <think> b </think></think><answer> c </answer>", "<think> is not closed"),
        ("<think> a </think><think> b </think><answer> c </answer>", "one <think>"),
        ("<think> a </think><answer> b </answer><answer> c </answer>", "one <answer>"),
        (GOOD + "<answer> A </answer>", "never both"),
        (GOOD + " then I wait", "text outside the tags: 'then I wait'"),
        ("<think> a </think><answer>  </answer>", "answer is empty"),
        ("<think> a </think><answer> b <|im_end|></answer>", "The answer holds '<|im_end|>'"),
        ("<think> <image> </think><answer> b </answer>", "The thought holds '<image>'"),
        (call('{"bbox_2d": [1, 2, 3, 4}'), "is JSON"),
        (call('{"bbox_2d": [1, 2, 3, 4]}', "other_tool"), "no tool 'other_tool'"),
        (call("{}"), "needs the argument bbox_2d"),
        (call("[1, 2, 3, 4]"), "needs the argument bbox_2d"),
        (call('{"bbox": [1, 2, 3, 4]}'), "needs the argument bbox_2d"),
        (call('{"bbox_2d": [1, 2, 3, 4], "angle": 3}'), "no argument 'angle'"),
        (call('{"bbox_2d": [1, 2, 3]}'), "four numbers, not 3"),
        (call('{"bbox_2d": [1, 2, 3, 4, 5]}'), "four numbers, not 5"),
        (call('{"bbox_2d": "1,2,3,4"}'), "list of four numbers, not str"),
        (call('{"bbox_2d": [1, 2, 3, true]}'), "numbers, not bool"),
        (call('{"bbox_2d": [1, 2, 3, null]}'), "numbers, not NoneType"),
        (call('{"bbox_2d": [1, 2, 3, NaN]}'), "finite"),
        (call('{"bbox_2d": [1, 2, 3, 1e999]}'), "finite"),
        (call('{"bbox_2d": [1, 2, 3, 4], "label": 7}'), "label of a tool call is a string"),
        (call('{"bbox_2d": [1, 2, 3, 4], "label": "\\ud800"}'), "half a character"),
        (GOOD.replace('"name"', '"tool"'), '"name" and "arguments"'),
        ("<think> a </think><tool_call> [] </tool_call>", '"name" and "arguments"'),
    ],
)
def test_what_is_no_cof_v2_turn_is_refused_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(GrammarError) as refused:
        parse(text, "cof-v2")
    assert sentence in str(refused.value)
    assert str(refused.value).endswith(".") and len(str(refused.value)) < 200


def inline(thought: str) -> str:
    return f"<think> {thought} </think>\n<answer> A </answer>"


BOX = "<|box_start|>[1, 2, 3, 4]<|box_end|>"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (inline("a <|image_zoomin|> b"), "follows no box"),
        (inline(f"{BOX} <|image_zoomin|> b <|image_zoomin|>"), "follows no box"),
        (inline("<|box_start|>[1, 2, 3, 4] b"), "a mark is missing"),
        (inline("[1, 2, 3, 4]<|box_end|> b"), "a mark is missing"),
        (inline(f"<|box_start|>{BOX}"), "a mark is missing"),
        (inline("<|box_start|>[1, 2, 3]<|box_end|>"), "four numbers, not 3"),
        (inline("<|box_start|>1, 2, 3, 4<|box_end|>"), "A box is JSON"),
        (inline("<|box_start|><|box_end|>"), "A box is JSON"),
        (inline("<|vision_start|>"), "<|vision_start|>"),
        (f"<think> a </think><answer> {BOX} </answer>", "The answer holds"),
        (f"<think> {BOX} <|image_zoomin|> </think>", "ends with an <answer>"),
        (f"<think> {BOX} <|image_zoomin|>", "<think> is not closed"),
        (GOOD, "cof-v1 has no <tool_call>"),
    ],
)
def test_what_is_no_cof_v1_turn_is_refused_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(GrammarError) as refused:
        parse(text, "cof-v1")
    assert sentence in str(refused.value)
    assert str(refused.value).endswith(".") and len(str(refused.value)) < 200


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("profile", PROFILES)
def test_no_text_can_smuggle_in_a_mark(mark: str, profile: Profile) -> None:
    with pytest.raises(GrammarError, match="mark of the grammar"):
        render_turn(Turn(f"a{mark}b", answer="x"), profile)
    with pytest.raises(GrammarError, match="mark of the grammar"):
        render_turn(Turn("a", answer=f"x {mark}"), profile)
    if profile == "cof-v2":
        with pytest.raises(GrammarError, match="The label holds"):
            render_turn(Turn("a", (ZoomCall((1, 2, 3, 4), mark),)), profile)
    else:
        with pytest.raises(GrammarError, match="mark of the grammar"):
            render_turn(Turn(answer="x", segments=(mark[:3], mark[3:], (1, 2, 3, 4))), profile)


@pytest.mark.parametrize(
    ("turn", "profile"),
    [
        (Turn("a"), "cof-v2"),
        (Turn("a", (ZoomCall((1, 2, 3, 4)),), "x"), "cof-v2"),
        (Turn("a", answer=" "), "cof-v2"),
        (Turn("\ud800", answer="x"), "cof-v2"),
        (Turn(answer="x", segments=("a", (1, 2, 3, 4))), "cof-v2"),
        (Turn("a"), "cof-v1"),
        (Turn("a", (ZoomCall((1, 2, 3, 4)),), "x"), "cof-v1"),
        (Turn(segments=("a", (1, 2, 3, 4))), "cof-v1"),
    ],
)
def test_a_turn_that_a_profile_cannot_say_is_not_written(turn: Turn, profile: Profile) -> None:
    with pytest.raises(GrammarError):
        render_turn(turn, profile)


def test_a_turn_cannot_contradict_itself() -> None:
    with pytest.raises(GrammarError, match="follows no box"):
        Turn(answer="x", segments=("a", ZOOMIN))
    with pytest.raises(GrammarError, match="differ"):
        Turn("b", answer="x", segments=("a", (1, 2, 3, 4)))
    with pytest.raises(GrammarError, match="finite"):
        ZoomCall((1, 2, 3, float("inf")))


def test_an_unknown_profile_names_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="cof-v2"):
        parse(GOOD, "cof_v2")  # type: ignore[arg-type]


hostile = st.lists(
    st.sampled_from(
        [
            *MARKS,
            *[
                "[1, 2, 3, 4]",
                "[1e999, -0, 3, 4]",
                GOOD,
                BOX,
                inline("a"),
                inline(BOX),
                "{",
                "[[",
                "]",
            ],
            *['{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [1,2,3,4]}}', "null", "\\u"],
        ]
    )
    | st.text(max_size=6),
    max_size=10,
).map("".join)


@LAW
@given(hostile, st.sampled_from(PROFILES))
@example("<think>a</think><tool_call>" + "[" * 50_000 + "</tool_call>", "cof-v2")
@example(call('{"bbox_2d": [1, 2, 3, ' + "9" * 5_000 + "]}"), "cof-v2")
@example(call('{"bbox_2d": [1, 2, 3, ' + "9" * 400 + "]}"), "cof-v2")
@example(call('{"bbox_2d": ' + "[" * 900 + "]" * 900 + "}"), "cof-v2")
@example(
    '<think>a</think><tool_call>{"name": '
    + "[" * 900
    + "]" * 900
    + ', "arguments": 1}</tool_call>',
    "cof-v2",
)
@example("<think>a\ud800</think><answer>b</answer>", "cof-v2")
@example("<think>a</think><answer>b</answer>\x00", "cof-v1")
def test_any_text_is_a_turn_that_can_be_written_again_or_a_grammar_error(
    text: str, profile: Profile
) -> None:
    try:
        turn = parse(text, profile)
    except GrammarError as refused:
        assert len(str(refused)) < 200
        return
    assert parse(render_turn(turn, profile), profile) == turn


def test_a_hostile_text_takes_no_time() -> None:
    started = time.process_time()
    for piece in [*MARKS, "<", "<|", BOX, "<think></think>", "<tool_call></tool_call>"]:
        for profile in PROFILES:
            for text in (piece * 20_000, f"<think>{piece * 20_000}</think><answer>a</answer>"):
                with contextlib.suppress(GrammarError):
                    parse(text, profile)
    assert time.process_time() - started < 5


@LAW
@given(st.lists(texts | boxes | st.just(" "), max_size=8))
def test_tidying_segments_twice_changes_nothing_more(segments: list[Segment]) -> None:
    assert tidy(tidy(segments)) == tidy(segments)


# What a model is told


@pytest.mark.parametrize("profile", PROFILES)
def test_the_instructions_name_every_mark_and_the_numbers_boxes_are_in(profile: Profile) -> None:
    told = instructions(profile, Frame("pixels", (3000, 2000), (532, 364)))
    marks = MARKS[:6] if profile == "cof-v2" else [*MARKS[:2], *MARKS[4:9]]
    assert all(mark in told for mark in marks)
    assert "532 x 364" in told
    assert "0 to 1000" in instructions(profile, Frame("thousand", (3000, 2000)))
    assert "square" in instructions(profile, Frame("unit-padded", (3000, 2000)))
