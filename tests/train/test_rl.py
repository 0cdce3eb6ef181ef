"""Policies are trained on their own rollouts: what they saw, what counts, what changes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from manifests.database import connect
from pipeline.cli import train_rl as command
from pipeline.errors import ConfigError, ModelError
from pipeline.geometry import Box, Frame
from pipeline.train.processing import load_processor, visual_ids
from pipeline.train.rl import Asked, train_rl
from pipeline.train.rl_presets import RL_PRESETS, RlSettings, trl_arguments
from pipeline.train.rollouts import advantages, without_variance
from pipeline.train.verl_reward import compute_score
from pipeline.views import whole_at
from tests.synthesis.test_exports import SIZE, path, row, sample, write  # noqa: F401
from tests.train.tiny_policy import KINDS, World, chats, make_world

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("rl")]

BUDGET = 112
SHORT = {"turn_tokens": 32}
SURE = {"temperature": 1e-3}
"""Sampling that takes the likeliest token."""
ONE_TURN = {**SURE, "max_steps": 1, "turns": 1}


@dataclass
class Seen:
    """Every batch of rollouts that a training took its loss of."""

    batches: list[Mapping[str, Any]] = field(default_factory=list)

    def __call__(self, batch: Mapping[str, Any]) -> None:
        self.batches.append(batch)

    def rollouts(self) -> list[tuple[list[int], list[int], list[int], int, Any]]:
        """(prompt ids, completion ids, 1 where the loss is, pictures, tally) of each."""
        return [
            (
                batch["prompt_ids"][at][batch["prompt_mask"][at].bool()].tolist(),
                batch["completion_ids"][at][: int(batch["completion_mask"][at].sum())].tolist(),
                batch["tool_mask"][at][: int(batch["completion_mask"][at].sum())].tolist(),
                batch["num_images"][at],
                told,
            )
            for batch in self.batches
            for at, told in enumerate(batch["tallies"])
        ]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A world for each kind, made when it is first asked for."""
    made: dict[str, World] = {}

    def world(kind: str, run: Path) -> World:
        if kind not in made:
            made[kind] = make_world(tmp_path_factory.mktemp(kind), run, kind)
        return made[kind]

    return world


@pytest.fixture
def run(write: Any) -> Path:  # noqa: F811
    """Two pictures, questions of two lengths, and one look or two before the answer.

    The boxes are whole numbers of every family, so that a policy can say them exactly.
    """
    frame = Frame("pixels", SIZE, whole_at(SIZE, BUDGET).size)
    one, other = (Box.from_frame(n, frame) for n in ((16, 10, 54, 50), (90, 60, 104, 75)))
    short = row(path(0, BUDGET, [[one]]), sample(0))
    long = sample(1, "What is the colour of the sign that hangs there?")
    return write(short, row(path(1, BUDGET, [[other, one]]), long))  # type: ignore[no-any-return]


@pytest.fixture
def world(worlds: Any, run: Path) -> World:
    return worlds("qwen2_5_vl", run)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    return {}


@pytest.fixture
def short(
    kept: dict[str, Any], world: World, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Seen, Path]:
    """Two updates of the smoke preset with a divergence: how they ended, what was seen, where."""
    if "short" not in kept:
        out = tmp_path_factory.mktemp("short") / "out"
        kept["short"] = (*trained(world, out, {"kl": 0.001, "save_steps": 1}), out)
    return kept["short"]  # type: ignore[no-any-return]


def asked_of(world: World, out: Path, sets: Mapping[str, Any] | None = None, **asked: Any) -> Asked:
    """A training on a world's prompts with the smoke preset, less what is set."""
    settings = RlSettings.model_validate({**RL_PRESETS["smoke"], **SHORT, **(sets or {})})
    told = {"reward": "agar-paper", "model": str(world.model), **asked}
    return Asked(data=world.rl, out=out, settings=settings, **told)


