"""`cofpipe eval needles` as people and programs run it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.agent.discovery import PORTS, find_servers
from pipeline.cli.app import main
from pipeline.eval.design import Design
from tests.eval.readers import FAMILY, Sharp
from tests.loopback.server import Loopback, failing
from tests.models import tiny_qwen

pytestmark = pytest.mark.torch

SMALL = Design(resolution=280, per_level=1, factors=("height_px", "clutter"))


@pytest.fixture(scope="module")
def sharp() -> Sharp:
    return Sharp(SMALL, 8)


def ran(*words: str, runs: Path) -> int:
    """The exit code of `cofpipe eval needles` with these words, on the small design."""
    chosen = [w for f in SMALL.factors for w in ("--factor", f)]
    asked = ["--resolution", "280", "-n", "1", "--runs-dir", str(runs), *chosen, *words]
    with pytest.raises(SystemExit) as ended:
        main(["eval", "needles", *asked])
    return int(ended.value.code or 0)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_json_has_a_line_for_each_level_each_curve_and_the_run(
    tmp_path: Path, sharp: Sharp, capsys: pytest.CaptureFixture[str]
) -> None:
    with Loopback(sharp) as server:
        words = ("--endpoint", server.url, "--family", FAMILY, "--json")
        assert ran(*words, runs=tmp_path) == 0
    *records, run = lines(capsys.readouterr().out)
    levels = [r for r in records if "level" in r]
    passes = {(r["factor"], r["method"]): r for r in records if "threshold" in r}
    assert len(levels) == 2 * (10 + 3) and len(passes) == 4
    assert run["status"] == "done" and run["subject"] == "loopback" and run["scored"] == 26
    direct = passes["height_px", "direct"]
    assert 6 < direct["threshold"] < 8 and direct["low"] <= 6 and direct["reads"] == "some"
    assert passes["height_px", "zoom"]["threshold"] is None
    assert passes["height_px", "zoom"]["reads"] == "all"
    assert {r["run_id"] for r in records} == {run["run_id"]}


def test_people_get_a_table_and_a_page_that_fetches_nothing(
    tmp_path: Path, sharp: Sharp, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    with Loopback(sharp, models=("qwen2.5-vl-sharp <b>",)) as server:
        assert ran("--endpoint", server.url, "-o", str(page), runs=tmp_path) == 0
    said = capsys.readouterr()
    assert re.search(r"height_px +6 +0% +0%–79% +1 +0.0 +100% +21%–100% +1 +1.0", said.out)
    assert "height_px zoom: more than half at every level" in said.out
    text = page.read_text("utf-8")
    assert text.count("<svg") == 2 and text.count("<table>") == 1
    assert text.count('class="line direct"') == text.count('class="line zoom"') == 1
    assert "qwen2.5-vl-sharp &lt;b&gt;" in text and "<script" not in text
    assert not re.search(r'(?:src|href)="(?!#)', text) and "http://" not in text
    marks = {float(y) for y in re.findall(r'<circle[^>]*cy="([\d.]+)"', text)}
    assert marks == {14.0, 87.0, 160.0}, "dots at none, all, and the crossing at half"


def test_an_endpoint_that_dies_ends_with_1_shows_what_there_is_and_can_be_continued(
    tmp_path: Path, sharp: Sharp, capsys: pytest.CaptureFixture[str]
) -> None:
    left = 12

    def mortal(body: dict[str, Any]) -> Any:
        nonlocal left
        left -= 1
        return failing(503) if left < 0 else sharp(body)

    with Loopback(mortal) as server:
        words = ("--endpoint", server.url, "--family", FAMILY, "--json")
        words = (*words, "--set", "endpoint.tries=1", "--set", "endpoint.in_flight=2")
        assert ran(*words, runs=tmp_path) == 1
        dead = capsys.readouterr()
        assert "The run can be continued once the server works." in dead.err
        levels = [r for r in lines(dead.out) if "level" in r]
        assert sum(r["missing"] for r in levels) > 0
        assert all(r["right"] == r["scored"] for r in levels if r["method"] == "zoom")
        left = 1000
        assert ran(*words, runs=tmp_path) == 0
    *_, run = lines(capsys.readouterr().out)
    assert run["continued"] and run["scored"] == 26


def test_a_folder_with_a_model_is_a_subject(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_qwen.build(tmp_path / "Qwen2.5-VL-tiny")
    words = ("--model", str(folder), "--family", FAMILY, "--set", "policy.max_tokens=16", "--json")
    assert ran(*words, "--method", "direct", runs=tmp_path / "runs") == 0
    *records, run = lines(capsys.readouterr().out)
    assert run["status"] == "done" and run["scored"] == 13
    assert all(r["accuracy"] == 0.0 for r in records if "level" in r)


@pytest.mark.skipif(bool(find_servers()), reason="a server of models runs on this machine")
def test_without_a_subject_a_server_on_the_usual_ports_is_found(
    tmp_path: Path, sharp: Sharp, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        server = Loopback(sharp, models=("qwen2.5-vl",), port=11434)
        server.__enter__()
    except OSError:
        pytest.skip("port 11434 is taken")
    try:
        assert 11434 in PORTS
        assert ran("--json", "--method", "direct", runs=tmp_path) == 0
    finally:
        server.__exit__(None, None, None)
    *_, run = lines(capsys.readouterr().out)
    assert run["subject"] == "qwen2.5-vl" and run["scored"] == 13


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--endpoint", "http://127.0.0.1:9/v1", "--model", "x"), "two subjects"),
        (("--model", "x", "--model-name", "y"), "--model-name is for a server"),
        (("--endpoint", "http://127.0.0.1:9/v1", "--policy", "scripted"), "does not go with"),
        (("--policy", "scripted", "--factor", "hight_px"), "Did you mean 'height_px'?"),
        (("--policy", "scripted", "--method", "zooom"), "Did you mean 'zoom'?"),
        (("--policy", "scripted", "--resolution", "112"), "Take a larger --resolution"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence_and_2(
    words: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ran(*words, runs=tmp_path) == 2
    assert said in capsys.readouterr().err
