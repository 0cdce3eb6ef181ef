"""Laws of fetching checkpoints, against a server on the loopback interface."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, ModelError
from pipeline.models import weights

CONTENT = bytes(range(256)) * 9000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    """Serves `CONTENT`; cuts the first `server.cuts` answers in the middle."""

    server: _Server

    def do_GET(self) -> None:
        start = 0
        if self.server.ranges and (wanted := self.headers.get("Range")):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        self.server.starts.append(start)
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.cuts > 0:
            self.server.cuts -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    cuts = 0
    ranges = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.starts: list[int] = []

    def checkpoint(self, digest: str | None = DIGEST) -> weights.Checkpoint:
        url = f"http://127.0.0.1:{self.server_port}/models/file.pth"
        return weights.Checkpoint("file", url, None, digest)


@contextmanager
def _serving() -> Iterator[_Server]:
    server = _Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server() -> Iterator[_Server]:
    with _serving() as running:
        yield running


def test_a_file_is_fetched_once_and_checked(server: _Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = weights.download(server.checkpoint(), tmp_path, progress=lambda *step: seen.append(step))
    assert path == tmp_path / "file.pth" and path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    weights.download(server.checkpoint(), tmp_path)
    assert server.starts == [0]
    assert [p.name for p in tmp_path.iterdir()] == ["file.pth"]


def test_a_cut_download_is_continued_where_it_stopped(server: _Server, tmp_path: Path) -> None:
    server.cuts = 2
    assert weights.download(server.checkpoint(), tmp_path).read_bytes() == CONTENT
    half = len(CONTENT) // 2
    assert server.starts == [0, half, half + (len(CONTENT) - half) // 2]


def test_a_download_given_up_is_continued_by_the_next_command(
    server: _Server, tmp_path: Path
) -> None:
    server.cuts = 3
    with pytest.raises(ModelError, match=r"cut.*Run it again to continue"):
        weights.download(server.checkpoint(), tmp_path)
    assert not (tmp_path / "file.pth").exists()
    assert weights.download(server.checkpoint(), tmp_path).read_bytes() == CONTENT
    assert server.starts[-1] > 0


def test_a_server_without_ranges_starts_over(server: _Server, tmp_path: Path) -> None:
    server.cuts, server.ranges = 1, False
    assert weights.download(server.checkpoint(), tmp_path).read_bytes() == CONTENT
    assert server.starts == [0, 0]


def test_a_wrong_digest_is_refused_and_nothing_is_left(server: _Server, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not the published file"):
        weights.download(server.checkpoint("0" * 64), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_first_digest_is_required_from_then_on(server: _Server, tmp_path: Path) -> None:
    path = weights.download(server.checkpoint(None), tmp_path)
    assert weights.required_digest(path) == DIGEST
    assert weights.check_digest(path) == DIGEST
    path.write_bytes(CONTENT + b"!")
    with pytest.raises(ModelError, match=DIGEST):
        weights.check_digest(path)
    with pytest.raises(ModelError, match=DIGEST):
        weights.download(server.checkpoint(None), tmp_path)


def test_without_a_network_the_error_is_one_sentence_and_a_way_out(tmp_path: Path) -> None:
    with _serving() as server:
        gone = server.checkpoint()
    with pytest.raises(ModelError) as caught:
        weights.download(gone, tmp_path)
    assert "could not be fetched from 127.0.0.1" in caught.value.message
    assert str(tmp_path / "file.pth") in str(caught.value)


def test_an_unknown_name_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="vit_b"):
        weights.pull("vitb", tmp_path)


def test_the_list_tells_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COFPIPE_CACHE", str(tmp_path))
    listed = {one.name: one for one in weights.list_checkpoints()}
    assert {"vit_b", "vit_l", "vit_h", "pocket_sam"} <= set(listed)
    assert listed["vit_h"].digest == weights.CHECKPOINTS["vit_h"].digest
    assert not listed["vit_b"].present
    assert listed["vit_b"].where == tmp_path / "sam_vit_b_01ec64.pth"
    assert listed["pocket_sam"].present and len(listed["pocket_sam"].digest or "") == 64
