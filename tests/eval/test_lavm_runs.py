"""Laws of a LAVM's evaluation: who is shown what, what is scored, and what only chance decides."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

from pipeline.cli import lavm
from pipeline.config import config_from
from pipeline.errors import BudgetReached, ConfigError
from pipeline.eval.exemplars import jaccard, richnesses
from pipeline.eval.lavm_pool import open_prompts, open_queries, pool_places
from pipeline.eval.lavm_protocol import (
    LAVM_METHODS,
    SCORERS,
    LavmProtocol,
    mask_of,
)
from pipeline.eval.lavm_results import Gap, Line, results
from pipeline.eval.lavm_rows import predictions, save_images
from pipeline.eval.lavm_run import asked_of, plan_lavm
from pipeline.eval.lavm_worker import open_worker
from pipeline.eval.outcome import rows_of
from pipeline.eval.run import Evaluation, Summary, evaluate
from pipeline.eval.scorers import mask_metrics
from pipeline.eval.token_cache import crop_image, cropped, open_tokenizer
from pipeline.runner.fsck import fsck
from pipeline.runner.rundir import records
from pipeline.runner.storage import storage_at
from pipeline.shards import Unit, Work
from pipeline.sources.decode import decode
from pipeline.synthesis.prompt_export import export_prompts
from pipeline.synthesis.run import synthesize
from tests.agent.fakes import Paper
from tests.eval import tiny_lavm

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("synthesis")]

Row = dict[str, Any]
SIZE = (120, 90)
JOINTS = [v for n in range(17) for v in (30 + 3 * n, 15 + 4 * n, 2)]
POOL = range(1, 7)
QUERIES = range(21, 25)
TOKENS = 16
"""Codes of a frame: 64 pixels square."""
UNMARKED = 22
"""The query in which nothing is marked."""


@pytest.fixture(scope="module", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterable[None]:
    """Codes are kept in a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COFPIPE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def _coco(folder: Path, numbers: Iterable[int]) -> str:
    """Grainy pictures, each with two marked rectangles, the larger one a person with joints."""
    (folder / "images").mkdir(parents=True)
    marks, listed = [], []
    for number in numbers:
        rng = np.random.default_rng(number)
        grain = rng.integers(0, 255, (3 + number % 5, 4 + number % 3, 3), np.uint8)
        image = Image.fromarray(grain).resize(SIZE, Image.Resampling.BICUBIC)
        name = f"{number:012d}.jpg"
        image.save(folder / "images" / name)
        listed.append({"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
        x, y = 20 + number % 4 * 6, 8 + number % 3 * 5
        for part, (wide, high) in enumerate(((50, 40 + number % 30), (16, 12))):
            left, top = x + 30 * part, y + 34 * part
            edge = [left, top, left + wide, top, left + wide, top + high, left, top + high]
            mark = {"image_id": number, "id": 10 * number + part, "segmentation": [edge],
                    "area": wide * high, "category_id": 1}  # fmt: skip
            if number != UNMARKED:
                marks.append(mark if part else mark | {"keypoints": JOINTS})
    said = {"images": listed, "annotations": marks, "categories": [{"id": 1, "name": "person"}]}
    (folder / "marks.json").write_text(json.dumps(said))
    return f"coco:{folder / 'images'}:{folder / 'marks.json'}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of prompts, their pictures, and tiny models with random weights."""
    import torch
    from safetensors.torch import save_file

    from pipeline.saliency.u2net import build

    folder = tmp_path_factory.mktemp("lavm")
    torch.manual_seed(1)
    save_file(build("u2netp").state_dict(), folder / "net.safetensors")
    return folder


def _prompted(place: Path, name: str, numbers: Iterable[int], role: str) -> Path:
    """The run of prompts of some pictures."""
    source = _coco(place / name, numbers)
    prompts = {"task": "both", "role": role, "net": str(place / "net.safetensors")}
    config = config_from({"source": source, "prompts": prompts | {"propose": False},
                          "run": {"dir": str(place / "runs"), "workers": 1}})  # fmt: skip
    return Path(synthesize(config, "prompts", shards=2, address="none").run_dir)


@pytest.fixture(scope="module")
def pool(place: Path) -> Path:
    return _prompted(place, "pool", POOL, "pool")


@pytest.fixture(scope="module")
def queries(place: Path) -> Path:
    return _prompted(place, "queries", QUERIES, "query")


@pytest.fixture(scope="module")
def model(place: Path) -> Path:
    """A tiny DeLVM of eight frames with its tokenizer inside, as the command looks for it."""
    folder = tiny_lavm.write_lavm(place / "DeLVM-tiny", frame_tokens=TOKENS)
    tiny_lavm.write_tokenizer(folder / "vqgan", frame_tokens=TOKENS)
    return folder


@pytest.fixture(scope="module")
def asked(pool: Path, queries: Path, model: Path) -> LavmProtocol:
    return asked_of(prompts=pool, queries=queries, model=model, shortlist=3)


def _done(
    asked: LavmProtocol, runs: Path, *, seed: int = 0, **rest: Any
) -> tuple[Evaluation, Summary]:
    config = config_from({"run": {"dir": str(runs)}, "seed": seed})
    planned = plan_lavm(config, asked, **rest)
    return planned, evaluate(planned)


def _rows(planned: Evaluation) -> list[Row]:
    return rows_of(planned.run_dir.parent, [planned.plan.run_id])


def _drawn(planned: Evaluation) -> dict[tuple[str, str], Row]:
    columns = ["item_id", "method", "exemplars", "jaccard", "richness", "codes", "picture.bytes",
               "truth.bytes"]  # fmt: skip
    return {(row["item_id"], row["method"]): row for row in predictions(planned.run_dir, columns)}


@pytest.fixture(scope="module")
def done(asked: LavmProtocol, place: Path) -> tuple[Evaluation, Summary]:
    return _done(asked, place / "evals", shards=2)


def test_every_query_has_a_row_for_every_method_and_scorer_and_a_picture_of_each_prediction(
    done: tuple[Evaluation, Summary], asked: LavmProtocol, pool: Path, queries: Path
) -> None:
    planned, summary = done
    rows, drawn = _rows(planned), _drawn(planned)
    assert (summary.status, summary.scored) == ("done", len(rows))
    count = Counter((row["item_id"], row["method"], row["scorer"]) for row in rows)
    assert len(count) == len(QUERIES) * len(LAVM_METHODS) * len(SCORERS["seg"])
    assert set(count.values()) == {1} and {row["benchmark"] for row in rows} == {"lavm-seg"}
    assert drawn.keys() == {(row["item_id"], row["method"]) for row in rows}
    side = open_tokenizer(asked.tokenizer).side
    sizes = {decode(row["picture"]["bytes"]).size for row in drawn.values()}
    assert sizes == {(side, side)} and {row["resolution"] for row in rows} == {side}
    frames = {m: {r["visual_tokens"] for r in rows if r["method"] == m} for m in LAVM_METHODS}
    assert frames["chain"] == {5 * TOKENS} and frames["no-chain"] == {3 * TOKENS}
    run = json.loads((planned.run_dir / "run.json").read_text())
    assert run["parents"][:2] == [pool.name, queries.name] and len(run["parents"]) == 4
    assert run["determined_by"]["pool"] == {"pictures": len(POOL), "left_out": {}}
    assert list(fsck(planned.run_dir).problems) == []


def test_a_query_without_truth_is_predicted_unscored_and_counted(
    done: tuple[Evaluation, Summary], asked: LavmProtocol
) -> None:
    planned, _ = done
    rows, blank = _rows(planned), f"{UNMARKED:012d}.jpg"
    mine = [row for row in rows if row["item_id"] == blank]
    assert {(row["value"], row["explanation"]) for row in mine} == {(None, "no_truth")}
    assert _drawn(planned)[blank, "chain"]["truth"] is None
    others = [row for row in rows if row["item_id"] != blank and row["scorer"] == "iou"]
    assert all(row["value"] is not None for row in others)
    lines = [one for one in results(rows, asked, 0) if isinstance(one, Line)]
    assert {(line.queries, line.unscored) for line in lines} == {(len(QUERIES), 1)}
    assert all(line.reasons == {"no_truth": 1} for line in lines)


def test_chain_takes_the_richest_of_the_relevant_nearest_the_most_like_and_random_any(
    done: tuple[Evaluation, Summary], asked: LavmProtocol
) -> None:
    tokenizer = open_tokenizer(asked.tokenizer)
    pool, wanted = open_prompts(asked), open_queries(asked)
    shown = [pool.read(place) for place in range(len(pool.known))]
    names = [known.image_id for known in pool.known]
    codes = tokenizer.encode(crop_image(decode(one.image), tokenizer.side) for one in shown)
    finals = [crop_image(decode(one.frames[-1]), tokenizer.side) for one in shown]
    rich = richnesses(tokenizer.encode(finals))
    drawn, taken = _drawn(done[0]), set()
    for place, known in enumerate(wanted.known):
        image = crop_image(decode(wanted.read(place).image), tokenizer.side)
        like = jaccard(codes, tokenizer.encode([image])[0])
        order = sorted(range(len(names)), key=lambda n: (-like[n], n))
        best = min(order[:3], key=lambda n: (-rich[n], order.index(n)))
        rows = {method: drawn[known.image_id, method] for method in LAVM_METHODS}
        assert rows["nearest"]["exemplars"] == [names[order[0]]]
        assert rows["chain"]["exemplars"] == rows["no-chain"]["exemplars"] == [names[best]]
        assert rows["chain"]["jaccard"] == [like[best]]
        assert rows["chain"]["richness"] == [rich[best]]
        taken.add(rows["random"]["exemplars"][0])
    assert taken <= set(names) and len(taken) > 1


def test_the_same_seed_draws_the_same_frames_and_another_one_others(
    done: tuple[Evaluation, Summary], asked: LavmProtocol, tmp_path: Path
) -> None:
    first = _drawn(done[0])
    again, _ = _done(replace(asked, batch=3), tmp_path / "again", shards=2)
    other, _ = _done(asked, tmp_path / "other", seed=1, shards=2)
    assert again.plan.run_id == done[0].plan.run_id != other.plan.run_id
    assert _drawn(again) == first
    changed = _drawn(other)
    chosen = [(first[key]["exemplars"], changed[key]["exemplars"]) for key in first]
    assert any(a != b for a, b in chosen), "a random exemplar follows from the seed"
    steady = [key for key in first if key[1] != "random"]
    assert all(first[key]["exemplars"] == changed[key]["exemplars"] for key in steady)
    warm = replace(asked, variant="lvm", methods=("chain",), limit=1)
    frames = [_drawn(_done(warm, tmp_path / "warm", seed=seed)[0]) for seed in (0, 1)]
    codes = [row["codes"] for drawn in frames for row in drawn.values()]
    assert len(codes) == 2 and codes[0] != codes[1]


def test_a_run_that_was_stopped_goes_on_where_it_was_and_ends_as_if_it_never_had(
    done: tuple[Evaluation, Summary], asked: LavmProtocol, tmp_path: Path
) -> None:
    config = config_from({"run": {"dir": str(tmp_path)}})
    stop = threading.Event()

    def halt(event: dict[str, Any]) -> None:
        if event["event"] == "committed":
            stop.set()

    planned = plan_lavm(config, replace(asked, batch=1), shards=2)
    assert evaluate(planned, on_event=halt, stop=stop).status == "interrupted"
    before = records(storage_at(planned.plan.run_dir))
    assert 0 < sum(record.rows for record in before) < len(_rows(done[0]))
    again, summary = _done(asked, tmp_path, shards=2)
    assert again.continued and summary.status == "done"
    kept = records(storage_at(again.plan.run_dir))
    held = {(r.shard, r.part): r.attempt for r in kept}
    assert all(held[r.shard, r.part] == r.attempt for r in before), "nothing is drawn again"
    volatile = {"run_id", "seconds"}
    told = [[{k: v for k, v in row.items() if k not in volatile} for row in _rows(planned)]
            for planned in (again, done[0])]  # fmt: skip
    assert told[0] == told[1] and _drawn(again) == _drawn(done[0])
    assert list(fsck(again.run_dir).problems) == []


def test_a_query_that_killed_workers_is_unscored_and_the_others_are_not(
    asked: LavmProtocol,
) -> None:
    settings = {"config": config_from({}).describe(), "design": asked.describe(), "subject": "x"}
    worker, began = open_worker(settings), list[str]()
    names = [known.image_id for known in open_queries(asked).known]
    work = Work(0, range(1, 4), Paper(), began.append, skip=1, crashed=frozenset([names[2]]))  # type: ignore[arg-type]
    units = [unit for unit in worker.units(work) if isinstance(unit, Unit)]
    assert [unit.key for unit in units] == names[2:4] and began == [names[3]]
    gone, sound = (unit.tables["scores"] for unit in units)
    assert {(row["value"], row["explanation"]) for row in gone} == {(None, "crashed_worker")}
    assert all(row["value"] is not None for row in sound if row["scorer"] == "iou")


def test_what_was_drawn_is_not_drawn_again_even_where_its_unit_was_not_kept(
    asked: LavmProtocol,
) -> None:
    settings = {"config": config_from({}).describe(), "design": asked.describe(), "subject": "x"}
    worker, ledger = open_worker(settings), Paper()
    work = Work(0, range(3), ledger, lambda _: None)  # type: ignore[arg-type]
    whole = [unit for unit in worker.units(work) if isinstance(unit, Unit)]
    paid = dict(ledger.calls)
    assert 3 * 2 <= len(paid) <= 3 * len(LAVM_METHODS) and not ledger.again
    killed = worker.units(work)
    next(killed)
    killed.close()
    rest = replace(work, skip=1)
    again = [unit for unit in worker.units(rest) if isinstance(unit, Unit)]
    assert again == whole[1:] and ledger.calls == paid
    ledger.broke = True
    assert [unit.key for unit in worker.units(rest) if isinstance(unit, Unit)]
    with pytest.raises(BudgetReached):
        list(worker.units(replace(work, entries=range(3, 4))))


def test_differences_are_those_of_the_rows_and_choosing_is_scored_without_the_model(
    done: tuple[Evaluation, Summary], asked: LavmProtocol
) -> None:
    rows = _rows(done[0])
    found = results(rows, asked, 0)
    values = {(r["item_id"], r["method"], r["scorer"]): r["value"] for r in rows}
    gaps = {(one.one, one.other, one.scorer): one for one in found if isinstance(one, Gap)}
    assert {key[:2] for key in gaps} == {("chain", other) for other in LAVM_METHODS[1:]}
    assert ("chain", "no-chain", "exemplar_iou") not in gaps
    items = sorted({row["item_id"] for row in rows} - {f"{UNMARKED:012d}.jpg"})
    for (one, other, scorer), gap in gaps.items():
        apart = [values[item, one, scorer] - values[item, other, scorer] for item in items]
        assert gap.queries == len(items) and gap.difference
        assert gap.difference.value == pytest.approx(np.mean(apart))
        assert gap.difference.low <= gap.difference.value <= gap.difference.high
        assert gap.better == sum(a > 1e-9 for a in apart)
    pool, drawn = open_prompts(asked), _drawn(done[0])
    places = {known.image_id: place for place, known in enumerate(pool.known)}
    for item in items:
        row = drawn[item, "random"]
        frame = decode(pool.read(places[row["exemplars"][0]]).frames[-1])
        truth = np.asarray(decode(row["truth"]["bytes"]))
        shown = np.asarray(cropped(frame, truth.shape[0]))
        expected = mask_metrics(mask_of(shown, 30), mask_of(truth, 30))["iou"]
        assert values[item, "random", "exemplar_iou"] == pytest.approx(expected)


def test_what_does_not_fit_is_refused_before_a_run_is_begun(
    asked: LavmProtocol, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"10 frames .*2nk \+ 2.* does not fit"):
        _done(replace(asked, k=2, levels=2), tmp_path)
    with pytest.raises(ConfigError, match="has 2 frames, not 3"):
        _done(replace(asked, levels=3), tmp_path)
    with pytest.raises(ConfigError, match=r"no picture to prompt with .6 is_a_query"):
        _done(replace(asked, queries=asked.prompts), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_folders_serve_as_runs_do_and_what_cannot_be_opened_is_unscored(
    asked: LavmProtocol, pool: Path, place: Path, tmp_path: Path
) -> None:
    export_prompts(pool, tmp_path / "frames", task="seg")
    shutil.copytree(place / "queries" / "images", tmp_path / "asked")
    (tmp_path / "asked" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    folders = {"prompts": tmp_path / "frames", "queries": tmp_path / "asked"}
    with pytest.raises(ConfigError, match="frames without pictures"):
        open_prompts(asked_of(**folders, model=Path(asked.model)))
    told = asked_of(**folders, model=Path(asked.model), images=place / "pool" / "images",
                    shortlist=3, methods=["nearest"])  # fmt: skip
    planned, summary = _done(told, tmp_path / "runs")
    assert summary.status == "done"
    why = {row["item_id"]: row["explanation"] for row in _rows(planned)}
    assert why.pop("torn.jpg").startswith("truncated") and set(why.values()) == {"no_truth"}
    assert all(row["value"] is None for row in _rows(planned))
    run, _ = _done(replace(asked, methods=("nearest",)), tmp_path / "runs")
    same = _drawn(run)
    for key, row in _drawn(planned).items():
        assert row["exemplars"] == same[key]["exemplars"]
    with_truth = replace(told, queries=told.images, truth=told.prompts)
    with pytest.raises(ConfigError, match="is_a_query"):
        pool_places(open_prompts(with_truth), open_queries(with_truth), 2)
    assert {known.frames for known in open_queries(with_truth).known} == {2}


def test_what_a_segmenter_proposed_is_no_truth(asked: LavmProtocol, tmp_path: Path) -> None:
    """And drawn scenes serve as well as photographs."""
    prompts = {"grid": 4, "least_salience": 0}
    config = config_from({"source": "scenes:1@160x120", "prompts": prompts,
                          "run": {"dir": str(tmp_path), "workers": 1}})  # fmt: skip
    run = synthesize(config, "prompts", shards=1, address="none")
    assert run.kept == 1
    told = replace(asked, queries=run.run_dir, methods=("chain",))
    planned, _ = _done(told, tmp_path)
    rows = _rows(planned)
    assert {(row["value"], row["explanation"]) for row in rows} == {(None, "proposed_truth")}
    assert len(_drawn(planned)) == 1


def test_an_lvm_sees_pictures_squashed_and_its_truth_is_squashed_too(
    asked: LavmProtocol, place: Path, tmp_path: Path
) -> None:
    lvm = tiny_lavm.write_lavm(place / "LVM-tiny", "lvm", frame_tokens=TOKENS)
    told = asked_of(prompts=Path(asked.prompts), queries=Path(asked.queries), model=lvm,
                    tokenizer=Path(asked.tokenizer), methods=["chain"], limit=1)  # fmt: skip
    assert told.variant == "lvm"
    planned, _ = _done(told, tmp_path)
    ((_, row),) = _drawn(planned).items()
    frame = decode(open_queries(told).read(0).frames[-1])
    squashed = frame.resize((64, 64), Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(decode(row["truth"]["bytes"])), np.asarray(squashed))


def test_the_command_prints_keeps_and_shows_what_each_part_is_worth(
    asked: LavmProtocol, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app = typer.Typer()
    app.command()(lavm.lavm)

    def ran(*words: str) -> str:
        given = ["--prompts", asked.prompts, "--queries", asked.queries, "--model", asked.model]
        given += ["--runs-dir", str(tmp_path), "--task", "pose", "--shortlist", "3", *words]
        assert not app(given, standalone_mode=False)
        return capsys.readouterr().out

    page, saved = tmp_path / "page.html", tmp_path / "Results"
    out = ran("--save-images", str(saved), "-o", str(page))
    assert "chain - random" in out and "joint_recall" in out and "exemplar_iou" in out
    names = sorted(path.name for path in saved.iterdir())
    assert names == [f"result_{number:012d}.jpg" for number in QUERIES]
    assert Image.open(saved / names[0]).format == "JPEG"
    text = page.read_text("utf-8")
    assert text.count("<article>") == len(QUERIES) and text.count("level 2 of 2") >= 2 * 3
    records_ = [json.loads(line) for line in ran("--json").splitlines()]
    assert records_[-1]["status"] == "done" and records_[-1]["continued"]
    kept = json.loads((tmp_path / records_[-1]["run_id"] / "ablation.json").read_text())
    assert [{k: v for k, v in record.items() if k != "run_id"} for record in records_[:-1]] == kept
    assert any("mean" in one for one in kept) and any("difference" in one for one in kept)


def test_images_of_one_name_are_saved_under_their_whole_keys(
    asked: LavmProtocol, place: Path, tmp_path: Path
) -> None:
    for folder in ("a", "b"):
        (tmp_path / "asked" / folder).mkdir(parents=True)
        name = f"{QUERIES[0]:012d}.jpg"
        shutil.copy(place / "queries" / "images" / name, tmp_path / "asked" / folder / "one.jpg")
    told = asked_of(prompts=Path(asked.prompts), queries=tmp_path / "asked",
                    model=Path(asked.model), methods=["chain"])  # fmt: skip
    planned, _ = _done(told, tmp_path / "runs")
    assert save_images(planned.run_dir, tmp_path / "out", "chain") == 2
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"result_a-one.jpg.jpg", "result_b-one.jpg.jpg"}
