"""Looking at a run that a runner made, with every command that does."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import duckdb
import pytest
from PIL import Image

from pipeline.cli.app import main
from pipeline.report.draw import LOOK
from tests.cli.workers import make_run

COUNT = "select resolution, count(*) as n from trajectories group by 1 order by 1"


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name in ("first", "second"):
        make_run(folder, name)
    return folder


@pytest.fixture
def cofpipe(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Cofpipe:
    monkeypatch.setenv("COFPIPE_RUNS", str(runs_dir))
    return Cofpipe(capsys)


class Cofpipe:
    """Runs a command; keeps what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.err = ""

    def __call__(self, *arguments: str, code: int = 0) -> str:
        with pytest.raises(SystemExit) as stopped:
            main(list(arguments))
        captured = self._capsys.readouterr()
        self.err = captured.err
        assert stopped.value.code == code, captured.err
        return captured.out


def test_runs_are_listed_with_what_they_hold(cofpipe: Cofpipe) -> None:
    found = [json.loads(line) for line in cofpipe("runs", "--json").splitlines()]
    assert [(r["run_id"], r["status"], r["rows"], r["rejected"]) for r in found] == [
        ("first", "done", 6, 1),
        ("second", "done", 6, 1),
    ]
    assert "second" in cofpipe("runs")


def test_an_answer_is_the_same_in_every_format(cofpipe: Cofpipe) -> None:
    expected = [(224, 6), (672, 6)]
    lines = [json.loads(line) for line in cofpipe("sql", COUNT, "--json").splitlines()]
    assert [(r["resolution"], r["n"]) for r in lines] == expected
    again = [json.loads(line) for line in cofpipe("sql", COUNT, "--format", "json").splitlines()]
    assert again == lines
    rows = list(csv.reader(io.StringIO(cofpipe("sql", COUNT, "--format", "csv"))))
    assert [(int(a), int(b)) for a, b in rows[1:]] == expected
    table = cofpipe("sql", COUNT).splitlines()[2:]
    assert [tuple(map(int, line.split())) for line in table] == expected
    assert "2 rows" in cofpipe.err


def test_one_run_can_be_asked_alone(cofpipe: Cofpipe) -> None:
    query = "select distinct run_id from trajectories"
    assert json.loads(cofpipe("sql", query, "--run", "sec", "--json")) == {"run_id": "second"}
    assert json.loads(cofpipe("sql", query, "--run", "latest", "--json")) == {"run_id": "second"}


def test_an_answer_can_be_kept(cofpipe: Cofpipe, tmp_path: Path) -> None:
    file = tmp_path / "it's.duckdb"
    for _ in range(2):
        cofpipe("sql", COUNT + ";", "--save", str(file))
    with duckdb.connect(str(file), read_only=True) as saved:
        assert saved.execute("select * from result").fetchall() == [(224, 6), (672, 6)]
        assert saved.execute("select count(*) from steps").fetchone() == (6,)


@pytest.mark.parametrize("query", ["selec 1", "select * from nothing", "select bogus from runs"])
def test_a_query_that_does_not_work_is_one_sentence(cofpipe: Cofpipe, query: str) -> None:
    assert cofpipe("sql", query, code=2) == ""
    assert cofpipe.err.startswith("Error: The query does not work: ")
    assert cofpipe.err.count("\n") == 1


def test_a_folder_without_runs_has_typed_empty_views(cofpipe: Cofpipe, tmp_path: Path) -> None:
    assert cofpipe("sql", COUNT, "--json", "--runs-dir", str(tmp_path / "none")) == ""


def test_a_sample_is_shown_at_every_budget_of_every_run(cofpipe: Cofpipe) -> None:
    shown = [json.loads(line) for line in cofpipe("show", "photo-0.png#0", "--json").splitlines()]
    assert [(r["run_id"], r["resolution"], len(r["looks"])) for r in shown] == [
        ("first", 224, 1),
        ("first", 672, 0),
        ("second", 224, 1),
        ("second", 672, 0),
    ]
    text = cofpipe("show", "photo-0.png#0", "--run", "first")
    assert "1. zoom [98, 78, 142, 112]  Too small to read." in text
    assert "answer    K7  (verified, answered)" in text


def test_a_rejected_sample_is_shown_with_its_reason(cofpipe: Cofpipe) -> None:
    shown = json.loads(cofpipe("show", "photo-2.png#0", "--json", "--run", "first"))
    assert shown["rejected"]["reason"] == "unclear"
    assert "unclear in agent: blurred" in cofpipe("show", "photo-2.png#0", "--run", "first")


def test_a_path_can_be_drawn(cofpipe: Cofpipe, tmp_path: Path) -> None:
    out = tmp_path / "path.png"
    cofpipe("show", "photo-0.png#0", "--draw", str(out))
    with Image.open(out) as picture:
        colours = {colour for _, colour in picture.getcolors(1 << 24)}
    assert {LOOK, (120, 130, 140)} <= colours
    cofpipe("show", "photo-2.png#0", "--draw", str(out), code=2)
    assert "kept nothing of" in cofpipe.err


def test_an_unknown_sample_is_an_error_with_a_fix(cofpipe: Cofpipe) -> None:
    cofpipe("show", "nobody#0", code=2)
    assert "cofpipe sql" in cofpipe.err


def test_the_report_of_a_run_holds_its_pictures(cofpipe: Cofpipe, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    told = json.loads(cofpipe("report", "first", "-o", str(out), "--json"))
    assert told["bytes"] == out.stat().st_size
    page = out.read_text("utf-8")
    assert page.count("<article id=") == 3
    assert page.count("<img ") == 3, "one crop for each question, at the smaller budget"


def test_a_report_that_cannot_be_written_is_one_sentence(cofpipe: Cofpipe, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cofpipe("report", "first", "-o", str(tmp_path / "file" / "page.html"), code=1)
    assert cofpipe.err.startswith("Error: ")
    assert cofpipe.err.count("\n") == 1
