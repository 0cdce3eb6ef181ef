"""Laws of the rules: they read what the published scripts read, and say when they cannot tell."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.answers import extract_answer
from pipeline.errors import ConfigError
from pipeline.eval.benchmarks.mmbench import mmbench_scores
from pipeline.eval.scorers import (
    COGNITION,
    PERCEPTION,
    mask_metrics,
    match_option,
    match_words,
    mme_label,
    mme_scores,
    pope_label,
    published_options,
    read_option,
    strict_label,
)

SHARED = Path(__file__).parents[3] / "shared" / "goldens"
beside = pytest.mark.skipif(not SHARED.is_dir(), reason="no goldens beside the project")
MATERIALS = ("rubber", "cotton", "kevlar", "leather")
IMAGES = dict.fromkeys(("existence", "count", "position", "color"), 30) | {
    "posters": 147, "celebrity": 170, "scene": 200, "landmark": 200, "artwork": 200, "OCR": 20,
    "commonsense_reasoning": 70, "numerical_calculation": 20, "text_translation": 20,
    "code_reasoning": 20,
}  # fmt: skip
LAVIN = {
    "existence": 185.0, "count": 88.33333333333334, "position": 63.333333333333336, "color": 75.0,
    "posters": 79.59183673469389, "celebrity": 47.35294117647059, "scene": 136.75,
    "landmark": 93.5, "artwork": 87.25, "OCR": 107.5, "commonsense_reasoning": 87.14285714285714,
    "numerical_calculation": 65.0, "text_translation": 47.5, "code_reasoning": 50.0,
}  # fmt: skip
"""What the authors' script says of their own example of answers, by task."""


def goldens(section: str) -> Any:
    return json.loads((SHARED / "c2f.json").read_text())[section]


def vectors(prefix: str) -> list[Any]:
    if not SHARED.is_dir():
        return []
    every = json.loads((SHARED / "cof_reasoning.json").read_text())
    return [pytest.param(v, id=v["name"]) for v in every if v["name"].startswith(prefix)]


def mme_rows(answers: list[list[str]], task: str = "count") -> list[dict[str, Any]]:
    """Rows of one task from (gold, said), two for each picture."""
    return [
        {"category": task, "image_id": f"{task}/{n // 2}", "answer": gold, "said": said}
        for n, (gold, said) in enumerate(answers)
    ]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Yes, it is", "yes"), ("not sure", "no"), ("None", "no"), ("know", "no"), ("", "other"),
        ("The answer is yes", "other"), ("**Yes**", "other"), ("A: no", "other"), (" no", "no"),
        ("   no", "other"), ("(yes)", "yes"), ("yes/no", "yes"), ("no/yes", "no"), ("eyes", "yes"),
    ],
)  # fmt: skip
def test_mme_reads_the_first_four_characters(text: str, label: str) -> None:
    assert mme_label(text) == label


@beside
def test_mme_reads_as_the_published_script() -> None:
    wrong = [v for v in goldens("mme_parse") if mme_label(v["raw"]) != v["label"]]
    assert not wrong


