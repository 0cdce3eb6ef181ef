"""The wire format of the OpenAI protocol: requests to JSON, and JSON to replies and complaints.

Pure: no network, no waiting. Trusts nothing that a server sends.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections import OrderedDict
from typing import Any

from pipeline.agent.chat import Part, Picture, Reply, Request, Said, ToolUse
from pipeline.agent.concurrency import TryFailed

OVERFLOW = re.compile(
    r"context[ _-]?(length|window|size)|maximum model length|max_model_len|max_total_tokens"
    r"|(prompt|input|request) is too long|too many (input |prompt )?tokens|max_new_tokens` must be",
    re.IGNORECASE,
)
"""What servers say, in code or words, when a request is longer than the model's context."""


def body_of(model: str, request: Request, data_urls: DataUrls) -> dict[str, Any]:
    """The request as the protocol writes it: what is posted, before it is JSON."""
    drawn = request.sampling
    body: dict[str, Any] = {
        "model": model,
        "messages": [_message(said, data_urls) for said in request.messages],
        "temperature": drawn.temperature,
        "top_p": drawn.top_p,
        "max_tokens": drawn.max_tokens,
    }
    if drawn.stop:
        body["stop"] = list(drawn.stop)
    if drawn.seed is not None:
        body["seed"] = drawn.seed
    if request.tools:
        body["tools"] = [dict(tool) for tool in request.tools]
    if drawn.keep_special:  # vLLM's and SGLang's name
        body["skip_special_tokens"] = False
    if request.prefix:  # vLLM's way to have a turn gone on with
        body["messages"].append(_message(_begun(request.prefix), data_urls))
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    return body


def _begun(prefix: tuple[Part, ...]) -> Said:
    """The turn to go on with. A server cuts it behind its last text, so a text is its last part."""
    return Said("assistant", (*prefix, "") if isinstance(prefix[-1], Picture) else prefix)


def _message(said: Said, data_urls: DataUrls) -> dict[str, Any]:
    if not any(isinstance(part, Picture) for part in said.parts):
        return {"role": said.speaker, "content": "".join(map(str, said.parts))}
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": data_urls.of(part)}}
        for part in said.parts
    ]
    return {"role": said.speaker, "content": content}


class DataUrls:
    """Pictures as text, the latest `most` characters of it kept."""

    def __init__(self, most: int) -> None:
        self._most, self._size = most, 0
        self._kept: OrderedDict[bytes, str] = OrderedDict()

    def of(self, picture: Picture) -> str:
        """`data:image/jpeg;base64,…`, or `png` where it is one."""
        if picture.jpeg in self._kept:
            self._kept.move_to_end(picture.jpeg)
            return self._kept[picture.jpeg]
        kind = "png" if picture.jpeg.startswith(b"\x89PNG") else "jpeg"
        url = f"data:image/{kind};base64," + base64.b64encode(picture.jpeg).decode("ascii")
        self._kept[picture.jpeg] = url
        self._size += len(url)
        while self._size > self._most:
            self._size -= len(self._kept.popitem(last=False)[1])
        return url


def parsed(content: bytes) -> dict[str, Any]:
    """The JSON object of a success; raises `TryFailed` for what is none."""
    what = "a broken reply"
    with contextlib.suppress(ValueError, RecursionError):
        text = content.decode("utf-8")
        what = "HTML for a reply" if text.lstrip().startswith("<") else "broken JSON"
        found = json.loads(text)
        if isinstance(found, dict):
            return found
    raise TryFailed(what)


def complaint(content: bytes) -> tuple[str, str]:
    """A server's code and words for an error, on one line of 300 characters at most."""
    text = content.decode("utf-8", "replace")
    code: Any = ""
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(text)
        error = found.get("error", found) if isinstance(found, dict) else found
        if isinstance(error, dict):
            code = error.get("code") or error.get("type") or ""
            error = error.get("message") or error.get("detail") or error
        text = error if isinstance(error, str) else json.dumps(error)
    return str(code), " ".join(text.split())[:300]


def reply_of(found: dict[str, Any], latency_s: float, tries: int) -> Reply:
    """The first choice; raises `TryFailed` where there is none."""
    try:
        choice = found["choices"][0]
        message = choice["message"]
        tools = tuple(map(_tool, message.get("tool_calls") or ()))
        text = _text(message.get("content"))
    except (KeyError, IndexError, TypeError, AttributeError):
        raise TryFailed("a reply without a choice") from None
    usage = found.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    return Reply(
        text=text,
        finish=str(choice.get("finish_reason") or ""),
        tools=tools,
        model=str(found.get("model") or ""),
        tokens_in=_count(counts.get("prompt_tokens")),
        tokens_out=_count(counts.get("completion_tokens")),
        latency_s=latency_s,
        tries=tries,
        stopped_at=_stopped_at(choice),
    )


def _stopped_at(choice: dict[str, Any]) -> str | None:
    """What ended a reply, which vLLM and SGLang tell: a stop string, or the number of a token."""
    told = choice.get("stop_reason")
    told = choice.get("matched_stop") if told is None else told
    if isinstance(told, int):
        return ""
    return told if isinstance(told, str) else None


def _tool(call: Any) -> ToolUse:
    function = call["function"]
    arguments = function.get("arguments") or ""
    return ToolUse(
        _text(function["name"]),
        _text(arguments if isinstance(arguments, str) else json.dumps(arguments)),
    )


def _text(content: Any) -> str:
    """The text of a message, which some servers send in parts; half characters become `?`."""
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if part.get("type") == "text")
    if content is None:
        return ""
    if not isinstance(content, str):
        raise TypeError
    return content.encode("utf-8", "replace").decode("utf-8")


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) else None
