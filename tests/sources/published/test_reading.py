"""Every published layout reads as question, looks and answer; what does not is told why."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.errors import BadImage
from pipeline.sources.published import chain_of_focus, deepeyes, mini_o3, visual_cot
from pipeline.sources.published.layouts import LAYOUTS, layout_of
from pipeline.sources.published.records import Layout, Record
from tests.sources.published.datasets import TOLD, answer, focus_record, turn

BOX = (10, 20, 110, 90)
LOOKS = [turn("Closer.", BOX), answer("Seen.", "red")]
FOCUS = focus_record("Which colour?", LOOKS, ["a.jpg", "b.jpg"])
EYES: Record = {
    "image": "a.jpg",
    "question": "Which colour?",
    "answer": "red",
    "pred_output": FOCUS["messages"],
}
MINI: Record = {
    "images": ["a.jpg", "b.jpg"],
    "conversations": json.dumps(
        [
            {"from": "human", "value": "<image>\nWhich colour?"},
            {
                "from": "gpt",
                "value": '<think>Closer.</think><grounding>{"bbox_2d": [0.1, 0.2, 0.6, 0.7], '
                '"source": "original_image"}</grounding>',
            },
            {"from": "human", "value": "Observation 1:\n<image>."},
            {"from": "gpt", "value": "<think>Seen.</think><answer>red</answer>"},
        ]
    ),
}
COT: Record = {"question": "Which colour?", "answer": "red", "image": "a.jpg", "bboxs": [BOX]}
RECORDS: dict[str, Record] = {
    "chain-of-focus": FOCUS,
    "deepeyes": EYES,
    "mini-o3": MINI,
    "visual-cot": COT,
}


def why(layout: Layout, record: Record) -> str:
    with pytest.raises(BadImage) as caught:
        layout.read(record)
    return caught.value.reason


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_known_by_its_fields_and_read(name: str) -> None:
    assert layout_of(RECORDS[name]) == name
    path = LAYOUTS[name].read(RECORDS[name])
    assert (path.question, path.answer) == ("Which colour?", "red")
    assert [look.zoomed for look in path.looks] == [(True,)]


@pytest.mark.parametrize("record", [{}, {"text": "x"}, [], None, {"messages": "x", "images": []}])
def test_anything_else_is_in_no_layout(record: Any) -> None:
    assert layout_of(record) == ""


@pytest.mark.parametrize(
    ("asked", "question", "options"),
    [
        ("What?\n(A) a cup\n(B) a lamp", "What?", ("a cup", "a lamp")),
        ("What?\nOptions: \nA. a cup\nB. a lamp\nC. a bed", "What?", ("a cup", "a lamp", "a bed")),
        ("Which (A) or (B)?", "Which (A) or (B)?", ()),
        ("What?\n(A) a cup\n(C) a lamp", "What?\n(A) a cup\n(C) a lamp", ()),
        ("What?\nA. one only", "What?\nA. one only", ()),
        ("Two\nlines?", "Two\nlines?", ()),
    ],
)
def test_options_are_the_lettered_lines_at_the_end(
    asked: str, question: str, options: tuple[str, ...]
) -> None:
    path = chain_of_focus.read(focus_record(asked, LOOKS, ["a.jpg"]))
    assert (path.question, path.options) == (question, options)
    direct = chain_of_focus.read(focus_record(asked, LOOKS[-1:], ["a.jpg"]))
    assert (direct.question, direct.options) == (question, options), "nothing echoes here"


def test_an_instruction_without_tags_is_known_by_its_echo() -> None:
    told = "\nZoom where you must.\nThen answer."
    assert chain_of_focus.read(focus_record("What?", LOOKS, ["a.jpg"], told)).question == "What?"


def changed(turns: list[str], images: int = 1) -> Record:
    return focus_record("What?", turns, [f"{n}.jpg" for n in range(images)])


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"messages": [], "images": []}, "not_parsed"),
        ({"messages": ["x"], "images": []}, "not_parsed"),
        ({"messages": [{"role": "robot", "content": "x"}], "images": []}, "not_parsed"),
        (changed(["no tags at all"]), "not_parsed"),
        (changed(["<think> x </think>\n<answer> y"]), "not_parsed"),
        (changed([answer("x", "y"), answer("x", "y")]), "not_parsed"),
        (changed([turn("x", (1, 2, 3)), answer("x", "y")]), "bad_box"),
        (changed([turn("x", (1, 2, "3", 4)), answer("x", "y")]), "bad_box"),  # type: ignore[arg-type]
        (changed([answer("x", " ")]), "answer_missing"),
        (changed([turn("x", BOX)]), "answer_missing"),
        (changed(LOOKS, images=3), "wrong_images"),
        (changed([turn("x", BOX, BOX, BOX), answer("x", "y")]), None),
        (focus_record("", LOOKS, ["a.jpg"]), "not_parsed"),
        ({"messages": FOCUS["messages"][:2], "images": ["a.jpg"]}, "no_path"),
    ],
)
def test_what_is_no_path_says_why(record: Record, reason: str | None) -> None:
    if reason is None:  # one picture for three calls: the first call is carried out
        (look,) = chain_of_focus.read(record).looks
        assert look.zoomed == (True, False, False)
    else:
        assert why(chain_of_focus.LAYOUT, record) == reason


def test_a_call_that_brought_no_picture_is_told() -> None:
    record = json.loads(json.dumps(FOCUS))
    record["messages"][3]["content"] = "Error: no such box."
    assert why(chain_of_focus.LAYOUT, record) == "no_view"


def test_a_turn_of_v1_is_a_look_for_each_zoom_mark() -> None:
    text = (
        "<think> First <|box_start|>[1, 2, 30, 40]<|box_end|> then "
        "<|box_start|>[5, 6, 70, 80]<|box_end|> <|image_zoomin|> and now "
        "<|box_start|>[7, 8, 90, 100]<|box_end|> <|image_zoomin|> clear "
        "</think>\n<answer> cc </answer>"
    )
    path = chain_of_focus.read(changed([text], images=4))
    assert [(look.thought, look.boxes) for look in path.looks] == [
        ("First then", ((1, 2, 30, 40), (5, 6, 70, 80))),
        ("and now", ((7, 8, 90, 100),)),
    ]
    assert (path.final_thought, path.answer) == ("clear", "cc")


def test_a_training_row_of_deepeyes_has_no_path_and_says_so() -> None:
    row = {
        "prompt": [{"role": "user", "content": f"<image>\nWhat?{TOLD}"}],
        "images": [{"bytes": b"x"}],
        "reward_model": {"ground_truth": "A"},
    }
    assert layout_of(row) == "deepeyes"
    assert why(deepeyes.LAYOUT, row) == "no_path"


def test_a_reply_cut_at_the_stop_word_is_whole() -> None:
    chat = json.loads(json.dumps(FOCUS["messages"]))
    chat[2]["content"] = chat[2]["content"].removesuffix("\n</tool_call>")
    (look,) = deepeyes.read(EYES | {"pred_output": chat}).looks
    assert look.boxes == (BOX,)


def mini(value: str) -> Record:
    chat = json.loads(MINI["conversations"])
    chat[1]["value"] = value
    return MINI | {"conversations": chat}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("<think>x</think><grounding>[0, 0, 1, 1]</grounding>", "not_parsed"),
        ("<think>x</think><grounding>{'bbox_2d': 1}</grounding>", "not_parsed"),
        ("<think>x</think> so <grounding>{}</grounding>", "not_parsed"),
        ("<think>x</think><grounding>{}</grounding>", "bad_box"),
        ('<grounding>{"bbox_2d": [0, 0, 1, 1], "source": "observation_0"}</grounding>', "bad_box"),
        ('<grounding>{"bbox_2d": [0, 0, 1, 1], "source": "../x"}</grounding>', "bad_box"),
        ("<think>x</think><answer> </answer>", "answer_missing"),
    ],
)
def test_a_grounding_must_say_a_box_and_a_known_view(value: str, reason: str) -> None:
    assert why(mini_o3.LAYOUT, mini(value)) == reason


def test_conversations_that_are_no_json_are_never_evaluated() -> None:
    record = MINI | {"conversations": "[__import__('os')]"}
    assert why(mini_o3.LAYOUT, record) == "not_parsed"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bboxs": []}, "bad_box"),
        ({"bboxs": [[1, 2, 3]]}, "bad_box"),
        ({"bboxs": "x"}, "bad_box"),
        ({"question": " "}, "not_parsed"),
        ({"answer": None}, "answer_missing"),
    ],
)
def test_an_annotation_without_a_part_says_which(change: Record, reason: str) -> None:
    assert why(visual_cot.LAYOUT, COT | change) == reason
