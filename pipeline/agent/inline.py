"""Policy of a vision language model that looks closer inside one turn: the profile `cof-v1`.

The model names boxes inside its thought and says `<|image_zoomin|>`; there the reply stops, the
boxes named since the last zoom are looked at, their pictures are put behind the mark, and the same
turn goes on. No tool but that zoom exists.

One turn has no place for an error. What cannot be used, and what a critic objects to, is therefore
told in a user's message of its own, and a new turn begins; the pictures of the old one stay in the
conversation. When looking is over, the thought is closed for the model and the answer begun.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.agent import roles
from pipeline.agent.actions import Action, Answer, Call, Heard, NotUnderstood, Slip
from pipeline.agent.chat import Part, Reply, Request, Said
from pipeline.agent.vision import answered, in_pixels, nearest
from pipeline.agent.vision_tools import Eyes
from pipeline.errors import GrammarError, InvalidBox
from pipeline.grammar import BOX_END, parse
from pipeline.instructions import instructions
from pipeline.trajectory import question_text
from pipeline.turns import Mark, Segment
from pipeline.views import View

_ZOOM = Mark.ZOOMIN.value
_ANSWER_NOW = " </think>\n<answer>"
_ANSWER_END = "</answer>"
_TURN_END = re.compile(r"(?:\s*<\|(?:im_end|endoftext)\|>)+\s*\Z")
"""What some servers leave at the end of a reply when they are to keep special tokens."""


@dataclass(frozen=True)
class InlinePolicy:
    """One episode's model, spoken to in `cof-v1`."""

    name: str
    """As written to the `policy` column."""
    eyes: Eyes

    prompt_sha256 = roles.prompts_sha256("cof-v1")

    def begin(
        self, sample_id: str, question: str, options: Sequence[str], rollout: int = 0
    ) -> InlinePlanner:
        """A planner for a question; raises `NotUnderstood` for one that no export can hold."""
        try:
            return InlinePlanner(self, question, question_text(question, options))
        except GrammarError as error:
            raise NotUnderstood(error.message) from error


class InlinePlanner:
    """One conversation, and the assistant's turn that is open in it."""

    def __init__(self, policy: InlinePolicy, question: str, asked: str) -> None:
        self._policy = policy
        self._question = question
        self._asked = asked
        self._views: list[View] = []
        self._said: list[Said] = []
        self._turn: list[Part] = []
        self._waiting: deque[Call] = deque()
        self._forced = False

    async def act(self, heard: Heard) -> Action:
        """The next zoom of those that are due, or what the model says next."""
        await self._hear(heard)
        if self._waiting:
            return self._waiting.popleft()
        reply = await self._ask()
        try:
            return self._understood(reply)
        except (GrammarError, InvalidBox) as error:
            return Slip(reply.text, str(error))

    async def _hear(self, heard: Heard) -> None:
        """Put what came back where it belongs: into the turn, or before a new one."""
        eyes = self._policy.eyes
        if heard.view is not None:
            self._views.append(heard.view)
        if heard.kind == "opening":
            system = instructions("cof-v1", eyes.frame(self._views[0]))
            opening = (await eyes.show(self._views[0]), self._asked)
            self._said += [Said("system", (system,)), Said("user", opening)]
        elif heard.kind == "forced":
            self._close_thought()
        elif heard.kind == "critique":
            self._begin_anew(roles.OBJECTION.format(text=heard.text))
        elif heard.view is not None:
            self._turn.append(await eyes.show(heard.view))
        else:
            self._begin_anew(roles.MISREAD.format(why=heard.text))

    def _close_thought(self) -> None:
        """Leave nothing to the model but the answer; a zoom that showed nothing is taken back."""
        self._forced = True
        self._waiting.clear()
        last = self._turn[-1]
        if isinstance(last, str):
            self._turn[-1] = last.removesuffix(_ZOOM).rstrip() + _ANSWER_NOW
        else:
            self._turn.append(_ANSWER_NOW)

    def _begin_anew(self, told: str) -> None:
        """End the turn as it stands, say something, and let the model begin another."""
        self._waiting.clear()
        self._said += [Said("assistant", tuple(self._turn)), Said("user", (told,))]
        self._turn = ["<think>" + _ANSWER_NOW] if self._forced else []

    async def _ask(self) -> Reply:
        desk, sampling = self._policy.eyes.desk, self._policy.eyes.sampling
        stop = (_ANSWER_END if self._forced else _ZOOM,)
        sampling = replace(sampling, stop=stop, keep_special=True)
        request = Request("planner", tuple(self._said), sampling, prefix=tuple(self._turn))
        reply = await desk.ask(request)
        desk.turn += 1
        return reply

    def _understood(self, reply: Reply) -> Action:
        """What a reply asks for or answers; raises `GrammarError`, `InvalidBox`."""
        text, continues = _TURN_END.sub("", reply.text), bool(self._turn)
        if reply.finish == "length":
            self._turn.append(text)
            raise GrammarError("The turn is longer than a turn may be.")
        zooms = not self._forced and _stopped_to_zoom(reply, text)
        if self._forced:
            text = text.partition(_ANSWER_END)[0] + _ANSWER_END
        elif zooms:  # what a server lets follow the mark was said without having seen
            text = text.partition(_ZOOM)[0] + _ZOOM
        self._turn.append(text)
        if continues and text.lstrip().startswith("<think>"):
            raise GrammarError("The turn was begun anew: does the server go on with turns?")
        whole = "".join(part for part in self._turn if isinstance(part, str))
        if zooms:
            self._waiting.extend(self._zooms(whole))
            return self._waiting.popleft()
        return self._answer(whole)

    def _zooms(self, whole: str) -> list[Call]:
        """A zoom into each box named since the last one, with the words that lead up to it.

        Words behind the last box belong to it too. All boxes are good, or there is no zoom.
        """
        if not whole.lstrip().startswith("<think>") or "</think>" in whole:
            raise GrammarError(f"{_ZOOM} stands inside the thought, which begins with <think>.")
        thought = parse(f"{whole}</think><answer>-</answer>", "cof-v1")  # its grammar, not its end
        calls: list[Call] = []
        words = ""
        for segment in _since_zoom(thought.segments[:-1]):
            if isinstance(segment, tuple):
                box = self._policy.eyes.read(segment, self._views[0])
                calls.append(Call("zoom", nearest(self._views, box), words, box))
                words = ""
            else:
                words = str(segment).strip()
        calls[-1] = replace(calls[-1], thought=f"{calls[-1].thought} {words}".strip())
        return calls

    def _answer(self, whole: str) -> Answer:
        turn = parse(whole, "cof-v1")
        assert turn.answer is not None
        spoken = _since_zoom(turn.segments or (turn.thought,))
        words = [segment.strip() for segment in spoken if isinstance(segment, str)]
        text = in_pixels(turn.answer, self._question, self._policy.eyes, self._views[0])
        return answered(text, " ".join(filter(None, words)), self._views)


def _stopped_to_zoom(reply: Reply, text: str) -> bool:
    """Whether a reply ended at the mark, which most servers cut off and not all tell of.

    Where neither shows, a thought that was left open after naming a box ended there.
    """
    if _ZOOM in text or reply.stopped_at == _ZOOM:
        return True
    return reply.stopped_at != "" and BOX_END in text and "</think>" not in text


def _since_zoom(segments: Sequence[Segment]) -> Sequence[Segment]:
    """The segments behind the last mark that zooms."""
    marks = [place for place, segment in enumerate(segments) if segment is Mark.ZOOMIN]
    return segments[marks[-1] + 1 :] if marks else segments
