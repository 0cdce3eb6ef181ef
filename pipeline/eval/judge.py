"""A judge: a language model that says whether an answer means the right one, where no rule can.

It is asked once, in the words of `agent.verdict`. What is no verdict, and an endpoint that fails,
leave the answer unscored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from pipeline.agent.verdict import verdict, verdict_prompt
from pipeline.errors import ModelError
from pipeline.eval.benchmark import Item
from pipeline.eval.scorers import answer_in
from pipeline.samples import Score

SCORER = "judge"

Ask = Callable[[str], Awaitable[str]]
"""Sends a text to a model and gives its reply; raises `ModelError` where there is none."""


async def judged(item: Item, said: str, ask: Ask) -> Score:
    """The judge's verdict on a reply: 1, 0, or None where it gave none.

    An empty answer is wrong without asking. `BudgetReached` and faults of the program are raised.
    """
    answer = answer_in(said)
    if not answer:
        return Score(item.item_id, SCORER, 0.0, "no_answer: The answer is empty")
    if not item.answer:
        return Score(item.item_id, SCORER, None, "no answer is published")
    try:
        reply = await ask(judge_prompt(item, answer))
    except (ModelError, OSError, TimeoutError) as error:
        return Score(item.item_id, SCORER, None, f"judge_failed: {error}"[:300])
    value = verdict(reply)
    why = "" if value is not None else f"judge_failed: it said {reply[:100]!r}"
    return Score(item.item_id, SCORER, value, why or f"judged {answer[:200]!r}")


def judge_prompt(item: Item, answer: str) -> str:
    """What a judge is told of a question and an answer."""
    right = f"({item.label}) {item.answer}" if item.label else item.answer
    asked = "\n".join([item.question, *map(str, item.options)])
    return verdict_prompt(asked, right, answer)