def trained(
    world: World, out: Path, sets: Mapping[str, Any] | None = None, **asked: Any
) -> tuple[Any, Seen]:
    seen = Seen()
    wanted = asked_of(world, out, sets, **asked)
    return train_rl(wanted, runs_dir=out.parent / "runs", watch=seen), seen


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def check_learnt(world: World, done: Any, seen: Seen, updates: int) -> str:
    """Every picture came into its rollout, and all parts of the policy have changed."""
    rollouts = seen.rollouts()
    told = [tally for *_, tally in rollouts]
    assert (done.status, done.steps, len(rollouts)) == ("done", updates, 8 * updates)
    picture = load_processor(world.model).tokenizer.convert_tokens_to_ids("<|image_pad|>")
    tokens = 0
    at_first = np.mean([tally.views > 0 for tally in told[:8]])
    for prompt, completion, _, pictures, tally in rollouts:
        assert pictures == 1 + tally.views
        assert prompt.count(picture) > 0
        assert (completion.count(picture) > 0) == (tally.views > 0)
        tokens += completion.count(picture)
    before, after = weights(world.model), weights(Path(done.model))
    changed = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    for part in ("visual.blocks", "visual.merger", "layers", "embed_tokens"):
        assert any(part in name for name in changed), part
    valid, turns = np.mean([tally.views > 0 for tally in told]), [tally.turns for tally in told]
    assert valid >= 0.5
    assert max(turns) >= 2
    return (
        f"{updates} updates, {len(told)} rollouts, {valid:.0%} with a call carried out "
        f"({at_first:.0%} of those before any update), "
        f"{np.mean(turns):.2f} turns, {sum(t.views for t in told)} views of {tokens} tokens, "
        f"{len(changed)} of {len(before)} weights changed"
    )


