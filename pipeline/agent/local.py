"""A chat model in this process: requests wait in one queue and are answered one after another.

Owns the thread on which a model lives, so that nobody who awaits a reply is held up by one that is
being written. Knows nothing of networks or tokens; torch is first imported when a model is opened.
"""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from pipeline.agent.chat import Part, Picture, Reply, Request
from pipeline.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from pipeline.models.local_vlm import Vlm
    from pipeline.models.qwen_prompt import Message


async def open_local(
    path_or_id: str | Path,
    *,
    device: str = "cpu",
    dtype: str | None = None,
    threads: int = 1,
    template: str = "auto",
) -> LocalModel:
    """A vision-language model, loaded and used on a thread of its own; arguments as `vlm.load`."""

    def load() -> Vlm:
        from pipeline.models import vlm

        return vlm.load(path_or_id, device=device, dtype=dtype, threads=threads, template=template)

    thread = ThreadPoolExecutor(1, "vlm")
    try:
        model = await asyncio.get_running_loop().run_in_executor(thread, load)
    except BaseException:
        thread.shutdown(wait=False)
        raise
    return LocalModel(model, thread)


class LocalModel:
    """A `ChatModel` on a model in this process, for the text protocol.

    What is drawn at random depends on the request alone: asked again, it is answered alike.
    """

    def __init__(self, model: Vlm, thread: ThreadPoolExecutor | None = None) -> None:
        self._model = model
        self._thread = thread or ThreadPoolExecutor(1, "vlm")
        self._closed = threading.Event()

    @property
    def name(self) -> str:
        """The model's name, which tells its weights."""
        return self._model.name

    async def reply(self, request: Request) -> Reply:
        """The model's reply; one nobody waits for any longer is given up at the next token."""
        if request.tools:
            raise ConfigError(f"{self.name} has no native tools here.", "Use the text protocol.")
        if self._closed.is_set():
            raise ModelError(f"{self.name} is closed.")
        abandoned = threading.Event()

        def halt() -> bool:
            return abandoned.is_set() or self._closed.is_set()

        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._answer, request, halt)
        finally:
            abandoned.set()

    async def close(self) -> None:
        """Give up what is being written and end the thread; what still waits gets `ModelError`."""
        self._closed.set()
        await asyncio.to_thread(self._thread.shutdown)

    def _answer(self, request: Request, halt: Callable[[], bool]) -> Reply:
        """On the model's thread."""
        if halt():
            raise ModelError(f"{self.name} was closed before it came to this request.")
        begun = time.monotonic()
        drawn = request.sampling
        written = self._model.generate(
            _conversation(request),
            prefix=_opened(request.prefix),
            temperature=drawn.temperature,
            top_p=drawn.top_p,
            max_tokens=drawn.max_tokens,
            stop=drawn.stop,
            seed=int(request.key(self.name)[:15], 16),
            keep_special=drawn.keep_special,
            halt=halt,
            highlight=request.highlight,
        )
        return Reply(
            text=written.text,
            finish=written.finish,
            model=self.name,
            tokens_in=written.tokens_in,
            tokens_out=written.tokens_out,
            latency_s=time.monotonic() - begun,
            stopped_at=written.stopped_at,
        )


def _conversation(request: Request) -> list[Message]:
    """The request's messages with their pictures decoded."""
    from pipeline.models.qwen_prompt import Message

    return [Message(said.speaker, _opened(said.parts)) for said in request.messages]


def _opened(parts: tuple[Part, ...]) -> tuple[str | Image.Image, ...]:
    return tuple(_decoded(part) if isinstance(part, Picture) else part for part in parts)


def _decoded(picture: Picture) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(picture.jpeg))
        image.load()
    except (OSError, ValueError) as error:
        raise ModelError(f"A picture of the request does not open: {error}") from error
    return image
