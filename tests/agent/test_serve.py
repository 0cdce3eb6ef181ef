"""A real server from another project, spoken to by our client: `transformers serve`.

Needs an environment of its own (`make serve-env`, or `COFPIPE_SERVE_PYTHON` naming its Python), for
torchvision is not to come near the project's own.
"""

from __future__ import annotations

import asyncio
import io
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from pipeline.agent.chat import Picture, Reply, Request, Said, Sampling
from pipeline.config import Endpoint

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("COFPIPE_SERVE_PYTHON") or ROOT / ".venv-serve/bin/python")
START_S = 150.0
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "OMP_NUM_THREADS": "1",
}

pytestmark = [
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason=f"no {PYTHON}: `make serve-env` makes it"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    from tests.models import tiny_qwen

    return tiny_qwen.build(tmp_path_factory.mktemp("served") / "tiny")


@pytest.fixture(scope="module")
def url(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of a server that has loaded the model and answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(PYTHON), "-c", "from transformers.cli.transformers import main; main()", "serve"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", str(folder)]
    log = tmp_path_factory.mktemp("log") / "server.log"
    with log.open("wb") as out:
        environment = os.environ | QUIET
        server = subprocess.Popen(
            command, stdout=out, stderr=out, env=environment, start_new_session=True
        )
        try:
            wait_for(f"http://127.0.0.1:{port}", server, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            end(server)


def wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    state = "ended" if server.poll() is not None else f"did not answer in {START_S:.0f} s"
    pytest.fail(f"The server {state}:\n{log.read_text('utf-8', 'replace')[-3000:]}")


def end(server: subprocess.Popen[bytes]) -> None:
    """Stop the server that this test started, and what it started."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        if server.poll() is None:
            os.killpg(server.pid, how)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            continue


def picture(color: str, size: tuple[int, int] = (112, 84)) -> Picture:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "JPEG", quality=95)
    return Picture(buffer.getvalue(), size)


def asking(*parts: str | Picture) -> Request:
    return Request("planner", (Said("user", parts),), Sampling(max_tokens=12))


@pytest.mark.timeout(400)
def test_our_client_is_answered_by_transformers_serve(url: str, folder: Path) -> None:
    from pipeline.agent.endpoint import open_endpoint

    async def talk() -> list[Reply]:
        model = await open_endpoint(Endpoint(urls=(url,), tries=2), str(folder))
        try:
            return [
                await model.reply(asking("What is written on the red star?")),
                await model.reply(asking(picture("red"), "What color?")),
                await model.reply(asking(picture("red"), picture("blue", (56, 56)), "Which?")),
            ]
        finally:
            await model.close()

    replies = asyncio.run(talk())
    assert all(reply.text and reply.tries == 1 for reply in replies)
    assert all(0 < (reply.tokens_out or 0) <= 13 for reply in replies)
    text, one, two = (reply.tokens_in or 0 for reply in replies)
    assert two > one > text > 0


@pytest.mark.timeout(400)
def test_the_server_and_the_model_in_this_process_agree(url: str, folder: Path) -> None:
    from pipeline.agent.endpoint import open_endpoint
    from pipeline.agent.local import open_local

    async def both() -> tuple[Reply, Reply]:
        served = await open_endpoint(Endpoint(urls=(url,), tries=2), str(folder))
        local = await open_local(folder)
        try:
            request = asking(picture("red"), "What color is this?")
            return await served.reply(request), await local.reply(request)
        finally:
            await served.close()
            await local.close()

    served, local = asyncio.run(both())
    assert served.tokens_in == local.tokens_in
    assert served.text == local.text
