"""Policy of a vision language model: it plans in words, and is answered with pictures.

Owns the conversation. Boxes are in the model's own numbers on the way in and out, always of the
first view, and in source pixels for everybody else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.agent import roles
from pipeline.agent.actions import Action, Answer, Call, Heard, Slip
from pipeline.agent.chat import Part, Reply, Request, Said
from pipeline.agent.vision_tools import Eyes
from pipeline.answers import ASKS_FOR_BOX, box_of
from pipeline.errors import GrammarError, InvalidBox
from pipeline.geometry import Box
from pipeline.views import View

_INSTRUCTIONS = ("fit", "enlarge", "narrow")


@dataclass(frozen=True)
class VisionPolicy:
    """One episode's model and how it is spoken to."""

    name: str
    """As written to the `policy` column."""
    eyes: Eyes
    looks: int
    native: bool = False
    """Tools are called natively."""

    prompt_sha256 = roles.PROMPTS_SHA256

    def begin(
        self, sample_id: str, question: str, options: Sequence[str], rollout: int = 0
    ) -> VisionPlanner:
        """A planner for any question; what tells tries apart is the desk's seed."""
        return VisionPlanner(self, question, options)


class VisionPlanner:
    """One conversation."""

    def __init__(self, policy: VisionPolicy, question: str, options: Sequence[str]) -> None:
        self._policy = policy
        self._question = question
        self._options = options
        self._views: list[View] = []
        self._said: list[Said] = []
        self._heard: list[Part] = []
        self._waiting: deque[roles.Use] = deque()
        self._thought = ""
        self._forced = False

    async def act(self, heard: Heard) -> Action:
        """The next tool of the turn, or what the model says next."""
        await self._hear(heard)
        if self._forced:
            self._waiting.clear()
        if not self._waiting:
            reply = await self._ask()
            try:
                plan = roles.read_plan(reply)
            except GrammarError as error:
                return Slip(reply.text, str(error))
            if plan.answer is not None:
                text = in_pixels(plan.answer, self._question, self._policy.eyes, self._views[0])
                return answered(text, plan.thought, self._views)
            self._thought = plan.thought
            self._waiting.extend(plan.uses)
        use = self._waiting.popleft()
        try:
            return self._call(use)
        except (InvalidBox, GrammarError) as error:
            return Slip(f"{use.tool} {dict(use.arguments)}", str(error))

    async def _ask(self) -> Reply:
        policy, desk = self._policy, self._policy.eyes.desk
        self._said.append(Said("user", tuple(self._heard)))
        self._heard = []
        tools = roles.TOOL_SCHEMAS if policy.native and not self._forced else ()
        reply = await desk.ask(Request("planner", tuple(self._said), policy.eyes.sampling, tools))
        desk.turn += 1
        self._said.append(Said("assistant", (_as_text(reply),)))
        return reply

    async def _hear(self, heard: Heard) -> None:
        """Put what came back into the words and pictures of the next message."""
        eyes = self._policy.eyes
        if heard.view is not None:
            self._views.append(heard.view)
        if heard.kind == "opening":
            frame = eyes.frame(self._views[0])
            system = roles.planner_system(frame, self._policy.looks, native=self._policy.native)
            self._said.append(Said("system", (system,)))
            text = roles.asked(self._question, self._options)
            self._heard += [await eyes.show(self._views[0]), text]
        elif heard.kind == "forced":
            self._forced = True
            self._heard.append(roles.FORCED)
        elif heard.kind == "critique":
            self._heard.append(roles.OBJECTION.format(text=heard.text))
        elif heard.view is not None:
            region = self._written(heard.view.observation.region)
            text = roles.ZOOMED.format(index=heard.index, region=region)
            self._heard += [text, await eyes.show(heard.view)]
        else:
            self._heard.append(self._told(heard))

    def _told(self, heard: Heard) -> str:
        """A result without a picture, in the model's own numbers."""
        if heard.kind == "error":
            return roles.MISREAD.format(why=heard.text)
        if heard.box is not None:
            return str(self._written(heard.box))
        if heard.boxes:
            written = str([self._written(box) for box in heard.boxes])
            return written if heard.text == "found" else f"{heard.text} {written}"
        return heard.text

    def _written(self, box: Box) -> list[float]:
        return list(self._policy.eyes.written(box, self._views[0]))

    def _call(self, use: roles.Use) -> Call:
        """The call that a model means; raises `InvalidBox`, `GrammarError`."""
        given = use.arguments
        thought, self._thought = self._thought, ""
        texts = {name: given.get(name, "") for name in ("phrase", "label", "question")}
        if not all(isinstance(text, str) for text in texts.values()):
            raise GrammarError("A phrase, label or question is a string.")
        if use.tool == "locate":
            return Call("locate", 0, thought, phrase=texts["phrase"])
        box = self._policy.eyes.read(given["box"], self._views[0])
        view = nearest(self._views, box)
        if use.tool == "adjust_box":
            how = given["instruction"]
            if how not in _INSTRUCTIONS:
                raise GrammarError(f"adjust_box knows {', '.join(_INSTRUCTIONS)}.")
            return Call("adjust_box", view, thought, box, instruction=how)
        if use.tool == "read":
            return Call("read", view, thought, box, texts["question"] or self._question)
        if use.tool == "segment":
            return Call("segment", view, thought, box)
        return Call("zoom", view, thought, box, texts["label"])


def nearest(views: Sequence[View], box: Box) -> int:
    """The view that shows most of the source's detail of all that hold the box whole."""
    holding = [i for i, view in enumerate(views) if view.observation.region.contains(box)]
    return max(holding, key=lambda i: views[i].observation.magnification, default=0)


def in_pixels(answer: str, question: str, eyes: Eyes, first: View) -> str:
    """A box in the model's own numbers as one in source pixels; any other answer as it is."""
    box = box_of(answer) if question.endswith(ASKS_FOR_BOX) else None
    if box is None:
        return answer
    try:
        return str(eyes.read(box.as_list(), first).as_list())
    except InvalidBox:
        return answer  # judged as it stands: it is no place of the picture


def answered(text: str, thought: str, views: Sequence[View]) -> Answer:
    """An answer that rests on every view so far: which are needed is the summariser's business."""
    return Answer(text, thought, len(views) - 1, support=tuple(range(1, len(views))))


def _as_text(reply: Reply) -> str:
    """A turn as it stands in the conversation: native calls are written out."""
    calls = [
        f'<tool_call>\n{{"name": "{tool.name}", "arguments": {tool.arguments}}}\n</tool_call>'
        for tool in reply.tools
    ]
    return "\n".join([reply.text, *calls]).strip()
