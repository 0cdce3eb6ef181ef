"""Brains for the loopback server that read needles: one of known limits, one that knows nothing."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from PIL import Image

from pipeline.agent.chat import Picture, Request, Said, Sampling
from pipeline.agent.encoding import encoded
from pipeline.agent.families import FAMILIES
from pipeline.agent.local import LocalModel, open_local
from pipeline.eval.design import Design
from pipeline.eval.stimuli import Stimulus, canvas, stimulus
from pipeline.geometry import Box
from pipeline.views import View, first_view
from tests.loopback.server import Answer, Body, pictures

FAMILY = "qwen2.5-vl"


class Sharp:
    """Reads what is `least_px` high or more, and looks closer at the rest.

    It knows a design's pictures by the bytes it is sent, and calls tools in its family's numbers.
    """

    def __init__(self, design: Design, least_px: float, seed: int = 0) -> None:
        self._least_px = least_px
        self._known: dict[str, tuple[Stimulus, View, float]] = {}
        on = canvas(design.resolution)
        for item in design.items():
            drawn = stimulus(item, on, seed)
            view = first_view(drawn.image, design.resolution)
            sent = encoded(view.pixels, FAMILIES[FAMILY]).sha256
            self._known[sent] = drawn, view, item.condition.height_px

    def __call__(self, body: Body) -> Answer:
        shown = pictures(body)
        drawn, view, height_px = self._known[hashlib.sha256(shown[0]).hexdigest()]
        agent = body["messages"][0]["role"] == "system"
        readable = height_px >= self._least_px or len(shown) > 1
        if not agent:
            return drawn.code if readable else "I cannot make it out."
        if readable:
            return f"<think> I can read it. </think><answer> {drawn.code} </answer>"
        box = Box(*view.to_view(drawn.box)).clip(view.observation.size)
        numbers = list(FAMILIES[FAMILY].written(box, view.observation.size))
        call = {"name": "zoom", "arguments": {"box": numbers, "label": "the label"}}
        return f"<think> Too small. </think><tool_call>{json.dumps(call)}</tool_call>"


class Tiny:
    """A tiny Qwen2.5-VL with random weights, on the loop and thread of its own: a context manager.

    Real networks see the real picture; what they say means nothing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._model: LocalModel | None = None

    def __enter__(self) -> Tiny:
        self._thread.start()
        opening = asyncio.run_coroutine_threadsafe(open_local(self._folder), self._loop)
        self._model = opening.result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._model is not None
        asyncio.run_coroutine_threadsafe(self._model.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __call__(self, body: Body) -> Answer:
        assert self._model is not None
        request = _request(body)
        reply = asyncio.run_coroutine_threadsafe(self._model.reply(request), self._loop).result()
        usage = {"prompt_tokens": reply.tokens_in, "completion_tokens": reply.tokens_out}
        return {"text": reply.text, "finish_reason": reply.finish, "usage": usage}


def _request(body: Body) -> Request:
    """What was asked for over HTTP, as the model in here takes it."""
    shown = iter(pictures(body))
    messages = []
    for message in body["messages"]:
        content = message["content"]
        parts = [content] if isinstance(content, str) else [_part(p, shown) for p in content]
        messages.append(Said(message["role"], tuple(parts)))
    sampling = Sampling(max_tokens=body.get("max_tokens") or body["max_completion_tokens"])
    return Request("planner", tuple(messages), sampling)


def _part(part: Body, shown: Iterator[bytes]) -> str | Picture:
    if part["type"] == "text":
        return str(part["text"])
    jpeg = next(shown)
    return Picture(jpeg, Image.open(io.BytesIO(jpeg)).size)