def test_updates_of_many_turns_change_a_policy_that_saw_its_views(short: Any, world: World) -> None:
    done, seen, _ = short
    check_learnt(world, done, seen, updates=2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_ten_updates_of_many_turns(kind: str, worlds: Any, run: Path, tmp_path: Path) -> None:
    world = worlds(kind, run)
    done, seen = trained(world, tmp_path / "out", {"max_steps": 10, "kl": 0.001, "save_steps": 5})
    print(f"{kind}: {check_learnt(world, done, seen, updates=10)}")


def test_the_loss_is_of_what_the_policy_said_and_of_no_view(short: Any, world: World) -> None:
    _, seen, _ = short
    processor = load_processor(world.model)
    many, kept = visual_ids(processor), 0
    for _, completion, mask, _, tally in seen.rollouts():
        if tally.ending != "whole":
            assert sum(mask) == 0
            continue
        kept += 1
        pieces = [
            (bool(told), [token for token, _ in piece])
            for told, piece in groupby(zip(completion, mask, strict=True), key=lambda one: one[1])
        ]
        assert [told for told, _ in pieces] == [True, False] * (tally.turns - 1) + [True]
        for told, ids in pieces:
            text = processor.tokenizer.decode(ids)
            assert not (told and many & set(ids))
            if told:
                assert text.endswith("<|im_end|>") and "<|im_start|>" not in text
            else:
                assert text.startswith("\n<|im_start|>user\n")
                assert text.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert kept >= 4


@pytest.mark.parametrize("kind", ["qwen2_5_vl", pytest.param("qwen3_vl", marks=pytest.mark.slow)])
def test_a_rollout_along_a_path_of_the_data_reads_like_the_data(
    kind: str, worlds: Any, run: Path, tmp_path: Path
) -> None:
    world = worlds(kind, run)
    _, seen = trained(world, tmp_path / "out", {**SURE, "max_steps": 1, "learning_rate": 1e-9})
    processor = load_processor(world.model)
    data = {}
    for chat in chats(world.sft):
        read = processor.apply_chat_template([chat], tokenize=True, return_dict=True)
        data[tuple(read["input_ids"][0])] = torch.as_tensor(np.asarray(read["pixel_values"]))
    end = processor.tokenizer("\n")["input_ids"]
    batch, rollouts = seen.batches[0], seen.rollouts()
    shown = batch["pixel_values"].split(
        [int(grids.prod(1).sum()) for grids in batch["image_grid_thw"].split(batch["num_images"])]
    )
    found = [
        torch.equal(pixels, data[tuple(prompt + completion + end)])
        for (prompt, completion, *_), pixels in zip(rollouts, shown, strict=True)
        if tuple(prompt + completion + end) in data
    ]
    assert len(found) >= 4 and all(found)


@pytest.mark.parametrize(
    ("sets", "end"),
    [
        ({"turn_tokens": 6}, "over_long"),
        (ONE_TURN, "over_turns"),
        ({"rollout_tokens": 24}, "over_long"),  # no room for the view
    ],
)
def test_a_rollout_that_comes_to_no_end_has_no_loss_and_no_look(
    sets: dict[str, Any], end: str, kept: dict[str, Any], world: World, tmp_path: Path
) -> None:
    sets = {**SURE, "max_steps": 1, **sets}
    done, seen = kept[end] = trained(world, tmp_path / "out", sets, reward="agar-code")
    for _, _, mask, pictures, tally in seen.rollouts():
        assert (tally.ending, tally.views, tally.gains) == (end, 0, 0)
        assert (sum(mask), pictures) == (0, 1)
    # a wrong answer after a look is worth a half: nobody saw one
    assert done.figures["reward"] == 0.0
    assert done.figures[f"rollouts/{end}"] == 1.0
    assert done.figures["grad_norm"] == 0.0


@pytest.mark.parametrize("turns", [3, 1])
def test_what_a_rollout_reads_is_the_same_without_its_neighbours(
    turns: int, short: Any, kept: dict[str, Any], world: World, tmp_path: Path
) -> None:
    from pipeline.train.loading import load_policy

    _, seen, _ = short
    if turns == 1:  # no view in the whole batch: TRL reads its pictures another way
        _, seen = kept.get("over_turns") or trained(world, tmp_path / "out", ONE_TURN)
    batch, model = seen.batches[0], load_policy(world.model).eval()
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    kinds, grids = batch["mm_token_type_ids"], batch["image_grid_thw"]
    assert int((mask[:, 0] == 0).sum()) > 0  # padded on the left
    picture = load_processor(world.model).tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert torch.equal(kinds.bool(), ids == picture)
    patches = [int(each.prod(1).sum()) for each in grids.split(batch["num_images"])]
    pixels = batch["pixel_values"].split(patches)

    def logits(at: slice, keep: torch.Tensor, shown: torch.Tensor, grid: torch.Tensor) -> Any:
        return model(
            input_ids=ids[at][:, keep], attention_mask=mask[at][:, keep],
            mm_token_type_ids=kinds[at][:, keep], pixel_values=shown, image_grid_thw=grid,
        ).logits  # fmt: skip

    with torch.no_grad():
        every = torch.ones(ids.shape[1], dtype=torch.bool)
        together = logits(slice(None), every, batch["pixel_values"], grids)
        for at, grid in enumerate(grids.split(batch["num_images"])):
            keep = mask[at].bool()
            alone = logits(slice(at, at + 1), keep, pixels[at], grid)[0]
            assert torch.allclose(together[at][keep], alone, atol=1e-3)


def test_trls_mask_of_cut_rollouts_would_move_the_pictures_of_others(
    short: Any, world: World
) -> None:
    from pipeline.train.loading import load_policy

    batch, network = short[1].batches[0], load_policy(world.model).model
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    place = batch["num_images"].index(2)
    order = [place, *(at for at in range(len(ids)) if at != place)]
    grids = batch["image_grid_thw"].split(batch["num_images"])

    def positions(completion_mask: torch.Tensor) -> torch.Tensor:
        told: torch.Tensor = network.get_rope_index(
            ids[order],
            batch["mm_token_type_ids"][order],
            image_grid_thw=torch.cat([grids[at] for at in order]),
            attention_mask=torch.cat([batch["prompt_mask"], completion_mask], 1)[order],
        )[0]
        return told

    cut = batch["completion_mask"].clone()
    cut[place] = 0  # what `mask_truncated_completions` does
    try:
        moved = not torch.equal(positions(cut)[:, 1:], positions(batch["completion_mask"])[:, 1:])
    except RuntimeError:  # a grid of another shape
        moved = True
    assert moved


def test_a_checkpoint_goes_on(short: Any, world: World, tmp_path: Path) -> None:
    whole, _, out = short
    asked = asked_of(world, tmp_path / "cut", {"kl": 0.001, "save_steps": 1})
    first = train_rl(asked, runs_dir=tmp_path / "runs", stop=lambda: True)
    assert (first.status, first.steps) == ("interrupted", 1)
    for name, weight in weights(out / "checkpoint-1").items():
        assert torch.equal(weight, weights(Path(first.model))[name])
    with pytest.raises(ConfigError, match="holds a training"):
        train_rl(asked, runs_dir=tmp_path / "runs")
    second, seen = trained(world, tmp_path / "cut", {"kl": 0.001, "save_steps": 1}, resume=True)
    assert (second.status, second.steps, second.run_id) == ("done", 2, first.run_id)
    assert len(seen.batches) == 1
    state = json.loads((tmp_path / "cut" / "checkpoint-2" / "trainer_state.json").read_text())
    assert [logs["step"] for logs in state["log_history"]] == [1, 2]
    straight, resumed = (weights(Path(done.model)) for done in (whole, second))
    for name, weight in straight.items():
        torch.testing.assert_close(resumed[name], weight, atol=1e-6, rtol=0)
    assert whole.run_id != first.run_id


def test_a_training_is_a_run_and_its_model_loads_in_transformers(short: Any, world: World) -> None:
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    done, _, out = short
    folder = Path(done.model)
    network = AutoModelForImageTextToText.from_pretrained(folder)
    assert len(AutoTokenizer.from_pretrained(folder)) == network.config.text_config.vocab_size
    for name in ("preprocessor_config.json", "tokenizer_config.json", "tokenizer.json"):
        assert (folder / name).read_bytes() == (world.model / name).read_bytes()
    for place, step in ((folder, 2), (out / "checkpoint-1", 1)):
        stamp = json.loads((place / "cofpipe.json").read_text())
        assert (stamp["run_id"], stamp["step"]) == (done.run_id, step)
        assert stamp["settings"]["reward"] == "agar-paper"
    assert list(out.rglob("events.out.tfevents.*"))
    database = connect(out.parent / "runs")
    found = database.execute("SELECT run_id, status, parents FROM runs").fetchall()
    assert [run_id for run_id, _, _ in found] == [done.run_id]
    assert "run" in found[0][2]
    assert found[0][1] == "done"


def test_a_policy_learns_against_the_baseline_that_is_asked_for(
    world: World, tmp_path: Path
) -> None:
    sets = {"max_steps": 1, "learning_rate": 1e-3}
    done, seen = trained(world, tmp_path / "out", sets, algorithm="reinforce", reward="outcome")
    before, after = weights(world.model), weights(Path(done.model))
    assert any(not torch.equal(weight, after[name]) for name, weight in before.items())
    (batch,) = seen.batches
    meant = advantages(batch["rewards"], 4, "reinforce")
    assert batch["advantages"].tolist() == pytest.approx(meant)
    share = without_variance(batch["rewards"], 4)
    assert done.figures["groups/zero_variance"] == share
    assert done.figures["reward"] == pytest.approx(sum(batch["rewards"]) / 8, abs=1e-6)


@pytest.mark.parametrize("kept", ["{{- said(message.content) -}}", ""])
def test_a_template_that_doubles_or_drops_a_picture_is_refused(kept: str, world: World) -> None:
    from pipeline.train.zoom_trainer import check_template

    processor = load_processor(world.model)
    check_template(processor)
    mark = "{{- said(message.content) -}}"
    assert mark in processor.chat_template
    processor.chat_template = processor.chat_template.replace(mark, 2 * kept)
    with pytest.raises(ConfigError, match="picture once"):
        check_template(processor)


def test_a_batch_without_all_its_pictures_is_refused() -> None:
    from pipeline.train.zoom_trainer import check_pictures

    grids = torch.tensor([[1, 4, 4], [1, 4, 2], [1, 4, 4]])
    ids = torch.tensor([[7] * 6 + [0], [7] * 4 + [0] * 3])
    batch = {
        "prompt_ids": ids[:, :2], "completion_ids": ids[:, 2:], "num_images": [2, 1],
        "image_grid_thw": grids, "pixel_values": torch.zeros(40, 3),
    }  # fmt: skip
    check_pictures(batch, [2, 1], image_token=7, merged=4)
    faults: list[dict[str, Any]] = [
        {"pixel_values": None},  # TRL dropped them all
        {"num_images": None},
        {"completion_ids": torch.cat([ids[:, 2:], torch.full((2, 4), 7)], 1)},  # doubled
        {"completion_ids": ids[:, 3:]},  # cut
    ]
    for fault in faults:
        with pytest.raises(ModelError, match="pictures"):
            check_pictures({**batch, **fault}, [2, 1], image_token=7, merged=4)
    with pytest.raises(ModelError, match="Rollout 1 was shown 2"):
        check_pictures(batch, [2, 2], image_token=7, merged=4)


def test_the_published_settings_are_those_of_the_paper(tmp_path: Path) -> None:
    settings = RlSettings.model_validate({"dtype": "float32", "device": "cpu"})
    told = trl_arguments(settings, "grpo", tmp_path)
    assert (told.num_generations, told.generation_batch_size) == (6, 384)
    assert (told.beta, told.learning_rate, told.epsilon, told.weight_decay) == (
        1e-3,
        1e-6,
        0.2,
        0.01,
    )
    assert (told.temperature, told.top_p, told.num_train_epochs) == (1.0, 1.0, 15.0)
    assert told.generation_kwargs["max_new_tokens"] == 512
    assert (told.max_tool_calling_iterations, told.max_completion_length) == (3, 32_756)
    assert (told.lr_scheduler_type, told.save_steps) == ("constant", 2)
    if not torch.accelerator.is_available():
        with pytest.raises(ConfigError, match="no GPU"):
            trl_arguments(RlSettings(), "grpo", tmp_path)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"sets": {"prompts": 3}}, "has 2 prompts"),
        ({"sets": {"micro_batch": 3}}, "no whole number"),
        ({"reward": "agr-paper"}, "agar-paper"),
        ({"data": "sft"}, "--kind rl"),
        ({"model": "qwen3_vl"}, "--family qwen3-vl"),
    ],
)
def test_what_does_not_go_together_is_refused_before_any_training(
    changed: dict[str, Any], why: str, world: World, tmp_path: Path
) -> None:
    sets, asked = changed.pop("sets", {}), {}
    if "model" in changed:
        config = json.loads((world.model / "config.json").read_text())
        (tmp_path / "other").mkdir()
        told = json.dumps(config | {"model_type": changed["model"]})
        (tmp_path / "other" / "config.json").write_text(told)
        asked["model"] = str(tmp_path / "other")
    if "data" in changed:
        world = World(world.sft, world.sft, world.model)
    asked |= {"reward": changed["reward"]} if "reward" in changed else {}
    with pytest.raises(ConfigError, match=why):
        trained(world, tmp_path / "out", sets, **asked)
    assert not list((tmp_path / "out").glob("checkpoint-*"))


