"""Answers are found as the published code finds them, and compared by what they say."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.answers import (
    ASKS_FOR_BOX,
    extract_answer,
    is_right,
    matches,
    normalise,
    option_index,
    written_in,
)
from pipeline.geometry import Box, Frame, FrameKind

LAW = settings(deadline=None, max_examples=40)  # a busy machine breaks no law
CASES: list[dict[str, Any]] = [
    case
    for case in json.loads((Path(__file__).parent / "goldens" / "cof_reasoning.json").read_text())
    if "extract_answer" in case["name"]
]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_an_answer_is_extracted_as_the_published_judge_or_reward_does(case: dict[str, Any]) -> None:
    text = case["inputs"]["text"]
    if case["name"].startswith("judge"):
        assert extract_answer(text, which="first", dotall=False) == case["expected"]
    else:
        assert extract_answer(text) == case["expected"]


def test_the_judge_reads_the_first_answer_and_the_reward_the_last() -> None:
    text = "<answer>A</answer> <answer>B</answer>"
    assert extract_answer(text, which="first", dotall=False) == "A"
    assert extract_answer(text) == "B"


pieces = st.sampled_from(["<answer>", "</answer>", "\n", " ", "A", "b", "<answer", ">"])


@LAW
@given(st.lists(pieces, max_size=14).map("".join))
def test_extraction_agrees_with_the_published_expressions(text: str) -> None:
    every = re.findall(r"<answer>(.*?)</answer>", text, re.DOTALL)
    line = re.search(r"<answer>\s*(.*?)\s*</answer>", text)
    assert extract_answer(text) == (every[-1].strip() if every else "")
    judged = extract_answer(text, which="first", dotall=False)
    assert judged == (line.group(1).strip() if line else "")


def test_a_hostile_text_takes_no_time() -> None:
    started = time.process_time()
    for text in ("<answer>" * 20_000, "<answer>" + " \n" * 100_000, "<answer>\nx" * 5_000):
        extract_answer(text, which="first", dotall=False)
        extract_answer(text + "</answer>")
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("CC", "cc"),
        (" Red. ", "red"),
        ("the red bus", "The  red-bus!"),
        ("K7 Q2", "k7q2"),
        ("1,000", "1000"),
        ("**left**", "left"),
        ("−5", "-5"),
        ("ＡＢＣ", "abc"),
        ("straße", "STRASSE"),
        ("?", "?"),
        ("it's", "its"),
    ],
)
def test_answers_that_say_the_same_match(answer: str, target: str) -> None:
    assert matches(answer, target) and matches(target, answer)


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("3.5", "35"),
        ("-5", "5"),
        (".5", "5"),
        ("1/2", "12"),
        ("3:30", "330"),
        ("50%", "50"),
        ("C#", "C"),
        ("A+", "A"),
        ("1,5", "15"),
        ("C", "CC"),
        ("red bus", "red"),
        ("", "red"),
        ("", ""),
        ("?", "!"),
        ("not red", "red"),
    ],
)
def test_answers_that_say_different_things_do_not(answer: str, target: str) -> None:
    assert not matches(answer, target) and not matches(target, answer)


GLOVE = ("rubber", "cotton", "kevlar", "leather")


@pytest.mark.parametrize(
    "answer", ["B", "b", "(B)", "B.", "B)", "b:", "cotton", "Cotton.", "(B) cotton", "B. Cotton"]
)
def test_an_option_is_named_by_letter_by_words_or_by_both(answer: str) -> None:
    assert matches(answer, "cotton", GLOVE) and matches(answer, "B", GLOVE)
    assert not matches(answer, "rubber", GLOVE) and not matches(answer, "A", GLOVE)


@pytest.mark.parametrize(
    "answer", ["", "E", "(B) rubber", "A B", "cotton or rubber", "(", "Ⅽ", "β"]
)
def test_what_names_no_option_or_two_matches_none(answer: str) -> None:
    assert option_index(answer, GLOVE) is None
    assert not any(matches(answer, option, GLOVE) for option in GLOVE)


def test_options_that_are_letters_themselves_are_told_by_their_words() -> None:
    assert option_index("A", ("B", "A")) == 1
    assert option_index("(A)", ("B", "A")) == 0
    assert option_index("a.m.", ("p.m.", "a.m.")) == 1


def test_options_that_differ_in_punctuation_only_are_told_apart_exactly() -> None:
    assert matches("yes?", "yes?", ("yes!", "yes?"))
    assert not matches("yes!", "yes?", ("yes!", "yes?"))
    assert option_index("yes", ("yes!", "yes?")) is None


@LAW
@given(st.text(max_size=30))
def test_an_answer_matches_itself_unless_it_is_empty(text: str) -> None:
    assert matches(text, text) == bool(text.strip())


@LAW
@given(st.text(max_size=30), st.text(max_size=30), st.lists(st.text(max_size=5), max_size=5))
def test_matching_is_symmetric(one: str, other: str, options: list[str]) -> None:
    if one.strip() and other.strip():
        assert matches(one, other, options) == matches(other, one, options)


@LAW
@given(st.text(st.characters(max_codepoint=0x24F), max_size=30))
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


# Boxes as answers

QUESTION = f"Where is it? {ASKS_FOR_BOX}"
PLACE = Box(100, 40, 160, 100)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("[100, 40, 160, 100]", True),
        ("(105.5, 45, 165, 100)", True),
        (" [ 100,40 , 160,100 ] ", True),
        ("[130, 40, 190, 100]", False),
        ("[160, 100, 100, 40]", False),
        ("100, 40, 160, 100", False),
        ("unknown", False),
        ("", False),
    ],
)
def test_a_box_is_right_where_it_overlaps_the_target_by_half(answer: str, right: bool) -> None:
    assert is_right(answer, "[100, 40, 160, 100]", (), (PLACE,)) is right


def test_four_numbers_that_are_no_target_box_are_text() -> None:
    assert not is_right("[1, 2, 3, 5]", "[1, 2, 3, 4]")
    assert is_right("[1, 2, 3, 4]", "[1, 2, 3, 4]")
    assert not is_right("[101, 40, 160, 100]", "[100, 40, 160, 100]", (), (Box(0, 0, 9, 9),))


def test_other_answers_are_matched_as_ever_whatever_boxes_there_are() -> None:
    assert is_right("B", "a cat", ("a dog", "a cat"), (PLACE,))
    assert not is_right("A", "a cat", ("a dog", "a cat"), (PLACE,))
    assert is_right("xr3", "XR3", (), (PLACE,))


@pytest.mark.parametrize("kind", ["thousand", "unit", "pixels"])
def test_a_box_that_is_the_answer_is_written_in_a_frame_and_read_again(kind: FrameKind) -> None:
    frame = Frame(kind, (640, 480), (320, 240) if kind == "pixels" else None)
    written = written_in(frame, QUESTION, "[100, 40, 160, 100]")
    assert written != "[100, 40, 160, 100]"
    numbers = json.loads(written)
    assert Box.from_frame(numbers, frame).iou(PLACE) > 0.9


def test_only_a_question_for_a_box_has_its_answer_changed() -> None:
    frame = Frame("thousand", (640, 480))
    assert written_in(frame, "What is it?", "[100, 40, 160, 100]") == "[100, 40, 160, 100]"
    assert written_in(frame, QUESTION, "unknown") == "unknown"
