"""Laws of the task writer: what it is shown, what its words may not say, what each filter stops."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.agent import task_writer
from pipeline.agent.chat import Picture, Reply, Request, Sampling
from pipeline.agent.desk import Desk, Task
from pipeline.agent.encoding import encoded
from pipeline.agent.families import FAMILIES
from pipeline.agent.task_rules import (
    by_chance,
    fault_of,
    holds,
    leaked_place,
    said_answer,
    same,
    unclear,
    unnamed,
)
from pipeline.agent.task_writer import KINDS, Refused, TaskWriter, Written, covers, distinct
from pipeline.agent.vision_tools import Eyes
from pipeline.errors import BudgetReached, ContextOverflow, GrammarError
from pipeline.geometry import Box
from pipeline.views import first_view, zoomed
from tests.agent.fakes import Paper, board, tag

TAGS = (tag("red star", "A7K", (60, 60), 40), tag("blue circle", "XR3", (500, 340), 40))
PICTURE = board(TAGS)
STAR = TAGS[0].box
FAMILY = FAMILIES["qwen2.5-vl"]
BUDGETS = (224, 448, 896)
DRAFT = {
    "question": "What is written on the red star?",
    "answer": "A7K",
    "object": "red star",
    "kind": "text",
}


def located(*boxes: Box) -> str:
    """Boxes as the model writes them of the whole picture at the highest budget."""
    view = first_view(PICTURE, max(BUDGETS))
    size = view.observation.size
    inside = [Box(*view.to_view(box)).clip(size) for box in boxes]
    return json.dumps([list(FAMILY.written(box, size)) for box in inside])


GOOD = {
    "writer": json.dumps(DRAFT),
    "blind": "unclear",
    "whole": "unclear",
    "crop": "A7K",
    "again": "a7k.",
    "locate": located(STAR),
}
ORDER = tuple(GOOD)


@dataclass
class Told:
    """Replies by what is asked, and which of it was."""

    replies: Mapping[str, str | Exception]
    asked: dict[str, Request] = field(default_factory=dict)

    name = "told"

    async def reply(self, request: Request) -> Reply:
        await asyncio.sleep(0)
        what = _what(request)
        assert what not in self.asked
        self.asked[what] = request
        said = self.replies[what]
        if isinstance(said, Exception):
            raise said
        return Reply(said, "stop", tokens_in=1, tokens_out=1)

    async def close(self) -> None:
        """Nothing is open."""


def _what(request: Request) -> str:
    """Which of the writer's calls a request is."""
    if request.role in ("writer", "locate"):
        return request.role
    (said,) = request.messages
    starts = {name: getattr(task_writer, name.upper())[:20] for name in ("blind", "glance")}
    starts |= {name: getattr(task_writer, name.upper()).partition("}")[2] for name in ("again",)}
    text = said.parts[-1]
    assert isinstance(text, str) and request.role == "probe"
    if text.startswith(starts["blind"]):
        return "blind"
    if text.endswith(starts["again"]):
        return "again"
    return "whole" if "best guess" in text else "crop"


def wrote(
    model: Told | None = None, region: Box = STAR, ledger: Paper | None = None, **replies: Any
) -> Written | Refused:
    model = model or Told({**GOOD, **replies})
    desk = Desk(model, ledger or Paper(), Task("picture#w0", 0))
    writer = TaskWriter(Eyes(desk, FAMILY, Sampling(temperature=0.7)), BUDGETS)
    return asyncio.run(writer.write(PICTURE, region))


def drafted(**changes: Any) -> str:
    return json.dumps({**DRAFT, **changes})


def test_a_question_that_withstands_every_filter_is_written() -> None:
    model = Told(GOOD)
    assert wrote(model) == Written(*DRAFT.values(), STAR)
    assert tuple(model.asked) == ORDER  # cheap calls first, the dear one last


def test_the_writer_sees_the_whole_unmarked_and_the_region_and_readers_see_one_of_them() -> None:
    model = Told(GOOD)
    wrote(model)
    seen = {
        name: [p for said in request.messages for p in said.parts if isinstance(p, Picture)]
        for name, request in model.asked.items()
    }
    context, lowest, highest = (encoded(first_view(PICTURE, r).pixels, FAMILY) for r in BUDGETS[:3])
    context, lowest = lowest, context
    crop = encoded(zoomed(PICTURE, STAR, max(BUDGETS), 0).pixels, FAMILY)
    assert seen["writer"] == [context, crop]
    assert (seen["blind"], seen["whole"], seen["crop"]) == ([], [lowest], [crop])
    assert seen["locate"] == [highest] and seen["again"] not in ([crop], [])
    assert len({p.sha256 for p in (*seen["again"], *seen["writer"])}) == 3