@beside
def test_mme_adds_up_as_the_published_script_and_refuses_what_it_breaks_on() -> None:
    for case in goldens("mme_cases"):
        rows = mme_rows(case["rows"])
        if case.get("error") == "ValueError":  # a tab in a response: no lines are read here
            continue
        golds = [gold.lower() for gold, _ in case["rows"]]
        if "error" in case or golds[::2] != ["yes"] * (len(golds) // 2):  # paired by place alone
            with pytest.raises(ConfigError):
                mme_scores(rows)
            continue
        random.Random(len(rows)).shuffle(rows)
        told = mme_scores(rows)
        parts = told["count"], told["count.acc"], told["count.acc+"], told["other"]
        wanted = (case["score"], case["acc"], case["acc_plus"], case["other_num"])
        assert parts == pytest.approx(wanted, abs=1e-9)


def test_the_totals_of_the_official_example_follow_from_answers_with_its_scores() -> None:
    rows: list[dict[str, Any]] = []
    for task, score in LAVIN.items():
        rows += mme_rows(answers_with(score, IMAGES[task]), task)
    random.Random(0).shuffle(rows)
    told = mme_scores(rows)
    assert {task: told[task] for task in LAVIN} == pytest.approx(LAVIN, abs=1e-9)
    assert told["perception"] == pytest.approx(963.6114445778312, abs=1e-9)
    assert told["cognition"] == pytest.approx(249.64285714285714, abs=1e-9)
    assert (told["perception_max"], told["cognition_max"]) == (2000, 800)


def answers_with(score: float, images: int) -> list[list[str]]:
    """(gold, said) of so many pictures whose 100·acc + 100·acc+ is the score."""
    for pairs in range(images + 1):
        right = round((score / 100 - pairs / images) * 2 * images)
        exact = abs(50 * right / images + 100 * pairs / images - score) < 1e-9
        if exact and 2 * pairs <= right <= pairs + images:
            halves = right - 2 * pairs
            said = [["yes", "no"]] * pairs + [["yes", "yes"]] * halves
            said += [["no", "yes"]] * (images - pairs - halves)
            return [[gold, s] for pair in said for gold, s in zip(("Yes", "No"), pair, strict=True)]
    raise AssertionError(score)


def test_pairing_survives_shuffled_rows_and_merged_shards() -> None:
    rows = mme_rows([["Yes", "yes"], ["No", "no"], ["Yes", "yes"], ["No", "yes"]])
    straight = mme_scores(rows)
    assert straight["count"] == 125
    for order in ([3, 0, 2, 1], [2, 3, 0, 1], [1, 3, 0, 2]):
        assert mme_scores([rows[n] for n in order]) == straight


@pytest.mark.parametrize(
    "answers", [[["Yes", "yes"]], [["Yes", "yes"], ["Yes", "no"]], [["Maybe", "no"], ["No", "no"]]]
)
def test_a_picture_without_one_yes_and_one_no_is_refused(answers: list[list[str]]) -> None:
    with pytest.raises(ConfigError, match="count/0"):
        mme_scores(mme_rows(answers))


def test_an_unscored_question_takes_its_picture_out_and_is_counted() -> None:
    rows = mme_rows([["Yes", "yes"], ["No", "no"], ["Yes", "yes"], ["No", "no"]])
    rows[2]["said"] = None
    told = mme_scores(rows)
    assert (told["count"], told["unscored"]) == (200, 2)


def test_tasks_that_mme_has_not_are_named() -> None:
    with pytest.raises(ConfigError, match=r"counts.*'count'"):
        mme_scores(mme_rows([["Yes", "yes"], ["No", "no"]], "counts"))
    assert len(PERCEPTION) == 10
    assert len(COGNITION) == 4


@pytest.mark.parametrize(
    ("text", "label"),
    [("The answer is yes", "yes"), ("**No**", "no"), ("know", "other"), ("yes or no", "other")],
)
def test_the_stricter_reading_wants_one_whole_word(text: str, label: str) -> None:
    assert strict_label(text) == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("No, there is none.", "no"), ("There is not, sorry", "no"), ("Yes. But no.", "yes"),
        ("nothing", "yes"), ("NO", "yes"), ("", "yes"), ("It is, no doubt", "no"),
    ],
)  # fmt: skip
def test_pope_takes_for_yes_what_is_no_no(text: str, label: str) -> None:
    assert pope_label(text) == label


@pytest.mark.parametrize("vector", vectors("judge_process/"))
def test_options_are_matched_as_published(vector: dict[str, Any]) -> None:
    told = vector["inputs"]
    options = tuple(published_options(told["question"]).values())
    if vector["expected"] == {"raises": "KeyError"}:
        with pytest.raises(KeyError):
            match_option(told["pred_ans"], options, told["answer"], published=True)
        with pytest.raises(ConfigError):
            match_option(told["pred_ans"], options, told["answer"])
        return
    value = match_option(told["pred_ans"], options, told["answer"], published=True).value
    if value is None and told["judge_reply"] is not None:
        value = float(told["judge_reply"])
    assert value == (None if vector["expected"] == "needs_llm" else vector["expected"])


@pytest.mark.parametrize("vector", vectors("judge_extract_options/"))
def test_options_are_found_as_published(vector: dict[str, Any]) -> None:
    assert published_options(vector["inputs"]["text"]) == vector["expected"]