def test_the_command_trains_from_a_run_and_sends_ppo_to_verl(
    world: World, run: Path, tmp_path: Path
) -> None:
    app = typer.Typer()
    app.command()(command.rl)
    words = ["--data", str(run), "--model", str(world.model), "--out", str(tmp_path / "out")]
    words += ["--preset", "smoke", "--set", "max_steps=1", "--set", "turn_tokens=32", "--json"]
    words += ["--runs-dir", str(run.parent)]
    told = CliRunner().invoke(app, [*words, "--algorithm", "ppo"])
    assert isinstance(told.exception, ConfigError) and "verl_ppo.yaml" in str(told.exception)
    told = CliRunner().invoke(app, [*words, "--algorithm", "rloo"])
    assert told.exit_code == 0, told.output
    done = json.loads(told.stdout.splitlines()[-1])
    assert (done["status"], done["steps"], done["rows"]) == ("done", 1, 2)
    assert Path(done["model"], "model.safetensors").is_file()


def test_verls_settings_name_what_the_export_writes() -> None:
    import pipeline.train
    from pipeline.synthesis.export_verl import features

    here = Path(next(iter(pipeline.train.__path__)))
    told = yaml.safe_load((here / "verl_ppo.yaml").read_text("utf-8"))
    columns = features()
    assert {told["data"][key] for key in ("prompt_key", "image_key", "reward_fn_key")} <= set(
        columns
    )
    assert told["algorithm"]["adv_estimator"] == "gae"
    published = RlSettings()
    rollout = told["actor_rollout_ref"]["rollout"]["multi_turn"]
    assert rollout["max_assistant_turns"] == published.turns
    assert told["data"]["max_response_length"] == published.rollout_tokens
    reward = told["custom_reward_function"]
    assert (here / Path(reward["path"]).name).is_file()
    assert reward["name"] == compute_score.__name__
    text = "<think> a </think>\n<answer> blue </answer>"
    assert compute_score("cofpipe", text, "blue", {"options": ["blue", "red"]}) == 1.0
    assert compute_score("cofpipe", text, "red") == pytest.approx(0.1)
