"""Which servers of models run on this machine.

Asks 127.0.0.1 only, on the ports that such servers use by default, without a key; whatever does
not answer like one is passed over in silence. It knows nothing of pictures or of chats.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

HOST = "127.0.0.1"

PORTS: Mapping[int, str] = {
    8000: "vLLM or transformers serve",
    30000: "SGLang",
    11434: "Ollama",
    1234: "LM Studio",
    8080: "llama.cpp",
}
"""Default port to the program that is usually behind it."""

OWNERS: Mapping[str, str] = {
    "vllm": "vLLM",
    "sglang": "SGLang",
    "library": "Ollama",
    "organization_owner": "LM Studio",
    "llamacpp": "llama.cpp",
}
"""What a server writes as owner of its models, where that tells which program it is."""

TIMEOUT_S = 0.5
MOST_BYTES = 1 << 20
"""Of a list of models."""


@dataclass(frozen=True, slots=True)
class Server:
    """Something on this machine that lists models."""

    url: str
    """Base URL, such as `http://127.0.0.1:8000/v1`."""
    name: str
    """The program, as far as that can be told."""
    models: tuple[str, ...]
    """As the server names them: text from outside."""


def find_servers(ports: Sequence[int] = tuple(PORTS), timeout_s: float = TIMEOUT_S) -> list[Server]:
    """Servers that answer within `timeout_s`, in the order of `ports`; never raises."""
    found: dict[int, Server] = {}

    def look(port: int) -> None:
        server = _server(port, timeout_s)
        if server is not None:
            found[port] = server

    deadline = time.monotonic() + timeout_s
    threads = [threading.Thread(target=look, args=(port,), daemon=True) for port in ports]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    answered = dict(found)
    return [answered[port] for port in ports if port in answered]


def _server(port: int, timeout_s: float) -> Server | None:
    """What answers at the port; no proxy is asked and no redirection followed."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout_s)
    try:
        connection.request("GET", "/v1/models", headers={"Accept": "application/json"})
        response = connection.getresponse()
        body = response.read(MOST_BYTES)
        listed = _listed(body) if response.status == http.client.OK else None
    except (OSError, http.client.HTTPException, ValueError, RecursionError):
        return None
    finally:
        connection.close()
    if listed is None:
        return None
    names, owners = listed
    told = [OWNERS[owner] for owner in owners if owner in OWNERS]
    name = told[0] if told else PORTS.get(port, "a server")
    return Server(f"http://{HOST}:{port}/v1", name, names)


def _listed(body: bytes) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Names and owners of the models, or None when this is no list of models."""
    reply = json.loads(body)
    models = reply.get("data") if isinstance(reply, dict) else None
    if not isinstance(models, list):
        return None
    named = [m for m in models if isinstance(m, dict) and isinstance(m.get("id"), str)]
    if models and not named:
        return None
    return tuple(m["id"] for m in named), tuple(str(m.get("owned_by")) for m in named)