def test_only_the_writer_is_drawn_and_nobody_who_tries_a_question_is_told_its_answer() -> None:
    model = Told(GOOD)
    wrote(model)
    for name, request in model.asked.items():
        assert bool(request.sampling.temperature) == (name == "writer")
        texts = [p for said in request.messages for p in said.parts if isinstance(p, str)]
        assert "A7K" not in "".join(texts)


@pytest.mark.parametrize(
    ("reason", "reply", "calls"),
    [
        ("malformed", {"writer": "I would ask about the star."}, 1),
        ("malformed", {"writer": "[1, 2]"}, 1),
        ("malformed", {"writer": drafted(kind="smell")}, 1),
        ("malformed", {"writer": drafted(object="")}, 1),
        ("malformed", {"writer": drafted(answer=["A7K"])}, 1),
        ("malformed", {"writer": drafted(question="Read the red star.")}, 1),
        ("malformed", {"writer": drafted(question="<answer> the red star </answer>?")}, 1),
        ("nothing_to_ask", {"writer": '{"question": null, "why": "It is a wall."}'}, 1),
        (
            "leaks_place",
            {"writer": drafted(question="What is written on the upper red star?")},
            1,
        ),
        ("leaks_answer", {"writer": drafted(question="What does A-7-K on the red star say?")}, 1),
        ("yes_no", {"writer": drafted(question="Is A7K written on the red star?")}, 1),
        ("yes_no", {"writer": drafted(answer="No")}, 1),
        ("answer_unclear", {"writer": drafted(answer="a code of three letters or so")}, 1),
        ("answer_unclear", {"writer": drafted(answer="unclear")}, 1),
        ("ambiguous", {"writer": drafted(question="What is written on the star?")}, 1),
        ("answerable_blind", {"blind": "It is A7K."}, 2),
        ("answerable_from_whole", {"whole": "a7k"}, 3),
        ("answerable_from_whole", {"whole": "Probably A7K or A7X"}, 3),
        ("unanswerable_from_crop", {"crop": "unclear"}, 4),
        ("unanswerable_from_crop", {"crop": "A7X"}, 4),
        ("unanswerable_from_crop", {"crop": "A7K, but I cannot be sure"}, 4),
        ("ambiguous", {"again": "A7X"}, 5),
        ("ambiguous", {"again": "unclear"}, 5),
        ("ambiguous", {"locate": located(STAR, TAGS[1].box)}, 6),
        ("ambiguous", {"locate": located(TAGS[1].box)}, 6),
        ("ambiguous", {"locate": located(Box(0, 0, 800, 600))}, 6),
        ("ambiguous", {"locate": "[]"}, 6),
        ("ambiguous", {"locate": "It is the red one."}, 6),
        ("context_overflow", {"locate": ContextOverflow("too long")}, 6),
    ],
)
def test_each_filter_stops_what_it_is_for_and_nothing_is_asked_after_it(
    reason: str, reply: dict[str, str], calls: int
) -> None:
    model = Told({**GOOD, **reply})
    told = wrote(model)
    assert isinstance(told, Refused) and told.reason == reason
    assert tuple(model.asked) == ORDER[:calls]
    assert (told.question and told.answer) or reason in ("malformed", "nothing_to_ask")


def test_a_region_that_cannot_be_shown_is_refused_and_a_spent_budget_is_not() -> None:
    outside = wrote(region=Box(900, 700, 950, 740))
    assert isinstance(outside, Refused) and outside.reason == "cannot_be_shown"
    with pytest.raises(BudgetReached):
        wrote(ledger=Paper(broke=True))


def test_what_was_paid_for_is_not_asked_again() -> None:
    ledger = Paper()
    first = wrote(Told(GOOD), ledger=ledger)
    assert wrote(Told({}), ledger=ledger) == first
    assert {call["sample_id"] for call in ledger.calls.values()} == {"picture#w0"}
    assert {call["role"] for call in ledger.calls.values()} == {"writer", "probe", "locate"}


def test_every_template_counts_in_the_digest_and_the_writer_is_told_every_kind() -> None:
    told = [v for k, v in vars(task_writer).items() if k.isupper() and isinstance(v, str)]
    templates = {text for text in told if text != task_writer.PROMPTS_SHA256}
    assert templates < set(task_writer._TEMPLATES)
    assert all(f'"{kind}"' in task_writer.WRITER for kind in KINDS)


