"""Laws of a benchmark's run: what is compared is scored alike, and nothing is wrong by accident."""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from manifests.database import query
from pipeline.cli.app import main
from pipeline.config import Config, config_from
from pipeline.errors import ConfigError, ModelError
from pipeline.eval.benchmark_worker import opened
from pipeline.eval.outcome import beside, compared, rows_of, write_results
from pipeline.eval.protocol import ALL_METHODS, Protocol
from pipeline.eval.run import Evaluation, Summary, evaluate, plan_benchmark
from pipeline.runner.fsck import fsck
from pipeline.sources.decode import encode
from tests.loopback.server import Body, Loopback, failing
from tests.models import tiny_llava, tiny_qwen

pytestmark = pytest.mark.torch

NEEDLES = Protocol(
    "needles",
    methods=("direct", "zoom", "grid", "oracle-crop", "random-crop"),
    resolutions=(224, 448),
    limit=4,
    options={"size": "1024x768"},
)


def settings(runs: Path, **more: Any) -> Config:
    return config_from({"run": {"dir": str(runs)}, **more})


def served(runs: Path, url: str, **more: Any) -> Config:
    policy = {"kind": "endpoint", "family": "qwen2.5-vl"}
    endpoint = {"urls": [url], "tries": 1, "in_flight": 4}
    return settings(runs, policy=policy, endpoint=endpoint, **more)


def done(config: Config, asked: Protocol, **rest: Any) -> tuple[Evaluation, Summary]:
    planned = plan_benchmark(config, asked, **rest)
    return planned, evaluate(planned)


