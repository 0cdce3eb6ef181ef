"""Whether a summarised path says only what its raw turns did: boxes, facts, and the answer in time.

Compares words with words, by rules that would rather miss a fault than see one in an honest
paraphrase; a model may be asked, too. What is true of the picture is nobody's business here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from pipeline.agent.chat import Request, Said
from pipeline.agent.facts import (
    boxes_in,
    counts_in,
    facts_in,
    in_plain_words,
    is_among,
    is_known,
    says,
    vocabulary,
)
from pipeline.agent.vision_tools import Eyes
from pipeline.samples import Sample
from pipeline.trajectory import FocusStep, TraceTurn, Trajectory

UNSEEN_BOX, UNSEEN_FACT, EARLY_ANSWER = "unseen_box", "unseen_fact", "early_answer"
BY_MODEL = "by_model"
"""The fault that an `Auditor` finds."""

AUDIT = """\
Somebody answered a question about a picture by looking closer. Below are the notes, in order, and \
a summary that leaves out what led nowhere. Does the summary say only what the notes say, and \
nothing before the notes say it? Places, colours, numbers, names and quotations count; wording \
does not.
Question: {question}
Notes:
{notes}
Summary:
{summary}
Reply with JSON: {{"faithful": true or false, "what": "what the notes do not say"}}."""
PROMPTS_SHA256 = hashlib.sha256(AUDIT.encode()).hexdigest()
"""Digest of what an auditor is told."""

_CALL = re.compile(r"^\w+\(view \d+|^view \d+")
"""Begins a raw call or the result of a look: its number is nothing that was seen."""


def faults(sample: Sample, trajectory: Trajectory, turns: Sequence[TraceTurn]) -> tuple[str, ...]:
    """What is wrong with a summarised path, by name.

    `unseen_box`: a box of a step that was not zoomed into, or four numbers in a thought that no
    turn has. `unseen_fact`: a fact in a thought that nothing gave by then. `early_answer`: the
    answer in a step's thought before anything but a guess from the first view gave it.
    """
    told = _Told(sample, trajectory.steps, turns)
    last = len(turns) - 1
    places = _places(trajectory.steps, turns)
    ends = [last if place is None else place for place in places]
    thoughts = [step.thought for step in trajectory.steps]
    every = [*zip(thoughts, ends, strict=True), (trajectory.final_thought, last)]
    answer = in_plain_words(trajectory.answer)
    unseen = (box for thought, _ in every for box in boxes_in(thought))
    found = {
        UNSEEN_BOX: None in places or not all(is_among(box, told.boxes) for box in unseen),
        UNSEEN_FACT: not all(_is_backed(thought, told.until(end)) for thought, end in every),
        EARLY_ANSWER: any(
            answer and says(thought, answer) and not is_known(answer, told.given(end))
            for thought, end in every[:-1]
        ),
    }
    return tuple(name for name, holds in found.items() if holds)


class _Told:
    """What the raw turns gave, and when."""

    def __init__(
        self, sample: Sample, steps: Sequence[FocusStep], turns: Sequence[TraceTurn]
    ) -> None:
        self._turns = turns
        self._asked = vocabulary(" ".join((sample.question, *sample.options)))
        self._said = [_words(turn) for turn in turns]
        texts = (sample.question, *(f"{turn.text} {turn.result}" for turn in turns))
        self.boxes = {box for text in texts for box in boxes_in(text)}
        self.boxes |= {tuple(box.as_list()) for step in steps for box in step.boxes}

    def until(self, end: int) -> set[str]:
        """All words up to and including a turn."""
        return self._asked.union(*self._said[: end + 1])

    def given(self, end: int) -> set[str]:
        """The same without what a policy says before it looked, read, or was objected to."""
        first = next((n for n in range(end + 1) if _shows_more(self._turns[n])), end)
        return self._asked.union(
            *(
                words
                for n, words in enumerate(self._said[: end + 1])
                if n > first or self._turns[n].role != "policy"
            )
        )


def _words(turn: TraceTurn) -> set[str]:
    """The words of a turn, and how many of each thing its result lists."""
    result = _CALL.sub(" ", turn.result)
    words = vocabulary(turn.text) | vocabulary(result)
    return words | counts_in(result) if turn.role == "tool" else words


def _shows_more(turn: TraceTurn) -> bool:
    """Whether a turn gives more than the first view did."""
    looked = turn.role == "tool" and turn.tool in ("zoom", "read")
    return turn.role == "critic" or (looked and not turn.result.startswith(("Error", "No more")))


def _is_backed(thought: str, known: set[str]) -> bool:
    """Whether every fact in a thought is known."""
    return all(is_known(fact, known) for fact in facts_in(thought))


def _places(steps: Sequence[FocusStep], turns: Sequence[TraceTurn]) -> list[int | None]:
    """The turn that called each step's look, the latest that keeps their order; None for none."""
    calls = [
        (n, box)
        for n, (turn, after) in enumerate(pairwise(turns))
        if turn.role == "policy" and turn.tool == "zoom" and _shows_more(after)
        for box in list(boxes_in(turn.result))[:1]
    ]
    places: list[int | None] = []
    end = len(turns)
    for step in reversed(steps):
        zoomed = [box for box, was in zip(step.boxes, step.zoomed, strict=True) if was]
        fits = [n for n, box in calls if not zoomed or is_among(zoomed[-1].as_list(), [box])]
        place = max((n for n in fits if n < end), default=None)
        end = end if place is None else place
        places.append(place)
    return places[::-1]


@dataclass(frozen=True)
class Auditor:
    """A language model that compares a summary with the raw turns; it sees no picture."""

    eyes: Eyes

    async def review(
        self, sample: Sample, trajectory: Trajectory, turns: Sequence[TraceTurn]
    ) -> tuple[str, ...]:
        """`by_model` where it objects; an unreadable verdict is none."""
        steps = [f"{step.thought} {_listed(step)}" for step in trajectory.steps]
        asked = AUDIT.format(
            question=sample.question,
            notes="\n".join(f"- {t.role}: {t.text} {t.result}".rstrip() for t in turns),
            summary="\n".join([*steps, f"{trajectory.final_thought} Answer: {trajectory.answer}"]),
        )
        sampling = replace(self.eyes.sampling, temperature=0.0)
        request = Request("probe", (Said("user", (asked,)),), sampling)
        return (BY_MODEL,) if _objects((await self.eyes.desk.ask(request)).text) else ()


def _listed(step: FocusStep) -> str:
    return ", ".join(str(box.as_list()) for box in step.boxes)


def _objects(said: str) -> bool:
    """Whether a verdict says that a summary is not faithful."""
    try:
        verdict = json.loads(said[said.find("{") : said.rfind("}") + 1])
    except (ValueError, RecursionError):
        return False
    return isinstance(verdict, dict) and verdict.get("faithful") is False