@pytest.mark.parametrize(
    "text",
    [
        "What is on the left sign?",
        "What is the word at the top?",
        "Who is in the bottommost window?",
        "What colour is the car in the upper row?",
        "What is in the corner?",
        "What is in the centre of the square?",
        "What colour is the kite at [120, 40, 160, 80]?",
        "What is near (120, 40)?",
        "What does the crop show?",
        "What is in the box?",
        "What is held in this region?",
        "What is the zoomed sign's colour?",
        "What is written in image 2?",
        "What does the second picture show?",
        "What is the man in the background holding?",
    ],
)
def test_words_that_tell_where_are_found(text: str) -> None:
    assert leaked_place(text)


@pytest.mark.parametrize(
    "text",
    [
        "What is written on the red star?",
        "What colour is the ribbon on the hat of the woman with a dog?",
        "How many buttons does the brown coat have?",
        "What is printed on the cardboard box?",
        "What is above the door of the bakery?",
        "What is the number on the bus next to the tram?",
        "What material is the framed picture's border?",
    ],
)
def test_words_that_tell_what_are_not_taken_for_a_place(text: str) -> None:
    assert not leaked_place(text)


def test_answers_are_compared_as_verifiers_do_with_figures_for_words_of_number() -> None:
    assert same("Two", "2") and same("a dog", "Dog.") and same("12", "twelve")
    assert not same("20", "2") and not same("", "2") and not same("12", "21")
    assert holds("There are two of them", "2") and holds("the EXIT sign", "exit")
    assert not holds("There are twenty", "2") and not holds("", "2")


def test_a_reply_is_read_for_its_answer_and_unsure_ones_give_none() -> None:
    for text in (
        "EXIT",
        ' "EXIT". ',
        "Answer: EXIT",
        "The answer is EXIT.",
        "It says EXIT",
        "<think> A sign. </think>\n<answer> EXIT </answer>",
        "**EXIT**\nIt is on the wall.",
    ):
        assert said_answer(text) == "EXIT"
    for text in ("", "Unclear.", "I can't tell", "It is not visible", "unknown", "It doesn't show"):
        assert said_answer(text) == ""


def test_what_an_answer_may_not_be() -> None:
    assert all(map(unclear, ["", "...", "one two three four five six", "red or blue", "unknown"]))
    assert not any(map(unclear, ["red", "7:30", "Main Street 12", "a wooden spoon"]))
    assert by_chance("Does the dog sleep?", "it does") and by_chance("What is it?", "Yes.")
    assert not by_chance("What does the dog do?", "sleeps")


def test_a_question_must_name_its_object_in_full() -> None:
    assert unnamed("What is on the star?", "the red star") == "red"
    assert not unnamed("What colour is the woman's hat?", "hat of the woman")
    assert fault_of("What colour is the hat?", "red", "hat of the woman") is not None


def test_an_object_is_where_a_region_is_when_one_holds_the_other() -> None:
    region = Box(100, 100, 200, 200)
    assert covers(Box(105, 95, 205, 195), region)
    assert covers(Box(120, 120, 150, 150), region) and covers(Box(50, 50, 300, 300), region)
    assert not covers(Box(190, 190, 290, 290), region) and not covers(Box(0, 0, 900, 900), region)
    assert distinct([region, Box(102, 101, 201, 200), Box(300, 300, 310, 310)]) == [
        region,
        Box(300, 300, 310, 310),
    ]


@given(
    question=st.text() | st.none() | st.integers(),
    answer=st.text() | st.floats(),
    thing=st.text(),
    prose=st.text(max_size=5),
)
def test_whatever_a_writer_says_is_a_draft_a_refusal_or_no_draft(
    question: Any, answer: Any, thing: str, prose: str
) -> None:
    told = {"question": question, "answer": answer, "object": thing, "kind": "part"}
    try:
        draft = task_writer.read_draft(prose + json.dumps(told) + prose, STAR)
    except GrammarError:
        return
    if isinstance(draft, Written) and fault_of(draft.question, draft.answer, draft.object) is None:
        assert draft.question.endswith("?") and not holds(draft.question, draft.answer)
        (draft.question + draft.answer + draft.object).encode()


def test_a_draft_is_found_inside_prose() -> None:
    text = f"Here you are:\n```json\n{drafted(answer=7)}\n```"
    draft = task_writer.read_draft(text, STAR)
    assert isinstance(draft, Written) and draft.answer == "7"
    with pytest.raises(GrammarError):
        task_writer.read_draft("{" * 50, STAR)
