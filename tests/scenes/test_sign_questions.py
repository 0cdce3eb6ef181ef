"""Laws of questions about signs: one answer, derived from the signs, and no hint in the wording."""

from __future__ import annotations

import math
import re
from collections import Counter

from pipeline.scenes.sign_questions import NO_SIGN, NOT_READABLE, REFUSALS, SignQuestion
from pipeline.scenes.signs import Sign
from tests.scenes.test_signs import asked, with_signs


def signs_at(*rows: tuple[str, str, float, float, bool]) -> tuple[Sign, ...]:
    """Signs of 60 x 40 pixels at (x, y) with word and code."""
    out = []
    for word, code, x, y, legible in rows:
        quad = ((x, y), (x + 60, y), (x + 60, y + 40), (x, y + 40))
        out.append(Sign(word, code, "plate", quad, quad, quad, legible))
    return tuple(out)


FIVE = signs_at(
    ("GATE", "47", 100, 100, True),
    ("BAY", "12", 190, 120, True),
    ("DOCK", "93", 600, 300, True),
    ("LOT", "58", 700, 310, False),
    ("ROOM", "71", 300, 700, True),
)


def derived(question: SignQuestion, signs: tuple[Sign, ...]) -> set[str]:
    """Every answer that the question may have, from the signs alone."""
    text = question.text.removesuffix(REFUSALS)
    assert text != question.text
    named = {sign.word: sign for sign in signs}
    if found := re.fullmatch(r"What is written below the word (\w+)\?", text):
        return {_code(named.get(found[1]))}
    if found := re.fullmatch(r"Which word stands above (\S+)\?", text):
        words = {sign.word for sign in signs if sign.code == found[1] and sign.legible}
        return words or {NO_SIGN}
    if found := re.fullmatch(r"Which has the higher number, (\w+) or (\w+)\?", text):
        pair = [named.get(found[1]), named.get(found[2])]
        if None in pair:
            return {NO_SIGN}
        return {max(pair, key=lambda sign: int(sign.code)).word}  # type: ignore[union-attr]
    found = re.fullmatch(
        r"What is written below the word on the (next sign to the left of|sign nearest to) "
        r"the one that says (\w+)\?",
        text,
    )
    assert found, text
    anchor = named.get(found[2])
    if anchor is None:
        return {NO_SIGN}
    others = [sign for sign in signs if sign is not anchor]
    if found[1].startswith("next"):
        others = [s for s in others if s.box.centre[0] < anchor.box.centre[0]]
        away = {s.word: anchor.box.centre[0] - s.box.centre[0] for s in others}
        beside = [s for s in others if s.box.x1 < anchor.box.x0 and _level(s, anchor)]
        assert min(away, key=away.__getitem__) in {s.word for s in beside}
    else:
        away = {s.word: math.dist(s.box.centre, anchor.box.centre) for s in others}
    return {_code(named[w]) for w, distance in away.items() if distance <= 1.2 * min(away.values())}


def _level(sign: Sign, anchor: Sign) -> bool:
    """Whether a sign is beside the anchor and not above or below it."""
    (ax, ay), (bx, by) = sign.box.centre, anchor.box.centre
    return abs(ay - by) < abs(ax - bx)


def _code(sign: Sign | None) -> str:
    if sign is None:
        return NO_SIGN
    return sign.code if sign.legible else NOT_READABLE


def every_question() -> list[tuple[tuple[Sign, ...], SignQuestion]]:
    sets = [FIVE, *(one.signs for one in with_signs())]
    return [(signs, q) for signs in sets for key in range(25) for q in asked(signs, key, 3)]


def test_every_answer_follows_from_the_signs() -> None:
    for signs, question in every_question():
        assert derived(question, signs) == {question.answer}, question
        boxes = {sign.box: sign for sign in signs}
        assert all(box in boxes for box in question.boxes)
        assert (question.boxes == ()) == (question.answer == NO_SIGN)
        if question.task in ("sign_read", "sign_nearest"):
            assert boxes[question.boxes[0]].code == question.answer


def test_every_task_occurs_and_one_in_ten_has_no_answer() -> None:
    tasks = Counter(question.task for _, question in every_question())
    assert set(tasks) == {
        "sign_read", "sign_word", "sign_nearest", "sign_compare", "sign_absent", "sign_unreadable"
    }  # fmt: skip
    refused = (tasks["sign_absent"] + tasks["sign_unreadable"]) / tasks.total()
    assert 0.06 <= refused <= 0.15, refused


def test_wording_gives_no_refusal_away() -> None:
    """Every form that is refused somewhere is answered elsewhere, and all end alike."""
    forms: dict[str, set[bool]] = {}
    for _, question in every_question():
        assert question.text.endswith(REFUSALS)
        form = re.sub(r"\b[A-Z]{2,}\b|[A-Z]?\d[\d-]*[A-Z]?", "_", question.text)
        forms.setdefault(form, set()).add(question.answer in (NO_SIGN, NOT_READABLE))
    assert all(told == {True, False} for told in forms.values()), forms


def test_an_absent_code_is_never_asked_for_beside_a_smeared_one() -> None:
    for key in range(300):
        for question in asked(FIVE, key, 1):
            if question.task == "sign_absent":
                assert not question.text.startswith("Which word stands above")


def test_questions_of_a_picture_differ_and_come_as_many_as_asked_for() -> None:
    for key in range(20):
        texts = [question.text for question in asked(FIVE, key, 8)]
        assert len(set(texts)) == len(texts) == 8
    assert asked(FIVE, 3) == asked(FIVE, 3)
    assert len({asked(FIVE, key, 1)[0].text for key in range(30)}) > 5