def rows(planned: Evaluation) -> list[dict[str, Any]]:
    return rows_of(planned.run_dir.parent, [planned.plan.run_id])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures with three questions, and one that is no picture."""
    place = tmp_path / "own"
    place.mkdir()
    for name, color in (("red.png", (200, 20, 20)), ("blue.png", (20, 20, 200))):
        Image.new("RGB", (320, 240), color).save(place / name)
    (place / "torn.jpg").write_bytes(encode(Image.new("RGB", (64, 64)))[:90])
    asked = [
        {"image": "red.png", "question": "Which colour?", "answer": "red",
         "options": ["red", "blue"], "boxes": [[10, 10, 60, 60]]},
        {"image": "red.png", "question": "Is it green?", "answer": "no"},
        {"image": "blue.png", "question": "Which colour?", "answer": "blue",
         "options": ["red", "blue"]},
        {"image": "torn.jpg", "question": "Which colour?", "answer": "black"},
    ]  # fmt: skip
    (place / "questions.jsonl").write_text("\n".join(map(json.dumps, asked)))
    return place


def test_every_question_has_a_row_for_every_way_of_looking_with_its_whole_protocol(
    tmp_path: Path,
) -> None:
    planned, summary = done(settings(tmp_path), NEEDLES)
    assert (summary.status, summary.scored) == ("done", 4 * 5 * 2)
    found = rows(planned)
    ways = Counter((row["method"], row["resolution"]) for row in found)
    assert len(ways) == 10 and set(ways.values()) == {4}
    assert {row["sample_id"] for row in found} == {
        f"{row['item_id']}#{row['method']}" for row in found
    }
    told = [json.loads(row["protocol"]) for row in found]
    assert all(t["seed"] == 0 and t["extractor"] == "exact" and t["rollouts"] == 1 for t in told)
    zoom = next(t for t, row in zip(told, found, strict=True) if row["method"] == "zoom")
    assert zoom["looks"] == 5 and zoom["size"] == "1024x768"
    assert list(fsck(planned.run_dir).problems) == []


def test_looking_closer_and_being_shown_where_help_and_a_crop_anywhere_does_not(
    tmp_path: Path,
) -> None:
    planned, _ = done(settings(tmp_path), NEEDLES)
    cells = compared(opened(planned.config, NEEDLES), rows(planned), 0).cells
    right = {(c.method, c.resolution): c.accuracy.value for c in cells if c.accuracy}
    assert right["zoom", 224] > right["direct", 224]
    assert right["oracle-crop", 224] >= right["zoom", 224] - 0.26
    assert right["random-crop", 224] <= right["oracle-crop", 224]
    tokens = {(c.method, c.resolution): c.visual_tokens for c in cells}
    assert tokens["direct", 224] < tokens["zoom", 224] < tokens["grid", 224]  # type: ignore[operator]


def test_a_model_in_here_is_looked_at_in_every_way_and_its_attention_is_steered(
    tmp_path: Path, folder: Path
) -> None:
    model = tiny_qwen.build(tmp_path / "Qwen2.5-VL-tiny")
    policy = {"kind": "local", "model": str(model), "max_tokens": 16, "family": "qwen2.5-vl"}
    methods = ("direct", "zoom", "coarse-to-fine", "uniform", "exhaustive", "saliency-crop")
    asked = Protocol("folder", str(folder), methods=methods, resolutions=(112,), preset="mme-hl")
    planned, summary = done(settings(tmp_path / "runs", policy=policy), asked)
    found = rows(planned)
    assert summary.scored == len(found) == 4 * len(methods)
    steered = [row for row in found if row["method"] == "coarse-to-fine" and row["value"] == 0]
    assert steered and {row["outcome"] for row in steered} <= {"box", "fallback_all"}
    assert {row["subject"] for row in found} == {"Qwen2.5-VL-tiny"}
    assert all(row["tokens_in"] for row in found if row["image_id"] != "torn.jpg")
    run = json.loads((planned.run_dir / "run.json").read_text())
    assert len(run["parents"]) == 2, "the questions and the weights"


def test_a_model_without_boxes_is_steered_to_what_is_salient(tmp_path: Path, folder: Path) -> None:
    model = tiny_llava.build_instructblip(tmp_path / "instructblip-tiny")
    policy = {"kind": "local", "model": str(model), "max_tokens": 16}
    asked = Protocol("folder", str(folder), methods=("coarse-to-fine",), resolutions=(112,))
    planned, _ = done(settings(tmp_path / "runs", policy=policy), asked)
    said = query(tmp_path / "runs", "select text from traces where turn = 0").to_pylist()
    assert {row["text"] for row in said} == {"the most salient part"}
    assert {row["outcome"] for row in rows(planned) if row["value"] is not None} == {"box"}


def test_a_picture_that_does_not_open_is_unscored_and_the_others_are_not(
    tmp_path: Path, folder: Path
) -> None:
    with Loopback(lambda body: "red") as server:
        config = served(tmp_path / "runs", server.url)
        planned, _ = done(
            config, Protocol("folder", str(folder), methods=("direct", "oracle-crop"))
        )
    found = {(row["item_id"], row["method"]): row for row in rows(planned)}
    values = {key: row["value"] for key, row in found.items()}
    torn = [row for row in found.values() if row["image_id"] == "torn.jpg"]
    assert len(torn) == 2 and all(row["value"] is None and row["explanation"] for row in torn)
    direct = [values[key] for key in sorted(values) if key[1] == "direct"]
    assert Counter(direct) == {1.0: 1, 0.0: 2, None: 1}
    blind = [row for row in found.values() if (row["explanation"] or "").startswith("no_boxes")]
    assert len(blind) == 2 and all(row["value"] is None for row in blind)


def test_what_cannot_be_shown_is_unscored_with_every_method_and_ends_nothing(
    tmp_path: Path,
) -> None:
    place = tmp_path / "own"
    place.mkdir()
    sizes = {"speck.png": (10, 10), "thread.png": (6000, 20), "fine.png": (320, 240)}
    asked: list[dict[str, Any]] = []
    for name, size in sizes.items():
        Image.new("RGB", size, (200, 20, 20)).save(place / name)
        asked.append({"image": name, "question": "Which colour?", "answer": "red"})
    asked[-1]["boxes"] = [[900, 900, 950, 950]]
    (place / "questions.jsonl").write_text("\n".join(map(json.dumps, asked)))
    methods = tuple(method for method in ALL_METHODS if method != "coarse-to-fine")
    with Loopback(lambda body: "<think> Red. </think><answer> red </answer>") as server:
        config = served(tmp_path / "runs", server.url)
        planned, summary = done(config, Protocol("folder", str(place), methods=methods))
    unscored = {name: set[str]() for name in sizes}
    for row in rows(planned):
        if row["value"] is None:
            unscored[row["image_id"]].add(row["method"])
    assert summary.status == "done" and summary.scored == 3 * len(methods)
    assert unscored["speck.png"] == unscored["thread.png"] == set(methods)
    assert unscored["fine.png"] == {"oracle-crop", "random-crop"}, "its box lies outside"


def test_what_no_rule_can_tell_a_judge_may_and_one_that_fails_scores_nothing(
    tmp_path: Path, folder: Path
) -> None:
    def judge(body: Body) -> Any:
        return "1" if '"answer": "scarlet' in str(body["messages"]) else failing(500)

    with Loopback(lambda body: "scarlet, I think") as server, Loopback(judge) as bench:
        asked = Protocol("folder", str(folder), methods=("direct",), options={"unmatched": "judge"})
        alone, _ = done(served(tmp_path / "alone", server.url), asked)
        with_judge = Protocol(
            "folder", str(folder), methods=("direct",), options={"unmatched": "judge"},
            judge=bench.url,
        )  # fmt: skip
        judged, _ = done(served(tmp_path / "judged", server.url), with_judge)
    assert all(row["value"] is None for row in rows(alone))
    found = Counter(row["value"] for row in rows(judged))
    assert found[1.0] == 3 and found[None] == 1
    assert {json.loads(row["protocol"])["judge"] for row in rows(judged)} == {"loopback"}


def test_an_endpoint_that_dies_leaves_no_zeros_and_nothing_is_asked_twice(
    tmp_path: Path, folder: Path
) -> None:
    paid: list[str] = []
    alive = 2

    def mortal(body: Body) -> Any:
        if len(paid) >= alive:
            return failing(500)
        paid.append(json.dumps(body, sort_keys=True))
        return "red"

    with Loopback(mortal) as server:
        config = served(tmp_path / "runs", server.url)
        asked = Protocol("folder", str(folder), methods=("direct", "grid"), resolutions=(112, 224))
        planned = plan_benchmark(config, asked, shards=4)
        with pytest.raises(ModelError):
            evaluate(planned)
        assert all(row["value"] != 0.0 or row["answer"] for row in rows(planned))
        alive = 1000
        again, summary = done(config, asked, shards=4)
    assert again.continued and summary.status == "done" and summary.scored == 16
    assert len(paid) == len(set(paid))


def test_tries_are_drawn_apart_and_averaged(tmp_path: Path, folder: Path) -> None:
    said = iter(["red", "blue"] * 50)
    with Loopback(lambda body: next(said)) as server:
        config = served(tmp_path / "runs", server.url)
        config = config.model_copy(
            update={"policy": config.policy.model_copy(update={"temperature": 1.0})}
        )
        asked = Protocol("folder", str(folder), methods=("direct",), rollouts=4, limit=1)
        planned, summary = done(config, asked)
    (cell,) = compared(opened(planned.config, asked), rows(planned), 0).cells
    assert summary.scored == 4 * cell.items and cell.rollouts == 4
    assert len({body["seed"] for body in (seen.body for seen in server.log)}) == 4


@pytest.mark.ray
def test_on_ray_the_scores_are_the_same(tmp_path: Path) -> None:
    from pipeline.runner.ray import run_ray

    asked = Protocol("needles", resolutions=(224,), limit=4, options={"size": "800x600"})
    here, _ = done(settings(tmp_path / "here"), asked)
    planned = plan_benchmark(settings(tmp_path / "there"), asked)
    summary = evaluate(planned, runner=partial(run_ray, workers=2, address="local"))
    assert summary.status == "done"
    apart = ("seconds", "run_id")
    one, other = (
        [{name: value for name, value in row.items() if name not in apart} for row in rows(run)]
        for run in (here, planned)
    )
    assert one == other


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"methods": ("zoom", "zoom")}, "each one once"),
        ({"methods": ("zom",)}, "no method"),
        ({"resolutions": (20,)}, "at least"),
        ({"rollouts": 0}, "counted from 1"),
    ],
)
def test_what_cannot_be_asked_is_refused(asked: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Protocol("needles", **asked)


def test_steering_a_model_behind_a_server_is_refused_before_anything_is_asked(
    tmp_path: Path,
) -> None:
    asked = Protocol("needles", methods=("coarse-to-fine",), limit=1)
    with pytest.raises(ConfigError, match="in this process"):
        plan_benchmark(settings(tmp_path), asked)


def test_people_get_a_table_a_chart_and_a_page_and_another_run_beside(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def ran(url: str, name: str, *words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main([
                "eval", "folder", str(folder), "--endpoint", url, "--model-name", name,
                "--family", "qwen2.5-vl", "--method", "direct", "--resolutions", "112,3840",
                "--runs-dir", str(tmp_path / "runs"), *words,
            ])  # fmt: skip
        assert (ended.value.code or 0) == 0
        return capsys.readouterr().out

    page = tmp_path / "page.html"
    with Loopback(lambda body: "(A)", models=("left", "right")) as server:
        ran(server.url, "left")
        (run,) = [path.name for path in (tmp_path / "runs").iterdir()]
        out = ran(server.url, "right", "--compare", "--against", run, "-o", str(page))
    assert re.search(r"left +direct +112", out) and re.search(r"right +direct +3840", out)
    assert "right, direct, saves" in out
    text = page.read_text("utf-8")
    assert "<svg" in text and "left" in text and not re.search(r'(?:src|href)="http', text)
    assert page.with_suffix(".svg").read_text("utf-8").startswith("<svg")


def test_another_run_is_put_beside_where_it_answered_the_same_questions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def ran(limit: int, size: str, *words: str) -> int:
        with pytest.raises(SystemExit) as ended:
            main([
                "eval", "needles", "--policy", "scripted", "--resolutions", "224", "--limit",
                str(limit), "--option", f"size={size}", "--method", "direct", "--seed", "3",
                "--runs-dir", str(tmp_path), *words,
            ])  # fmt: skip
        return int(ended.value.code or 0)

    assert ran(3, "800x600") == 0
    (more,) = [path.name for path in tmp_path.iterdir()]
    page = str(tmp_path / "page.html")
    again = ("--set", "policy.temperature=0.5", "--against", more)
    assert ran(2, "800x600", *again, "--compare", "-o", page) == 2, "one subject, tried twice"
    found = compared_rows(tmp_path, more)
    assert [row["item_id"] for row in found] == ["needles/0000", "needles/0001"]
    with pytest.raises(ConfigError, match="something else"):
        compared_rows(tmp_path, more, seed=4)


def compared_rows(runs: Path, run: str, seed: int = 3) -> list[dict[str, Any]]:
    asked = Protocol("needles", limit=2, options={"size": "800x600"})
    return beside(opened(settings(runs, seed=seed), asked), rows_of(runs, [run]))


def test_needles_are_compared_by_the_same_command_and_take_its_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([
            "eval", "needles", "--policy", "scripted", "--resolutions", "224", "--limit", "2",
            "--option", "size=800x600", "--method", "direct", "--runs-dir", str(tmp_path), "--json",
        ])  # fmt: skip
    assert (ended.value.code or 0) == 0
    cell, *_, run = map(json.loads, capsys.readouterr().out.splitlines())
    assert (cell["items"], cell["method"], run["status"]) == (2, "direct", "done")
    told = query(tmp_path, "select distinct protocol from scores").to_pylist()
    assert [json.loads(row["protocol"])["size"] for row in told] == ["800x600"]


def test_mme_has_its_totals_and_results_only_when_every_pair_is_there(
    tmp_path: Path,
) -> None:
    for task in ("color", "count"):
        place = tmp_path / "mme" / task
        place.mkdir(parents=True)
        for name in ("a", "b"):
            Image.new("RGB", (64, 64)).save(place / f"{name}.png")
            lines = [f"Is it so? Please answer yes or no.\t{gold}" for gold in ("Yes", "No")]
            (place / f"{name}.txt").write_text("\n".join(lines))
    asked = Protocol("mme", str(tmp_path / "mme"), methods=("direct",), resolutions=(112,))
    left = 3

    def tired(body: Body) -> Any:
        nonlocal left
        left -= 1
        return failing(500) if left < 0 else "Yes"

    with Loopback(tired) as server:
        config = served(tmp_path / "runs", server.url)
        planned = plan_benchmark(config, asked, shards=8)
        with pytest.raises(ModelError):
            evaluate(planned)
        benchmark = opened(planned.config, asked)
        assert 0 < len(rows(planned)) < 8 and compared(benchmark, rows(planned), 0).totals == []
        left = 100
        _, summary = done(config, asked, shards=8)
    (total,) = compared(benchmark, rows(planned), 0).totals
    assert summary.status == "done" and total["perception"] == 100.0, "50 for each task"
    assert write_results(benchmark, rows(planned), tmp_path / "Results") == 0
    written = (tmp_path / "Results" / "direct-112" / "color.txt").read_text().splitlines()
    assert len(written) == 4 and written[0].endswith("\tYes\tYes")