@pytest.mark.parametrize("vector", vectors("judge_extract_answer/"))
def test_the_published_judge_reads_the_first_answer_of_one_line(vector: dict[str, Any]) -> None:
    read = extract_answer(vector["inputs"]["text"], which="first", dotall=False)
    assert read == vector["expected"]


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("<answer>A</answer>", 1.0), ("<answer>B</answer>", 0.0), ("<answer>(B)</answer>", 0.0),
        ("<answer>a</answer>", 0.0), ("<answer>rubber</answer>", None), ("The answer is A", None),
        ("", None), ("<answer>A.</answer>", 1.0), ("<answer>it is (A) rubber</answer>", 1.0),
        ("<answer>A</answer> <answer>B</answer>", 1.0), ("<answer>A)</answer>", None),
    ],
)  # fmt: skip
def test_the_published_rules_without_goldens(said: str, value: float | None) -> None:
    assert match_option(said, MATERIALS, "A", published=True).value == value


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("A", 0), ("b", 1), ("(C)", 2), ("D.", 3), ("A)", 0), ("**B**", 1), ("\\boxed{C}", 2),
        ("rubber", 0), ("Cotton.", 1), ("It is made of kevlar", 2), ("(D) leather", 3),
        ("The answer is B.", 1), ("Answer: C", 2), ("Option D", 3), ("cotton, not rubber", 1),
        ("The glove shines.\nB", 1), ("<think>rubber</think><answer>\nB\n</answer>", 1),
        ("A or B", None), ("A\nB", None), ("not cotton", None), ("the answer is a dog", None),
        ("A. It looks like cotton", None), ("rubber and cotton", None), ("E", None),
        ("I see", None), ("<answer>C", 2), ("<think>A</think> D", 3),
    ],
)  # fmt: skip
def test_an_option_is_named_by_letter_or_words_or_not_at_all(said: str, read: int | None) -> None:
    score = match_option(said, MATERIALS, "B")
    assert score.value == (None if read is None else float(read == 1))


def test_a_word_inside_a_longer_option_does_not_name_the_shorter() -> None:
    options = ("red", "dark red", "Yes", "No")
    assert read_option("it is dark red", options) == 1
    assert read_option("No, it is dark", options) == 3
    assert read_option("a hundred things", options) is None


def test_an_empty_answer_is_wrong_and_a_letter_without_option_is_a_fault() -> None:
    assert match_option("<answer> </answer>", MATERIALS, "A").value == 0.0
    assert match_words("", "K7H").value == 0.0
    assert match_words("<answer>k7h.</answer>", "K7H").value == 1.0
    for label in ("E", "", "AB", "é"):
        with pytest.raises(ConfigError):
            match_option("A", MATERIALS, label)


@beside
def test_the_circular_count_is_the_published_one() -> None:
    for case in goldens("mmbench_circular"):
        rows = [
            {"item_id": str(r["question_id"]), "label": r["answer"], "said": r["text"]}
            for r in case["rows"]
        ]
        told = mmbench_scores(rows)
        count = case["n_groups"]
        assert told["questions"] == count
        assert told["circular"] == pytest.approx(100 * case["circular_acc"])
        assert told["single"] == pytest.approx(100 * case["single_correct"] / count)
        assert told["matched"] == case["matched"]


def test_the_circular_count_wants_every_order_right() -> None:
    rows = [
        {"item_id": str(n), "label": label, "said": said}
        for n, label, said in [
            (7, "A", "A"), (1_000_007, "B", "The answer is B"), (2_000_007, "A", "C"),
            (8, "C", "C."), (1_000_008, "B", "I think A or B"), (9, "D", "D"), (10, "A", None),
        ]
    ]  # fmt: skip
    told = mmbench_scores(rows)
    assert (told["questions"], told["unscored"]) == (3, 1)
    assert told["single"] == 100
    assert told["circular"] == pytest.approx(100 / 3)


def test_masks_are_compared_by_their_foreground() -> None:
    gt, pred = np.zeros((4, 4), bool), np.zeros((4, 4), np.uint8)
    gt[:2], pred[1:3] = True, 255
    told = mask_metrics(pred, gt)
    assert told == {"iou": 4 / 12, "foreground_acc": 0.5, "pixel_acc": 0.5, "black_rate": 0.5}
    empty = mask_metrics(np.zeros((4, 4)), np.zeros((4, 4)))
    assert math.isnan(empty["iou"])
    assert math.isnan(empty["foreground_acc"])
    assert (empty["pixel_acc"], empty["black_rate"]) == (1.0, 1.0)
    with pytest.raises(ValueError, match="compared"):
        mask_metrics(pred, gt[:3])
