"""What is said to a chat model and what it says back: plain records, no network, no model.

A request is complete: its `key` names everything that determines the reply, so a reply that was
paid for once can be found again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from pipeline.highlight import Highlight

Role = Literal[
    "planner", "locate", "read", "adjust_box", "critic", "verifier", "summariser", "writer", "probe"
]
"""Which part of the agent asks."""

Speaker = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as it is sent: encoded once, at the size that the model sees."""

    jpeg: bytes = field(repr=False)
    size: tuple[int, int]
    """(width, height) in pixels."""

    @property
    def sha256(self) -> str:
        """Digest of the encoded bytes, hex."""
        return hashlib.sha256(self.jpeg).hexdigest()


Part = str | Picture


@dataclass(frozen=True, slots=True)
class Said:
    """One message of a conversation: texts and pictures in order."""

    speaker: Speaker
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the reply is drawn."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 1024
    stop: tuple[str, ...] = ()
    seed: int | None = None
    keep_special: bool = False
    """The marks of `cof-v1` are tokens where the system and the assistant speak, and special tokens
    stay in the reply's text."""


@dataclass(frozen=True, slots=True)
class Request:
    """One call of a chat model."""

    role: Role
    messages: tuple[Said, ...]
    sampling: Sampling = Sampling()
    tools: tuple[Mapping[str, Any], ...] = ()
    """Tool schemas for native tool calling; empty for the text protocol."""
    prefix: tuple[Part, ...] = ()
    """What the assistant's turn has begun with already: the reply goes on from there."""
    highlight: Highlight | None = None
    """What the model attends to more; only models in this process can."""

    def key(self, model: str) -> str:
        """SHA-256 (hex) of the model's name and all that the request says."""
        digest = hashlib.sha256()
        digest.update(json.dumps([model, *self._plain()], sort_keys=True).encode())
        return digest.hexdigest()

    @property
    def affinity(self) -> str:
        """Digest of the first picture: requests that share it are best served by one server."""
        said = (part for message in self.messages for part in message.parts)
        first = next((p for p in (*said, *self.prefix) if isinstance(p, Picture)), None)
        return first.sha256 if first else ""

    def _plain(self) -> Sequence[Any]:
        messages = [[m.speaker, _plain_parts(m.parts)] for m in self.messages]
        s = self.sampling
        drawn: list[Any] = [s.temperature, s.top_p, s.max_tokens, list(s.stop), s.seed]
        if s.keep_special:  # said only where it holds: older journals know no such thing
            drawn.append("keep_special")
        prefix: Any = _plain_parts(self.prefix)
        if not any(isinstance(part, Picture) for part in self.prefix):
            prefix = "".join(prefix)
        plain = [self.role, messages, drawn, [dict(tool) for tool in self.tools], prefix]
        if self.highlight is not None:  # as with the marks
            plain.append(asdict(self.highlight))
        return plain


def _plain_parts(parts: Sequence[Part]) -> list[Any]:
    """Texts as they are, pictures by their digest."""
    return [part if isinstance(part, str) else {"jpeg": part.sha256} for part in parts]


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A native tool call as the server parsed it; `arguments` is the model's own text."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model said, and what it cost."""

    text: str
    finish: str
    """The server's word: `stop`, `length`, `tool_calls`, …"""
    tools: tuple[ToolUse, ...] = ()
    model: str = ""
    """As the server names it."""
    tokens_in: int | None = None
    """None where the server does not count."""
    tokens_out: int | None = None
    latency_s: float = 0.0
    """Of the try that succeeded."""
    tries: int = 1
    stopped_at: str | None = None
    """The stop string that ended it, empty where none did; None where the server does not tell."""


class ChatModel(Protocol):
    """Something that replies: an endpoint, a model in this process, a scripted one in tests."""

    @property
    def name(self) -> str:
        """The model's name, as in `key` and in `calls`."""

    async def reply(self, request: Request) -> Reply:
        """The reply; raises `ModelError` when there is none to be had."""

    async def close(self) -> None:
        """Let go of connections."""
