"""The doctor says what is wrong and never says a secret."""

from __future__ import annotations

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.agent.families import FAMILIES, Family
from pipeline.agent.probe import PICTURES, Convention
from pipeline.cli import doctor
from pipeline.cli.app import main
from tests.agent.test_probe import Boxer, boxes, nonsense

CANARY = "sk-canary-5f1e"


def test_a_key_is_seen_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    check = doctor.endpoint_key()
    assert "OPENAI_API_KEY is set" in check.detail
    assert CANARY not in str(check)


def test_without_a_key_nothing_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in doctor.KEYS:
        monkeypatch.delenv(name, raising=False)
    assert doctor.endpoint_key().state == "ok"


def test_a_runs_directory_that_cannot_be_written_fails_with_a_fix(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check = doctor.runs_folder(tmp_path / "file")
    assert check.state == "fail"
    assert "COFPIPE_RUNS" in check.fix


def test_looking_at_a_runs_directory_leaves_nothing_there(tmp_path: Path) -> None:
    assert doctor.runs_folder(tmp_path).state == "ok"
    assert doctor.runs_folder(tmp_path / "not-yet").state == "ok"
    assert list(tmp_path.iterdir()) == []


def test_the_packages_of_this_environment_are_in_their_ranges() -> None:
    check = doctor.packages()
    assert check.state == "ok", check.detail


def test_ray_is_above_its_floor() -> None:
    assert doctor.ray_version().state == "ok"


@pytest.mark.parametrize("check", [doctor.memory, doctor.open_files, doctor.python])
def test_every_check_says_what_it_found(check: object) -> None:
    assert callable(check)
    found = check()
    assert found.detail
    assert bool(found.fix) == (found.state != "ok")


def test_the_local_servers_are_told_and_none_is_no_fault() -> None:
    check = doctor.servers()
    assert check.state == "ok"
    assert check.detail


def coordinates(name: str, convention: Convention) -> doctor.Check:
    return asyncio.run(doctor.coordinates(Boxer(boxes(convention), name)))


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
def test_every_family_is_named_as_the_setting_to_use(family: Family) -> None:
    check = coordinates(f"someone/{family.name}-1.5-tuned", Convention(family.kind, family.order))
    assert check.state == "ok"
    assert f"--set policy.family={family.name}" in check.detail


def test_a_name_that_tells_nothing_leaves_the_choice_between_those_that_fit() -> None:
    check = coordinates("mystery", Convention("thousand", "xyxy"))
    assert all(name in check.detail for name in ("qwen2-vl", "qwen3-vl", "internvl"))
    assert "qwen2.5-vl" not in check.detail


def test_boxes_are_believed_before_the_name() -> None:
    check = coordinates("Qwen/Qwen2.5-VL-7B-Instruct", Convention("unit-padded", "xyxy"))
    assert check.state == "warn"
    assert "--set policy.family=llava" in check.fix


def test_coordinates_that_no_family_speaks_are_named_all_the_same() -> None:
    check = coordinates("mystery", Convention("thousand", "yxyx"))
    assert check.state == "warn"
    assert "0 to 1000 on each axis, top edge first" in check.detail


def test_nonsense_names_no_family_to_use() -> None:
    check = asyncio.run(doctor.coordinates(Boxer(nonsense, "odd\x1b[31m")))
    assert check.state == "warn"
    assert "--set" not in check.detail + check.fix
    assert "\x1b" not in check.detail


def test_a_model_without_a_server_is_refused() -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", "--model", "any"])
    assert stopped.value.code == 2


class Qwen(BaseHTTPRequestHandler):
    """A server that finds every tag and writes its box in pixels."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = json.dumps(body["messages"])
        (tag,) = (t for tags in PICTURES.values() for t in tags if f"the {t.name} in" in asked)
        message = {"role": "assistant", "content": f"Here: {tag.box.as_list()}"}
        choices = [{"index": 0, "finish_reason": "stop", "message": message}]
        reply = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"]}
        said = json.dumps({**reply, "choices": choices}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_server_is_asked_for_boxes_and_its_family_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Qwen) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with pytest.raises(SystemExit) as stopped:
            url = f"http://127.0.0.1:{server.server_port}/v1"
            main(["doctor", "--endpoint", url, "--model", "Qwen2.5-VL-7B", "--json"])
        server.shutdown()
    assert stopped.value.code == 0
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (line["name"], line["state"]) == ("Coordinates", "ok")
    assert "--set policy.family=qwen2.5-vl" in line["detail"]
