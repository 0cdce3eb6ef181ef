"""Critic, verifier and summariser with a vision language model behind them.

A blind critic sees what the policy saw. An informed verifier has seen the truth: its advice is
passed on only if the truth is not in it. Neither decides whether an answer is right:
`critic.verify` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.agent import roles
from pipeline.agent.actions import Answer
from pipeline.agent.chat import Request, Said
from pipeline.agent.summary import Look
from pipeline.agent.vision_tools import Eyes
from pipeline.answers import matches, normalise
from pipeline.errors import GrammarError
from pipeline.samples import Sample, Truth
from pipeline.views import View

PLAIN_ADVICE = "The region does not settle the question; look at it again, a little wider."


@dataclass(frozen=True)
class BlindCritic:
    """Asks whether the evidence shows what was answered."""

    eyes: Eyes

    async def review(self, sample: Sample, answer: Answer, views: Sequence[View]) -> str | None:
        """An objection in a sentence, or None; an unreadable verdict is none."""
        asked = roles.CRITIC.format(question=sample.question, answer=answer.text)
        said = await self.eyes.ask("critic", views[answer.evidence].pixels, asked)
        try:
            supported, advice = roles.read_verdict(said, "supported")
        except GrammarError:
            return None
        return None if supported else advice or PLAIN_ADVICE


@dataclass(frozen=True)
class InformedVerifier:
    """Knows the truth, says what to do about a wrong answer, and must not tell."""

    eyes: Eyes
    truth: Truth

    async def review(self, sample: Sample, answer: Answer, views: Sequence[View]) -> str | None:
        """Advice on a wrong answer, without the truth in it; None for a right one."""
        if matches(answer.text, self.truth.target, sample.options):
            return None
        asked = roles.VERIFIER.format(
            question=sample.question, target=self.truth.target, answer=answer.text
        )
        said = await self.eyes.ask("verifier", views[answer.evidence].pixels, asked)
        try:
            _, advice = roles.read_verdict(said, "right")
        except GrammarError:
            return PLAIN_ADVICE
        return PLAIN_ADVICE if not advice or leaks(advice, sample, self.truth) else advice


def leaks(advice: str, sample: Sample, truth: Truth) -> bool:
    """Whether advice tells the truth: the target, its letter's option, or its letters spelt out."""
    told = normalise(advice)
    secrets = [truth.target]
    secrets += [option for option in sample.options if matches(option, truth.target, ())]
    letter = truth.target.strip("() .:").upper()
    if sample.options and len(letter) == 1 and letter.isalpha():
        place = ord(letter) - ord("A")
        secrets += sample.options[place : place + 1]
        if f"({letter.casefold()})" in advice.casefold() or f"option {letter}" in advice:
            return True
    long = [s for s in map(normalise, secrets) if len(s) > 1]
    words = {normalise(word) for word in advice.split()}
    return any(s in told for s in long) or any(normalise(s) in words for s in secrets)


@dataclass(frozen=True)
class Narrator:
    """Makes one coherent path of an accepted episode's thoughts."""

    eyes: Eyes

    async def review(self, sample: Sample, looks: list[Look], answer: Answer) -> Answer:
        """The answer, resting on the looks it needs, its thought and theirs rewritten.

        A look that brought no new pixels is never needed. A summary that cannot be read changes
        nothing else.
        """
        gained = [n for n, look in enumerate(looks, start=1) if not look.no_gain]
        if not gained:
            return replace(answer, evidence=0, support=())
        asked = roles.SUMMARISER.format(
            question=sample.question,
            thoughts="\n".join(f"{n}. {looks[k - 1].thought}" for n, k in enumerate(gained, 1)),
            answer=answer.text,
            reason=answer.thought,
        )
        request = Request("summariser", (Said("user", (asked,)),), self.eyes.sampling)
        try:
            reply = await self.eyes.desk.ask(request)
            chosen, (*thoughts, last) = roles.read_summary(reply.text, len(gained))
        except GrammarError:
            return replace(answer, evidence=gained[-1], support=tuple(gained))
        needed = [gained[place - 1] for place in chosen]
        for number, thought in zip(needed, thoughts, strict=True):
            looks[number - 1] = replace(looks[number - 1], thought=thought)
        return replace(answer, thought=last, evidence=needed[-1], support=tuple(needed))
