"""A brain for the loopback server that plays the perfect model of needle questions.

It knows the truth of every picture of a source, recognises a picture by the bytes it is sent, and
speaks the text protocol in one family's numbers. It looks closer exactly where a tag is small.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.agent.encoding import encoded
from pipeline.agent.families import FAMILIES
from pipeline.config import Config
from pipeline.geometry import Box
from pipeline.grammar import BOX_END, BOX_START
from pipeline.samples import Truth
from pipeline.sources.specs import open_source
from pipeline.synthesis.tasks import prepare
from pipeline.turns import Mark
from pipeline.views import View, first_view

READABLE_PX = 60
"""Tags narrower than this in the first view are looked at more closely."""


@dataclass(frozen=True)
class _Known:
    """One first view and the truths about its picture, by question."""

    view: View
    truths: Mapping[str, Truth]


class PerfectModel:
    """Callable as a brain: a request's JSON in, the assistant's text out."""

    def __init__(self, config: Config, family: str = "qwen2.5-vl") -> None:
        self._family = FAMILIES[family]
        self._known: dict[str, _Known] = {}
        source = open_source(config.source, seed=config.seed)
        for entry in source.entries():
            for picture in source.pictures(entry):
                prepared = prepare(picture, config.task, config.seed)
                truths = {p.sample.question: p.truth for p in prepared.problems}
                for resolution in config.task.budgets:
                    view = first_view(prepared.image, resolution)
                    sent = encoded(view.pixels, self._family).sha256
                    self._known[sent] = _Known(view, truths)

    def __call__(self, request: dict[str, Any]) -> str:
        texts, pictures = _parts(request)
        text = "\n".join(texts)
        if '"supported"' in text:
            return '{"supported": true, "advice": ""}'
        if '"needed"' in text:
            return '{"needed": [1], "thoughts": ["I look at the tag.", "Now it can be read."]}'
        known = self._known[pictures[0]]
        question = next(t for t in texts if t.startswith("Question: ")).removeprefix("Question: ")
        truth = known.truths[question]
        numbers = self._numbers(known.view, truth.target_boxes[0])
        width = known.view.to_view(truth.target_boxes[0])
        if len(pictures) == 1 and width[2] - width[0] < READABLE_PX:
            return self._looks(numbers)
        return self._answers(truth.target, request)

    def _looks(self, numbers: list[float]) -> str:
        call = {"name": "zoom", "arguments": {"box": numbers, "label": "the tag"}}
        return f"<think> Too small. </think>\n<tool_call>\n{json.dumps(call)}\n</tool_call>"

    def _answers(self, target: str, request: dict[str, Any]) -> str:
        return f"<think> It can be read. </think>\n<answer> {target} </answer>"

    def _numbers(self, view: View, box: Box) -> list[float]:
        size = view.observation.size
        return list(self._family.written(Box(*view.to_view(box)).clip(size), size))


class PerfectInline(PerfectModel):
    """The same in `cof-v1`: it names the tag inside its thought, and goes on behind the picture.

    What it would say behind the mark, had nobody stopped it, is wrong.
    """

    def _looks(self, numbers: list[float]) -> str:
        named = f"{BOX_START}{json.dumps(numbers)}{BOX_END}"
        unseen = "It says OOPS. </think>\n<answer> OOPS </answer>"
        return f"<think> Too small. {named} {Mark.ZOOMIN.value} {unseen}"

    def _answers(self, target: str, request: dict[str, Any]) -> str:
        turn = request["messages"][-1]
        end = f" It can be read. </think>\n<answer> {target} </answer>"
        if turn["role"] != "assistant":
            return f"<think>{end}"
        assert request["continue_final_message"] and not request["add_generation_prompt"]
        *begun, picture, gap = turn["content"]  # a server cuts the turn behind its last text
        assert picture["type"] == "image_url" and gap == {"type": "text", "text": ""}
        assert begun[-1]["text"].endswith(Mark.ZOOMIN.value)
        return end


def _parts(request: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Texts of a request, and the digests of its pictures."""
    texts: list[str] = []
    pictures: list[str] = []
    for message in request["messages"]:
        content = message["content"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part["type"] == "text":
                texts.append(part["text"])
            else:
                data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
                pictures.append(hashlib.sha256(data).hexdigest())
    return texts, pictures
