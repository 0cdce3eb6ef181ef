"""Laws of the pocket U²-NetP: its pictures, its recipe, its measures and its shipped weights."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from pipeline.models import weights  # noqa: E402
from pipeline.models.pocket_training import Plan  # noqa: E402
from pipeline.models.pocket_training import train as train_recipe  # noqa: E402
from pipeline.saliency.pocket_u2netp_eval import (  # noqa: E402
    before_photos,
    centre_prior,
    evaluate,
    held_out,
    max_f,
    mean_error,
)
from pipeline.saliency.pocket_u2netp_grounds import FAMILIES, HELD_OUT  # noqa: E402
from pipeline.saliency.pocket_u2netp_scenes import (  # noqa: E402
    HELD_OUT_SEED,
    generator_digest,
    held_out_sighting,
    training_sighting,
)
from pipeline.saliency.pocket_u2netp_train import (  # noqa: E402
    RECIPE,
    SIDES,
    settle,
    side_of,
)
from pipeline.saliency.u2net import Saliency, build, load  # noqa: E402

SEED = next(seed for seed in range(20) if side_of(seed, 0) == 128)


@pytest.fixture(scope="module")
def saliency() -> Saliency:
    return Saliency(load("pocket-u2netp"))


def test_a_picture_depends_on_its_key_and_side_only() -> None:
    one, again = training_sighting(1, 7, 96), training_sighting(1, 7, 96)
    assert np.array_equal(one.image, again.image) and np.array_equal(one.mask, again.mask)
    assert not np.array_equal(one.image, training_sighting(1, 8, 96).image)
    assert not np.array_equal(one.image, training_sighting(2, 7, 96).image)


@pytest.mark.parametrize("side", [64, 128, 200])
def test_every_picture_has_something_salient_and_something_that_is_not(side: int) -> None:
    shares = []
    for index in range(24):
        seen = training_sighting(4, index, side)
        assert seen.image.shape == (side, side, 3) and seen.image.dtype == np.uint8
        assert seen.mask.shape == (side, side) and seen.mask.dtype == np.uint8
        shares.append(float((seen.mask > 127).mean()))
    assert min(shares) > 0 and max(shares) < 0.95
    assert 0.05 < np.mean(shares) < 0.35


def test_things_differ_from_what_is_around_them() -> None:
    apart = []
    for index in range(24):
        seen = training_sighting(6, index, 96)
        inside = seen.mask > 127
        colors = [seen.image[part].astype(float).mean(0) for part in (inside, ~inside)]
        apart.append(float(np.abs(colors[0] - colors[1]).mean()))
    assert np.mean(apart) > 20


def test_held_out_grounds_are_not_among_those_of_training() -> None:
    assert not set(HELD_OUT) & set(FAMILIES)
    one, again = held_out_sighting(HELD_OUT_SEED, 64), held_out_sighting(HELD_OUT_SEED, 64)
    assert np.array_equal(one.image, again.image)


def test_a_network_without_a_clue_and_a_perfect_one_are_told_apart() -> None:
    truths = [seen.mask for seen in held_out(4, 64)]
    perfect = [mask / 255 for mask in truths]
    assert max_f(perfect, truths) == pytest.approx(1.0)
    assert mean_error(perfect, truths) == pytest.approx(0.0)
    wrong = [1 - found for found in perfect]
    assert mean_error(wrong, truths) > 0.8 and max_f(wrong, truths) < 0.5


def test_the_f_measure_is_that_of_the_field() -> None:
    """Two of three marked pixels are right, two of four are found: P = 2/3, R = 1/2."""
    truth = np.array([[255, 255, 255, 255, 0, 0]], np.uint8)
    found = np.array([[1.0, 1.0, 0.0, 0.0, 1.0, 0.0]])
    p, r = 2 / 3, 1 / 2
    marked = 1.3 * p * r / (0.3 * p + r)
    everything = 1.3 * (4 / 6) / (0.3 * (4 / 6) + 1)
    assert max_f([found], [truth]) == pytest.approx(max(marked, everything))


def test_things_before_photographs_come_from_the_folder_and_are_frozen(tmp_path: Path) -> None:
    Image.effect_noise((90, 70), 80).convert("RGB").save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("no picture")
    one, again = (list(before_photos(tmp_path, 2, 64)) for _ in range(2))
    assert len(one) == 2 and all((seen.mask > 127).any() for seen in one)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(one, again, strict=True))


def test_all_workers_of_a_step_see_pictures_of_one_side() -> None:
    drawn = [side_of(0, step) for step in range(400)]
    assert drawn == [side_of(0, step) for step in range(400)]
    assert set(drawn) == set(SIDES) and drawn.count(128) > 150
    assert {side_of(0, step, 0.9) for step in range(100)} == {192, 256, 320}


def test_training_continues_where_it_was_and_repeats_itself(tmp_path: Path) -> None:
    small = replace(RECIPE, batch=2)

    def run(name: str, images: int) -> dict[str, torch.Tensor]:
        return load_file(train_recipe(small, tmp_path / name, Plan(SEED, 9.0, images), workers=1))

    whole, half = run("whole", 4), run("parts", 2)
    further = run("parts", 4)
    assert whole.keys() == build("u2netp").state_dict().keys()
    assert all(torch.equal(whole[name], further[name]) for name in whole)
    name = "stage1.rebnconvin.conv_s1.weight"
    assert not torch.equal(half[name], further[name])
    lines = (tmp_path / "parts" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["images"] for line in lines] == [2, 4]


def test_settling_changes_statistics_only(tmp_path: Path) -> None:
    small = replace(RECIPE, batch=2)
    path = train_recipe(small, tmp_path, Plan(SEED, 9.0, 2), workers=1)
    before = load_file(path)
    after = load_file(settle(path, SEED, 2))
    changed = {name.rpartition(".")[2] for name in before if not after[name].equal(before[name])}
    assert changed <= {"running_mean", "running_var", "num_batches_tracked"} and changed
    assert all(t.dtype in (torch.float16, torch.int64) for t in after.values())
    with safe_open(path, "pt") as file:
        assert file.metadata()["images"] == "2"


def test_shipped_weights_are_small_and_of_this_generator() -> None:
    path = weights.find("pocket-u2netp")
    assert path.stat().st_size < 2_500_000
    with safe_open(path, "pt") as file:
        facts = file.metadata()
    assert facts["variant"] == "pocket_u2netp"
    assert int(facts["images"]) > 10_000
    assert facts["generator"] == generator_digest()
    listed = {known.name: known for known in weights.list_checkpoints()}
    assert listed["pocket_u2netp"].digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_shipped_network_finds_what_stands_out(saliency: Saliency) -> None:
    figures = evaluate(saliency, 8)
    assert figures["mae"] < 0.08 and figures["max_f"] > 0.85
    assert figures["mae"] < 0.5 * figures["centre_mae"]
    assert figures["max_f"] > 1.3 * figures["centre_max_f"]


def test_the_centre_prior_is_largest_at_the_centre() -> None:
    prior = centre_prior(np.zeros((20, 30, 3), np.uint8))
    assert prior.shape == (20, 30) and prior.max() <= 1
    assert np.unravel_index(prior.argmax(), prior.shape) == (9, 14)
