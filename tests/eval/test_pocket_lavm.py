"""Laws of the pocket LAVM: what it is trained on, that training repeats itself, what is shipped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.eval.lavm_pictures import LEVELS, ScenePictures, is_drawn
from pipeline.eval.lavm_protocol import THRESHOLD, mask_of
from pipeline.eval.pocket_lavm_scenes import (
    CELLS,
    CLASSES,
    FRAMES,
    HELD_OUT,
    HELD_OUT_SEED,
    MARKED,
    SIDE,
    convention_of,
    held_out,
    kinds_of,
    scene_of,
    training_frame,
    training_sentence,
)
from pipeline.models.weights import POCKET_LAVM
from pipeline.samples import rng_for
from pipeline.sources.decode import decode

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from pipeline.cli.app import main  # noqa: E402
from pipeline.eval import lavm, pocket_lavm_train, pocket_vqgan_train, vqgan  # noqa: E402
from pipeline.models.pocket_training import Plan, Recipe  # noqa: E402
from pipeline.models.pocket_training import train as train_recipe  # noqa: E402

pytestmark = pytest.mark.torch

SEED = 3


def test_a_sentence_is_scenes_each_followed_by_its_marks_and_the_same_wherever_it_is_drawn() -> (
    None
):
    lengths = set()
    for index in range(40):
        sentence, again = training_sentence(SEED, index), training_sentence(SEED, index)
        lengths.add(len(sentence.frames))
        assert len(sentence.frames) % 2 == 0 and 4 <= len(sentence.frames) <= FRAMES
        assert np.array_equal(sentence.frames, again.frames)
        for place, (frame, decisive) in enumerate(
            zip(sentence.frames, sentence.decisive, strict=True)
        ):
            assert frame.shape == (SIDE, SIDE, 3) and frame.dtype == np.uint8
            assert (mask_of(frame, THRESHOLD).mean() < 0.6) == bool(place % 2)
            assert (len(decisive) in (2, 3)) == bool(place % 2)
    assert lengths == {6, 8}
    assert not np.array_equal(training_frame(SEED, 1), training_frame(SEED, 2))


def test_only_the_exemplar_tells_what_is_marked_and_in_which_colour() -> None:
    rng = rng_for(SEED, "scene")
    one, other = convention_of(rng), convention_of(rng)
    scene = scene_of(rng, range(len(CLASSES))[:4])
    assert one != other
    assert not np.array_equal(scene.frame(one, 4), scene.frame(other, 4))
    for convention in (one, other):
        assert sum(ink is not None for ink in convention.inks) == MARKED
        kinds = [convention.inks[kind] for kind in kinds_of(rng, convention)]
        assert None in kinds and any(kinds)  # something to mark, and something to leave out


def test_a_chain_marks_one_thing_less_in_each_frame_before_the_last() -> None:
    convention, scenes = held_out(0, "query")
    for scene in scenes:
        frames = scene.frames(convention, LEVELS)
        marked = convention.marked(scene)
        assert np.array_equal(frames[-1], scene.frame(convention, len(marked)))
        sizes = [int(mask_of(frame, THRESHOLD).sum()) for frame in frames]
        assert sizes == sorted(sizes) and (sizes[0] < sizes[-1]) == (len(marked) > 1)
        assert len(set(scene.decisive().tolist())) == len(scene.things)
        assert scene.decisive().max() < CELLS**2


def test_drawn_scenes_are_a_pool_and_queries_of_one_convention_that_share_no_picture() -> None:
    pool, queries = ScenePictures("scenes:4", "pool"), ScenePictures("scenes:4", "query")
    assert (len(pool.known), len(queries.known)) == (HELD_OUT["pool"], HELD_OUT["query"])
    digests = {known.sha256 for known in (*pool.known, *queries.known)}
    assert len(digests) == len(pool.known) + len(queries.known)
    assert pool.digest == ScenePictures("scenes:4", "pool").digest != queries.digest
    assert pool.digest != ScenePictures("scenes", "pool").digest
    convention, scenes = held_out(4, "pool")
    shown = pool.read(7)
    assert np.array_equal(np.asarray(decode(shown.image)), scenes[7].image())
    assert np.array_equal(np.asarray(decode(shown.frames[-1])), scenes[7].frame(convention, 3))
    assert [is_drawn(word) for word in ("scenes", "scenes:12", "scenes:x", "scene")] == [
        *(True, True, False, False)
    ]


def test_the_codes_where_a_thing_is_decided_weigh_most_and_what_is_not_there_nothing() -> None:
    read = pocket_lavm_train.sentences(SEED, range(6))
    tokens, drawn = CELLS**2, [training_sentence(SEED, index) for index in range(6)]
    for row, sentence in enumerate(drawn):
        length = len(sentence.frames) * tokens
        assert (read.weights[row, :length] > 0).all() and not read.weights[row, length:].any()
        things = sum(map(len, sentence.decisive))
        assert (read.weights[row] == pocket_lavm_train.DECISIVE).sum() == things
        last = np.flatnonzero(read.last[row]) - length + tokens
        assert sorted(last) == sorted(sentence.decisive[-1])
        assert sorted(np.flatnonzero(read.first[row]) - tokens) == sorted(sentence.decisive[1])


@pytest.mark.parametrize("module", [pocket_vqgan_train, pocket_lavm_train])
def test_training_continues_where_it_was_and_repeats_itself(module: Any, tmp_path: Path) -> None:
    small: Recipe = replace(module.RECIPE, batch=2)

    def run(name: str, images: int) -> dict[str, Any]:
        return load_file(train_recipe(small, tmp_path / name, Plan(SEED, 9.0, images), workers=1))

    whole, half, further = run("whole", 4), run("parts", 2), run("parts", 4)
    assert whole.keys() == module.start().state_dict().keys()
    assert all(torch.equal(whole[name], further[name]) for name in whole)
    assert any(not torch.equal(half[name], further[name]) for name in whole)


@pytest.mark.parametrize("module", [pocket_vqgan_train, pocket_lavm_train])
def test_shipped_weights_are_of_this_generator(module: Any) -> None:
    folder = POCKET_LAVM / "vqgan" if module is pocket_vqgan_train else POCKET_LAVM
    with safe_open(folder / "model.safetensors", "pt") as file:
        facts = file.metadata()
    assert facts["generator"] == module.RECIPE.generator_digest()
    assert int(facts["images"]) > 10_000


def test_shipped_weights_are_small_and_of_the_recipes() -> None:
    files = sorted(POCKET_LAVM.rglob("*.safetensors"))
    assert len(files) == 2 and sum(path.stat().st_size for path in files) <= 12_000_000
    config = json.loads((POCKET_LAVM / "config.json").read_text())
    assert config == pocket_lavm_train.CONFIG
    assert vqgan.load(POCKET_LAVM / "vqgan").config == pocket_vqgan_train.SETTLED
    assert lavm.load(POCKET_LAVM).config.frames == FRAMES


def test_the_shipped_tokenizer_keeps_what_is_marked() -> None:
    network = vqgan.load(POCKET_LAVM / "vqgan")
    drawn = np.stack([training_frame(HELD_OUT_SEED, index) for index in range(32)])
    pixels = torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 255
    again = vqgan.to_images(network.decode(network.encode(pixels)))
    assert np.abs(again.astype(float) - drawn).mean() < 6
    masks = [
        (mask_of(a, THRESHOLD), mask_of(b, THRESHOLD)) for a, b in zip(drawn, again, strict=True)
    ]
    assert np.mean([(a & b).sum() / (a | b).sum() for a, b in masks if not a.all()]) > 0.85


def test_eval_lavm_runs_with_nothing_but_what_is_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COFPIPE_CACHE", str(tmp_path / "cache"))
    words = ["eval", "lavm", "--model", "pocket", "--prompts", "scenes:1", "--queries", "scenes:1"]
    more = ["--shortlist", "10", "--limit", "6", "--shards", "1", "--method", "nearest"]
    with pytest.raises(SystemExit) as stopped:
        main([*words, *more, "--json", "--runs-dir", str(tmp_path / "runs")])
    assert stopped.value.code == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (iou,) = [line["mean"] for line in lines if line.get("scorer") == "iou"]
    assert iou["value"] > 0.5
