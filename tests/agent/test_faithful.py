"""Laws of faithfulness: what was said is no fault, what nobody said is one, and so is haste."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from pipeline.agent.chat import Sampling
from pipeline.agent.desk import Desk, Task
from pipeline.agent.episode import Episode
from pipeline.agent.facts import facts_in, in_plain_words, is_known, vocabulary
from pipeline.agent.faithful import BY_MODEL, PROMPTS_SHA256, Auditor, faults
from pipeline.agent.families import FAMILIES
from pipeline.agent.vision_tools import Eyes
from pipeline.geometry import Box
from pipeline.trajectory import TraceTurn
from tests.agent import test_scripted as tags
from tests.agent import test_sign_script as signs
from tests.agent.fakes import ListModel, Objects, Paper, board, sample_of
from tests.agent.raw_traces import BIRD, BOATS, HONEST, INVENTED, SHOP, TAG, WHOLE, Raw

QUESTIONS = [
    *(tags.read(tag.name) for tag in tags.TAGS),
    *(tags.NEAR.format("red star"), "What is written on the leftmost tag?"),
]


def no_faults(done: Episode, question: str) -> bool:
    sample = sample_of(board(()), question)
    return faults(sample, done.trajectory, done.turns) == ()


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_scripted_path_says_nothing_that_its_turns_did_not(question: str) -> None:
    assert no_faults(tags.solved(question), question)
    assert no_faults(tags.solved(question, critic=Objects(), objections=2), question)


@pytest.mark.parametrize("question", list(signs.ANSWERS)[::2])
def test_nor_does_one_about_signs(question: str) -> None:
    assert no_faults(signs.solved(question, 336, looks=9), question + signs.REFUSALS)


@pytest.mark.parametrize(("raw", "thoughts"), HONEST)
def test_an_honest_paraphrase_has_no_fault(raw: Raw, thoughts: tuple[str, ...]) -> None:
    assert faults(raw.sample, raw.path(*thoughts), raw.turns) == ()


def test_what_is_made_up_is_found_nine_times_in_ten() -> None:
    found = [
        fault in faults(raw.sample, raw.path(*thoughts, boxes=boxes), raw.turns)
        for raw, fault, thoughts, boxes in INVENTED
    ]
    assert len(found) >= 30 and len(HONEST) >= 30
    assert sum(found) / len(found) >= 0.9


def test_a_fact_may_be_told_only_once_it_was_seen() -> None:
    late = ("It is red.", "The code A7K is there; I look closer.", "It says A7K.")
    assert "unseen_fact" in faults(TAG.sample, TAG.path(*late), TAG.turns)
    in_time = ("It is red.", "The code may end in K; I look closer.", "It says A7K.")
    assert faults(TAG.sample, TAG.path(*in_time), TAG.turns) == ()


@pytest.mark.parametrize(
    ("leaked", "expected"),
    [("It seems to say A7K; I make sure.", ("early_answer",)), ("I look at it.", ())],
)
def test_a_policy_that_says_the_answer_before_any_look_has_guessed_it(
    leaked: str, expected: tuple[str, ...]
) -> None:
    turns = (
        TraceTurn("policy", leaked, "zoom", "zoom(view 0, [100, 120, 140, 160], star)"),
        TraceTurn("tool", "", "zoom", "view 1"),
        TraceTurn("policy", "It says A7K. Answer: A7K"),
    )
    path = TAG.path(leaked, "It says A7K.", boxes=(Box(100, 120, 140, 160),))
    assert faults(TAG.sample, path, turns) == expected


@pytest.mark.parametrize("given", ["read", "critic", "zoom"])
def test_what_was_read_said_by_a_critic_or_seen_in_a_look_is_no_guess(given: str) -> None:
    before = {
        "read": (TraceTurn("policy", "", "read", "read(view 0, [1, 2, 30, 40])"),
                 TraceTurn("tool", "", "read", "A7K")),
        "critic": (TraceTurn("policy", "A7K. Answer: A7K"), TraceTurn("critic", "Look closer.")),
        "zoom": (TraceTurn("policy", "", "zoom", "zoom(view 0, [1, 2, 30, 40])"),
                 TraceTurn("tool", "", "zoom", "view 1")),
    }[given]  # fmt: skip
    says = "It seems to say A7K; I make sure."
    turns = (
        *before,
        TraceTurn("policy", says, "zoom", "zoom(view 0, [100, 120, 140, 160], star)"),
        TraceTurn("tool", "", "zoom", "view 1"),
        TraceTurn("policy", "It says A7K. Answer: A7K"),
    )
    path = TAG.path(says, "It says A7K.", boxes=(Box(100, 120, 140, 160),))
    assert faults(TAG.sample, path, turns) == ()


@pytest.mark.parametrize("answer", ["black", "(A)", "A"])
def test_an_answer_that_stands_among_the_options_or_is_a_letter_is_never_early(answer: str) -> None:
    path = BIRD.path("A black bird? I look closer.", "It is black.")
    assert faults(BIRD.sample, replace(path, answer=answer), BIRD.turns) == ()


@pytest.mark.parametrize(
    ("answer", "words"),
    [("A7K", ("a7k",)), ("Two boats", ("2", "boat")), ("(B)", ()), ("b.", ()), ("Yes.", ()),
     ("[1, 2, 30, 40]", ()), ("", ())],
)  # fmt: skip
def test_letters_boxes_and_yes_say_nothing_by_themselves(
    answer: str, words: tuple[str, ...]
) -> None:
    assert in_plain_words(answer) == words


def test_the_number_of_a_view_is_nothing_that_was_seen() -> None:
    path = SHOP.path("I zoom in.", "Above the awning is 1 door.", "Miller & Sons.")
    assert faults(SHOP.sample, path, SHOP.turns) == ("unseen_fact",)


def test_a_look_that_failed_is_no_look() -> None:
    turns = (
        TraceTurn("policy", "", "zoom", "zoom(view 0, [900, 380, 1150, 520], pier)"),
        TraceTurn("tool", "", "zoom", "Error: Tool 'zoom' needs a box inside view 0."),
        TraceTurn("policy", "Done. Answer: 4"),
    )
    path = BOATS.path("I zoom in.", "Done.", boxes=(BOATS.boxes[0],))
    assert faults(BOATS.sample, path, turns) == ("unseen_box",)


def test_of_two_looks_at_one_place_the_later_one_is_taken() -> None:
    twice = (*TAG.turns[:3], TAG.turns[2], TAG.turns[3], *TAG.turns[4:])
    path = TAG.path("The writing is unclear.", "It says A7K.", boxes=(TAG.boxes[0],))
    assert faults(TAG.sample, path, twice) == ()


def test_boxes_in_words_may_be_in_the_models_own_numbers_and_are_rounded() -> None:
    turns = (
        TraceTurn("policy", "At [0.1042, 0.2, 0.1458, 0.2667].", "zoom", "zoom(view 0, [100, 120, "
                  "140, 160])"),
        TraceTurn("tool", "", "zoom", "view 1"),
        TraceTurn("policy", "It says A7K. Answer: A7K"),
    )  # fmt: skip
    for thought, fault in (
        ("I look at [0.10, 0.20, 0.15, 0.27].", ()),
        ("I look at (100, 121, 140, 160).", ()),
        ("I look at [0.5, 0.2, 0.6, 0.3].", ("unseen_box",)),
        ("I look at [400, 121, 440, 160].", ("unseen_box",)),
    ):
        path = TAG.path(thought, "It says A7K.", boxes=(Box(100, 120, 140, 160),))
        assert faults(TAG.sample, path, turns) == fault


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("twenty-one grey stars", "21 gray star"),
        ("It costs 1,200.", "1200"),
        ("The code is B-12.", "code B12"),
        ("The code is B12.", "B 12"),
        ("a golden bell and reddish bricks", "gold bell, red brick"),
        ("HALL's code", "hall"),
        ("the sign “Mind the gap”", "mind gap"),
        ("I saw two tags in view 7 after 3 looks; the second, 2x as large.", "2 tags"),
        ("It is one of them. They are OK. I'm sure.", ""),
    ],
)
def test_words_are_the_same_however_they_are_written(text: str, known: str) -> None:
    assert all(is_known(fact, vocabulary(known)) for fact in facts_in(text))


@pytest.mark.parametrize(
    "text",
    ["It says X9.", "three boats", "a green door", 'a "bakery"', "the Esmeralda", "at 10:30"],
)
def test_what_nobody_said_is_a_fact_that_is_not_known(text: str) -> None:
    words = vocabulary("It says X8 on a red door, at 10:25, two boats")
    assert not all(is_known(fact, words) for fact in facts_in(text))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ('{"faithful": false, "what": "the colour"}', (BY_MODEL,)),
        ('Verdict: {"faithful": true, "what": ""}', ()),
        ("It is not faithful.", ()),
        ('{"faithful": "false"}', ()),
    ],
)
def test_a_model_is_asked_about_the_words_alone(said: str, expected: tuple[str, ...]) -> None:
    model = ListModel(others={"probe": said})
    eyes = Eyes(Desk(model, Paper(), Task("p#0", 224)), FAMILIES["qwen2.5-vl"], Sampling(0.7))
    path = TAG.path("I look.", "Closer.", "It says A7K.")
    assert asyncio.run(Auditor(eyes).review(TAG.sample, path, TAG.turns)) == expected
    (request,) = model.asked
    (text,) = request.messages[0].parts
    assert isinstance(text, str) and "unclear" in text and "[105, 128, 136, 152]" in text
    assert request.role == "probe" and request.sampling.temperature == 0
    assert len(PROMPTS_SHA256) == 64 and path.view == WHOLE
