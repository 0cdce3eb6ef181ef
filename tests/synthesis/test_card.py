"""A card says what the published Parquet holds, and every figure of it can be counted again."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from datasets import load_dataset
from PIL import Image

from pipeline.errors import ConfigError
from pipeline.synthesis.card import FILE, Wording, card_of, facts_of
from pipeline.synthesis.card_check import check
from pipeline.synthesis.card_examples import LONGEST_PX
from pipeline.synthesis.dataset_statistics import numbers_of
from pipeline.synthesis.exports import Export, export
from pipeline.synthesis.publish import gathered, refusals, shown_of
from pipeline.synthesis.published_dataset import open_dataset
from pipeline.synthesis.published_files import (
    planned,
    write,
)
from pipeline.synthesis.run_story import command_of, source_of
from tests.synthesis.published_runs import PRICE_USD, looked, make_prompts, make_run

pytestmark = pytest.mark.xdist_group("card")

ENTRIES, KEPT = 16, 14
TRAJECTORIES = "data/trajectories/train-00000-of-00001.parquet"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_run(tmp_path_factory.mktemp("runs"), "small", ENTRIES, 2)
    looked(made, "photo-0001.jpg")
    return made


@pytest.fixture(scope="module")
def dataset(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(run_dir, tmp_path_factory.mktemp("dataset"))


def publish(
    run_dir: Path, out: Path, exports: Sequence[Path] = (), licence: str | None = "cc-by-4.0"
) -> Path:
    """What a push makes, in a folder."""
    scratch = out.parent / f"{out.name}-scratch"
    scratch.mkdir()
    publication = gathered(run_dir, scratch, exports)
    files = []
    for plan in planned(publication.tables):
        (out / plan.path).parent.mkdir(parents=True, exist_ok=True)
        files.append(write(plan, out / plan.path))
    for path, file in publication.beside.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(file.read_bytes())
    facts = facts_of(files, numbers_of(publication.tables))
    text = card_of(publication, facts, Wording(licence, "me/data"), shown_of(publication))
    (out / FILE).write_text(text)
    return out


def front_of(dataset: Path) -> dict[str, Any]:
    front: dict[str, Any] = yaml.safe_load((dataset / FILE).read_text().split("---\n")[1])
    return front


def test_the_figures_are_those_of_the_rows(dataset: Path) -> None:
    front = front_of(dataset)
    numbers = front["cofpipe"]["numbers"]
    kept = numbers["trajectories"]
    assert (kept["rows"], kept["questions"], kept["pictures"]) == (2 * KEPT, KEPT, KEPT)
    assert kept["zooms"] == {"0": KEPT, "1": KEPT}
    assert list(kept["resolutions"].items()) == [("224", KEPT), ("672", KEPT)]
    assert kept["verified"] == {"yes": 2 * KEPT} and kept["necessary"] == {"not known": 2 * KEPT}
    assert numbers["rejections"]["reasons"] == {"agent/unclear": ENTRIES - KEPT}
    paid = numbers["calls"]
    assert (paid["calls"], paid["tokens_in"]) == (2 * KEPT, 200 * KEPT)
    assert paid["cost_usd"] == round(2 * KEPT * PRICE_USD, 6)
    assert front["size_categories"] == ["n<1K"]
    (info,) = [one for one in front["dataset_info"] if one["config_name"] == "trajectories"]
    assert info["splits"][0]["num_examples"] == 2 * KEPT
    assert info["download_size"] == (dataset / TRAJECTORIES).stat().st_size
    assert {"name": "image", "dtype": "image"} in info["features"]
    body = (dataset / FILE).read_text()
    assert f"Yield: {2 * KEPT} rows kept, {ENTRIES - KEPT} rejected (93.3% kept)." in body
    assert "| bench | 191 | 1 | near |" in body


def test_a_right_card_holds_and_the_dataset_loads_by_its_configurations(dataset: Path) -> None:
    assert check(open_dataset(str(dataset))) == []
    rows = load_dataset(str(dataset), "trajectories", split="train")
    assert rows.num_rows == 2 * KEPT and rows[0]["image"].size == (96, 72)
    assert load_dataset(str(dataset), "rejections", split="train").num_rows == ENTRIES - KEPT
    with open_dataset(str(dataset)).connection() as connection:
        asked = connection.execute("select count(*) from steps where zoomed").fetchone()
    assert asked == (KEPT,)


@pytest.mark.parametrize(
    ("said", "instead", "named"),
    [
        ("questions: 14", "questions: 15", "numbers.trajectories.questions: the card says 15"),
        ("'224': 14", "'224': 13", "numbers.trajectories.resolutions.224: the card says 13"),
        ("cost_usd: 0.056", "cost_usd: 0.06", "numbers.calls.cost_usd: the card says 0.06"),
        ("num_examples: 28", "num_examples: 29", "splits.train.num_examples: the card says 29"),
        ("n<1K", "1K<n<10K", "size_categories"),
        ("dtype: image", "dtype: binary", "features.image.dtype"),
        ("93.3% kept", "99.3% kept", "the page, figures"),
        ("| bench | 191 | 1 |", "| bench | 191 | 0 |", "the page, overlaps"),
        ("<!-- counted", "<!-- not counted", "no block of figures"),
    ],
)
def test_a_figure_that_is_not_in_the_files_is_named(
    said: str, instead: str, named: str, dataset: Path
) -> None:
    right = (dataset / FILE).read_text()
    assert said in right
    try:
        (dataset / FILE).write_text(right.replace(said, instead, 1))
        wrong = check(open_dataset(str(dataset)))
    finally:
        (dataset / FILE).write_text(right)
    assert len(wrong) == 1 and named in wrong[0], wrong


def test_other_files_than_the_card_is_of_are_named(dataset: Path) -> None:
    right = (dataset / TRAJECTORIES).read_bytes()
    table = pq.read_table(dataset / TRAJECTORIES)
    try:
        pq.write_table(table.slice(1), dataset / TRAJECTORIES)
        wrong = check(open_dataset(str(dataset)))
    finally:
        (dataset / TRAJECTORIES).write_bytes(right)
    assert "cofpipe.numbers.trajectories.rows: the card says 28, the files hold 27" in wrong
    assert any("cofpipe.digest" in line for line in wrong)


def test_there_is_no_licence_unless_one_is_given(run_dir: Path, tmp_path: Path) -> None:
    without = publish(run_dir, tmp_path / "a", licence=None)
    assert "license" not in front_of(without)
    assert "No licence has been chosen" in (without / FILE).read_text()
    odd = front_of(publish(run_dir, tmp_path / "b", licence="My own terms"))
    assert (odd["license"], odd["license_name"]) == ("other", "My own terms")


def test_the_same_run_has_the_same_card_and_tells_no_place_of_this_machine(
    run_dir: Path, dataset: Path, tmp_path: Path
) -> None:
    again = publish(run_dir, tmp_path / "it's [odd]*")
    assert check(open_dataset(str(again))) == []
    text = (again / FILE).read_text()
    assert text == (dataset / FILE).read_text()
    assert "/home/" not in text and str(tmp_path) not in text
    assert "cofpipe synthesize photos --shards 2 --set task.budgets=224,672" in text
    for path in again.rglob("*.parquet"):
        assert b"/home/me" not in path.read_bytes()


def test_examples_are_small_bare_and_only_of_what_may_be_shown(
    run_dir: Path, tmp_path: Path
) -> None:
    shown = shown_of(gathered(run_dir, tmp_path))
    assert [one.path for one in shown] == [f"examples/{n}.jpg" for n in range(3)]
    for one in shown:
        image = Image.open(io.BytesIO(one.picture))
        assert max(image.size) <= LONGEST_PX and not image.getexif()
    assert "<tag>" not in (publish(run_dir, tmp_path / "out") / FILE).read_text()
    closed = make_run(tmp_path, "closed", 8, 1, source="sa1b:sa_000000.tar")
    assert shown_of(gathered(closed, tmp_path)) == []
    noise = make_run(tmp_path, "noise", 8, 1, filler_bytes=100)
    assert shown_of(gathered(noise, tmp_path)) == []


def test_exports_are_configurations_beside_the_run(run_dir: Path, tmp_path: Path) -> None:
    asked = Export("trl", split=0.3, only_verified=True)
    export(run_dir, tmp_path / "sft", asked)
    out = publish(run_dir, tmp_path / "out", [tmp_path / "sft"])
    assert check(open_dataset(str(out))) == []
    told = front_of(out)["cofpipe"]
    assert told["exports"]["sft"]["trainer"] == "trl"
    loaded = load_dataset(str(out), "sft")
    assert sum(split.num_rows for split in loaded.values()) == told["numbers"]["sft"]["rows"]
    manifest = json.loads((tmp_path / "sft" / "manifest.json").read_text())
    assert {name: split.num_rows for name, split in loaded.items()} == manifest["rows"]
    other = make_run(tmp_path, "other", 8, 1)
    with pytest.raises(ConfigError, match="was exported from 'small'"):
        gathered(other, tmp_path, [tmp_path / "sft"])
    with pytest.raises(ConfigError, match="neither a run nor an export"):
        gathered(run_dir, tmp_path, [tmp_path])


def test_visual_prompts_have_figures_and_examples_of_their_own(tmp_path: Path) -> None:
    run = make_prompts(tmp_path / "runs", "prompts", 5)
    out = publish(run, tmp_path / "out")
    assert check(open_dataset(str(out))) == []
    front = front_of(out)
    told = front["cofpipe"]["numbers"]["prompts"]
    assert (told["rows"], told["objects"], told["flat"]) == (5, 10, 1)
    assert told["levels"] == {"2": 5} and told["outlined_by"] == {"source": 5}
    assert front["task_categories"][0] == "image-segmentation"
    rows = load_dataset(str(out), "prompts", split="train")
    assert rows[0]["frames"][1].size == (96, 72)
    text = (out / FILE).read_text()
    assert "2 objects, shown in levels of 1, 2 (seg)" in text
    assert "| coco | Attribution License | 5 |" in text


def test_recipes_of_a_closed_source_may_go_out_as_they_were_made(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", "closed", 8, 1, source="sa1b:sa_000000.tar")
    looked(run)
    export(run, tmp_path / "sft", Export("trl", pixels=None))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    publication = gathered(run, scratch, [tmp_path / "sft"], whole=False)
    assert not publication.pictures and shown_of(publication) == []
    assert refusals(publication, licence="cc-by-4.0") == []
    placed = {plan.path: plan for plan in planned(publication.tables)}
    for file in (tmp_path / "sft").rglob("*"):
        if file.is_file():
            path = f"recipes/sft/{file.relative_to(tmp_path / 'sft').as_posix()}"
            if file.suffix == ".parquet":
                write(placed[path], scratch / "copy")
                assert (scratch / "copy").read_bytes() == file.read_bytes()
            else:
                assert publication.beside[path] == file


def test_a_command_names_what_was_set_and_no_folder_that_leads_to_it() -> None:
    assert source_of("/home/me/photos") == "photos"
    assert source_of("coco:/a/images:/b/one.json+/b/two.json") == "coco:images:one.json+two.json"
    assert source_of("scenes:8@640x480") == "scenes:8@640x480"
    assert source_of("hf://datasets/ORG/NAME") == "hf://datasets/ORG/NAME"
    run = {"recipe": "import", "config": {"dataset": "/home/me/eyes", "layout": "deepeyes"}}
    assert command_of(run) == "cofpipe import eyes --layout deepeyes"
    config = {"source": "scenes:8", "seed": 7, "policy": {"model": "/models/my model"}}
    run = {"kind": "prompts", "shards_total": 2, "limit": 5, "config": config}
    assert command_of(run) == (
        "cofpipe synthesize scenes:8 --kind prompts --shards 2 --seed 7 --limit 5 "
        "--set 'policy.model=my model'"
    )
