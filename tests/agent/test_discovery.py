"""Servers on this machine are found quickly, and nothing that answers can disturb the search."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline.agent.discovery import find_servers

PATIENT_S = 10.0
"""Long enough for a busy machine; servers that answer do so at once."""


@contextmanager
def serving(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Iterator[int]:
    """A server on a free port that answers every path with `body`."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/v1/models" else 404)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def models(*names: str, owner: str = "someone") -> bytes:
    return json.dumps({"data": [{"id": name, "owned_by": owner} for name in names]}).encode()


def test_servers_are_listed_in_the_order_of_the_ports() -> None:
    with serving(models("a", "b", owner="vllm")) as first, serving(models()) as second:
        found = find_servers((second, first), PATIENT_S)
    assert [server.url for server in found] == [
        f"http://127.0.0.1:{second}/v1",
        f"http://127.0.0.1:{first}/v1",
    ]
    assert [server.models for server in found] == [(), ("a", "b")]
    assert found[1].name == "vLLM"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"<html>It works!</html>", 200),
        (b'"data"', 200),
        (b'{"data": {"models": []}}', 200),
        (b'{"data": ["a"]}', 200),
        (b"\xff\xfe", 200),
        (b"[" * 100_000, 200),
        (models("a"), 401),
        (b"", 204),
    ],
)
def test_what_does_not_list_models_is_no_server(body: bytes, status: int) -> None:
    with serving(body, status) as port:
        assert find_servers((port,), PATIENT_S) == []


def test_a_redirection_is_not_followed() -> None:
    with serving(models("a")) as real:
        away = {"Location": f"http://127.0.0.1:{real}/v1/models"}
        with serving(b"", 302, away) as port:
            assert find_servers((port,), PATIENT_S) == []


def test_a_proxy_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with serving(models("a")) as port:
        assert len(find_servers((port,), PATIENT_S)) == 1


def drips(connection: socket.socket) -> None:
    """One byte at a time: no single wait is long."""
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b" " * 1000:
        connection.send(bytes([byte]))
        time.sleep(0.05)


@pytest.mark.parametrize("serve", [lambda connection: time.sleep(3), drips])
def test_silent_and_slow_servers_together_take_no_longer_than_one(
    serve: Callable[[socket.socket], None],
) -> None:
    def accept(listener: socket.socket) -> None:
        with suppress(OSError):
            serve(listener.accept()[0])

    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(8)]
        for listener in listeners:
            threading.Thread(target=accept, args=(listener,), daemon=True).start()
        begun = time.monotonic()
        assert find_servers([s.getsockname()[1] for s in listeners], timeout_s=0.3) == []
        assert time.monotonic() - begun < 2.0


def test_closed_ports_are_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert find_servers((port,)) == []
    assert find_servers(()) == []
